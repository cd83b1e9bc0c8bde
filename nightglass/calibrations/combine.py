"""Masters from frames, in strips of rows, within a memory setting."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.calibrations.kernel import clipped_mean
from nightglass.calibrations.noise import pixel_noise, sampled_rows
from nightglass.config import CalibrationRule
from nightglass.errors import Rejected
from nightglass.fitsio import ProductReader, write_product
from nightglass.image import Image
from nightglass.model import DQ, ExposureRef, Kind, MasterRef

__all__ = ["FLOOR", "CombineSpec", "combine_frames"]

FLOOR = 0.5
"""Smallest standard deviation that clipping believes, in units of the frames' typical noise."""

_log = logging.getLogger(__name__)

_MIB = 1 << 20
_FRAME_BYTES = 5
"""Of one pixel of one frame in a strip: value and mask."""
_WORK_BYTES = 64
"""Of one pixel of a strip besides: what is read, the masters to subtract, results."""
_KEPT_BYTES = 10
"""Of one pixel of each detector: the master's value, variance and mask, until all is written."""
_PASSING_BYTES = 10
"""Of one pixel of the detector at hand: copies while it is normalised or written."""
_SAMPLED_ROWS = 64
_OVERSCAN_LEVEL = "OSLEV"
"""Keywords of the step ``overscan`` begin so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CombineSpec:
    """One master to make.

    Attributes
    ----------
    refs : tuple of ExposureRef
        The frames, in the order of their content ids.
    frames : tuple of Path
        Their reduced products.
    bias, dark : MasterRef or None
        Subtracted from each strip of each frame.
    part : Path
        Where the master is written.
    """

    master: MasterRef
    refs: tuple[ExposureRef, ...]
    frames: tuple[Path, ...]
    rule: CalibrationRule
    part: Path
    bias: MasterRef | None = None
    dark: MasterRef | None = None
    memory_mib: int = 512


def combine_frames(spec: CombineSpec) -> MasterRef:
    """Combine frames into a master and write it to `spec.part`.

    Bias: clipped mean. Dark: clipped mean of frame less bias, electrons in its exposure time. Flat: clipped mean of
    (frame less bias less scaled dark) over its median, each detector brought to the mean 1. Pixels that are good in no
    frame are marked BAD; those that a subtracted master marks bear its mark.

    The variance is that of the mean, from the scatter of the values kept, plus that of the masters subtracted.

    Raises
    ------
    Rejected
        If the frames differ in shape or detectors, or one is no product.
    """
    with _opened(spec) as frames:
        pixels = sum(height * width for height, width in frames.shapes)
        images = [_combine_detector(frames, index, pixels) for index in range(len(frames.shapes))]
        pedestal = spec.bias is None and not all(map(_is_levelled, frames.readers))
    master = replace(spec.master, frames=len(spec.frames), pedestal=pedestal and spec.master.kind is not Kind.BIAS)
    note = f"clipped mean of {master.frames} frames, {spec.rule.sigma:g} robust deviations"
    history = [note, *(f"frame {ref.name}" for ref in spec.refs)]
    write_product(spec.part, images, cards=_cards(spec, master), history=history)
    return master


def _is_levelled(reader: ProductReader) -> bool:
    """Return whether the bias level of a frame was taken off by its overscan, see `nightglass.steps.overscan`."""
    return all(
        any(keyword.startswith(_OVERSCAN_LEVEL) for keyword in info.header)
        for info in reader.headers
        if info.name == "SCI"
    )


@dataclass(frozen=True, slots=True)
class _Frames:
    """The open frames, the masters that are subtracted from them, and the shape of each detector."""

    spec: CombineSpec
    readers: tuple[ProductReader, ...]
    bias: ProductReader | None
    dark: ProductReader | None
    shapes: tuple[tuple[int, int], ...]

    def strip(self, detector: int, rows: slice) -> _Strip:
        """Return what is subtracted from some rows of a detector."""
        return _Strip(self, detector, rows, self._of(self.bias, detector, rows), self._of(self.dark, detector, rows))

    def dark_share(self, index: int) -> float:
        """Return by what the dark is multiplied for a frame: by exposure time."""
        dark = self.spec.dark
        return self.spec.refs[index].exposure_time_s / dark.exposure_time_s if dark and dark.exposure_time_s else 0.0

    def _of(self, master: ProductReader | None, detector: int, rows: slice) -> tuple[NDArray[Any], ...] | None:
        if master is None:
            return None
        name = self.readers[0].detectors[detector]
        ver = master.detectors.index(name) + 1 if name in master.detectors else detector + 1
        return tuple(master.read(hdu, ver, rows) for hdu in ("SCI", "ERR", "DQ"))


@dataclass(frozen=True, slots=True)
class _Strip:
    """Some rows of one detector: value, error and mask of the masters to subtract."""

    frames: _Frames
    detector: int
    rows: slice
    bias: tuple[NDArray[Any], ...] | None
    dark: tuple[NDArray[Any], ...] | None

    def load(self, index: int, values: NDArray[np.float32], bad: NDArray[np.bool_], *, scale: float = 1.0) -> None:
        """Fill in one frame, calibrated and scaled, and where it is not good."""
        reader = self.frames.readers[index]
        values[...] = reader.read("SCI", self.detector + 1, self.rows)
        np.not_equal(reader.read("DQ", self.detector + 1, self.rows), 0, out=bad)
        if self.bias is not None:
            values -= self.bias[0]
        if self.dark is not None:
            values -= self.dark[0] * np.float32(self.frames.dark_share(index))
        if scale != 1.0:
            values *= np.float32(scale)

    def finish(self, mask: NDArray[np.uint16], variance: NDArray[np.float32], scales: Sequence[float]) -> None:
        """Add mask and variance of the masters: their error is the same in all frames and does not average out."""
        shares = [self.frames.dark_share(index) * scale for index, scale in enumerate(scales)]
        for master, share in ((self.bias, np.mean(scales)), (self.dark, np.mean(shares))):
            if master is not None:
                variance += np.square(master[1] * np.float32(share))
                mask |= master[2]


@contextmanager
def _opened(spec: CombineSpec) -> Iterator[_Frames]:
    with ExitStack() as stack:
        readers = tuple(stack.enter_context(ProductReader(path)) for path in spec.frames)
        bias = stack.enter_context(ProductReader(spec.bias.path)) if spec.bias else None
        dark = stack.enter_context(ProductReader(spec.dark.path)) if spec.dark else None
        first = _layout(readers[0])
        for reader in readers[1:]:
            if _layout(reader) != first:
                message = f"{reader.path} has other detectors or another shape than {readers[0].path}"
                raise Rejected(message, remedy="match masters by binning, or reject the frame with `nightglass skip`")
        yield _Frames(spec, readers, bias, dark, tuple(shape for _, shape in first))


def _layout(reader: ProductReader) -> list[tuple[str, tuple[int, int]]]:
    found = []
    for ver, name in enumerate(reader.detectors, start=1):
        height, width = reader.find("SCI", ver).shape[-2:]
        found.append((name, (height, width)))
    return found


def _combine_detector(frames: _Frames, detector: int, pixels: int) -> Image:
    spec = frames.spec
    height, width = frames.shapes[detector]
    data = np.empty((height, width), np.float32)
    variance = np.empty((height, width), np.float32)
    mask = np.empty((height, width), np.uint16)
    scales, noise = _scales_and_noise(frames, detector)
    rows = _strip_rows(spec, (height, width), pixels)
    count = len(spec.frames)
    values, flags = np.empty(count * rows * width, np.float32), np.empty(count * rows * width, np.bool_)
    for top in range(0, height, rows):
        place = slice(top, min(top + rows, height))
        shape = (count, place.stop - place.start, width)
        stack = values[: math.prod(shape)].reshape(shape)
        bad = flags[: math.prod(shape)].reshape(shape)
        strip = frames.strip(detector, place)
        for index, scale in enumerate(scales):
            strip.load(index, stack[index], bad[index], scale=scale)
        data[place], variance[place], used = clipped_mean(stack, bad, sigma=spec.rule.sigma, floor=FLOOR * noise)
        variance[place][used < 2] = np.float32(noise * noise)
        mask[place] = np.where(used == 0, np.uint16(DQ.BAD), np.uint16(0))
        strip.finish(mask[place], variance[place], scales)
    if spec.master.kind is Kind.FLAT:
        _normalise(data, variance, mask, spec.rule)
    return Image(
        data=data,
        variance=variance,
        mask=mask,
        header=fits.Header(),
        detector=frames.readers[0].detectors[detector],
        amplifiers=(),
        exposure_time_s=spec.master.exposure_time_s,
        unit="" if spec.master.kind is Kind.FLAT else "electron",
    )


def _strip_rows(spec: CombineSpec, shape: tuple[int, int], pixels: int) -> int:
    """Return the rows of a strip, so that strip and whole master together stay within the setting."""
    height, width = shape
    left = spec.memory_mib * _MIB - _KEPT_BYTES * pixels - _PASSING_BYTES * height * width
    row = width * (len(spec.frames) * _FRAME_BYTES + _WORK_BYTES)
    if left < row:
        needed = (spec.memory_mib * _MIB - left + row) // _MIB + 1
        _log.warning(
            "a master of %d pixels takes about %d MiB, more than the %d allowed", pixels, needed, spec.memory_mib
        )
    return int(max(1, min(height, left // row)))


def _scales_and_noise(frames: _Frames, detector: int) -> tuple[list[float], float]:
    """Return one over the median of each flat (1 for other kinds), and the typical noise of the scaled frames.

    Both from rows spread over the detector, whatever the memory setting is.
    """
    spec = frames.spec
    height, width = frames.shapes[detector]
    chosen = sampled_rows(height, _SAMPLED_ROWS)
    values, bad = np.empty((len(chosen), width), np.float32), np.empty((len(chosen), width), np.bool_)
    strips = [frames.strip(detector, slice(row, row + 1)) for row in chosen]
    scales, noises = [], []
    for index, path in enumerate(spec.frames):
        for place, strip in enumerate(strips):
            strip.load(index, values[place : place + 1], bad[place : place + 1])
        level = float(np.median(values[~bad])) if spec.master.kind is Kind.FLAT and not bad.all() else 1.0
        if not level > 0:
            message = f"flat {path} has the level {level:.1f} e- after bias and dark"
            raise Rejected(message, remedy="set min_level for flats in the camera file")
        scales.append(1.0 / level)
        noises.append(pixel_noise(values, ~bad) / level)
    return scales, float(np.median(noises))


def _normalise(
    data: NDArray[np.float32], variance: NDArray[np.float32], mask: NDArray[np.uint16], rule: CalibrationRule
) -> None:
    good = mask == 0
    mean = np.float32(data[good].mean(dtype=np.float64)) if good.any() else np.float32(1)
    data /= mean
    variance /= mean * mean
    mask[data < rule.min_response] |= np.uint16(DQ.LOW_FLAT)
    data[(mask & np.uint16(DQ.BAD)) != 0] = 1  # nobody shall divide by what is unknown


def _cards(spec: CombineSpec, master: MasterRef) -> dict[str, object | tuple[object, str]]:
    cards: dict[str, object | tuple[object, str]] = {
        "MASTERID": (master.master_id, "hash of settings and inputs"),
        "KIND": (f"master {master.kind.value}", "what this file is"),
        "CAMERA": master.camera,
        "NIGHT": master.night.label,
        "FILTER": master.filter,
        "BINNING": master.binning,
        "DETECTOR": master.detector,
        "READOUT": (master.readout, "read-out mode"),
        "EXPTIME": (master.exposure_time_s, "[s] exposure time of the frames"),
        "PEDESTAL": (master.pedestal, "whether the bias level is still in it"),
        "NFRAMES": (len(spec.frames), "frames combined"),
        "SIGMA": (spec.rule.sigma, "clipping limit, robust deviations"),
        "BIASID": (spec.bias.master_id if spec.bias else "", "master bias that was subtracted"),
        "DARKID": (spec.dark.master_id if spec.dark else "", "master dark that was subtracted"),
    }
    for number, content_id in enumerate(master.inputs, start=1):
        cards[f"CID{number:05d}"] = (content_id, "hash of a raw frame")
    return cards
