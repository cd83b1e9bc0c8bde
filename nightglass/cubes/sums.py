"""DATASUM of large blocks, and of blocks that are put together.

The ones'-complement sum of big-endian 32-bit words (FITS Standard 4.0, appendix J). It does not depend on the order of
the words, so a cube's sum is made of its planes', wherever these were summed.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nightglass.fitsio.checksums import add_sums

__all__ = ["rotated", "sum_block"]

_WORD = 4


def sum_block(data: bytes | bytearray | memoryview | NDArray[np.uint8]) -> int:
    """Return the sum of bytes as they stand in a file; an incomplete last word is filled with zeros.

    The same as `nightglass.fitsio.checksums.sum_bytes`, at the speed of memory; releases the GIL.
    """
    flat = np.frombuffer(data, np.uint8)
    flat.flags.writeable = False  # one compiled kernel serves bytes and buffers
    whole = flat.size // _WORD * _WORD
    total = add_sums(int(_sum_words(flat[:whole].view("<u4"))))
    if whole < flat.size:
        total = add_sums(total, int.from_bytes(flat[whole:].tobytes().ljust(_WORD, b"\0"), "big"))
    return total


def rotated(total: int, offset: int) -> int:
    """Return the sum of the same bytes when they begin at another offset, which need not be that of a word.

    Bytes that move by one place move by one place in their words, and the carry goes round: a rotation by 8 bits.
    """
    bits = 8 * (offset % _WORD)
    return (total >> bits | total << (32 - bits)) & 0xFFFFFFFF


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _sum_words(words: NDArray[np.uint32]) -> np.uint64:
    """Add words as big-endian numbers; 2^32 of them fit into 64 bits."""
    total = np.uint64(0)
    for index in range(words.size):
        word = words[index]
        # shifts, and not a view of the other byte order, because LLVM makes vector instructions of them
        total += np.uint64(((word & 0xFF) << 24) | ((word & 0xFF00) << 8) | ((word >> 8) & 0xFF00) | (word >> 24))
    return total
