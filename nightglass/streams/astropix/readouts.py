"""AstroPix 4 readouts: hits among idle bytes and padding, also those that are cut in two by the end of a readout."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nightglass.streams.astropix.hits import HIT_BYTES, encode_hits, read_hits
from nightglass.streams.astropix.packet import Readout

__all__ = [
    "IDLE",
    "PADDING",
    "ByteRole",
    "Decoded",
    "HitDecoder",
    "LeftOver",
    "ReadoutStatus",
    "encode_readout",
]

IDLE = 0xBC
"""What the chip sends while it has nothing to say."""
PADDING = 0xFF
"""What the DAQ fills its buffer with."""
_IDS = 1 << 32


class ReadoutStatus(enum.IntFlag):
    """What was noteworthy in a readout; the first eight bits are those of astropix-analysis."""

    OK = 0
    ORPHAN_BYTES_MATCHED = 1
    """Bytes before the first start completed the last hit of the readout before."""
    ORPHAN_BYTES_DROPPED = 2
    """They did not fit what the readout before had left over."""
    ORPHAN_BYTES_NOT_USED = 4
    """The readout before had left nothing over, or is missing."""
    VALID_EXTRA_BYTES = 8
    """The readout ends inside a hit; the next one may complete it."""
    INVALID_EXTRA_BYTES = 16
    """The readout ends in bytes that begin no hit."""
    INCOMPLETE_HIT_DROPPED = 32
    """Bytes were dropped: a hit that another one cut short, or what stands where a start ought to be."""
    NOT_ALL_BYTES_VISITED = 64
    """Never set here: every byte has its role."""
    UNKNOWN_FATAL_ERROR = 128
    """Never set here: there is none."""
    EXTRA_BYTES_LOST = 256
    """What the readout before had left over was not completed by this one."""
    PADDING_RESTORED = 512
    """It was completed with padding (`LeftOver.RESTORE`)."""


class ByteRole(enum.IntEnum):
    """What each byte of a readout was taken for."""

    NOT_ASSIGNED = 0
    PADDING = 1
    IDLE = 2
    HIT_START = 3
    HIT = 4
    EXTRA = 5
    ORPHAN = 6
    DROPPED = 7


class LeftOver(enum.StrEnum):
    """What becomes of the start of a hit that the next readout does not complete."""

    DROP = "drop"
    """It is lost, and counted."""
    RESTORE = "restore"
    """It is completed with ``ff``: the programs that write readouts cut padding off the end, and with it the last bytes
    of a hit that happen to be ``ff``. Right for those, wrong for a hit that was really cut."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """The hits of a run of readouts.

    Attributes
    ----------
    hits : ndarray of HIT_DTYPE, (hits,)
        In the order in which they were read. A hit that was cut in two belongs to the readout that completes it.
    status : ndarray of uint16, (readouts,)
        Bits of `ReadoutStatus`.
    roles : ndarray of uint8, (bytes,)
        `ByteRole` of every byte, readouts one behind the other.
    """

    hits: NDArray[np.void]
    status: NDArray[np.uint16]
    roles: NDArray[np.uint8]


class HitDecoder:
    """Decodes readouts in order, and keeps what one of them leaves over for the next.

    Making one takes about a second in a fresh process, which loads the compiled kernel, and several where nobody
    compiled it before; decoding takes no such time.

    Parameters
    ----------
    left_over : LeftOver
        What becomes of a cut hit that is not completed.
    """

    def __init__(self, *, left_over: LeftOver = LeftOver.DROP) -> None:
        # compiling, or reading what was compiled before, is not for every process that only looks at packets
        from nightglass.streams.astropix.scanning import scan

        self._scan = scan
        self._restore = LeftOver(left_over) is LeftOver.RESTORE
        self._left = b""
        self._order = 0
        self._last = Readout(0, 0, b"")
        self.decode(())

    def decode(self, readouts: Sequence[Readout]) -> Decoded:
        """Decode readouts; those of one call follow those of the call before.

        A gap in the ids, or a step back, cuts the connection: what was left over before it is not used.
        """
        before = (self._last, *readouts)
        count = len(before)
        ids = np.fromiter([readout.readout_id for readout in before], np.uint32, count)
        stamps = np.fromiter([readout.timestamp_ns for readout in before], np.uint64, count)
        pieces = [readout.data for readout in readouts]
        lengths = np.fromiter(map(len, pieces), np.int64, count - 1)
        data = np.frombuffer(b"".join(pieces), np.uint8)
        raw, origin, status, roles, left, self._order = self._scan(
            data,
            lengths,
            ids[1:] - ids[:-1] == 1,
            np.frombuffer(self._left, np.uint8),
            self._order,
            self._restore,
        )
        self._left, self._last = left.tobytes(), before[-1]
        hits = read_hits(raw)
        hits["readout_id"] = ids[origin[:, 0] + 1]
        hits["timestamp"] = stamps[origin[:, 0] + 1]
        hits["decoding_order"] = origin[:, 1]
        return Decoded(hits, status, roles)

    @property
    def left(self) -> bytes:
        """What the last readout left over: the start of a hit, or nothing."""
        return self._left


def encode_readout(
    hits: NDArray[np.void], *, readout_id: int, timestamp_ns: int, idle: int = 2, size: int | None = None
) -> Readout:
    """Return a readout as the DAQ would make it: idle bytes and hits, and padding if it is to have a certain size.

    Parameters
    ----------
    hits : ndarray of HIT_DTYPE
    idle : int
        Idle bytes before the first hit, and one after each.
    size : int, optional
        Bytes of the DAQ's buffer, 4096 as a rule; without it there is no padding.
    """
    raw = encode_hits(hits)
    quiet = bytes([IDLE])
    spaced = quiet.join(raw[start : start + HIT_BYTES] for start in range(0, len(raw), HIT_BYTES))
    data = quiet * idle + spaced + quiet * bool(raw)
    if size is not None:
        data = data[:size].ljust(size, bytes([PADDING]))
    return Readout(readout_id % _IDS, timestamp_ns, data)
