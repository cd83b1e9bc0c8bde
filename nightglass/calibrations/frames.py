"""Calibration frames: which of them belong together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nightglass.config import CalibrationRule
from nightglass.model import ExposureRef, Kind

__all__ = ["FrameSet", "equal_exposures", "frame_sets", "set_key"]

_EQUAL_EXPOSURE = 0.02
_EQUAL_EXPOSURE_S = 0.01


@dataclass(frozen=True, slots=True)
class FrameSet:
    """Frames of one night from which one master can be made.

    Attributes
    ----------
    key : tuple of str
        What they have in common.
    refs : tuple of ExposureRef
        In the order of their content ids.
    """

    kind: Kind
    key: tuple[str, ...]
    refs: tuple[ExposureRef, ...]

    @property
    def example(self) -> ExposureRef:
        """Any member: they agree in everything that the rule compares."""
        return self.refs[0]

    @property
    def exposure_time_s(self) -> float:
        """Mean exposure time, in milliseconds."""
        return round(math.fsum(ref.exposure_time_s for ref in self.refs) / len(self.refs), 3)


def equal_exposures(first_s: float, second_s: float) -> bool:
    """Return whether two exposure times count as equal: to 2 %, for shutters that report their own time."""
    return math.isclose(first_s, second_s, rel_tol=_EQUAL_EXPOSURE, abs_tol=_EQUAL_EXPOSURE_S)


def set_key(ref: ExposureRef, rule: CalibrationRule) -> tuple[str, ...]:
    """Return what a frame and a master must have in common, in the order of the rule; exposure times are rounded."""
    values = {
        "detector": ref.detector,
        "binning": ref.binning,
        "filter": ref.filter,
        "exposure": f"{ref.exposure_time_s:g} s",
        "readout": ref.readout,
    }
    return tuple(values[name] for name in rule.match)


def frame_sets(refs: Sequence[ExposureRef], rules: Mapping[Kind, CalibrationRule], kind: Kind) -> tuple[FrameSet, ...]:
    """Sort frames of one kind into sets, each in a fixed order.

    Darks of different length are different masters, whatever the rule compares.
    """
    rule = rules[kind]
    by_time = kind is Kind.DARK or "exposure" in rule.match
    plain = rule.model_copy(update={"match": tuple(name for name in rule.match if name != "exposure")})
    groups: dict[tuple[str, ...], list[ExposureRef]] = defaultdict(list)
    for ref in refs:
        if ref.kind is kind:
            groups[set_key(ref, plain)].append(ref)
    sets = []
    for key, members in sorted(groups.items()):
        for alike in _by_time(members) if by_time else iter([members]):
            ordered = tuple(sorted(alike, key=lambda ref: (ref.content_id, ref.exposure_id)))
            sets.append(FrameSet(kind, (*key, f"{alike[0].exposure_time_s:g} s") if by_time else key, ordered))
    return tuple(sets)


def _by_time(refs: Sequence[ExposureRef]) -> Iterator[list[ExposureRef]]:
    """Split frames where exposure times differ: each set goes up to what counts as equal to its shortest."""
    alike: list[ExposureRef] = []
    for ref in sorted(refs, key=lambda ref: (ref.exposure_time_s, ref.content_id)):
        if alike and not equal_exposures(alike[0].exposure_time_s, ref.exposure_time_s):
            yield alike
            alike = []
        alike.append(ref)
    if alike:
        yield alike
