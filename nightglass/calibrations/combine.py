"""Masters from frames, in strips of rows, within a memory setting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.calibrations.kernel import clipped_mean
from nightglass.config import CalibrationRule, Limits
from nightglass.errors import Rejected
from nightglass.fitsio import HduInfo, ProductReader, scan_headers, write_product
from nightglass.image import Image
from nightglass.model import DQ, ExposureRef, Kind, MasterRef

__all__ = ["CombineSpec", "combine_frames"]

_MIB = 1 << 20
_FRAME_BYTES = 5
"""Of one pixel of one frame in a strip: value and mask."""
_WORK_BYTES = 64
"""Of one pixel of a strip besides: what is read, the masters to subtract, results."""
_OUTPUT_BYTES = 20
"""Of one pixel of the whole master, with the copies that writing makes."""
_SAMPLED_ROWS = 128


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
    (frame less bias less scaled dark) over its median, brought to the mean 1.

    Raises
    ------
    Rejected
        If the frames differ in shape or detectors, or one is no product.
    """
    first = _images(spec.frames[0])
    for path in spec.frames[1:]:
        if [(info.ver, info.shape) for info in _images(path)] != [(info.ver, info.shape) for info in first]:
            message = f"{path} has other detectors or another shape than {spec.frames[0]}"
            raise Rejected(message, remedy="match masters by binning, or reject the frame with `nightglass skip`")
    images = [_combine_detector(spec, info) for info in first]
    note = f"clipped mean of {len(spec.frames)} frames, {spec.rule.sigma:g} robust deviations"
    write_product(spec.part, images, cards=_cards(spec), history=[note, *(f"frame {ref.name}" for ref in spec.refs)])
    return replace(spec.master, frames=len(spec.frames))


def _images(path: Path) -> list[HduInfo]:
    return [info for info in scan_headers(path, Limits()) if info.name == "SCI"]


def _combine_detector(spec: CombineSpec, info: HduInfo) -> Image:
    height, width = info.shape
    data = np.empty((height, width), np.float32)
    variance = np.empty((height, width), np.float32)
    mask = np.empty((height, width), np.uint16)
    rows = _strip_rows(spec, height, width)
    with _Frames.opened(spec, info.ver, width) as frames:
        scales = _scales(frames, spec, height)
        for top in range(0, height, rows):
            strip = slice(top, min(top + rows, height))
            stack, bad = frames.stack(strip, scales)
            data[strip], variance[strip], used = clipped_mean(stack, bad, sigma=spec.rule.sigma)
            mask[strip] = np.where(used == 0, np.uint16(DQ.NO_DATA), np.uint16(0))
            del stack, bad  # before the next strip takes its memory
    if spec.master.kind is Kind.FLAT:
        _normalise(data, variance, mask, spec.rule)
    return Image(
        data=data,
        variance=variance,
        mask=mask,
        header=fits.Header(),
        detector=str(info.header.get("DETECTOR", "")),
        amplifiers=(),
        exposure_time_s=spec.master.exposure_time_s,
        unit="" if spec.master.kind is Kind.FLAT else "electron",
    )


def _strip_rows(spec: CombineSpec, height: int, width: int) -> int:
    """Return the rows of a strip, so that strip and whole master together stay within the setting."""
    left = spec.memory_mib * _MIB - _OUTPUT_BYTES * height * width
    return int(max(1, min(height, left // (width * (len(spec.frames) * _FRAME_BYTES + _WORK_BYTES)))))


@dataclass(frozen=True, slots=True)
class _Frames:
    """The open frames of one detector, and the masters that are subtracted from them."""

    spec: CombineSpec
    ver: int
    width: int
    readers: tuple[ProductReader, ...]
    bias: ProductReader | None
    dark: ProductReader | None

    @classmethod
    @contextmanager
    def opened(cls, spec: CombineSpec, ver: int, width: int) -> Iterator[_Frames]:
        with ExitStack() as stack:
            readers = tuple(stack.enter_context(ProductReader(path)) for path in spec.frames)
            bias = stack.enter_context(ProductReader(spec.bias.path)) if spec.bias else None
            dark = stack.enter_context(ProductReader(spec.dark.path)) if spec.dark else None
            yield cls(spec, ver, width, readers, bias, dark)

    def stack(self, strip: slice, scales: Sequence[float]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return rows of all frames, calibrated and scaled, and where they are not good."""
        shape = (len(self.readers), strip.stop - strip.start, self.width)
        stack, bad = np.empty(shape, np.float32), np.empty(shape, np.bool_)
        bias = self.bias.read("SCI", self.ver, strip) if self.bias else None
        dark = self.dark.read("SCI", self.ver, strip) if self.dark else None
        for index, reader in enumerate(self.readers):
            stack[index] = reader.read("SCI", self.ver, strip)
            np.not_equal(reader.read("DQ", self.ver, strip), 0, out=bad[index])
            if bias is not None:
                stack[index] -= bias
            if dark is not None:
                stack[index] -= dark * np.float32(self._dark_factor(self.spec.refs[index]))
            if scales[index] != 1.0:
                stack[index] *= np.float32(scales[index])
        return stack, bad

    def _dark_factor(self, ref: ExposureRef) -> float:
        """Return the dark's share in a frame, by exposure time."""
        dark = self.spec.dark
        return ref.exposure_time_s / dark.exposure_time_s if dark and dark.exposure_time_s else 0.0


def _scales(frames: _Frames, spec: CombineSpec, height: int) -> list[float]:
    """Return one over the median of each flat, from rows spread over the detector; 1 for other kinds."""
    ones = [1.0] * len(spec.frames)
    if spec.master.kind is not Kind.FLAT:
        return ones
    samples: list[list[NDArray[np.float32]]] = [[] for _ in spec.frames]
    for row in range(0, height, max(1, height // _SAMPLED_ROWS)):
        stack, bad = frames.stack(slice(row, row + 1), ones)
        for index in range(len(spec.frames)):
            samples[index].append(stack[index][~bad[index]])
    levels = [float(np.median(np.concatenate(rows))) for rows in samples]
    for level, path in zip(levels, spec.frames, strict=True):
        if not level > 0:
            message = f"flat {path} has the level {level:.1f} e- after bias and dark"
            raise Rejected(message, remedy="set min_level for flats in the camera file")
    return [1.0 / level for level in levels]


def _normalise(
    data: NDArray[np.float32], variance: NDArray[np.float32], mask: NDArray[np.uint16], rule: CalibrationRule
) -> None:
    good = mask == 0
    mean = np.float32(data[good].mean(dtype=np.float64)) if good.any() else np.float32(1)
    data /= mean
    variance /= mean * mean
    mask[data < rule.min_response] |= np.uint16(DQ.LOW_FLAT)


def _cards(spec: CombineSpec) -> dict[str, object | tuple[object, str]]:
    master = spec.master
    return {
        "MASTERID": (master.master_id, "hash of settings and inputs"),
        "KIND": (f"master {master.kind.value}", "what this file is"),
        "CAMERA": master.camera,
        "NIGHT": master.night.label,
        "FILTER": master.filter,
        "BINNING": master.binning,
        "DETECTOR": master.detector,
        "EXPTIME": (master.exposure_time_s, "[s] exposure time of the frames"),
        "NFRAMES": (len(spec.frames), "frames combined"),
        "SIGMA": (spec.rule.sigma, "clipping limit, robust deviations"),
        "BIASID": (spec.bias.master_id if spec.bias else "", "master bias that was subtracted"),
        "DARKID": (spec.dark.master_id if spec.dark else "", "master dark that was subtracted"),
    }
