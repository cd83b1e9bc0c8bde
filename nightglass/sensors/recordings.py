"""Recordings: the bytes of a stream as they came, before anything looked at them, with the time of each piece.

====== ========= ====================================================================
size   type      field
====== ========= ====================================================================
...    JSON      one line: ``nightglass_recording`` 1, protocol, endpoints, when it began
then for each piece
4      uint32 LE bytes that follow the fixed fields (N)
4      uint32 LE CRC-32 of everything behind this field
8      uint64 LE nanoseconds since the beginning
2      uint16 LE number of the endpoint
N      bytes     one datagram, or as much of a connection as came at once; none: the
                 connection ended
====== ========= ====================================================================

A recording can be read while it is written, and up to where a crash cut it off.
"""

from __future__ import annotations

import json
import logging
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from nightglass.closing import Closing
from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.sensors.endpoints import Endpoint, parse_endpoint

__all__ = ["Piece", "Recorder", "Recording", "read_recording"]

_log = logging.getLogger(__name__)

_KEY = "nightglass_recording"
_VERSION = 1
_HEAD_LIMIT = 64 * 1024
_PREFIX = struct.Struct("<LL")
_FACTS = struct.Struct("<QH")
_FIXED = _PREFIX.size + _FACTS.size
_PIECE_LIMIT = 16 << 20
_FLUSH_S = 1.0


@dataclass(frozen=True, slots=True)
class Piece:
    """What came at once.

    Attributes
    ----------
    at_ns : int
        Since the beginning of the recording.
    endpoint : int
        Its number.
    data : bytes
        Empty where a connection ended.
    """

    at_ns: int
    endpoint: int
    data: bytes


class Recorder(Closing):
    """Writes a recording; thread-safe, and a context manager.

    A disk that refuses ends the recording, and nothing else: what was written stays, `trouble` says why.

    Parameters
    ----------
    path : Path
        Must not be there.
    protocol : str
    endpoints : sequence of str
        Their places are the numbers of pieces.
    limit_bytes : int
        The file does not grow beyond; 0: no limit.

    Raises
    ------
    Retryable
        If the file cannot be made.
    """

    def __init__(self, path: Path, *, protocol: str, endpoints: tuple[str, ...], limit_bytes: int = 0) -> None:
        self._path = path
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._began = time.monotonic_ns()
        self._flushed = time.monotonic()
        self.trouble = ""
        self.pieces = 0
        head = {_KEY: _VERSION, "protocol": protocol, "endpoints": endpoints, "began": datetime.now(UTC).isoformat()}
        try:
            self._stream: BinaryIO = path.open("xb")
            self.size = self._stream.write(json.dumps(head).encode() + b"\n")
            self._stream.flush()
        except OSError as error:
            message = f"{path} cannot be recorded to: {error.strerror}"
            raise Retryable(message, remedy="name a file that is not there yet, on a disk with room") from error

    def tap(self, endpoint: int) -> Callable[[memoryview], None]:
        """Return what takes the bytes of an endpoint."""

        def take(data: memoryview) -> None:
            for start in range(0, len(data) or 1, _PIECE_LIMIT):
                self.write(endpoint, data[start : start + _PIECE_LIMIT])

        return take

    def write(self, endpoint: int, data: memoryview | bytes) -> None:
        """Append what came at once."""
        with self._lock:
            if self.trouble:
                return
            if self._limit and self.size + _FIXED + len(data) > self._limit:
                self.trouble = f"{self._path} has reached its limit of {self._limit} bytes"
                return
            facts = _FACTS.pack(time.monotonic_ns() - self._began, endpoint)
            prefix = _PREFIX.pack(len(data), zlib.crc32(data, zlib.crc32(facts)))
            try:
                self._stream.write(prefix + facts)
                self._stream.write(data)
                if time.monotonic() - self._flushed > _FLUSH_S:
                    self._stream.flush()
                    self._flushed = time.monotonic()
            except OSError as error:
                self.trouble = f"{self._path}: {error.strerror}"
                _log.error("the recording ends: %s", self.trouble)
                return
            self.pieces += 1
            self.size += _FIXED + len(data)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            try:
                self._stream.close()
            except OSError as error:
                self.trouble = self.trouble or f"{self._path}: {error.strerror}"


@dataclass(slots=True)
class Recording:
    """A recording that is read.

    Attributes
    ----------
    protocol : str
    endpoints : tuple of Endpoint
    began : datetime
        Aware, UTC.
    problem : str
        Why it ended before its end; known when the last piece was taken.
    """

    path: Path
    protocol: str
    endpoints: tuple[Endpoint, ...]
    began: datetime
    start: int
    problem: str = ""

    def pieces(self) -> Iterator[Piece]:
        """Yield the pieces, up to where the file is torn or damaged."""
        with self.path.open("rb") as stream:
            stream.seek(self.start)
            while head := stream.read(_FIXED):
                if len(head) < _FIXED:
                    self.problem = f"{self.path} was cut off"
                    return
                length, crc = _PREFIX.unpack_from(head)
                if length > _PIECE_LIMIT:
                    self.problem = f"{self.path} is damaged: a piece of {length} bytes"
                    return
                data = stream.read(length)
                if len(data) < length:
                    self.problem = f"{self.path} was cut off"
                    return
                if zlib.crc32(data, zlib.crc32(head[_PREFIX.size :])) != crc:
                    self.problem = f"{self.path} is damaged before byte {stream.tell()}"
                    return
                at_ns, endpoint = _FACTS.unpack_from(head, _PREFIX.size)
                if endpoint >= len(self.endpoints):
                    self.problem = f"{self.path} is damaged: there is no endpoint {endpoint}"
                    return
                yield Piece(at_ns, endpoint, data)


def read_recording(path: Path) -> Recording:
    """Read the head of a recording.

    Raises
    ------
    Rejected
        If it is none.
    Retryable
        If it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            line = stream.readline(_HEAD_LIMIT)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise Retryable(message, remedy="check the name and the rights of the file") from error
    try:
        head = json.loads(line.decode())
        return Recording(path, *_checked(head), len(line))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Misconfigured) as error:
        message = f"{path} is no recording: it begins with {line[:24]!r}"
        raise Rejected(message, remedy="name a file that `nightglass record` wrote") from error


def _checked(head: dict[str, Any]) -> tuple[str, tuple[Endpoint, ...], datetime]:
    if head[_KEY] != _VERSION:
        message = f"version {head[_KEY]!r} of recordings is not known"
        raise ValueError(message)
    return str(head["protocol"]), tuple(map(parse_endpoint, head["endpoints"])), datetime.fromisoformat(head["began"])
