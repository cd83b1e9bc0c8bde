"""Finding windows: whether a window may begin at a place, and whether one lies where pixels ought to be."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nightglass.streams.aartfaac.skyheader import HEADER_STARTS
from nightglass.streams.aartfaac.window import HEAD_BYTES, MAGIC, PIXEL_BYTES, WindowLimits, WindowStatus

__all__ = ["MAGIC_BYTES", "Head", "find_magic", "find_torn", "holds_magic", "read_head"]

MAGIC_BYTES = 8
_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
_MAGICS = {MAGIC.to_bytes(MAGIC_BYTES, order): order for order in _ORDERS}
_ANY_MAGIC = re.compile(b"|".join(map(re.escape, _MAGICS)))
_LENGTHS_END = 16
_START_BYTES = len(HEADER_STARTS[0])

_STRIDE, _SAMPLE = 2864, 16
"""A header has 2880 bytes at least, so that one sample lies in it whole."""
_HIGH_BITS = np.uint64(0x8080808080808080)
_TAIL = HEAD_BYTES + 2 * _STRIDE
_SHORTEST_CUT = 4
"""Bytes of a magic at the end of pixels that are told from chance; three would be seen in one of 2^23 good windows."""
_CUT_MAGICS = tuple(magic[:length] for magic in _MAGICS for length in range(MAGIC_BYTES - 1, _SHORTEST_CUT - 1, -1))
_PRINTABLE = (0x20, 0x7E - 0x20)


class Head(NamedTuple):
    """What the first 16 bytes of a window say."""

    byteorder: Literal["little", "big"]
    fits_bytes: int
    array_bytes: int

    @property
    def head_bytes(self) -> int:
        """Bytes before the first pixel."""
        return HEAD_BYTES + self.fits_bytes


def read_head(data: bytes | bytearray, start: int, stop: int, limits: WindowLimits) -> Head | WindowStatus | None:
    """Judge whether a window begins at a place; what is wrong if it does not, None if more bytes are needed to tell.

    As many as `HEAD_BYTES` and the first word of the FITS header are asked for.
    """
    held = stop - start
    if held < MAGIC_BYTES:
        return None
    byteorder = _MAGICS.get(bytes(data[start : start + MAGIC_BYTES]))
    if byteorder is None:
        return WindowStatus.BAD_MAGIC
    if held < _LENGTHS_END:
        return None
    fits_bytes = int.from_bytes(data[start + 8 : start + 12], byteorder)
    array_bytes = int.from_bytes(data[start + 12 : start + 16], byteorder)
    if not _START_BYTES <= fits_bytes <= limits.fits_bytes:
        return WindowStatus.BAD_FITS_LENGTH
    if not PIXEL_BYTES <= array_bytes <= limits.array_bytes or array_bytes % PIXEL_BYTES:
        return WindowStatus.BAD_ARRAY_LENGTH
    if held < HEAD_BYTES + _START_BYTES:
        return None
    if not data.startswith(HEADER_STARTS, start + HEAD_BYTES, stop):
        return WindowStatus.BAD_HEADER
    return Head(byteorder, fits_bytes, array_bytes)


def find_magic(data: bytes | bytearray, start: int, stop: int) -> int:
    """Return the first place in a range where a magic stands, in either byte order; -1 if there is none."""
    # one expression, because each order by itself would be searched to the end again for every magic of the other
    found = _ANY_MAGIC.search(data, start, stop)
    return found.start() if found else -1


def holds_magic(data: bytes) -> bool:
    """Tell whether a magic stands anywhere; many times faster than to look for the first."""
    return any(magic in data for magic in _MAGICS)


def find_torn(pixels: NDArray[np.uint8], limits: WindowLimits) -> int:
    """Return where among the bytes of an image another window begins; -1 if none does.

    A sender that loses bytes (one that leaves the rest of a partial send unsent) puts the next window where the rest of
    this one belongs. To search every byte would take as long as to receive it. The FITS header of the other window is a
    long run of printable characters, which 16 bytes of every 2864 show; only its very beginning, at the end of the
    image, and whatever looks suspicious, is searched.
    """
    tail = pixels[-_TAIL:].tobytes()
    suspicious = holds_magic(tail) or _printable_run(pixels)
    place = _last_window(pixels.tobytes(), limits) if suspicious else -1
    if place >= 0:
        return place
    if tail.endswith(_CUT_MAGICS):
        length = max(len(cut) for cut in _CUT_MAGICS if tail.endswith(cut))
        return pixels.size - length if pixels.size > length else -1
    return -1


def _printable_run(pixels: NDArray[np.uint8]) -> bool:
    rows = pixels.size // _STRIDE
    # few and simple calls: just after so many bytes were moved, code is as far away as data. The highest bits of
    # sixteen bytes are rarely all zero by chance, so that this settles it for nearly all noisy images
    first, second = (np.ndarray(rows, np.uint64, pixels, offset, (_STRIDE,)) for offset in (0, 8))
    plain = (first | second) & _HIGH_BITS
    if plain.all():
        return False
    plain = np.flatnonzero(plain == 0)
    samples = pixels[: rows * _STRIDE].reshape(rows, _STRIDE)[plain, :_SAMPLE]
    low, span = _PRINTABLE
    return bool((samples - np.uint8(low) <= np.uint8(span)).all(axis=1).any())


def _last_window(data: bytes, limits: WindowLimits) -> int:
    """Return the last place where a window may begin: one that is behind it is not looked for again."""
    places = {magic: data.rfind(magic) for magic in _MAGICS}
    while (place := max(places.values())) >= 0:
        if not isinstance(read_head(data, place, len(data), limits), WindowStatus):
            return place
        magic = data[place : place + MAGIC_BYTES]
        places[magic] = data.rfind(magic, 0, place + MAGIC_BYTES - 1)
    return -1
