"""The file behind a backlog: messages that wait on the disk, in order, within a limit.

===== ========== ==========================================
bytes type       field
===== ========== ==========================================
4     uint32 LE  bytes of the message that follow (N)
4     uint32 LE  CRC-32 of everything behind this field
4     uint32 LE  number of the peer
8     float64 LE when it was received, seconds since 1970
8     uint64 LE  bytes that it counts as in memory
N     bytes      the message, as its protocol encodes it
===== ========== ==========================================

The files have no name in the directory, so that nothing is left of them at the end, or after a kill. What is in them
then is lost: it was never acknowledged by anybody.
"""

from __future__ import annotations

import logging
import struct
import tempfile
import zlib
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from nightglass.errors import Misconfigured
from nightglass.sensors.received import Received
from nightglass.streams import Decoder, StreamProtocol

__all__ = ["Dropped", "Spill"]

_log = logging.getLogger(__name__)

M = TypeVar("M")

_PREFIX = struct.Struct("<LL")
_FACTS = struct.Struct("<LdQ")
_HEAD_BYTES = _PREFIX.size + _FACTS.size
_SEGMENTS = 16
_SMALLEST_SEGMENT = 1 << 20
_MOST_PEERS = 4096
"""Senders whose names are kept; anybody can send datagrams from as many ports as there are."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Messages that had to go, and the bytes of memory that they counted as."""

    messages: int = 0
    size: int = 0

    def __add__(self, other: Dropped) -> Dropped:
        return Dropped(self.messages + other.messages, self.size + other.size)


@dataclass(slots=True)
class _Segment:
    file: BinaryIO
    start: int = 0
    stop: int = 0
    messages: int = 0
    size: int = 0


class Spill(Generic[M]):
    """Messages on the disk, first in first out; not thread-safe, its backlog sees to that.

    What a message was given by its way, as the note that bytes were skipped before it, does not come back.

    Parameters
    ----------
    directory : Path
        Where the files are; made if it is not there.
    protocol : StreamProtocol
        Encodes and decodes.
    limit_bytes : int
        What the messages on the disk may take; beyond it the oldest of them are dropped.

    Raises
    ------
    Misconfigured
        If no file can be made in the directory.
    """

    def __init__(self, directory: Path, protocol: StreamProtocol[M], *, limit_bytes: int) -> None:
        self._directory = directory
        self._protocol = protocol
        self._decoder: Decoder[M] = protocol.decoder()
        self._limit = limit_bytes
        self._segment_bytes = max(limit_bytes // _SEGMENTS, _SMALLEST_SEGMENT)
        self._segments: deque[_Segment] = deque()
        self._peers = ["?"]
        self._numbers: dict[str, int] = {}
        self.messages = 0
        self.bytes = 0
        self.trouble = ""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            message = f"{directory}: nothing can be spilt there: {error.strerror}"
            raise Misconfigured(message, remedy="name a directory that can be written, or another overflow") from error

    def append(self, received: Received[M]) -> tuple[bool, Dropped]:
        """Write a message behind the others; say whether that was possible, and what had to go for it.

        Where the disk is full, the oldest segment makes room; when none is left, the message cannot be taken.
        """
        data = self._encode(received)
        dropped = Dropped()
        while self.messages and self.bytes + len(data) > self._limit:
            dropped += self._skip()
        if len(data) > self._limit:
            return False, dropped
        while not self._write(data):
            if not self.messages:
                return False, dropped
            dropped += self._drop_segment()
        self.messages += 1
        self.bytes += len(data)
        self._segments[-1].messages += 1
        self._segments[-1].size += received.size
        return True, dropped

    def take(self) -> tuple[Received[M] | None, Dropped]:
        """Return the oldest message, and what could not be read before it."""
        dropped = Dropped()
        while self.messages:
            try:
                length, crc, facts, payload = self._read()
            except (OSError, struct.error) as error:
                _log.error("%s: what was spilt cannot be read: %s", self._directory, error)
                dropped += self._drop_segment()
                continue
            peer, moment, size = _FACTS.unpack(facts)
            self._advance(_HEAD_BYTES + length, size)
            if zlib.crc32(facts + payload) == crc and len(messages := self._decode(payload)) == 1:
                return Received(messages[0], self._peers[peer], datetime.fromtimestamp(moment, UTC), size), dropped
            dropped += Dropped(1, size)
        return None, dropped

    def close(self) -> None:
        """Give the disk back, with whatever is left."""
        while self._segments:
            self._segments.popleft().file.close()
        self.messages = self.bytes = 0

    def _open(self) -> None:
        self._segments.append(_Segment(tempfile.TemporaryFile(dir=self._directory, buffering=0)))  # noqa: SIM115

    def _encode(self, received: Received[M]) -> bytes:
        payload = self._protocol.encode(received.message)
        number = self._numbers.get(received.peer)
        if number is None and len(self._peers) < _MOST_PEERS:
            number = self._numbers[received.peer] = len(self._peers)
            self._peers.append(received.peer)
        number = number or 0
        facts = _FACTS.pack(number, received.received_at.timestamp(), received.size)
        return b"".join((_PREFIX.pack(len(payload), zlib.crc32(payload, zlib.crc32(facts))), facts, payload))

    def _decode(self, payload: bytes) -> list[M]:
        return [*self._decoder.feed(payload), *self._decoder.finish()]

    def _write(self, data: bytes) -> bool:
        """Write a record; where the disk refuses, the file is as it was before."""
        try:
            if not self._segments or self._segments[-1].stop >= self._segment_bytes:
                self._open()
            last = self._segments[-1]
            last.file.seek(last.stop)
            view = memoryview(data)
            while len(view):
                view = view[last.file.write(view) or 0 :]
        except OSError as error:
            if not self.trouble:
                _log.warning("%s: nothing more can be spilt there: %s", self._directory, error.strerror)
            self.trouble = f"{self._directory}: {error.strerror}"
            if self._segments:
                last = self._segments[-1]
                last.file.truncate(last.stop)
            return False
        last.stop += len(data)
        self.trouble = ""
        return True

    def _read(self) -> tuple[int, int, bytes, bytes]:
        first = self._segments[0]
        first.file.seek(first.start)
        head = first.file.read(_HEAD_BYTES)
        length, crc = _PREFIX.unpack_from(head)
        return length, crc, head[_PREFIX.size :], first.file.read(length)

    def _advance(self, count: int, size: int) -> None:
        first = self._segments[0]
        first.start += count
        first.messages -= 1
        first.size -= size
        self.messages -= 1
        self.bytes -= count
        if first.start >= first.stop:
            self._release()

    def _skip(self) -> Dropped:
        first = self._segments[0]
        try:
            first.file.seek(first.start)
            head = first.file.read(_HEAD_BYTES)
            length, (_, _, size) = _PREFIX.unpack_from(head)[0], _FACTS.unpack_from(head, _PREFIX.size)
        except (OSError, struct.error):
            return self._drop_segment()
        self._advance(_HEAD_BYTES + length, size)
        return Dropped(1, size)

    def _drop_segment(self) -> Dropped:
        first = self._segments[0]
        self.messages -= first.messages
        self.bytes -= first.stop - first.start
        dropped = Dropped(first.messages, first.size)
        self._release()
        return dropped

    def _release(self) -> None:
        """Give back the oldest file; the only one stays, and is emptied."""
        if len(self._segments) > 1:
            self._segments.popleft().file.close()
            return
        only = self._segments[0]
        self._segments[0] = _Segment(only.file)
        only.file.truncate(0)
