"""What workers do to extract frames: one file, written beside its name and then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Final

from nightglass.config import Limits
from nightglass.cubes.cardstore import StoredHdu
from nightglass.cubes.geometry import Picture
from nightglass.cubes.headers import read_header
from nightglass.cubes.planebytes import PlaneReader, physical, stored_as
from nightglass.cubes.records import Encoding, PixelFormat, Plane
from nightglass.cubes.restoring import (
    empty_primary,
    has_checksums,
    made_cards,
    partial_header,
    uncompressed_header,
    with_checksums,
)
from nightglass.cubes.sums import rotated, sum_block
from nightglass.errors import Rejected, Retryable
from nightglass.fitsio import part_path
from nightglass.fitsio.cards import BLOCK, Scalar
from nightglass.fitsio.checksums import add_sums
from nightglass.fitsio.sealing import seal

__all__ = ["FileJob", "MadeHeader", "UnpackTask", "WantedPlane", "write_files"]

_PIECE: Final = 1 << 20
"""Bytes that are copied at a time."""


@dataclass(frozen=True, slots=True)
class WantedPlane:
    """A plane of a cube, and which plane of its original HDU it is."""

    plane: Plane
    number: int


@dataclass(frozen=True, slots=True)
class MadeHeader:
    """What is known of a header without a card store; `version` is EXTVER, and 0 for a primary header."""

    name: str
    version: int
    values: dict[str, Scalar]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileJob:
    """One file that is to be written.

    Attributes
    ----------
    planes : dict
        HDU of the file to its planes, both in their order.
    stored : tuple of StoredHdu
        Its original headers; empty if they are not known.
    images : dict
        Original images of the HDUs that have planes.
    made : dict
        Without original headers: what goes into that of each HDU.
    """

    out: Path
    planes: dict[int, list[WantedPlane]]
    stored: tuple[StoredHdu, ...] = ()
    images: dict[int, Picture] = field(default_factory=dict)
    made: dict[int, MadeHeader] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnpackTask:
    """Files that are written one after the other; `size` counts their pixels in bytes."""

    cube: Path
    limits: Limits
    jobs: tuple[FileJob, ...]
    size: int


def write_files(task: UnpackTask) -> None:
    """Write some files; writing them twice gives the same.

    Raises
    ------
    Rejected
        If the cube is damaged.
    Retryable
        If the cube cannot be read, or a file not written; no part of it is left.
    """
    with PlaneReader(task.cube, task.limits) as cube:
        for job in task.jobs:
            with _appearing(job.out) as stream:
                writer = _Writer(stream, cube)
                if not job.stored:
                    _write_made(writer, job)
                for hdu in job.stored:
                    _write_stored(writer, job, hdu)


class _Writer:
    """Appends HDUs to a file."""

    def __init__(self, stream: FileIO, cube: PlaneReader) -> None:
        self._stream = stream
        self._cube = cube
        self._position = 0
        self._buffer = memoryview(b"")

    def data(self, header: bytes, data: bytes, *, fill: bytes = b"\0") -> None:
        """Append a header and the data that belong to it."""
        self._put(header)
        self._put(data)
        self._put(fill * (-len(data) % BLOCK))

    def planes(self, size: int, planes: Sequence[Plane], pixels: PixelFormat, header: Callable[[int], bytes]) -> None:
        """Append an image; its header, of so many bytes, is made when the sum of the data is known."""
        start = self._position
        self._position += size
        total = length = 0
        for plane in planes:
            total = add_sums(total, rotated(self._plane(plane, pixels), length))
            length += _size(plane, pixels)
        self._put(b"\0" * (-length % BLOCK))
        end, self._position = self._position, start
        self._put(header(total))
        self._position = end

    def _plane(self, plane: Plane, pixels: PixelFormat) -> int:
        """Append one plane; returns its sum."""
        if plane.encoding is Encoding.TILES or not _alike(plane.format, pixels):
            numbers = self._cube.stored(plane)
            if not _alike(plane.format, pixels):
                numbers = stored_as(*physical(numbers, plane.format), pixels)
            data = numbers.tobytes()
            self._put(data)
            return sum_block(data)
        total, size = 0, _size(plane)
        if len(self._buffer) < min(size, _PIECE):
            self._buffer = memoryview(bytearray(min(size, _PIECE)))
        for done in range(0, size, _PIECE):
            piece = self._buffer[: min(_PIECE, size - done)]
            self._cube.read_into(plane.offset + done, piece)
            total = add_sums(total, sum_block(piece))
            self._put(piece)
        return total

    def _put(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            count = os.pwrite(self._stream.fileno(), view, self._position)
            self._position += count
            view = view[count:]


def _write_stored(writer: _Writer, job: FileJob, hdu: StoredHdu) -> None:
    wanted = job.planes.get(hdu.number)
    if hdu.data is not None:
        fill = b" " if hdu.text.startswith(b"XTENSION= 'TABLE ") else b"\0"
        writer.data(hdu.text, hdu.data, fill=fill)
        return
    if not hdu.data_size:
        writer.data(hdu.text, b"")
        return
    if not wanted:
        if hdu.number == 0:  # a file has to begin with one
            writer.data(empty_primary(hdu.text), b"")
        return
    picture = job.images.get(hdu.number)
    if picture is None or any(item.plane.shape != picture.shape for item in wanted):
        message = f"{job.out.name}: HDU {hdu.number} was no image of {wanted[0].plane.shape} pixels"
        raise Rejected(message, remedy="the tables of the cube do not belong together: take another copy")
    header = _restored(hdu, picture, [item.number for item in wanted])
    sealed = header != hdu.text and has_checksums(header)
    writer.planes(
        len(header),
        [item.plane for item in wanted],
        picture.format,
        lambda total: with_checksums(header, total) if sealed else header,
    )


def _restored(hdu: StoredHdu, picture: Picture, numbers: list[int]) -> bytes:
    """Return the header of an image: as it was if it can be, else for what comes back of it."""
    whole = len(numbers) == picture.planes
    if whole and picture.tiles is None:
        return hdu.text
    values = read_header(hdu.text)
    prefix = "Z" if picture.tiles else ""
    count = values.get(f"{prefix}NAXIS")
    axes = [
        length if isinstance(length := values.get(f"{prefix}NAXIS{axis}"), int) else 1
        for axis in range(1, (count if isinstance(count, int) else 0) + 1)
    ]
    header = uncompressed_header(hdu.text, picture, axes) if picture.tiles else hdu.text
    return header if whole else partial_header(header, axes, numbers)


def _write_made(writer: _Writer, job: FileJob) -> None:
    if 0 not in job.planes:
        writer.data(seal(made_cards(PixelFormat(8), (), "", {}, version=0), 0), b"")
    for hdu, wanted in job.planes.items():
        planes = [item.plane for item in wanted]
        pixels, (rows, columns) = planes[0].format, planes[0].shape
        axes = (columns, rows) if len(planes) == 1 else (columns, rows, len(planes))
        made = job.made[hdu]
        cards = made_cards(pixels, axes, made.name, made.values, version=made.version)
        writer.planes(len(seal(cards, 0)), planes, pixels, partial(seal, cards))


def _alike(one: PixelFormat, other: PixelFormat) -> bool:
    """Tell whether the same bytes mean the same; what is undefined is undefined by the header."""
    return (one.bitpix, one.bscale, one.bzero) == (other.bitpix, other.bscale, other.bzero)


def _size(plane: Plane, pixels: PixelFormat | None = None) -> int:
    return plane.shape[0] * plane.shape[1] * (pixels or plane.format).itemsize


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[FileIO]:
    """Give a file to write to, which gets its name at the end; not synced: the cube is still there."""
    part = part_path(path, f"w{os.getpid()}x{secrets.token_hex(4)}")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb", buffering=0) as stream:
            yield stream
        part.replace(path)
    except OSError as error:
        message = f"{path} cannot be written: {error}"
        raise Retryable(message, remedy="check the disk and the rights of the directory") from error
    finally:
        with contextlib.suppress(OSError):  # the first failure is the one to tell
            part.unlink(missing_ok=True)
