"""Planes moved into their places: read, summed and written in one pass, in memory that does not grow.

Frames and cubes store the same big-endian numbers, so a plane is bytes to be moved. What workers get are tasks of
numbers and paths; the same task done twice writes the same bytes to the same places.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from nightglass.config import Limits
from nightglass.cubes.comparing import sum_range
from nightglass.cubes.converting import PlaneReader, as_bytes, convert_pixels, is_moved
from nightglass.cubes.outlets import Outlet, Unwritable, opened_part
from nightglass.cubes.records import Encoding, FrameFile, PixelFormat, Plane, Stamp
from nightglass.cubes.sums import rotated, sum_block
from nightglass.errors import NightglassError, Rejected, Retryable
from nightglass.fitsio.checksums import add_sums
from nightglass.fitsio.sources import reading

__all__ = [
    "Fault",
    "FetchedRun",
    "Move",
    "MoveTask",
    "MovedRun",
    "Run",
    "check_datasum",
    "check_unchanged",
    "fetch_planes",
    "move_planes",
]

_ZERO: Final = 0xFFFFFFFF
"""In ones' complement, another way to write 0."""
_CHANGED: Final = "it is archived again as it is now"


@dataclass(frozen=True, slots=True)
class Move:
    """One plane on its way into a cube.

    Attributes
    ----------
    plane : int
        Index into the planes of the survey.
    file : FrameFile
        Without the text of its headers, and without HDUs where the plane is moved as bytes.
    source : Plane
    target : PixelFormat
        Of the cube.
    lead : int
        Bytes of the data of the HDU before those that are moved.
    rest : int
        Ones'-complement sum of all bytes of the HDU's data that are not moved.
    """

    plane: int
    file: FrameFile
    source: Plane
    target: PixelFormat
    lead: int = 0
    rest: int = 0

    @property
    def size(self) -> int:
        """Bytes in the cube."""
        return self.source.shape[0] * self.source.shape[1] * self.target.itemsize

    @property
    def as_bytes(self) -> bool:
        """Whether the plane is moved without being looked at."""
        return self.source.encoding is Encoding.PLAIN and is_moved(self.source.format, self.target)


@dataclass(frozen=True, slots=True)
class Run:
    """Planes that lie one behind the other in one image of the cube.

    Attributes
    ----------
    hdu : int
        Which of the placed HDUs.
    start : int
        Bytes from the beginning of its data.
    offset : int
        Bytes from the beginning of the file.
    """

    hdu: int
    start: int
    offset: int
    moves: tuple[Move, ...]

    @property
    def size(self) -> int:
        """Bytes in the cube."""
        return sum(move.size for move in self.moves)


@dataclass(frozen=True, slots=True)
class MoveTask:
    """What one call of a worker does.

    Attributes
    ----------
    durable : bool
        Whether the cube will be synced.
    """

    part: Path
    runs: tuple[Run, ...]
    limits: Limits
    durable: bool = False

    @property
    def size(self) -> int:
        """Bytes in the cube."""
        return sum(run.size for run in self.runs)


@dataclass(frozen=True, slots=True)
class Fault:
    """A plane that could not be moved: its file has changed, or is damaged."""

    plane: int
    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class MovedRun:
    """What became of a run.

    Attributes
    ----------
    total : int
        Ones'-complement sum of its bytes, as part of the data of its HDU.
    faults : tuple of Fault
        Its bytes are worth nothing if there are any.
    """

    hdu: int
    total: int
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class FetchedRun:
    """A run whose bytes somebody else writes."""

    moved: MovedRun
    offset: int
    data: bytes


def move_planes(task: MoveTask) -> tuple[MovedRun, ...]:
    """Move the planes of a task into the cube, which workers see.

    Raises
    ------
    Retryable
        If the cube cannot be written.
    """
    with opened_part(task.part, durable=task.durable) as part, PlaneReader(task.limits) as reader:
        return tuple(_move(run, part.outlet(run.offset), reader) for run in task.runs)


def fetch_planes(task: MoveTask) -> tuple[FetchedRun, ...]:
    """Read the planes of a task, and return their bytes: for a cube that workers do not see."""
    fetched = []
    with PlaneReader(task.limits) as reader:
        for run in task.runs:
            data = bytearray()
            moved = _move(run, Outlet(data.extend), reader)
            fetched.append(FetchedRun(moved, run.offset, bytes(data)))
    return tuple(fetched)


def _move(run: Run, outlet: Outlet, reader: PlaneReader) -> MovedRun:
    """Move all planes of a run; in the place of one that is bad stand zeros, until the cube is planned anew."""
    faults = [fault for move in run.moves if (fault := _move_plane(move, outlet, reader)) is not None]
    return MovedRun(run.hdu, rotated(outlet.finish(), run.start), tuple(faults))


def _move_plane(move: Move, outlet: Outlet, reader: PlaneReader) -> Fault | None:
    done = 0
    try:
        for count in _copied(move, outlet) if move.as_bytes else _made(move, outlet, reader):
            done += count
    except Unwritable:
        raise
    except NightglassError as error:
        outlet.put(memoryview(bytes(move.size - done)))
        return Fault(move.plane, move.file.stamp.path, str(error))
    return None


def _copied(move: Move, outlet: Outlet) -> Iterator[int]:
    """Move a plane as bytes; yield how many, piece by piece."""
    path, expected = move.file.stamp.path, move.source.datasum
    total, done = move.rest, 0
    with reading(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check_stamp(move.file.stamp, descriptor)
            while done < move.size:
                room = outlet.room[: move.size - done]
                count = os.preadv(descriptor, [room], move.source.offset + done)
                if not count:
                    message = f"{path} was cut after its headers were read"
                    raise Retryable(message, remedy=_CHANGED)
                if expected is not None:
                    total = add_sums(total, rotated(sum_block(room[:count]), move.lead + done))
                outlet.took(count)
                done += count
                yield count
            _check_stamp(move.file.stamp, descriptor)
        finally:
            os.close(descriptor)
    _compare_sums(path, move.source, total)


def _made(move: Move, outlet: Outlet, reader: PlaneReader) -> Iterator[int]:
    """Unpack a plane, bring it to the numbers of the cube, and move it."""
    source, stamp = move.source, move.file.stamp
    check_unchanged(stamp)
    stored = reader.read(move.file, source)
    check_datasum(stamp.path, source, stored)
    check_unchanged(stamp)
    outlet.put(as_bytes(convert_pixels(stored, source.format, move.target)).data)
    yield move.size


def check_datasum(path: Path, plane: Plane, stored: NDArray[Any] | None) -> None:
    """Compare the DATASUM of the HDU that is this plane with its bytes; without that card there is nothing to compare.

    Parameters
    ----------
    stored : array or None
        Numbers of the plane as they are stored; not needed for tiles, whose sum is that of the table and its heap.

    Raises
    ------
    Rejected
        If it is another.
    """
    if plane.datasum is None:
        return
    if stored is None or plane.encoding is Encoding.TILES:
        _compare_sums(path, plane, sum_range(path, plane.offset, plane.size))
    else:
        _compare_sums(path, plane, sum_block(as_bytes(stored)))


def _compare_sums(path: Path, plane: Plane, total: int) -> None:
    if plane.datasum is not None and plane.datasum % _ZERO != total % _ZERO:
        message = f"{path}: DATASUM of HDU {plane.hdu} is {plane.datasum}, its bytes give {total}"
        raise Rejected(message, remedy="transfer the file again")


def _check_stamp(stamp: Stamp, descriptor: int) -> None:
    found = os.fstat(descriptor)
    if (found.st_size, found.st_mtime_ns, found.st_ino) != (stamp.size, stamp.mtime_ns, stamp.inode):
        message = f"{stamp.path} has changed since its headers were read"
        raise Retryable(message, remedy=_CHANGED)


def check_unchanged(stamp: Stamp) -> None:
    """Compare a file with what it was when its headers were read.

    Raises
    ------
    Retryable
        If it has changed, or is gone.
    """
    with reading(stamp.path):
        descriptor = os.open(stamp.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check_stamp(stamp, descriptor)
    finally:
        os.close(descriptor)
