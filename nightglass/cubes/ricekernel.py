"""RICE_1, compiled: a kernel that releases the GIL; importing this module imports numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nightglass.cubes.rice import BLOCK_PIXELS

__all__ = ["encode"]


@njit(nogil=True, cache=True, inline="always")  # type: ignore[untyped-decorator]
def _put(
    held: np.uint64, fill: np.uint64, words: NDArray[np.uint32], place: np.uint64, value: np.uint64, bits: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Append at most 32 bits to the left-aligned ones that are held, fewer than 32; return these, their number, place.

    The first word is written whether it is full or not, for want of a branch that processors would guess wrong.
    """
    held |= value << (np.uint64(64) - fill - bits)
    fill += bits
    word = np.uint32(held >> np.uint64(32))
    ends = (word >> np.uint32(24)) | (word << np.uint32(24))
    words[place] = ends | ((word >> np.uint32(8)) & np.uint32(0xFF00)) | ((word & np.uint32(0xFF00)) << np.uint32(8))
    full = fill >> np.uint64(5)
    return held << (full << np.uint64(5)), fill & np.uint64(31), place + full


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
def encode(
    pixels: NDArray[Any],
    steps: NDArray[Any],
    folded: NDArray[Any],
    words: NDArray[np.uint32],
    field_bits: int,
    most: int,
) -> int:
    """Write the big-endian words of a tile, and return their bytes; two blocks of scratch are for the differences."""
    width = np.uint64(8 * pixels.itemsize)
    # unsigned counters: a signed index might be negative, and costs a comparison each time
    held, fill, place = np.uint64(0), np.uint64(0), np.uint64(0)
    folded[0] = last = pixels[0]
    held, fill, place = _put(held, fill, words, place, np.uint64(folded[0]), width)
    for start in range(0, pixels.size, BLOCK_PIXELS):
        block = pixels[start : start + BLOCK_PIXELS]
        total, any_bits = _fold(block, last, steps, folded)
        last = block[-1]
        split = _low_bits(total, block.size)
        code = 0 if total == np.uint64(0) else min(split, most) + 1
        held, fill, place = _put(held, fill, words, place, np.uint64(code), np.uint64(field_bits))
        if split >= most:  # numbers as they are
            for number in folded[: block.size]:
                held, fill, place = _put(held, fill, words, place, np.uint64(number), width)
        elif code > 0:
            numbers, low_bits = folded[: block.size], np.uint64(split)
            if (any_bits >> low_bits) + low_bits < np.uint64(32):
                held, fill, place = _pack(numbers, low_bits, held, fill, words, place)
            else:
                held, fill, place = _pack_long(numbers, low_bits, held, fill, words, place)
    length = np.int64(place) * 4 + (np.int64(fill) + 7) // 8
    _put(held, fill, words, place, np.uint64(0), np.uint64(1))  # so that what is held is written
    return length  # type: ignore[return-value]  # the kernel's integers


@njit(nogil=True, cache=True, inline="always")  # type: ignore[untyped-decorator]
def _fold(block: NDArray[Any], last: Any, steps: NDArray[Any], folded: NDArray[Any]) -> tuple[np.uint64, np.uint64]:
    """Make differences, modulo the width of a pixel, to numbers without sign; return their sum, and all their bits.

    Signs alternate, so that small differences are small numbers.
    """
    steps[0] = block[0] - last
    for k in range(1, block.size):
        steps[k] = block[k] - block[k - 1]
    total, any_bits = np.uint64(0), np.uint64(0)
    for k in range(block.size):
        folded[k] = (steps[k] << 1) ^ (steps[k] >> 63)
        total += np.uint64(folded[k])
        any_bits |= np.uint64(folded[k])
    return total, any_bits


@njit(nogil=True, cache=True, inline="always")  # type: ignore[untyped-decorator]
def _pack(
    folded: NDArray[Any],
    split: np.uint64,
    held: np.uint64,
    fill: np.uint64,
    words: NDArray[np.uint32],
    place: np.uint64,
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Write a block: each number as so many zeros as its high bits say, a one, its low bits; together 32 at most."""
    one = np.uint64(1) << split
    low, fixed = one - np.uint64(1), np.uint64(1) + split
    for number in folded:
        value = np.uint64(number)
        held, fill, place = _put(held, fill, words, place, one | (value & low), (value >> split) + fixed)
    return held, fill, place


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _pack_long(
    folded: NDArray[Any],
    split: np.uint64,
    held: np.uint64,
    fill: np.uint64,
    words: NDArray[np.uint32],
    place: np.uint64,
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Write a block in which a number may have a long run of zeros."""
    one = np.uint64(1) << split
    low, fixed = one - np.uint64(1), np.uint64(1) + split
    for number in folded:
        value = np.uint64(number)
        zeros = value >> split
        while zeros + fixed > np.uint64(32):
            step = min(zeros, np.uint64(31))
            held, fill, place = _put(held, fill, words, place, np.uint64(0), step)
            zeros -= step
        held, fill, place = _put(held, fill, words, place, one | (value & low), zeros + fixed)
    return held, fill, place
