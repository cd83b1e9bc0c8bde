"""AstroPix 3: hits of 5 bytes, and the frames of 11 bytes in which the A-STEP quad-chip board sends them.

The bits of a byte are not reversed here.

==== ==== ================================================
byte bits field
==== ==== ================================================
0    7-3  chip_id
0    2-0  payload
1    7    column: 1 for a hit of a column, 0 for one of a row
1    6    reserved
1    5-0  location: which column or row, 0-34
2    7-0  timestamp
3    3-0  tot_msb: high bits of the time over threshold
4    7-0  tot_lsb
==== ==== ================================================

====== ==== ======================================================================
offset size frame of the quad-chip board
====== ==== ======================================================================
0      1    ``0a``
1      1    layer, 1 to 3
2      5    hit
7      4    time stamp of the FPGA: little-endian in binary files; legacy programs
            read the hexadecimal text of ``.log`` files as big-endian
====== ==== ======================================================================

A chip reports rows and columns apart; a pixel is where a row and a column agree (`match_pixels`).

The time over threshold is counted by the sample clock, whose period is not in the data: 10 ns on the quad-chip board
(its decoder, and the firmware's own scripts), 5 ns on the single-chip board (`AstroPix3Hit` of astropix-analysis, which
says of itself that it is untested, divides by 200). The period is therefore a parameter; its default is that of the
board whose data this decodes. A wrong one gives times that are off by a factor of 2.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nightglass.errors import Rejected
from nightglass.streams.decoding import BufferedDecoder, StreamProtocol

__all__ = [
    "CLOCK_QUAD_CHIP_NS",
    "CLOCK_SINGLE_CHIP_NS",
    "FRAME_BYTES",
    "HIT3_BYTES",
    "HIT3_DTYPE",
    "PROTOCOL",
    "FrameDecoder",
    "FrameFault",
    "encode_frames",
    "match_pixels",
    "read_frames",
    "read_hits3",
]

HIT3_BYTES = 5
FRAME_BYTES = 11
CLOCK_QUAD_CHIP_NS = 10.0
CLOCK_SINGLE_CHIP_NS = 5.0
HIT3_DTYPE = np.dtype(
    [
        ("layer", "u1"),
        ("chip_id", "u1"),
        ("payload", "u1"),
        ("column", "u1"),
        ("location", "u1"),
        ("timestamp", "u1"),
        ("tot_msb", "u1"),
        ("tot_lsb", "u1"),
        ("tot_dec", "u2"),
        ("tot_us", "f8"),
        ("fpga_timestamp", "u4"),
    ]
)
"""A hit as a row; `layer` and `fpga_timestamp` are 0 where it came without a frame."""

_HEADERS = (b"\x0a\x01", b"\x0a\x02", b"\x0a\x03")
_ANY_HEADER = re.compile(rb"\x0a[\x01-\x03]")
_PADDING = 0xFF
_BUFFER = 64 * 1024


class FrameFault(enum.Flag):
    """Why bytes are no frame."""

    BAD_HEADER = enum.auto()
    """Something else stands where a frame ought to begin."""
    CUT_SHORT = enum.auto()
    """Another frame begins inside this one."""


def read_hits3(raw: bytes | NDArray[np.uint8], *, clock_ns: float = CLOCK_QUAD_CHIP_NS) -> NDArray[np.void]:
    """Return the hits in bytes that stand one behind the other.

    Parameters
    ----------
    raw : bytes or ndarray of uint8
        5 bytes for each hit.
    clock_ns : float
        Period of the sample clock.

    Raises
    ------
    Rejected
        If the last hit is not whole.
    """
    data = np.frombuffer(raw, np.uint8)
    if data.size % HIT3_BYTES:
        message = f"{data.size} bytes are no whole number of AstroPix 3 hits of {HIT3_BYTES} bytes"
        raise Rejected(message, remedy="leave out the bytes of the hit that was cut")
    first, place, stamp, msb, lsb = data.reshape(-1, HIT3_BYTES).T
    hits = np.zeros(first.size, HIT3_DTYPE)
    hits["chip_id"], hits["payload"] = first >> 3, first & 7
    hits["column"], hits["location"] = place >> 7, place & 0x3F
    hits["timestamp"], hits["tot_msb"], hits["tot_lsb"] = stamp, msb & 0x0F, lsb
    hits["tot_dec"] = hits["tot_msb"].astype(np.uint16) << 8 | lsb
    hits["tot_us"] = hits["tot_dec"] * (clock_ns / 1000)
    return hits


def read_frames(
    frames: Sequence[bytes],
    *,
    clock_ns: float = CLOCK_QUAD_CHIP_NS,
    fpga_order: Literal["little", "big"] = "little",
) -> NDArray[np.void]:
    """Return the hits of frames, as `FrameDecoder` gives them.

    Parameters
    ----------
    clock_ns : float
        Period of the sample clock.
    fpga_order : str
        Byte order of the FPGA's time stamp: ``big`` is how legacy programs read ``.log`` files.
    """
    table = np.frombuffer(b"".join(frames), np.uint8).reshape(-1, FRAME_BYTES)
    hits = read_hits3(np.ascontiguousarray(table[:, 2:7]).reshape(-1), clock_ns=clock_ns)
    hits["layer"] = table[:, 1]
    stamps = np.ascontiguousarray(table[:, 7:]).view("<u4" if fpga_order == "little" else ">u4")
    hits["fpga_timestamp"] = stamps.reshape(-1)
    return hits


def encode_frames(hits: NDArray[np.void]) -> bytes:
    """Return hits as the quad-chip board sends them; derived columns are not looked at.

    Raises
    ------
    Rejected
        If there is no such layer.
    """
    if hits.size and not np.isin(hits["layer"], (1, 2, 3)).all():
        message = f"layers {np.unique(hits['layer']).tolist()} cannot be sent"
        raise Rejected(message, remedy="layers are numbered 1 to 3")
    table = np.empty((len(hits), FRAME_BYTES), np.uint8)
    table[:, 0], table[:, 1] = 0x0A, hits["layer"]
    table[:, 2] = hits["chip_id"] << 3 | hits["payload"] & 7
    table[:, 3] = hits["column"] << 7 | hits["location"] & 0x3F
    table[:, 4], table[:, 5], table[:, 6] = hits["timestamp"], hits["tot_msb"] & 0x0F, hits["tot_lsb"]
    table[:, 7:] = hits["fpga_timestamp"].astype("<u4").reshape(-1, 1).view(np.uint8)
    return table.tobytes()


def match_pixels(hits: NDArray[np.void], *, tolerance_us: float = 1.0) -> NDArray[np.intp]:
    """Find the pixels that were hit: pairs of a row and a column of one chip, with one time stamp and alike in length.

    Parameters
    ----------
    hits : ndarray of HIT3_DTYPE
        Of one event or a few, in order.
    tolerance_us : float
        By how much the times over threshold of row and column may differ.

    Returns
    -------
    ndarray, (pixels, 2)
        Indices of row hit and column hit; each hit is used once, for the best partner.
    """
    rows, columns = np.flatnonzero(hits["column"] == 0), np.flatnonzero(hits["column"] == 1)
    same = np.ones((rows.size, columns.size), np.bool_)
    for field in ("layer", "chip_id", "timestamp"):
        same &= hits[field][rows][:, None] == hits[field][columns]
    apart = np.abs(hits["tot_us"][rows][:, None] - hits["tot_us"][columns])
    near = np.argwhere(same & (apart <= tolerance_us))
    near = near[np.argsort(apart[near[:, 0], near[:, 1]], kind="stable")]
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    pairs = []
    for row, column in near.tolist():
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            pairs.append((rows[row], columns[column]))
    return np.array(sorted(pairs), np.intp).reshape(-1, 2)


class FrameDecoder(BufferedDecoder[bytes]):
    """Cuts what the quad-chip board sends into frames of 11 bytes; padding between them belongs to nobody.

    The mark of a frame is short, and may stand inside one by chance. A frame with a mark inside is taken as it is if
    padding, or the next mark, or the end follows it; else it was cut short, and the one inside is taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()
        self._buffer = bytearray(_BUFFER)
        self._lost = False

    def get_buffer(self, sizehint: int = -1) -> memoryview:  # noqa: ARG002 - asyncio passes it
        """Return where the next bytes belong."""
        return memoryview(self._buffer)

    def buffer_updated(self, count: int) -> list[bytes]:
        """Take note of bytes in the buffer, and return the frames that are now whole."""
        self._tally.received += count
        self._held += memoryview(self._buffer)[:count]
        return self._cut(ended=False)

    def finish(self) -> list[bytes]:
        """Return the last frames, and count what is left of a torn one."""
        frames = self._cut(ended=True)
        self._tally.truncated += len(self._held) > 0 and not self._lost
        self._tally.skipped += len(self._held)
        self._held.clear()
        self._lost = False
        return frames

    def _cut(self, *, ended: bool) -> list[bytes]:
        frames: list[bytes] = []
        data, start = self._held, 0
        while (size := self._size(start, ended=ended)) != 0:
            if size > 0:
                frames.append(bytes(data[start : start + size]))
                self._tally.resynchronised += self._lost
                self._lost = False
                start += size
                continue
            self._tally.skipped -= size
            start -= size
        self._tally.messages += len(frames)
        del data[:start]
        return frames

    def _size(self, start: int, *, ended: bool) -> int:
        """Return the bytes of the frame that begins here; less than 0: so many to skip; 0: more are needed."""
        data = self._held
        held = len(data) - start
        if held and data[start] == _PADDING:
            return -1
        if held < 2:
            return 0
        if not data.startswith(_HEADERS, start):
            if not self._lost:
                self._tally.note(FrameFault.BAD_HEADER)
            self._lost = True
            return start - self._next_header(start + 1, len(data))
        if held < FRAME_BYTES:
            return 0
        after = start + FRAME_BYTES
        inner = self._next_header(start + 2, after)
        if inner >= after - 1:  # none, or its first byte at most
            return FRAME_BYTES
        if held < 2 * FRAME_BYTES and not ended:
            return 0
        if after == len(data) or data[after] == _PADDING or data.startswith(_HEADERS, after):
            return FRAME_BYTES
        self._tally.note(FrameFault.CUT_SHORT)
        self._lost = True
        return start - inner

    def _next_header(self, start: int, stop: int) -> int:
        """Return the next mark within a range, or the last byte of it, which may be the first of one."""
        found = _ANY_HEADER.search(self._held, start, stop)
        return found.start() if found else max(stop - 1, start)


def _example(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    hits = np.zeros(1, HIT3_DTYPE)
    for name, stop in (("chip_id", 4), ("column", 2), ("location", 35), ("timestamp", 256), ("tot_lsb", 256)):
        hits[name] = rng.integers(0, stop)
    hits["layer"], hits["payload"], hits["fpga_timestamp"] = 1 + seed % 3, 4, seed
    return encode_frames(hits)


PROTOCOL = StreamProtocol(
    name="astropix-quad",
    doc="frames of the AstroPix 3 quad-chip board",
    decoder=FrameDecoder,
    encode=bytes,
    example=_example,
)
