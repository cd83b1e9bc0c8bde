"""What workers do to extract frames: one file, written beside its name and then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Final

from nightglass.config import Limits
from nightglass.cubes.cardstore import StoredFile, StoredHdu
from nightglass.cubes.geometry import Picture, find_picture
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

__all__ = ["FileJob", "MadeHeader", "WantedPlane", "write_file"]

_PIECE: Final = 1 << 20
"""Bytes that are copied at a time."""


@dataclass(frozen=True, slots=True)
class WantedPlane:
    """A plane of a cube, and which image of its original file it is: HDU, and plane of that HDU."""

    plane: Plane
    hdu: int
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
    planes : tuple of WantedPlane
        In the order of the file.
    stored : StoredFile or None
        Its original headers.
    made : dict
        Without these: what goes into the header of each HDU.
    """

    cube: Path
    limits: Limits
    out: Path
    planes: tuple[WantedPlane, ...]
    stored: StoredFile | None
    made: dict[int, MadeHeader] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of pixels."""
        return sum(_size(item.plane) for item in self.planes)


def write_file(job: FileJob) -> None:
    """Write one file; writing it twice gives the same.

    Raises
    ------
    Rejected
        If the cube is damaged.
    Retryable
        If the cube cannot be read, or the file not written; no part of it is left.
    """
    by_hdu: dict[int, list[WantedPlane]] = {}
    for item in job.planes:
        by_hdu.setdefault(item.hdu, []).append(item)
    with _appearing(job.out) as stream, PlaneReader(job.cube, job.limits) as cube:
        writer = _Writer(stream, cube)
        if job.stored is None:
            _write_made(writer, job, by_hdu)
            return
        for hdu in job.stored.hdus:
            _write_stored(writer, job, hdu, by_hdu.get(hdu.number, []))


class _Writer:
    """Appends HDUs to a file."""

    def __init__(self, stream: FileIO, cube: PlaneReader) -> None:
        self._stream = stream
        self._cube = cube
        self._position = 0
        self._buffer = memoryview(bytearray(_PIECE))

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


def _write_stored(writer: _Writer, job: FileJob, hdu: StoredHdu, wanted: list[WantedPlane]) -> None:
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
    values = read_header(hdu.text)
    picture = find_picture(values, hdu.number, job.limits)
    if picture is None or [item.plane.shape for item in wanted] != [picture.shape] * len(wanted):
        message = f"{job.cube}: HDU {hdu.number} of {job.stored.name if job.stored else job.out} is no such image"
        raise Rejected(message, remedy="its tables do not belong together: take another copy")
    header = _restored(hdu, picture, values, [item.number for item in wanted])
    sealed = has_checksums(header) and header != hdu.text
    writer.planes(
        len(header),
        [item.plane for item in wanted],
        picture.format,
        lambda total: with_checksums(header, total) if sealed else header,
    )


def _restored(hdu: StoredHdu, picture: Picture, values: dict[str, Scalar], numbers: list[int]) -> bytes:
    """Return the header of an image: as it was if it can be, else for what comes back of it."""
    prefix = "Z" if picture.tiles else ""
    count = values.get(f"{prefix}NAXIS")
    axes = [
        length if isinstance(length := values.get(f"{prefix}NAXIS{axis}"), int) else 1
        for axis in range(1, (count if isinstance(count, int) else 0) + 1)
    ]
    header = uncompressed_header(hdu.text, picture, axes) if picture.tiles else hdu.text
    return header if len(numbers) == picture.planes else partial_header(header, axes, numbers)


def _write_made(writer: _Writer, job: FileJob, by_hdu: dict[int, list[WantedPlane]]) -> None:
    if 0 not in by_hdu:
        writer.data(seal(made_cards(PixelFormat(8), (), "", {}, version=0), 0), b"")
    for hdu, wanted in by_hdu.items():
        planes = [item.plane for item in wanted]
        pixels, (rows, columns) = planes[0].format, planes[0].shape
        axes = (columns, rows) if len(planes) == 1 else (columns, rows, len(planes))
        made = job.made[hdu]
        cards = made_cards(pixels, axes, made.name, made.values, version=made.version)
        writer.planes(len(seal(cards, 0)), planes, pixels, lambda total, cards=cards: seal(cards, total))  # type: ignore[misc]


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
