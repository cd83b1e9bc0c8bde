"""AstroPix 4 hits: their bits, and what follows from them.

A hit is 8 bytes. The bits of each byte are reversed first; then the fields stand one behind the other:

========== ===== ==== =====================================================
field      first bits note
========== ===== ==== =====================================================
chip_id    0     5    31 cannot be sent: its start byte would be padding
payload    5     3    7, hence a start byte reads ``111xxxxx`` on the wire
row        8     5
column     13    5
ts_neg1    18    1
ts_coarse1 19    14   Gray code, with ts_fine1 as its low bits
ts_fine1   33    3
ts_tdc1    36    5
ts_neg2    41    1
ts_coarse2 42    14   Gray code, with ts_fine2 as its low bits
ts_fine2   56    3
ts_tdc2    59    5
========== ===== ==== =====================================================

The time stamps are counted at 20 MHz; the second belongs to the trailing edge, and 2^17 is added to it when the counter
rolled over in between. The layout is that of astropix-analysis (`astropix_analysis/fmt.py`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nightglass.errors import Rejected

__all__ = [
    "CLOCK_ROLLOVER",
    "CYCLES_PER_US",
    "HIT_BYTES",
    "HIT_DTYPE",
    "HIT_LAYOUT",
    "encode_hits",
    "gray_to_number",
    "make_hits",
    "number_to_gray",
    "read_hits",
]

HIT_BYTES = 8
CLOCK_ROLLOVER = 1 << 17
CYCLES_PER_US = 20.0
_FINE_BITS = 3
_PAYLOAD = 7
_CHIPS = 31

HIT_LAYOUT: dict[str, tuple[int, int]] = {
    "chip_id": (0, 5),
    "payload": (5, 3),
    "row": (8, 5),
    "column": (13, 5),
    "ts_neg1": (18, 1),
    "ts_coarse1": (19, 14),
    "ts_fine1": (33, 3),
    "ts_tdc1": (36, 5),
    "ts_neg2": (41, 1),
    "ts_coarse2": (42, 14),
    "ts_fine2": (56, 3),
    "ts_tdc2": (59, 5),
}
"""Field -> first bit and number of bits, after the bits of each byte were reversed."""

HIT_DTYPE = np.dtype(
    [
        ("chip_id", "u1"),
        ("payload", "u1"),
        ("readout_id", "u4"),
        ("timestamp", "u8"),
        # astropix-analysis has a byte, which a readout of 4096 bytes overruns: it holds up to 512 hits
        ("decoding_order", "u2"),
        ("row", "u1"),
        ("column", "u1"),
        ("ts_neg1", "u1"),
        ("ts_coarse1", "u2"),
        ("ts_fine1", "u1"),
        ("ts_tdc1", "u1"),
        ("ts_neg2", "u1"),
        ("ts_coarse2", "u2"),
        ("ts_fine2", "u1"),
        ("ts_tdc2", "u1"),
        ("ts_dec1", "u4"),
        ("ts_dec2", "u4"),
        ("tot_us", "f8"),
    ]
)
"""A hit as a row; columns are named and ordered as in the tables of astropix-analysis."""

_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1).reshape(-1)


def read_hits(raw: NDArray[np.uint8]) -> NDArray[np.void]:
    """Return the hits in bytes that stand one behind the other; where they came from is left 0.

    Parameters
    ----------
    raw : ndarray of uint8, (8 n,)

    Returns
    -------
    ndarray of HIT_DTYPE, (n,)
    """
    words = _REVERSED[raw].view(">u8").astype(np.uint64)
    hits = np.zeros(len(words), HIT_DTYPE)
    for name, (first, width) in HIT_LAYOUT.items():
        hits[name] = (words >> np.uint64(64 - first - width)) & np.uint64((1 << width) - 1)
    begin = gray_to_number(_field(words, "ts_coarse1", "ts_fine1"))
    end = gray_to_number(_field(words, "ts_coarse2", "ts_fine2"))
    end += np.where(end < begin, np.uint32(CLOCK_ROLLOVER), np.uint32(0))
    hits["ts_dec1"], hits["ts_dec2"] = begin, end
    hits["tot_us"] = (end - begin) / CYCLES_PER_US
    return hits


def encode_hits(hits: NDArray[np.void]) -> bytes:
    """Return what the chip sends for hits: the inverse of decoding; derived columns are not looked at.

    Raises
    ------
    Rejected
        If a hit cannot be told from idle bytes and padding.
    """
    words = np.zeros(len(hits), np.uint64)
    for name, (first, width) in HIT_LAYOUT.items():
        words |= (hits[name].astype(np.uint64) & np.uint64((1 << width) - 1)) << np.uint64(64 - first - width)
    wrong = hits[(hits["payload"] != _PAYLOAD) | (hits["chip_id"] >= _CHIPS)]
    if wrong.size:
        message = f"a hit of chip {wrong['chip_id'][0]} with payload {wrong['payload'][0]} cannot be sent"
        raise Rejected(message, remedy="chips are numbered 0 to 30, and the payload of a hit is 7")
    return _REVERSED[words.astype(">u8").view(np.uint8)].tobytes()


def make_hits(
    *, row: ArrayLike, column: ArrayLike, begin: ArrayLike, cycles: ArrayLike, chip_id: ArrayLike = 0
) -> NDArray[np.void]:
    """Return hits as a chip would measure them, for emulators and tests.

    Parameters
    ----------
    begin : array_like
        Clock counts at the leading edge, modulo 2^17.
    cycles : array_like
        Clock counts over threshold: 20 for a microsecond.
    """
    columns = np.broadcast_arrays(*(np.atleast_1d(item) for item in (row, column, begin, cycles, chip_id)))
    rows, places, first, span, chips = (item.astype(np.uint32) for item in columns)
    hits = np.zeros(len(rows), HIT_DTYPE)
    hits["chip_id"], hits["payload"], hits["row"], hits["column"] = chips, _PAYLOAD, rows, places
    for which, count in (("1", first), ("2", first + span)):
        code = number_to_gray(count % np.uint32(CLOCK_ROLLOVER))
        hits[f"ts_coarse{which}"] = code >> np.uint32(_FINE_BITS)
        hits[f"ts_fine{which}"] = code & np.uint32((1 << _FINE_BITS) - 1)
    return read_hits(np.frombuffer(encode_hits(hits), np.uint8))


def gray_to_number(code: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Turn Gray code of up to 32 bits into plain binary, by prefix exclusive-or."""
    value = code.copy()
    for shift in (1, 2, 4, 8, 16):
        value ^= value >> np.uint32(shift)
    return value


def number_to_gray(value: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Turn plain binary into Gray code."""
    return value ^ (value >> np.uint32(1))


def _field(words: NDArray[np.uint64], first: str, last: str) -> NDArray[np.uint32]:
    """Return the bits from one field to the end of another, which follows it, as one number."""
    begin, (where, width) = HIT_LAYOUT[first][0], HIT_LAYOUT[last]
    bits = where + width - begin
    return ((words >> np.uint64(64 - where - width)) & np.uint64((1 << bits) - 1)).astype(np.uint32)
