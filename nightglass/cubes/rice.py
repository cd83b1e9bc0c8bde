"""RICE_1: tile compression of integers, as a kernel that releases the GIL.

FITS Standard 4.0, section 10.4.1: the first pixel as it is, then blocks of 32 differences, each with the number of low
bits that suits it (Rice, Yeh & Miller 1993; the choices are those of cfitsio, so that the bytes are the same).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["BLOCK_PIXELS", "rice_encode"]

BLOCK_PIXELS: Final = 32
"""Differences that share a number of low bits: ZVAL of BLOCKSIZE."""
_PARAMETERS: Final = {1: (3, 6, 8), 2: (4, 14, 16), 4: (5, 25, 32)}
"""Bytes of a pixel -> bits of the field that holds the number of low bits, its largest value, bits of a pixel."""


def rice_encode(tile: NDArray[Any]) -> NDArray[np.uint8]:
    """Compress one tile.

    Parameters
    ----------
    tile : ndarray of uint8, int16 or int32
        In the byte order of this host; taken in C order.
    """
    flat = np.ascontiguousarray(tile).reshape(-1)
    field_bits, most, bits = _PARAMETERS[flat.dtype.itemsize]
    # the worst case: every pixel as it is, and a field before each block
    out = np.empty(flat.size * flat.dtype.itemsize + flat.size // BLOCK_PIXELS + 64, np.uint8)
    return out[: _encode(flat, out, field_bits, most, bits)]


@njit(nogil=True, cache=True, inline="always")  # type: ignore[untyped-decorator]
def _spill(held: np.uint64, fill: int, out: NDArray[np.uint8], place: int) -> tuple[np.uint64, int, int]:
    """Write four bytes if as many are held, right-aligned; return what is left, its bits, and the next place."""
    if fill >= 32:
        fill -= 32
        word = held >> np.uint64(fill)
        out[place] = np.uint8(word >> np.uint64(24))
        out[place + 1] = np.uint8(word >> np.uint64(16))
        out[place + 2] = np.uint8(word >> np.uint64(8))
        out[place + 3] = np.uint8(word)
        place += 4
        held &= np.uint64((1 << fill) - 1)
    return held, fill, place


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _low_bits(total: np.uint64, count: int) -> int:
    """Return how many low bits of each difference are written as they are, from the sum of a block."""
    mean = max((np.float64(total) - (count // 2) - 1) / count, 0.0)
    half = np.uint64(mean) >> np.uint64(1)
    bits = 0
    while half > np.uint64(0):
        half >>= np.uint64(1)
        bits += 1
    return bits


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _encode(pixels: NDArray[Any], out: NDArray[np.uint8], field_bits: int, most: int, bits: int) -> int:
    mask, sign = np.uint64((1 << bits) - 1), np.uint64(1 << (bits - 1))
    folded = np.empty(BLOCK_PIXELS, np.uint64)
    last = np.uint64(np.int64(pixels[0])) & mask
    held, fill, place = _spill(last, bits, out, 0)
    for start in range(0, pixels.size, BLOCK_PIXELS):
        count = min(BLOCK_PIXELS, pixels.size - start)
        total = np.uint64(0)
        for k in range(count):
            value = np.uint64(np.int64(pixels[start + k])) & mask
            difference = (value - last) & mask
            last = value
            # signs alternate, so that small differences are small numbers
            twice = (difference << np.uint64(1)) & mask
            folded[k] = (~twice & mask) if difference & sign else twice
            total += folded[k]
        split = _low_bits(total, count)
        noisy, flat = split >= most, split == 0 and total == np.uint64(0)
        code = most + 1 if noisy else 0 if flat else split + 1
        held, fill, place = _spill((held << np.uint64(field_bits)) | np.uint64(code), fill + field_bits, out, place)
        if noisy:  # numbers as they are
            for k in range(count):
                held, fill, place = _spill((held << np.uint64(bits)) | folded[k], fill + bits, out, place)
        elif not flat:
            held, fill, place = _pack(folded, count, split, held, fill, out, place)
    while fill > 0:
        byte = held >> np.uint64(fill - 8) if fill >= 8 else held << np.uint64(8 - fill)
        out[place] = np.uint8(byte)
        place += 1
        fill -= 8
    return place  # type: ignore[no-any-return]


@njit(nogil=True, cache=True, inline="always")  # type: ignore[untyped-decorator]
def _pack(
    folded: NDArray[np.uint64], count: int, split: int, held: np.uint64, fill: int, out: NDArray[np.uint8], place: int
) -> tuple[np.uint64, int, int]:
    """Write a block: each number as so many zeros as its high bits say, a one, and its low bits."""
    low = np.uint64((1 << split) - 1)
    one = np.uint64(1) << np.uint64(split)
    for k in range(count):
        high: int = np.int64(folded[k] >> np.uint64(split))  # type: ignore[assignment]  # the kernel's integers
        while high + split >= 32:  # a long run of zeros
            step = 31 if high > 31 else high
            held, fill, place = _spill(held << np.uint64(step), fill + step, out, place)
            high -= step
        bits = high + 1 + split
        held, fill, place = _spill((held << np.uint64(bits)) | one | (folded[k] & low), fill + bits, out, place)
    return held, fill, place
