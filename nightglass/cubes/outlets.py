"""Where moved bytes leave: collected in one buffer, summed while they are in the cache, written piece by piece.

Bytes that are to be on the disk before anybody relies on them go there past the page cache where the file system can
do that (``O_DIRECT``, open(2)): they are not copied once more, they push nothing out that others read, and the sync at
the end has nothing left to wait for.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Final

from nightglass.cubes.sums import rotated, sum_block
from nightglass.errors import Retryable
from nightglass.fitsio.checksums import add_sums
from nightglass.fitsio.filling import write_at

__all__ = ["Outlet", "PartFile", "Unwritable", "is_uncached", "opened_part", "read_uncached"]

_BUFFER: Final = 1 << 20
"""Bytes: they stay in the cache from reading to writing. A multiple of 4: what is read back has whole words."""
_PAGE: Final = mmap.PAGESIZE
"""Places, lengths and memory of what goes past the page cache are multiples of it; no known device wants more."""
_UNABLE: Final = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)


class Unwritable(Retryable):
    """The cube cannot be written: no fault of any frame."""

    def __init__(self, part: Path, error: OSError) -> None:
        message = f"{part} cannot be written: {error.strerror or error}"
        super().__init__(message, remedy="make room on the disk, and check the rights of the directory")


class PartFile:
    """A file that is there already, open for writing in places."""

    def __init__(self, path: Path, descriptor: int, uncached: int | None) -> None:
        self._path, self._descriptor, self._uncached = path, descriptor, uncached

    def outlet(self, offset: int) -> Outlet:
        """Return what writes one byte after the other, beginning at a place."""
        place = offset

        def write(piece: memoryview) -> None:
            nonlocal place
            self.write(piece, place)
            place += len(piece)

        return Outlet(write, first=-offset % _PAGE)  # after a short piece all begin at a page

    def write(self, piece: memoryview, offset: int) -> None:
        """Write all of a piece.

        Raises
        ------
        Unwritable
            If the file system refuses.
        """
        try:
            whole = len(piece) - len(piece) % _PAGE if offset % _PAGE == 0 else 0
            done = self._write_uncached(piece[:whole], offset) if whole else 0
            write_at(self._descriptor, piece[done:], offset + done)
        except OSError as error:
            raise Unwritable(self._path, error) from error

    def _write_uncached(self, piece: memoryview, offset: int) -> int:
        """Write whole pages past the cache; return how many bytes, fewer where that is not possible here."""
        done = 0
        while self._uncached is not None and done < len(piece) and done % _PAGE == 0:
            try:
                done += os.pwrite(self._uncached, piece[done:], offset + done)
            except OSError as error:
                if error.errno not in _UNABLE:
                    raise
                break
        return done


@contextlib.contextmanager
def opened_part(path: Path, *, durable: bool) -> Iterator[PartFile]:
    """Open a file for writing in places.

    Parameters
    ----------
    durable : bool
        Whether it will be synced: what can go straight to the disk then does.

    Raises
    ------
    Unwritable
        If it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Unwritable(path, error) from error
    uncached = _open_uncached(path, os.O_WRONLY) if durable else None
    try:
        yield PartFile(path, descriptor, uncached)
    finally:
        os.close(descriptor)
        if uncached is not None:
            os.close(uncached)


def is_uncached(path: Path) -> bool:
    """Tell whether bytes can get into a file past the page cache."""
    descriptor = _open_uncached(path, os.O_WRONLY)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


class Outlet:
    """Collects pieces of any length in one buffer; sums and writes it whenever it is full.

    Parameters
    ----------
    write : callable
        Takes the buffers, one after the other.
    first : int
        Bytes of the first one, from which on all are full; 0: it is full, too.
    """

    def __init__(self, write: Callable[[memoryview], None], *, first: int = 0) -> None:
        self._write = write
        self._buffer = memoryview(mmap.mmap(-1, _BUFFER))  # begins at a page
        self._size = first or _BUFFER
        self._filled = 0
        self._done = 0
        self._total = 0

    @property
    def room(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        if self._filled == self._size:
            self._flush()
        return self._buffer[self._filled : self._size]

    def took(self, count: int) -> None:
        """Take note of bytes that were put there."""
        self._filled += count

    def put(self, data: memoryview) -> None:
        """Take bytes of any length."""
        while len(data):
            room = self.room[: len(data)]
            room[:] = data[: len(room)]
            self.took(len(room))
            data = data[len(room) :]

    def finish(self) -> int:
        """Write what is left, and return the sum of all."""
        self._flush()
        return self._total

    def _flush(self) -> None:
        piece = self._buffer[: self._filled]
        self._total = add_sums(self._total, rotated(sum_block(piece), self._done))
        self._write(piece)
        self._done += len(piece)
        self._filled, self._size = 0, _BUFFER


def read_uncached(path: Path, offset: int, size: int) -> Generator[memoryview]:
    """Yield part of a file, piece by piece, from the disk where the file system can do that, else from the cache.

    Each piece is valid until the next one is asked for, and all but the last have whole words.

    Parameters
    ----------
    offset : int
        A multiple of 4.

    Raises
    ------
    OSError
        If it cannot be read; a file that ends early just yields less.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    uncached = _open_uncached(path, os.O_RDONLY)
    buffer = memoryview(mmap.mmap(-1, _BUFFER))
    try:
        place, end = offset, offset + size
        while place < end:
            start = place - place % _PAGE
            count = _read(uncached, descriptor, buffer, start)
            piece = buffer[place - start : min(count, end - start)]
            if not len(piece):
                return
            yield piece
            place += len(piece)
    finally:
        os.close(descriptor)
        if uncached is not None:
            os.close(uncached)


def _read(uncached: int | None, descriptor: int, buffer: memoryview, start: int) -> int:
    """Fill a buffer, as far as the file goes."""
    done = 0
    while done < len(buffer):
        # after the odd end of a file nothing is aligned any more, nor is there anything
        direct = uncached is not None and done % _PAGE == 0
        try:
            count = os.preadv(
                uncached if direct and uncached is not None else descriptor, [buffer[done:]], start + done
            )
        except OSError as error:
            if not direct or error.errno not in _UNABLE:
                raise
            uncached = None
            continue
        if not count:
            break
        done += count
    return done


def _open_uncached(path: Path, mode: int) -> int | None:
    """Open a file past the page cache; None where the file system cannot do that."""
    try:
        return os.open(path, mode | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _UNABLE:
            return None
        raise
