"""Calibration frames: which belong together, and which are fit to be combined."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nightglass.config import CalibrationRule
from nightglass.fitsio import ProductReader
from nightglass.model import DQ, ExposureRef, Kind

__all__ = ["FrameSet", "FrameStatistics", "frame_sets", "judge_frames", "measure_frame", "set_key"]

_SAMPLED_ROWS = 64
_MAD_TO_SIGMA = 1.4826022
_SATURATED_LIMIT = 0.01
_LEAST_TO_COMPARE = 3
_NOISE_FACTOR = 3.0


@dataclass(frozen=True, slots=True)
class FrameStatistics:
    """What one frame looks like.

    Attributes
    ----------
    level : float
        Median, electrons.
    noise : float
        Robust standard deviation of differences between neighbours, electrons.
    structure : float
        Robust standard deviation of the medians of rows, electrons.
    saturated : float
        Fraction of saturated pixels.
    """

    level: float
    noise: float
    structure: float
    saturated: float


@dataclass(frozen=True, slots=True)
class FrameSet:
    """Frames of one night from which one master can be made."""

    kind: Kind
    key: tuple[str, ...]
    refs: tuple[ExposureRef, ...]

    @property
    def example(self) -> ExposureRef:
        """Any member: they agree in everything that the rule compares."""
        return self.refs[0]


def set_key(ref: ExposureRef, rule: CalibrationRule, kind: Kind) -> tuple[str, ...]:
    """Return what a frame and a master must have in common."""
    values = {
        "detector": ref.detector,
        "binning": ref.binning,
        "filter": ref.filter,
        "exposure": f"{ref.exposure_time_s:.3f}",
        "readout": ref.readout,
    }
    names = list(rule.match)
    if kind is Kind.DARK and "exposure" not in names:
        names.append("exposure")  # darks of different length are different masters, whichever is chosen later
    return tuple(values[name] for name in names)


def frame_sets(refs: Sequence[ExposureRef], rules: Mapping[Kind, CalibrationRule], kind: Kind) -> tuple[FrameSet, ...]:
    """Sort frames of one kind into sets, each in a fixed order."""
    groups: dict[tuple[str, ...], list[ExposureRef]] = defaultdict(list)
    for ref in refs:
        if ref.kind is kind:
            groups[set_key(ref, rules[kind], kind)].append(ref)
    return tuple(
        FrameSet(kind, key, tuple(sorted(members, key=lambda ref: ref.content_id)))
        for key, members in sorted(groups.items())
    )


def measure_frame(path: Path) -> FrameStatistics:
    """Look at some rows of a reduced frame.

    Raises
    ------
    Rejected
        If it is not a product.
    """
    data, mask = [], []
    with ProductReader(path) as reader:
        height = reader.find("SCI", 1).shape[0]
        for row in range(0, height, max(1, height // _SAMPLED_ROWS)):
            data.append(reader.read("SCI", 1, slice(row, row + 1))[0].astype(np.float64))
            mask.append(reader.read("DQ", 1, slice(row, row + 1))[0])
    pixels, bits = np.array(data), np.array(mask)
    good = (bits & DQ.BAD) == 0
    values = pixels[good]
    if values.size == 0:
        return FrameStatistics(math.nan, math.nan, math.nan, 1.0)
    differences = np.diff(pixels, axis=1)[good[:, 1:] & good[:, :-1]]
    return FrameStatistics(
        level=float(np.median(values)),
        noise=_robust(differences) / math.sqrt(2),
        structure=_robust(np.median(pixels, axis=1)),
        saturated=float(np.mean((bits & DQ.SATURATED) != 0)),
    )


def _robust(values: np.ndarray) -> float:
    return float(np.median(np.abs(values - np.median(values)))) * _MAD_TO_SIGMA if values.size else 0.0


def judge_frames(statistics: Mapping[str, FrameStatistics], kind: Kind, rule: CalibrationRule) -> dict[str, str]:
    """Return the frames that must not go into a master, each with its reason.

    A frame is compared with the others of its set only if there are at least three; flats may differ in level, which is
    taken out of them, but not in their noise relative to it.
    """
    reasons = {name: _out_of_bounds(item, kind, rule) for name, item in statistics.items()}
    rest = {name: item for name, item in statistics.items() if not reasons[name]}
    if len(rest) >= _LEAST_TO_COMPARE:
        levels = {name: item.level for name, item in rest.items()}
        floor = max(1.0, 0.25 * float(np.median([item.noise for item in rest.values()])))
        for name, reason in _outliers(levels, "level", rule.max_deviation, floor, skip=kind is Kind.FLAT).items():
            reasons[name] = reason
        for name, item in rest.items():
            typical = float(np.median([other.noise for other in rest.values()]))
            if kind is not Kind.FLAT and typical > 0 and item.noise > _NOISE_FACTOR * typical and not reasons[name]:
                reasons[name] = f"noise {item.noise:.2f} e-, its set has {typical:.2f}"
    return {name: reason for name, reason in reasons.items() if reason}


def _out_of_bounds(item: FrameStatistics, kind: Kind, rule: CalibrationRule) -> str:
    if math.isnan(item.level):
        return "no good pixel"
    if rule.min_level is not None and item.level < rule.min_level:
        return f"level {item.level:.1f} e- is below min_level {rule.min_level:g}"
    if rule.max_level is not None and item.level > rule.max_level:
        return f"level {item.level:.1f} e- is above max_level {rule.max_level:g}"
    if item.saturated > _SATURATED_LIMIT:
        return f"{100 * item.saturated:.1f} % of the pixels are saturated"
    if kind is Kind.FLAT and item.level <= 0:
        return f"level {item.level:.1f} e-: no light"
    return ""


def _outliers(values: Mapping[str, float], what: str, limit: float, floor: float, *, skip: bool) -> dict[str, str]:
    if skip:
        return {}
    centre = float(np.median(list(values.values())))
    spread = max(_robust(np.array(list(values.values()))), floor)
    return {
        name: f"{what} {value:.1f} e-, its set has {centre:.1f} ({abs(value - centre) / spread:.0f} deviations)"
        for name, value in values.items()
        if abs(value - centre) > limit * spread
    }
