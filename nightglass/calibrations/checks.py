"""Which frames are fit to be combined."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nightglass.calibrations.noise import pixel_noise, sampled_rows
from nightglass.config import CalibrationRule
from nightglass.errors import NightglassError
from nightglass.fitsio import ProductReader
from nightglass.model import DQ, Kind

__all__ = ["FrameStatistics", "judge_frames", "measure_frame"]

_MAD_TO_SIGMA = 1.4826022
_BLOCKS = 8
"""Blocks along each axis in which structure is measured."""
_ROWS_IN_BLOCK = 8
_SATURATED_LIMIT = 0.01
_LEAST_TO_COMPARE = 3
_NOISE_FACTOR = 3.0
_BIAS_EXPOSURE_S = 1.0
"""Electronics may call a moment of integration a bias, but not more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameStatistics:
    """What one frame looks like.

    Attributes
    ----------
    level : float
        Median, electrons.
    noise : float
        Of one pixel, from differences of neighbours, electrons; the worst of the detectors.
    saturated : float
        Fraction of saturated pixels, in the worst of the detectors.
    pattern : tuple of float
        Medians of 8 x 8 blocks of each detector, electrons.
    shapes : tuple
        Of the detectors.
    exposure_time_s : float
        As its header says.
    problem : str
        Why it cannot be measured.
    """

    level: float = math.nan
    noise: float = 0.0
    saturated: float = 0.0
    pattern: tuple[float, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    exposure_time_s: float = 0.0
    problem: str = ""


def measure_frame(path: Path) -> FrameStatistics:
    """Look at some rows of a reduced frame; one that cannot be read is described, too."""
    try:
        with ProductReader(path) as reader:
            shapes = tuple(reader.find("SCI", ver).shape for ver in range(1, len(reader.detectors) + 1))
            samples = [_sample(reader, ver, shape[0]) for ver, shape in enumerate(shapes, start=1)]
    except NightglassError as error:
        return FrameStatistics(problem=f"its product cannot be read: {error}")
    values = np.concatenate([pixels[(bits & DQ.BAD) == 0] for pixels, bits in samples]) if samples else np.empty(0)
    if values.size == 0:
        return FrameStatistics(problem="no good pixel", shapes=shapes)
    level = float(np.median(values))
    return FrameStatistics(
        level=level,
        noise=max(pixel_noise(pixels, (bits & DQ.BAD) == 0) for pixels, bits in samples),
        saturated=max(float(np.mean((bits & DQ.SATURATED) != 0)) for _, bits in samples),
        pattern=tuple(value for pixels, bits in samples for value in _pattern(pixels, (bits & DQ.BAD) == 0, level)),
        shapes=shapes,
    )


def _sample(reader: ProductReader, ver: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Read rows spread evenly, all of them in a small frame."""
    data, mask = [], []
    for row in sampled_rows(height, _BLOCKS * _ROWS_IN_BLOCK):
        data.append(reader.read("SCI", ver, slice(row, row + 1)))
        mask.append(reader.read("DQ", ver, slice(row, row + 1)))
    return np.concatenate(data), np.concatenate(mask)


def _pattern(pixels: NDArray[np.float32], good: NDArray[np.bool_], level: float) -> list[float]:
    found = []
    for rows in np.array_split(np.arange(pixels.shape[0]), _BLOCKS):
        for columns in np.array_split(np.arange(pixels.shape[1]), _BLOCKS):
            block = np.ix_(rows, columns)
            chosen = pixels[block][good[block]]
            found.append(float(np.median(chosen)) if chosen.size else level)
    return found


def judge_frames(statistics: Mapping[str, FrameStatistics], kind: Kind, rule: CalibrationRule) -> dict[str, str]:
    """Return the frames that must not go into a master, each with its reason.

    First what each frame must be by itself: readable, within the bounds of the rule, not saturated, a bias not
    exposed, a flat not dark. Then, where three or more are left, what it must be beside the others: level (not of
    flats, from which it is taken out), noise (of flats relative to the root of their level), and structure, that is
    the differences between blocks (of flats relative to the level). The middle of a set is right by definition: when
    most of it is wrong, only the bounds of the rule help.
    """
    shape = _usual_shape(statistics)
    reasons = {name: _out_of_bounds(item, kind, rule, shape) for name, item in statistics.items()}
    for compare in (_odd_levels, _odd_noises, _odd_patterns):
        rest = {name: item for name, item in statistics.items() if not reasons[name]}
        if len(rest) >= _LEAST_TO_COMPARE:
            reasons |= compare(rest, kind, rule)
    return {name: reason for name, reason in reasons.items() if reason}


def _usual_shape(statistics: Mapping[str, FrameStatistics]) -> tuple[tuple[int, ...], ...]:
    shapes = Counter(item.shapes for item in statistics.values() if not item.problem)
    return min(shapes, key=lambda shape: (-shapes[shape], shape)) if shapes else ()


def _out_of_bounds(
    item: FrameStatistics, kind: Kind, rule: CalibrationRule, shapes: tuple[tuple[int, ...], ...]
) -> str:
    if item.problem:
        return item.problem
    level = f"level {item.level:.1f} e-"
    verdicts: tuple[tuple[bool, str], ...] = (
        (item.shapes != shapes, f"its shape is {_text(item.shapes)}, its set has {_text(shapes)}"),
        (math.isnan(item.level), "no good pixel"),
        (rule.min_level is not None and item.level < rule.min_level, f"{level} is below min_level {rule.min_level}"),
        (rule.max_level is not None and item.level > rule.max_level, f"{level} is above max_level {rule.max_level}"),
        (item.saturated > _SATURATED_LIMIT, f"{100 * item.saturated:.1f} % of the pixels are saturated"),
        (kind is Kind.FLAT and item.level <= 0, f"{level}: no light"),
        (
            kind is Kind.BIAS and item.exposure_time_s > _BIAS_EXPOSURE_S,
            f"it was exposed for {item.exposure_time_s:g} s, a bias is not",
        ),
    )
    return next((reason for wrong, reason in verdicts if wrong), "")


def _text(shapes: tuple[tuple[int, ...], ...]) -> str:
    return " and ".join("x".join(str(side) for side in reversed(shape)) for shape in shapes) or "none"


_Compare = Callable[[Mapping[str, FrameStatistics], Kind, CalibrationRule], dict[str, str]]


def _odd_levels(items: Mapping[str, FrameStatistics], kind: Kind, rule: CalibrationRule) -> dict[str, str]:
    if kind is Kind.FLAT:
        return {}
    levels = np.array([item.level for item in items.values()])
    centre = float(np.median(levels))
    spread = max(float(np.median(np.abs(levels - centre))) * _MAD_TO_SIGMA, _believed(items))
    return {
        name: f"level {item.level:.1f} e-, its set has {centre:.1f} +- {spread:.1f}"
        for name, item in items.items()
        if abs(item.level - centre) > rule.max_deviation * spread
    }


def _believed(items: Mapping[str, FrameStatistics]) -> float:
    """Return the smallest deviation of levels that is taken seriously, electrons: a few frames may agree by chance."""
    return max(1.0, 0.25 * float(np.median([item.noise for item in items.values()])))


def _odd_noises(items: Mapping[str, FrameStatistics], kind: Kind, rule: CalibrationRule) -> dict[str, str]:
    del rule
    scales = {name: math.sqrt(max(item.level, 1.0)) if kind is Kind.FLAT else 1.0 for name, item in items.items()}
    typical = float(np.median([item.noise / scales[name] for name, item in items.items()]))
    return {
        name: f"noise {item.noise:.2f} e-, {typical * scales[name]:.2f} would be like its set"
        for name, item in items.items()
        if not typical / _NOISE_FACTOR <= item.noise / scales[name] <= typical * _NOISE_FACTOR
    }


def _odd_patterns(items: Mapping[str, FrameStatistics], kind: Kind, rule: CalibrationRule) -> dict[str, str]:
    if len({len(item.pattern) for item in items.values()}) != 1:
        return {}
    patterns = np.array([item.pattern for item in items.values()])
    levels = np.array([item.level for item in items.values()])[:, None]
    if kind is Kind.FLAT:
        patterns, floor, unit = patterns / levels, 0.005, "of the level"
    else:
        patterns, floor, unit = patterns - levels, _believed(items), "e-"
    differences = np.sqrt(np.mean(np.square(patterns - np.median(patterns, axis=0)), axis=1))
    limit = rule.max_deviation * max(float(np.median(differences)), floor)
    return {
        name: f"structure differs by {difference:.3g} {unit} from its set, {limit:.3g} is allowed"
        for name, difference in zip(items, differences, strict=True)
        if difference > limit
    }
