"""DATASUM of large blocks, and of blocks that are put together.

The ones'-complement sum of big-endian 32-bit words (FITS Standard 4.0, appendix J). It does not depend on the order of
the words, so a cube's sum is made of its planes', wherever these were summed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nightglass.fitsio.checksums import add_sums

__all__ = ["rotated", "sum_block"]

_WORD = 4


def sum_block(data: bytes | bytearray | memoryview | NDArray[np.uint8]) -> int:
    """Return the sum of bytes as they stand in a file; an incomplete last word is filled with zeros.

    The same as `nightglass.fitsio.checksums.sum_bytes`, at the speed of memory; releases the GIL.
    """
    # imports numba, which costs a third of a second: many a process sums nothing
    from nightglass.cubes.sumkernel import sum_words

    flat = np.frombuffer(data, np.uint8)
    flat.flags.writeable = False  # one compiled kernel serves bytes and buffers
    whole = flat.size // _WORD * _WORD
    total = add_sums(int(sum_words(flat[:whole].view("<u4"))))
    if whole < flat.size:
        total = add_sums(total, int.from_bytes(flat[whole:].tobytes().ljust(_WORD, b"\0"), "big"))
    return total


def rotated(total: int, offset: int) -> int:
    """Return the sum of the same bytes when they begin at another offset, which need not be that of a word.

    Bytes that move by one place move by one place in their words, and the carry goes round: a rotation by 8 bits.
    """
    bits = 8 * (offset % _WORD)
    return (total >> bits | total << (32 - bits)) & 0xFFFFFFFF
