"""Step ``overscan``: subtract the bias level that each amplifier shows in its overscan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nightglass.config.section import Section
from nightglass.image import AmplifierView, Image
from nightglass.steps.step import Step, StepContext, applied, with_cards

__all__ = ["STEP", "OverscanSettings", "subtract_overscan"]

VERSION = "1"
_MAD_TO_SIGMA = 1.4826
_NOISE_RATIO = 2.0
"""The overscan's noise and the stated read noise may differ by this factor before it is noted."""
_DESPIKE_LINES = 5

Array = NDArray[np.float64]


class OverscanSettings(Section):
    """How the level is measured, and how it may change along the detector."""

    method: Literal["clipped", "median", "mean"] = "clipped"
    """How the pixels of a line are averaged; a median of whole numbers is a whole or half number: too coarse."""
    fit: Literal["smooth", "line", "polynomial", "constant"] = "smooth"
    """How the level follows the lines: smoothed over `window`, line by line, a polynomial of `order`, or one value."""
    window: int = Field(31, ge=3)
    """Lines that ``smooth`` averages over."""
    order: int = Field(3, ge=0, le=20)
    """Degree of ``polynomial``."""
    sigma: float = Field(4.0, gt=0)
    """Clipping limit in robust standard deviations."""
    skip: int = Field(0, ge=0)
    """Pixels left out at both ends of each line of the overscan, where charge trails."""


@dataclass(frozen=True, slots=True)
class _Level:
    """What an overscan says: level (broadcast against the data section), mean and scatter, all in data's unit."""

    level: Array
    mean: float
    noise: float


def subtract_overscan(image: Image, context: StepContext, settings: OverscanSettings) -> Image:
    """Subtract each amplifier's overscan level from its data section.

    The scatter of the overscan about its level is the read noise as it is tonight: it is recorded,
    stands in for a read noise that nobody states (0), and is compared with one that is stated. The error
    of the level itself (read noise / sqrt(pixels of a line), less when smoothed) is common to a
    line and is not put into the variance, which holds independent errors.
    """
    del context
    data = image.data.copy()
    amplifiers: list[AmplifierView] = []
    cards: dict[str, tuple[float, str]] = {}
    notes: list[str] = []
    noises: list[float] = []
    for number, amplifier in enumerate(image.amplifiers, start=1):
        found = _measure(image, amplifier, settings)
        if found is None:
            amplifiers.append(amplifier)
            continue
        data[amplifier.data] -= found.level.astype(np.float32)
        gain = amplifier.gain if image.unit == "adu" else 1.0
        noise = found.noise * gain
        noises.append(noise)
        cards[f"OSLEV{number}"] = (round(found.mean, 3), f"[{image.unit}] overscan level, amplifier {number}")
        cards[f"OSRMS{number}"] = (round(noise, 3), f"[electron] overscan noise, amplifier {number}")
        checked, note = _check_read_noise(amplifier, noise, number)
        amplifiers.append(checked)
        notes.extend([note] if note else [])
    if not noises:
        return applied(image, "overscan", VERSION, settings, note="no overscan: nothing subtracted")
    return applied(
        image,
        "overscan",
        VERSION,
        settings,
        note="; ".join(notes),
        data=data,
        amplifiers=tuple(amplifiers),
        header=with_cards(image.header, cards),
        measured=image.measured | {"overscan_noise": max(noises)},
    )


def _check_read_noise(amplifier: AmplifierView, noise: float, number: int) -> tuple[AmplifierView, str]:
    if noise <= 0:
        return amplifier, ""
    if amplifier.read_noise <= 0:
        return replace(amplifier, read_noise=noise), f"amplifier {number}: read noise {noise:.2f} e- from overscan"
    ratio = noise / amplifier.read_noise
    if 1 / _NOISE_RATIO <= ratio <= _NOISE_RATIO:
        return amplifier, ""
    return amplifier, f"amplifier {number}: overscan noise {noise:.2f} e-, stated {amplifier.read_noise:.2f} e-"


def _measure(image: Image, amplifier: AmplifierView, settings: OverscanSettings) -> _Level | None:
    if amplifier.overscan is None:
        return None
    region = image.data[amplifier.overscan].astype(np.float64)
    region[image.mask[amplifier.overscan] != 0] = np.nan
    rows, columns = (_covered(*both) for both in zip(amplifier.data, amplifier.overscan, strict=True))
    axis = 0 if rows >= columns else 1
    lines = region if axis == 0 else region.T
    if settings.skip and lines.shape[1] > 2 * settings.skip:
        lines = lines[:, settings.skip : -settings.skip]
    if lines.size == 0 or not np.isfinite(lines).any():
        return None
    averages, noise = _averages(lines, settings)
    if settings.fit == "constant" or max(rows, columns) <= 0:
        return _Level(np.full((1, 1), float(np.nanmean(averages))), float(np.nanmean(averages)), noise)
    first = amplifier.overscan[axis].start
    wanted = np.arange(amplifier.data[axis].start, amplifier.data[axis].stop, dtype=np.float64) - first
    level = _follow(averages, wanted, settings)
    return _Level(level[:, None] if axis == 0 else level[None, :], float(level.mean()), noise)


def _covered(data: slice, overscan: slice) -> float:
    """Return which fraction of the data section's lines along one axis the overscan covers."""
    common = min(data.stop, overscan.stop) - max(data.start, overscan.start)
    return float(max(common, 0) / max(data.stop - data.start, 1))


def _averages(lines: Array, settings: OverscanSettings) -> tuple[Array, float]:
    """Average each line; return the averages (NaN for lines without pixels) and the clipped scatter about them."""
    empty = np.asarray(~np.isfinite(lines).any(axis=1))
    filled = np.where(empty[:, None], 0.0, lines)
    middle = np.nanmedian(filled, axis=1)
    residual = filled - middle[:, None]
    used = np.isfinite(residual) & ~empty[:, None]
    spread = _MAD_TO_SIGMA * float(np.median(np.abs(residual[used])))
    if spread > 0:  # 0: more than half the pixels are alike, as in a quiet camera's whole numbers
        used &= np.abs(residual) <= settings.sigma * spread
    counts = used.sum(axis=1)
    shift = np.where(used, residual, 0.0).sum(axis=1) / np.maximum(counts, 1)
    clipped = middle + shift
    averages = {"clipped": clipped, "median": middle, "mean": np.nanmean(filled, axis=1)}[settings.method]
    averages[empty | (counts == 0)] = np.nan
    about = np.where(used, filled - clipped[:, None], 0.0)
    freedom = int(counts.sum()) - int((counts > 0).sum())
    return averages, float(np.sqrt((about**2).sum() / freedom)) if freedom > 0 else 0.0


def _follow(averages: Array, wanted: Array, settings: OverscanSettings) -> Array:
    """Evaluate the level at lines counted from the first of the overscan; beyond the ends the last value holds."""
    index = np.arange(len(averages), dtype=np.float64)
    good = np.isfinite(averages)
    if settings.fit == "polynomial":
        return _polynomial(index[good], averages[good], wanted, settings)
    whole = np.interp(index, index[good], averages[good])
    if settings.fit == "smooth":
        from scipy.ndimage import median_filter, uniform_filter1d

        whole = median_filter(whole, size=min(_DESPIKE_LINES, len(whole)), mode="nearest")
        whole = uniform_filter1d(whole, size=min(settings.window, len(whole)), mode="nearest")
    return np.interp(wanted, index, whole)


def _polynomial(index: Array, averages: Array, wanted: Array, settings: OverscanSettings) -> Array:
    keep = np.ones(len(index), dtype=bool)
    degree = min(settings.order, len(index) - 1)
    first, last = float(index[0]), max(float(index[-1]), float(index[0]) + 1)
    fitted = np.polynomial.Legendre.fit(index, averages, degree, domain=[first, last])
    for _ in range(3):
        residual = averages - fitted(index)
        spread = _MAD_TO_SIGMA * float(np.median(np.abs(residual[keep])))
        inside = np.abs(residual) <= settings.sigma * spread
        if spread <= 0 or int(inside.sum()) <= degree + 1:
            break
        keep = inside
        fitted = np.polynomial.Legendre.fit(index[keep], averages[keep], degree, domain=[first, last])
    return np.asarray(fitted(np.clip(wanted, first, last)))


STEP = Step(
    name="overscan",
    version=VERSION,
    settings=OverscanSettings,
    apply=subtract_overscan,
    doc="Subtract the bias level measured in the overscan, amplifier by amplifier.",
)
