"""RICE_1: tile compression of integers.

FITS Standard 4.0, section 10.4.1: the first pixel as it is, then blocks of 32 differences, each with the number of low
bits that suits it (Rice, Yeh & Miller 1993; the choices are those of cfitsio, so that the bytes are the same).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK_PIXELS", "largest_code", "rice_encode"]

BLOCK_PIXELS: Final = 32
"""Differences that share a number of low bits: ZVAL of BLOCKSIZE."""
_PARAMETERS: Final = {1: (3, 6), 2: (4, 14), 4: (5, 25)}
"""Bytes of a pixel -> bits of the field that holds the number of low bits, and its largest value."""


def largest_code(pixels: int, itemsize: int) -> int:
    """Return how many bytes a tile takes at most, with room for the word that is being filled.

    In the worst case every pixel is written as it is, and before each block a field and the rounding of its mean.
    """
    return 4 * (pixels * itemsize // 4 + pixels // BLOCK_PIXELS + 16)


def rice_encode(tile: NDArray[Any]) -> NDArray[np.uint8]:
    """Compress one tile.

    Parameters
    ----------
    tile : ndarray of uint8, int16 or int32
        In any byte order; taken in C order.
    """
    # imports numba, which costs a third of a second: many a process makes no tile
    from nightglass.cubes.ricekernel import encode

    flat = np.ascontiguousarray(tile, tile.dtype.newbyteorder("=")).reshape(-1)
    size = flat.itemsize
    field_bits, most = _PARAMETERS[size]
    words = np.empty(largest_code(flat.size, size) // 4, np.uint32)
    folded = np.empty(BLOCK_PIXELS, f"u{size}")
    length = encode(flat.view(f"i{size}"), np.empty(BLOCK_PIXELS, f"i{size}"), folded, words, field_bits, most)
    return words.view(np.uint8)[:length]
