"""Which master serves an exposure: tonight's before older ones, the nearest exposure time for darks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nightglass.calibrations.frames import set_key
from nightglass.config import CalibrationRule, Camera, MissingCalibration
from nightglass.errors import Waiting
from nightglass.model import CALIBRATION_KINDS, ExposureRef, Kind, MasterRef, Night, Quality, State

if TYPE_CHECKING:
    from nightglass.ledger import Ledger

__all__ = ["Choice", "Requirement", "choose", "choose_master", "requirements"]

_EQUAL_EXPOSURE = 0.02
"""Darks whose exposure times differ by less, relatively, count as equal."""


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
    masters: list[MasterRef] = []
    missing: list[Kind] = []
    notes: list[str] = []
    for kind in sorted(CALIBRATION_KINDS):
        rule = camera.calibrations.get(kind, CalibrationRule())
        best = choose_master(ref, kind, rule, ledger, night=now_night)
        if best is not None:
            masters.append(best)
            if best.night != now_night:
                notes.append(f"master {kind.value} of {best.night}")
            continue
        if rule.missing is MissingCalibration.WAIT:
            message = f"{ref.exposure_id}: no master {kind.value} for {_wanted(ref, rule, kind)}"
            remedy = f"take {rule.min_frames} {kind.value} frames, or set calibrations.{kind.value}.missing = 'proceed'"
            raise Waiting(message, remedy=remedy)
        missing.append(kind)
        notes.append(f"no master {kind.value}")
    archived = tuple(master for master in masters if master.night != now_night)
    return Choice(tuple(masters), tuple(missing), archived, tuple(notes))


def choose_master(
    ref: ExposureRef, kind: Kind, rule: CalibrationRule, ledger: Ledger, *, night: Night
) -> MasterRef | None:
    """Return the best master of a kind, or None; it depends on which masters exist, not on when they came."""
    oldest = night.shifted(-rule.max_age_days)
    candidates = [
        master
        for master in ledger.masters(ref.camera, kind, since=oldest, until=night)
        if _fits(ref, master, rule, kind) and master.quality is not Quality.BAD
    ]
    if not candidates:
        return None
    return min(candidates, key=lambda master: _rank(ref, master, night, kind))


def _fits(ref: ExposureRef, master: MasterRef, rule: CalibrationRule, kind: Kind) -> bool:
    pairs = {
        "detector": (ref.detector, master.detector),
        "binning": (ref.binning, master.binning),
        "filter": (ref.filter, master.filter),
        "exposure": (f"{ref.exposure_time_s:.3f}", f"{master.exposure_time_s:.3f}"),
        "readout": ("", ""),  # part of the master's id; two read-out modes differ in binning or detector as well
    }
    if any(pairs[name][0] != pairs[name][1] for name in rule.match):
        return False
    return kind is not Kind.DARK or rule.exposure_scaling or _equal_exposure(ref, master)


def _equal_exposure(ref: ExposureRef, master: MasterRef) -> bool:
    return math.isclose(ref.exposure_time_s, master.exposure_time_s, rel_tol=_EQUAL_EXPOSURE, abs_tol=0.01)


def _rank(ref: ExposureRef, master: MasterRef, night: Night, kind: Kind) -> tuple[float, ...]:
    age = (night.date - master.night.date).days
    scaled = 0.0
    if kind is Kind.DARK and not _equal_exposure(ref, master):
        ratio = max(ref.exposure_time_s, 0.01) / max(master.exposure_time_s, 0.01)
        # scaling a long dark down adds less noise than scaling a short one up
        scaled = 1.0 + (math.log(ratio) * 2 if ratio > 1 else -math.log(ratio))
    return (float(age > 0), float(scaled > 0), float(age), scaled, -float(master.frames), int(master.master_id[:8], 16))


def _wanted(ref: ExposureRef, rule: CalibrationRule, kind: Kind) -> str:
    return ", ".join(
        f"{name} {value or '-'}" for name, value in zip(rule.match, set_key(ref, rule, kind), strict=False)
    )


def requirements(night: Night, camera: Camera, ledger: Ledger) -> tuple[Requirement, ...]:
    """Return the masters that the exposures of a night need, in use or still required."""
    states = set(State) - {State.REJECTED, State.SKIPPED}
    found: dict[tuple[Kind, tuple[str, ...]], tuple[ExposureRef, int]] = {}
    for ref in _science(ledger, night, camera, states):
        for kind in _needed(camera, ref):
            key = (kind, set_key(ref, camera.calibrations[kind], kind))
            found[key] = (ref, found[key][1] + 1 if key in found else 1)
    result = []
    for (kind, _), (ref, count) in sorted(found.items(), key=lambda item: (item[0][0], item[0][1])):
        rule = camera.calibrations[kind]
        best = choose_master(ref, kind, rule, ledger, night=night)
        tonight = best is not None and best.night == night
        result.append(Requirement(kind, _wanted(ref, rule, kind), count, best, tonight, rule.missing))
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
