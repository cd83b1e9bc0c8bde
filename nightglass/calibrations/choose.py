"""Which master serves an exposure: tonight's before older ones, the nearest exposure time for darks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nightglass.calibrations.frames import equal_exposures, set_key
from nightglass.config import CalibrationRule, Camera, MissingCalibration
from nightglass.errors import Waiting
from nightglass.model import CALIBRATION_KINDS, ExposureRef, Kind, MasterRef, Night, Quality, State

if TYPE_CHECKING:
    from nightglass.ledger import Ledger

__all__ = ["Choice", "Requirement", "choose", "choose_masters", "requirements"]

_ORDER = (Kind.BIAS, Kind.DARK, Kind.FLAT)


@dataclass(frozen=True, slots=True)
class Choice:
    """The masters for one exposure.

    Attributes
    ----------
    archived : tuple of MasterRef
        Those of `masters` that are of an earlier night.
    notes : tuple of str
        What is worth telling in the product.
    """

    masters: tuple[MasterRef, ...]
    missing: tuple[Kind, ...]
    archived: tuple[MasterRef, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One kind of master that exposures of a night need.

    Attributes
    ----------
    master : MasterRef or None
        In use now; None: still required.
    exposures : int
        How many exposures need it.
    """

    kind: Kind
    what: str
    exposures: int
    master: MasterRef | None
    tonight: bool
    missing: MissingCalibration


def choose(ref: ExposureRef, camera: Camera, ledger: Ledger, *, now_night: Night) -> Choice:
    """Choose bias, dark and flat for an exposure.

    Raises
    ------
    Waiting
        If one is missing and the camera's rule for its kind says wait.
    """
    found = choose_masters(ref, camera, ledger, night=now_night)
    missing = tuple(kind for kind in _ORDER if kind not in found)
    for kind in missing:
        rule = _rule(camera, kind)
        if rule.missing is MissingCalibration.WAIT:
            message = f"{ref.exposure_id}: no master {kind.value} for {_wanted(ref, rule)}"
            remedy = f"take {rule.min_frames} {kind.value} frames, or set calibrations.{kind.value}.missing = 'proceed'"
            raise Waiting(message, remedy=remedy)
    masters = tuple(found[kind] for kind in _ORDER if kind in found)
    archived = tuple(master for master in masters if master.night != now_night)
    notes = [f"master {master.kind.value} of {master.night}" for master in archived]
    notes += [f"no master {kind.value}" for kind in missing]
    return Choice(masters, missing, archived, tuple(notes))


def choose_masters(
    ref: ExposureRef, camera: Camera, ledger: Ledger, *, night: Night, kinds: Iterable[Kind] = _ORDER
) -> dict[Kind, MasterRef]:
    """Return the best masters of the kinds asked for; it depends on which masters exist, not on when they came.

    Tonight's go before those of earlier nights; then darks of equal exposure time before those that are scaled, later
    nights before earlier ones, more frames before fewer.

    A dark that still holds the bias level serves only exposures of equal length for which there is no master bias:
    scaled, or beside one, it would take off a wrong level.
    """
    found: dict[Kind, MasterRef] = {}
    wanted = set(kinds)
    for kind in _ORDER:
        if kind not in wanted and not (kind is Kind.BIAS and Kind.DARK in wanted):
            continue
        rule = _rule(camera, kind)
        candidates = [
            master
            for master in ledger.masters(ref.camera, kind, since=night.shifted(-rule.max_age_days), until=night)
            if _fits(ref, master, rule, found.get(Kind.BIAS))
        ]
        if candidates:
            found[kind] = min(candidates, key=lambda master: _rank(ref, master, night))
    return {kind: master for kind, master in found.items() if kind in wanted}


def _rule(camera: Camera, kind: Kind) -> CalibrationRule:
    return camera.calibrations.get(kind, CalibrationRule())


def _fits(ref: ExposureRef, master: MasterRef, rule: CalibrationRule, bias: MasterRef | None) -> bool:
    if master.quality is Quality.BAD:
        return False
    same_time = equal_exposures(ref.exposure_time_s, master.exposure_time_s)
    same = {
        "detector": ref.detector == master.detector,
        "binning": ref.binning == master.binning,
        "filter": ref.filter == master.filter,
        "exposure": same_time,
        "readout": ref.readout == master.readout,
    }
    if not all(same[name] for name in rule.match):
        return False
    if master.kind is not Kind.DARK:
        return True
    if master.pedestal:
        return same_time and bias is None
    return same_time or (rule.exposure_scaling and master.exposure_time_s > 0)


def _rank(ref: ExposureRef, master: MasterRef, night: Night) -> tuple[float | str, ...]:
    age = (night.date - master.night.date).days
    stretch = 0.0
    if master.kind is Kind.DARK and not equal_exposures(ref.exposure_time_s, master.exposure_time_s):
        ratio = max(ref.exposure_time_s, 0.01) / max(master.exposure_time_s, 0.01)
        # scaling a long dark down adds less noise than scaling a short one up
        stretch = 1.0 + (math.log(ratio) * 2 if ratio > 1 else -math.log(ratio))
    return (float(age > 0), float(stretch > 0), float(age), stretch, -float(master.frames), master.master_id)


def _wanted(ref: ExposureRef, rule: CalibrationRule) -> str:
    return ", ".join(f"{name} {value or '-'}" for name, value in zip(rule.match, set_key(ref, rule), strict=True))


def requirements(night: Night, camera: Camera, ledger: Ledger) -> tuple[Requirement, ...]:
    """Return the masters that the exposures of a night need, in use or still required."""
    found: dict[tuple[Kind, tuple[str, ...]], list[ExposureRef]] = {}
    for ref in _science(ledger, night, camera, set(State) - {State.REJECTED, State.SKIPPED}):
        for kind in _needed(camera, ref):
            key = (*set_key(ref, _rule(camera, kind)), f"{ref.exposure_time_s:g}" if kind is Kind.DARK else "")
            found.setdefault((kind, key), []).append(ref)
    result = []
    for (kind, _), refs in sorted(found.items(), key=lambda item: (_ORDER.index(item[0][0]), item[0][1])):
        rule = _rule(camera, kind)
        best = choose_masters(refs[0], camera, ledger, night=night, kinds=[kind]).get(kind)
        what = _wanted(refs[0], rule)
        if kind is Kind.DARK and "exposure" not in rule.match:
            what += f", exposure {refs[0].exposure_time_s:g} s"
        tonight = best is not None and best.night == night
        result.append(Requirement(kind, what, len(refs), best, tonight, rule.missing))
    return tuple(result)


def _science(ledger: Ledger, night: Night, camera: Camera, states: set[State]) -> Iterable[ExposureRef]:
    for entry in ledger.entries(night=night, camera=camera.name, states=states):
        if entry.ref is not None and entry.ref.kind not in CALIBRATION_KINDS:
            yield entry.ref


def _needed(camera: Camera, ref: ExposureRef) -> set[Kind]:
    names = {
        entry.step for lists in camera.steps.values() for entry in lists.get(ref.kind.value, lists.get("default", ()))
    }
    return {kind for kind in CALIBRATION_KINDS if kind.value in names}
