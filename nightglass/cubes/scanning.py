"""The headers of frames as they stand in their files, and where the data are: what a survey begins with."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from nightglass.config import Limits
from nightglass.cubes.geometry import data_size
from nightglass.cubes.headers import read_header
from nightglass.cubes.records import FrameFile, HduText, Problem, Stamp
from nightglass.errors import NightglassError, Rejected, Retryable
from nightglass.fitsio.cards import BLOCK, CARD
from nightglass.fitsio.headers import stream_limit
from nightglass.fitsio.sources import ByteSource, open_source, reading

__all__ = ["scan_file", "scan_files"]

_FIRST: Final = 2 * BLOCK
"""Bytes of the first read: most headers, and no more of the pixels than that."""
_MORE: Final = 16 * BLOCK
_HEADER_BYTES: Final = 64 << 20
"""Of all headers of a file together: far beyond any camera, and little memory."""
_MEMORY: Final = 4096
"""Begins of headers whose size of data is remembered."""
_AGAIN: Final = "it is tried again when the file changes"

_ReadAt = Callable[[int, int], bytes]
"""Gives so many bytes (fewer at the end) from an offset, which never goes back beyond the former one."""


def scan_file(path: Path, limits: Limits) -> FrameFile:
    """Read the headers of a file, plain or gzip, and find its data.

    Raises
    ------
    Rejected
        If it is not FITS, or malformed, or beyond the limits.
    Retryable
        If it is gone, or shorter than its headers say.
    """
    return _Scanner(limits).scan(path)


def scan_files(paths: Sequence[Path], limits: Limits) -> tuple[FrameFile | Problem, ...]:
    """Read the headers of many files; one that cannot be read is a `Problem` in its place."""
    scanner = _Scanner(limits)
    return tuple(scanner.scan_or_tell(path) for path in paths)


class _Scanner:
    """Reads one file after the other, and remembers how many bytes follow after headers that begin alike."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sizes: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})

    def scan_or_tell(self, path: Path) -> FrameFile | Problem:
        try:
            return self.scan(path)
        except NightglassError as error:
            return Problem(path, str(error))

    def scan(self, path: Path) -> FrameFile:
        with reading(path):
            # without waiting for the writer of a pipe
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                found = os.fstat(descriptor)
                if stat.S_ISDIR(found.st_mode):
                    raise IsADirectoryError
                if not stat.S_ISREG(found.st_mode):
                    message = f"{path} is no regular file"
                    raise Rejected(message, remedy="only files are frames")
                first = os.pread(descriptor, _FIRST, 0)
                stamp = Stamp(path, found.st_size, found.st_mtime_ns, found.st_ino)
                if first[:6] == b"SIMPLE":
                    walk = _Walk(path, self._limits, found.st_size, _plain(descriptor), self._size)
                    return FrameFile(stamp, walk.hdus(first))
            finally:
                os.close(descriptor)
        return self._scan_stream(path, stamp)

    def _scan_stream(self, path: Path, stamp: Stamp) -> FrameFile:
        """Read a gzip file, or say what is wrong with one that is neither."""
        with open_source(path, limit=stream_limit(self._limits)) as source:
            stream = _Stream(source)
            first = stream.read(_FIRST, 0)
            _check_magic(path, first)
            hdus = _Walk(path, self._limits, None, stream.read, self._size).hdus(first)
            return FrameFile(stamp, hdus, gzip=source.compressed)

    def _size(self, text: bytes, index: int) -> int:
        """Return the size of the data, from the mandatory keywords alone where these are in their places."""
        begin = _begin(text, index)
        size = self._sizes[bool(index)].get(begin)
        if size is None:
            size = data_size(read_header(text), index)
            if len(self._sizes[bool(index)]) < _MEMORY and _in_order(begin, index):
                self._sizes[bool(index)][begin] = size
        return size


def _plain(descriptor: int) -> _ReadAt:
    return lambda count, offset: os.pread(descriptor, count, offset)


class _Stream:
    """A source that only goes forward, read as if by offsets; keeps what was read ahead."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._held = b""
        self._start = 0

    def read(self, count: int, offset: int) -> bytes:
        ahead = offset - self._start
        if ahead > len(self._held):
            self._source.skip(ahead - len(self._held))
            self._held = b""
        else:
            self._held = self._held[ahead:]
        self._start = offset
        if count > len(self._held):
            self._held += self._source.read(count - len(self._held))
        return self._held[:count]


class _Walk:
    """The way from header to header of one file."""

    def __init__(
        self, path: Path, limits: Limits, size: int | None, read: _ReadAt, measure: Callable[[bytes, int], int]
    ) -> None:
        self._path = path
        self._limits = limits
        self._size = size
        self._read = read
        self._measure = measure
        self._left = _HEADER_BYTES

    def hdus(self, first: bytes) -> tuple[HduText, ...]:
        found: list[HduText] = []
        held, offset = first, 0
        while True:
            text = self._header(held, offset, len(found))
            try:
                size = self._measure(text, len(found))
            except Rejected as error:
                message = f"{self._path}: {error.message}"
                raise Rejected(message, remedy=error.remedy) from error
            start = offset + len(text)
            self._check_end(start + size)
            found.append(HduText(text, start, size))
            offset = start + -(-size // BLOCK) * BLOCK
            if self._size is not None and offset >= self._size:
                return tuple(found)
            held = self._read(_FIRST, offset)
            if not held or held[:9] != b"XTENSION="[: len(held)]:
                return tuple(found)  # what follows the last HDU is fill, or special records
            if len(found) >= self._limits.hdus:
                message = f"{self._path} has more than {self._limits.hdus} HDUs"
                raise Rejected(message, remedy="raise limits.hdus if such files are wanted")

    def _check_end(self, end: int) -> None:
        if self._size is None:
            if end and not self._read(1, end - 1):
                message = f"{self._path}: still growing, it ends before {end} uncompressed bytes"
                raise Retryable(message, remedy=_AGAIN)
        elif end > self._size:
            message = f"{self._path}: still growing, {self._size} of {end} bytes"
            raise Retryable(message, remedy=_AGAIN)

    def _header(self, held: bytes, offset: int, index: int) -> bytes:
        """Return the blocks of a header."""
        searched = 0
        room = min(self._limits.header_blocks * BLOCK, self._left)
        while (end := _find_end(held, searched)) < 0:
            searched = len(held) // CARD * CARD
            if len(held) >= room:
                message = f"{self._path}: the header of HDU {index} has no END within {room // BLOCK} blocks"
                raise Rejected(message, remedy="raise limits.header_blocks if such headers are wanted")
            more = self._read(min(len(held) + _MORE, room), offset)
            if len(more) <= len(held):
                raise self._unfinished(offset + len(held), index)
            held = more
            if not held[searched:].strip(b"\0"):
                message = f"{self._path}: still growing, the header of HDU {index} goes on with zeros"
                raise Retryable(message, remedy=_AGAIN)
        length = -(-(end + CARD) // BLOCK) * BLOCK
        if length > len(held):
            held = self._read(length, offset)
            if length > len(held):
                raise self._unfinished(offset + len(held), index)
        if length > room:
            message = f"{self._path}: its headers take more than {_HEADER_BYTES >> 20} MiB"
            raise Rejected(message, remedy="split it into several files")
        self._left -= length
        return held[:length]

    def _unfinished(self, position: int, index: int) -> Retryable:
        message = f"{self._path}: still growing, it ends at {position} in the header of HDU {index}"
        return Retryable(message, remedy=_AGAIN)


def _find_end(text: bytes, start: int) -> int:
    """Return where the END card begins, -1 if it is not there."""
    place = text.find(b"END", start)
    while place >= 0:
        if (
            place % CARD == 0
            and text[place + 3 : place + 8].rstrip(b" \0") == b""
            and text[place + 8 : place + 9] != b"="
        ):
            return place if place + CARD <= len(text) else -1
        place = text.find(b"END", place + 1)
    return -1


def _begin(text: bytes, index: int) -> bytes:
    """Return the cards that tell the size of the data where they are in the order of the standard."""
    try:
        axes = int(text[2 * CARD + 10 : 2 * CARD + 30])
    except ValueError:
        return b""
    return text[CARD : (3 + axes + (2 if index else 0)) * CARD] if 0 <= axes <= 9 else b""


def _in_order(begin: bytes, index: int) -> bool:
    """Tell whether a begin of a header holds all on which the size of the data depends."""
    axes = len(begin) // CARD - (4 if index else 2)
    wanted = [b"BITPIX  = ", b"NAXIS   = ", *(b"NAXIS%d  = " % axis for axis in range(1, axes + 1))]
    wanted += [b"PCOUNT  = ", b"GCOUNT  = "] if index else []
    if any(not begin.startswith(start, place * CARD) for place, start in enumerate(wanted)):
        return False
    return bool(index) or read_header(begin).get("NAXIS1") != 0  # random groups say more in other places


def _check_magic(path: Path, first: bytes) -> None:
    if not first:
        message = f"{path} is empty"
        raise Retryable(message, remedy=_AGAIN)
    if first[:6] == b"SIMPLE"[: len(first)]:
        return
    if not first.strip(b"\0"):
        message = f"{path}: still growing, it begins with zeros"
        raise Retryable(message, remedy=_AGAIN)
    message = f"{path} is not FITS: it begins with {first[:16]!r}, not with SIMPLE"
    raise Rejected(message, remedy=_AGAIN)
