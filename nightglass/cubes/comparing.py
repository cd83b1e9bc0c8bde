"""What workers do to verify a cube: planes against the frames they came from, and sums of what is in the file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nightglass.config import Limits
from nightglass.cubes.planebytes import PlaneReader, physical
from nightglass.cubes.records import Encoding, Plane
from nightglass.cubes.sums import sum_block
from nightglass.errors import NightglassError
from nightglass.fitsio.checksums import add_sums
from nightglass.fitsio.sources import reading

__all__ = ["Comparison", "FramePlane", "PlaneTask", "compare_planes", "sum_range"]

_PIECE: Final = 1 << 20
"""Bytes that are looked at a time: two of them stay in the cache of a core. A multiple of 4, so that sums add up."""
_MAX_TOLD: Final = 20
"""Differences that a task tells; a cube that is wrong throughout is told by its first ones."""
_ROUNDING: Final = {-32: 1e-6, -64: 1e-14}
"""Relative differences that scaling may leave behind in floats."""


@dataclass(frozen=True, slots=True)
class FramePlane:
    """A plane of a frame, in its file."""

    path: Path
    gzip: bool
    plane: Plane


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneTask:
    """Planes of a cube, one after the other, and those of the frames that they came from."""

    cube: Path
    limits: Limits
    planes: tuple[Plane, ...]
    frames: tuple[FramePlane, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of a `PlaneTask`: differences, and the sum of each plane that was compared as bytes."""

    differences: tuple[str, ...]
    sums: tuple[int | None, ...]


def sum_range(path: Path, offset: int, size: int) -> int:
    """Return the sum of part of a file, which begins at a word.

    Raises
    ------
    Retryable
        If the file cannot be read.
    """
    with reading(path), path.open("rb", buffering=0) as stream:
        return _sum(stream.fileno(), offset, size)[0]


def compare_planes(task: PlaneTask) -> Comparison:
    """Compare planes with their frames: bytes where both are stored alike, else what the numbers mean.

    A frame that cannot be read any more is a difference, not an error: the others are still compared.
    """
    wrong: list[str] = []
    sums: list[int | None] = []
    frame: PlaneReader | None = None
    with PlaneReader(task.cube, task.limits) as cube:
        try:
            for ours, theirs in zip(task.planes, task.frames, strict=True):
                if frame is None or frame.path != theirs.path:
                    if frame is not None:
                        frame.__exit__(None, None, None)
                    frame = PlaneReader(theirs.path, task.limits, gzip=theirs.gzip)
                try:
                    found, total = _compare(cube, ours, frame, theirs.plane)
                except NightglassError as error:
                    found, total = str(error), None
                sums.append(total)
                if found and len(wrong) < _MAX_TOLD:
                    wrong.append(_told(task.cube, ours, theirs, found))
        finally:
            if frame is not None:
                frame.__exit__(None, None, None)
    return Comparison(tuple(wrong), tuple(sums))


def _told(cube: Path, ours: Plane, theirs: FramePlane, found: str) -> str:
    where = f"plane {ours.number} of {ours.source} (frame {ours.frame})"
    return f"{cube}: {where} is not HDU {theirs.plane.hdu} of {theirs.path}: {found}"


def _compare(cube: PlaneReader, ours: Plane, frame: PlaneReader, theirs: Plane) -> tuple[str, int | None]:
    if ours.shape != theirs.shape:
        return f"{ours.shape} pixels instead of {theirs.shape}", None
    if Encoding.TILES not in (ours.encoding, theirs.encoding) and ours.format == theirs.format:
        return _compare_bytes(cube, ours, frame, theirs)
    return _compare_numbers(cube, ours, frame, theirs), None


def _compare_bytes(cube: PlaneReader, ours: Plane, frame: PlaneReader, theirs: Plane) -> tuple[str, int]:
    size = ours.shape[0] * ours.shape[1] * ours.format.itemsize
    first, second = bytearray(min(size, _PIECE)), bytearray(min(size, _PIECE))
    total, found = 0, ""
    for start in range(0, size, _PIECE):
        count = min(_PIECE, size - start)
        left, right = memoryview(first)[:count], memoryview(second)[:count]
        cube.read_into(ours.offset + start, left)
        frame.read_into(theirs.offset + start, right)
        total = add_sums(total, sum_block(left))
        if not found and left != right:
            differs = np.nonzero(np.frombuffer(left, np.uint8) != np.frombuffer(right, np.uint8))[0]
            pixel = (start + int(differs[0])) // ours.format.itemsize
            found = f"first at pixel {_pixel(pixel, ours.shape)}"
    return found, total


def _compare_numbers(cube: PlaneReader, ours: Plane, frame: PlaneReader, theirs: Plane) -> str:
    left, right = cube.stored(ours), frame.stored(theirs)
    if ours.format == theirs.format and ours.format.bitpix > 0:
        wrong = left != right
    else:
        (left, defined), (right, wanted) = physical(left, ours.format), physical(right, theirs.format)
        wrong = (defined != wanted) | (defined & wanted & _far(left, right, _tolerance(cube, ours, frame, theirs)))
    if not wrong.any():
        return ""
    pixel = int(np.argmax(wrong))
    values = f"{left.flat[pixel]} instead of {right.flat[pixel]}"
    return f"{int(wrong.sum())} pixels differ, first {_pixel(pixel, ours.shape)}: {values}"


def _far(left: NDArray[Any], right: NDArray[Any], tolerance: tuple[float, float]) -> NDArray[np.bool_]:
    absolute, relative = tolerance
    if not absolute and not relative:
        return np.asarray(left != right)
    with np.errstate(invalid="ignore"):  # infinities that are equal
        return np.asarray((left != right) & ~(np.abs(left - right) <= absolute + relative * np.abs(right)))


def _tolerance(cube: PlaneReader, ours: Plane, frame: PlaneReader, theirs: Plane) -> tuple[float, float]:
    """Return how far numbers may differ: by half a step where the cube quantised them, by rounding where it scaled."""
    steps = cube.quantum(ours), frame.quantum(theirs)
    scaled = (ours.format.bscale, ours.format.bzero) != (theirs.format.bscale, theirs.format.bzero)
    if steps[0] and steps[0] != steps[1]:
        return 0.5 * steps[0], _ROUNDING[-32]
    if scaled and not _exact(ours) | _exact(theirs):
        return 0.0, _ROUNDING.get(ours.format.bitpix, _ROUNDING[-64])
    return 0.0, 0.0


def _exact(plane: Plane) -> bool:
    """Tell whether integers are stored with at most an offset."""
    return plane.format.bitpix > 0 and plane.format.bscale == 1.0 and plane.format.bzero.is_integer()


def _pixel(number: int, shape: tuple[int, int]) -> str:
    """Name a pixel as FITS counts: column and row, from 1."""
    return f"({number % shape[1] + 1}, {number // shape[1] + 1})"


def _sum(descriptor: int, offset: int, size: int) -> tuple[int, int]:
    """Return the sum of bytes, and how many there were."""
    buffer = memoryview(bytearray(min(size, _PIECE)))
    total = done = 0
    while done < size:
        got = 0
        wanted = min(_PIECE, size - done)
        while got < wanted and (count := os.preadv(descriptor, [buffer[got:wanted]], offset + done + got)):
            got += count
        total = add_sums(total, sum_block(buffer[:got]))
        done += got
        if got < wanted:
            break
    return total, done
