"""AstroPix readout packets: one in a datagram, or back to back in ``.apx`` files.

====== ====== ========= ===============================================
offset size   type      field
====== ====== ========= ===============================================
0      3      bytes     ``fe dc ba``
3      4      uint32 LE readout id, sequential, set by the host
7      8      uint64 LE nanoseconds since 1970 UTC, by the host's clock
15     4      uint32 LE bytes of data that follow (N)
19     N      bytes     what the chip sent: idle bytes, padding, hits
====== ====== ========= ===============================================

There is no checksum. The layout is that of astropix-analysis (`astropix_analysis/fmt.py`).
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from nightglass.errors import Rejected
from nightglass.streams.decoding import BufferedDecoder, Bytes

__all__ = ["MAX_READOUT_BYTES", "PACKET_BYTES", "PacketDecoder", "PacketFault", "Readout", "parse_packet"]

_MAGIC = b"\xfe\xdc\xba"
_LAYOUT = struct.Struct("<3sLQL")
PACKET_BYTES = _LAYOUT.size
"""Bytes before the data."""
MAX_READOUT_BYTES = 64 * 1024
"""What a datagram can hold, and sixteen times what the DAQ sends; a greater length is garbage."""


class PacketFault(enum.Flag):
    """Why bytes are no readout packet."""

    BAD_MAGIC = enum.auto()
    """Something else stands where a packet ought to begin."""
    BAD_LENGTH = enum.auto()
    """It says another length than it has, or one above the limit."""
    TOO_SHORT = enum.auto()
    """A datagram that does not even hold the fields before the data."""


@dataclass(frozen=True, slots=True)
class Readout:
    """One readout as it came.

    Attributes
    ----------
    readout_id : int
        Counts up by one, modulo 2^32.
    timestamp_ns : int
        Nanoseconds since 1970 UTC; 0 in files that were made of legacy logs.
    data : bytes
        The host's program cuts the padding off the end, and may have cut the end of a hit with it.
    """

    readout_id: int
    timestamp_ns: int
    data: bytes

    def to_bytes(self) -> bytes:
        """Return the packet."""
        return _LAYOUT.pack(_MAGIC, self.readout_id, self.timestamp_ns, len(self.data)) + self.data


def parse_packet(packet: Bytes, *, limit: int = MAX_READOUT_BYTES) -> Readout:
    """Read one packet that is there as a whole, as in a datagram.

    Raises
    ------
    Rejected
        If it is too short, has another magic, or its length does not agree.
    """
    fault = _fault(packet, limit)
    if fault is not None:
        message = f"{len(packet)} bytes, beginning with {bytes(packet[:PACKET_BYTES]).hex()}: {fault.name}"
        raise Rejected(message, remedy="only AstroPix readout packets belong here; look at the sender")
    return _unpack(packet)


class PacketDecoder(BufferedDecoder[Readout]):
    """Turns datagrams, or the bytes of a file, into readouts.

    In a file a packet is given out when what follows it is the magic of the next, or the end (`finish`): a length that
    was garbled is noticed by that, and the packets that it would swallow are found inside.

    Parameters
    ----------
    limit : int
        Bytes of data beyond which a length is garbage.
    """

    def __init__(self, *, limit: int = MAX_READOUT_BYTES) -> None:
        super().__init__()
        self._limit = limit
        self._reach = 2 * (PACKET_BYTES + limit + len(_MAGIC))
        self._buffer = bytearray(2 * self._reach)
        self._start = self._stop = 0
        self._lost = False
        self._tail = 0

    @property
    def tail(self) -> int:
        """Bytes of a torn packet that were left at the end of the last stream."""
        return self._tail

    def get_buffer(self, sizehint: int = -1) -> memoryview:  # noqa: ARG002 - asyncio passes it
        """Return where the next bytes belong."""
        if self._start:
            held = self._stop - self._start
            self._buffer[:held] = self._buffer[self._start : self._stop]
            self._start, self._stop = 0, held
        return memoryview(self._buffer)[self._stop :]

    def buffer_updated(self, count: int) -> list[Readout]:
        """Take note of bytes in the buffer, and return the readouts that are now known to be whole."""
        self._tally.received += count
        self._stop += count
        return self._scan(ended=False)

    def finish(self) -> list[Readout]:
        """Return the last readout, and count what is left of a torn one."""
        readouts = self._scan(ended=True)
        self._tail = held = self._stop - self._start
        self._tally.truncated += held > 0 and not self._lost
        self._tally.skipped += held
        self._start = self._stop = 0
        self._lost = False
        return readouts

    def datagram(self, data: Bytes) -> list[Readout]:
        """Take one datagram; a bad one gives none, and is counted."""
        self._tally.received += len(data)
        fault = _fault(data, self._limit)
        if fault is not None:
            self._tally.note(fault)
            self._tally.skipped += len(data)
            return []
        self._tally.messages += 1
        return [_unpack(data)]

    def _scan(self, *, ended: bool) -> list[Readout]:
        readouts = []
        while (size := self._size(ended=ended)) is not None:
            if isinstance(size, PacketFault):
                if not self._lost or size is not PacketFault.BAD_MAGIC:
                    self._tally.note(size)
                self._lost = True
                self._seek()
                continue
            readouts.append(_unpack(memoryview(self._buffer)[self._start : self._start + size]))
            self._start += size
            self._tally.messages += 1
            self._tally.resynchronised += self._lost
            self._lost = False
        return readouts

    def _size(self, *, ended: bool) -> int | PacketFault | None:
        """Return the bytes of the packet at the start, what is wrong with it, or None when more bytes are needed."""
        start, held = self._start, self._stop - self._start
        if held < len(_MAGIC):
            return None
        if not self._buffer.startswith(_MAGIC, start, self._stop):
            return PacketFault.BAD_MAGIC
        if held < PACKET_BYTES:
            return None
        size = PACKET_BYTES + int.from_bytes(self._buffer[start + 15 : start + PACKET_BYTES], "little")
        if size > PACKET_BYTES + self._limit:
            return PacketFault.BAD_LENGTH
        if held < size + len(_MAGIC) and not ended:
            return None
        after = start + size
        if after == self._stop or self._buffer.startswith(_MAGIC, after, self._stop):
            return size
        # Garbage follows, or the length is garbled. Where the place was lost, it was no packet at all; else it depends
        # on whether another one lies inside, and that must not depend on how much happens to be here.
        if self._lost:
            return PacketFault.BAD_LENGTH
        if held < self._reach and not ended:
            return None
        overlap = after + len(_MAGIC) - 1
        if self._holds_packet(start + 1, min(overlap, self._stop), min(start + self._reach, self._stop)):
            return PacketFault.BAD_LENGTH
        return size if after <= self._stop else None

    def _holds_packet(self, start: int, stop: int, bound: int) -> bool:
        """Tell whether a packet begins within a range that is followed by another, or by the end, up to the bound."""
        place = self._buffer.find(_MAGIC, start, stop)
        while place >= 0:
            length = int.from_bytes(self._buffer[place + 15 : place + PACKET_BYTES], "little")
            after = place + PACKET_BYTES + length
            followed = after == self._stop or self._buffer.startswith(_MAGIC, after, bound)
            if followed and length <= self._limit:
                return True
            place = self._buffer.find(_MAGIC, place + 1, stop)
        return False

    def _seek(self) -> None:
        """Skip to the next magic behind the start, or to the bytes that may be the beginning of one."""
        place = self._buffer.find(_MAGIC, self._start + 1, self._stop)
        if place < 0:
            place = self._stop - len(_MAGIC) + 1
        self._tally.skipped += place - self._start
        self._start = place


def _fault(packet: Bytes, limit: int) -> PacketFault | None:
    if len(packet) < PACKET_BYTES:
        return PacketFault.TOO_SHORT
    magic, _, _, length = _LAYOUT.unpack_from(packet)
    if magic != _MAGIC:
        return PacketFault.BAD_MAGIC
    return None if length == len(packet) - PACKET_BYTES <= limit else PacketFault.BAD_LENGTH


def _unpack(packet: Bytes) -> Readout:
    _, readout_id, timestamp_ns, _ = _LAYOUT.unpack_from(packet)
    return Readout(readout_id, timestamp_ns, bytes(packet[PACKET_BYTES:]))
