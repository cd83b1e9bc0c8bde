"""Runs of AstroPix readouts in ``.apx`` files.

====== ====== ========= ===============================================================
offset size   type      field
====== ====== ========= ===============================================================
0      6      ASCII     ``%APXDF``
6      4      uint32 LE bytes of the header that follows (H)
10     H      UTF-8     JSON object; `readout_uid` names the kind of readout, 4000 is
                        AstroPix 4; the rest is the configuration of the run
10+H   ...    bytes     readout packets, back to back
====== ====== ========= ===============================================================

The layout is that of astropix-analysis (`astropix_analysis/fileio.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nightglass.closing import Closing
from nightglass.errors import Rejected, Retryable
from nightglass.streams.astropix.packet import PacketDecoder, Readout
from nightglass.streams.decoding import Tally

__all__ = ["READOUT_UID_V4", "ApxReader", "ApxWriter", "encode_header", "read_header"]

_MAGIC = b"%APXDF"
_LENGTH_BYTES = 4
_MAX_HEADER_BYTES = 16 * 1024 * 1024
_PIECE = 1 << 20
READOUT_UID_V4 = 4000
"""AstroPix 4: the only kind that is defined."""


def encode_header(header: dict[str, Any]) -> bytes:
    """Return the head of a file.

    Raises
    ------
    Rejected
        If the header is no JSON, or does not name the kind of readout.
    """
    _check_uid(header, "the header")
    try:
        text = json.dumps(header, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        message = f"the header cannot be written as JSON: {error}"
        raise Rejected(message, remedy="keep to text, finite numbers, lists and mappings") from error
    if len(text) > _MAX_HEADER_BYTES:
        message = f"the header has {len(text)} bytes, more than {_MAX_HEADER_BYTES}"
        raise Rejected(message, remedy="keep large things in files of their own")
    return _MAGIC + len(text).to_bytes(_LENGTH_BYTES, "little") + text


def read_header(stream: BinaryIO, name: object) -> dict[str, Any]:
    """Read the head of a file, and leave the stream at the first packet.

    Raises
    ------
    Rejected
        If it is no such file, or of a kind that is not known.
    """
    start = stream.read(len(_MAGIC) + _LENGTH_BYTES)
    if len(start) < len(_MAGIC) + _LENGTH_BYTES or not start.startswith(_MAGIC):
        message = f"{name} is no .apx file: it begins with {start[: len(_MAGIC)]!r}, not {_MAGIC!r}"
        raise Rejected(message, remedy="look at what wrote it; a legacy file ends in .log")
    length = int.from_bytes(start[len(_MAGIC) :], "little")
    if length > _MAX_HEADER_BYTES:
        message = f"{name}: a header of {length} bytes is more than {_MAX_HEADER_BYTES}"
        raise Rejected(message, remedy="the file is damaged")
    text = stream.read(length)
    if len(text) < length:
        message = f"{name}: the header has {length} bytes, of which {len(text)} are there"
        raise Rejected(message, remedy="the file was cut off; copy it again")
    try:
        header = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        message = f"{name}: the header is no JSON: {error}"
        raise Rejected(message, remedy="the file is damaged") from error
    _check_uid(header, name)
    return dict(header)


def _check_uid(header: object, name: object) -> None:
    uid = header.get("readout_uid") if isinstance(header, dict) else None
    if uid != READOUT_UID_V4:
        message = f"{name}: readout_uid {uid!r} is not known"
        raise Rejected(message, remedy=f"only AstroPix 4 ({READOUT_UID_V4}) is defined")


class ApxReader(Closing):
    """Reads a file piece by piece; a context manager, and an iterable of readouts.

    Damaged packets are skipped and counted. After the last readout the tally says whether the file was torn.

    Parameters
    ----------
    path : Path

    Raises
    ------
    Rejected
        If it is no such file, or of a kind that is not known.
    Retryable
        If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._stream = path.open("rb")
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror}"
            raise Retryable(message, remedy="check the name and the rights of the file") from error
        self._decoder = PacketDecoder()
        try:
            self.header = read_header(self._stream, path)
        except BaseException:
            self._stream.close()
            raise

    @property
    def tally(self) -> Tally:
        """What was read, skipped and torn."""
        return self._decoder.tally

    def pieces(self) -> Iterator[list[Readout]]:
        """Yield the readouts in lists, about a mebibyte at a time."""
        while count := self._stream.readinto(buffer := self._decoder.get_buffer()[:_PIECE]):
            del buffer
            yield self._decoder.buffer_updated(count)
        yield self._decoder.finish()

    def __iter__(self) -> Iterator[Readout]:
        for piece in self.pieces():
            yield from piece

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class ApxWriter(Closing):
    """Appends readouts to a file, which it makes if it is not there; a context manager.

    The file is locked against other writers. What a crash left of a packet at the end of an existing file is cut off
    first, so that what is appended can be read; every readout goes to the system in one piece.

    Parameters
    ----------
    path : Path
    header : dict
        For a new file. That of an existing one stays as it is.

    Raises
    ------
    Rejected
        If the file is something else, or the header cannot be written.
    Retryable
        If somebody else writes to it, or the file system refuses.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self._path = path
        head = encode_header(header)
        with _told(path):
            self._stream = path.open("a+b", buffering=0)
        self.cut_bytes = 0
        try:
            with _told(path):
                fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(self._stream.fileno()).st_size == 0:
                    self._put(head)
                else:
                    self._mend()
        except BaseException:
            self._stream.close()
            raise

    def write(self, readouts: Iterable[Readout]) -> None:
        """Append readouts."""
        with _told(self._path):
            self._put(b"".join([readout.to_bytes() for readout in readouts]))

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        with _told(self._path):
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file, and let others write."""
        self._stream.close()

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while len(view):
            view = view[self._stream.write(view) or 0 :]

    def _mend(self) -> None:
        """Cut off what is behind the last whole packet; garbage between packets is left, for readers skip it."""
        self._stream.seek(0)
        read_header(self._stream, self._path)
        start = self._stream.tell()
        decoder = PacketDecoder()
        size = start
        while piece := self._stream.read(_PIECE):
            size += len(piece)
            decoder.feed(piece)
        decoder.finish()
        self.cut_bytes = decoder.tail
        if self.cut_bytes:
            self._stream.truncate(size - self.cut_bytes)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what the system says into an error with a remedy."""
    try:
        yield
    except BlockingIOError as error:
        message = f"{path} is being written by another process"
        raise Retryable(message, remedy="wait until it has ended, or write to another file") from error
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}"
        raise Retryable(message, remedy="check the disk and the rights of the directory") from error
