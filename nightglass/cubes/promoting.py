"""One type of pixels for planes of several: the smallest that holds all of them without loss, or none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from nightglass.cubes.records import PixelFormat

__all__ = ["common_format", "type_name"]

_EXACT_FLOAT32: Final = 1 << 24
"""Integers up to this are exact in single precision."""
_EXACT_FLOAT64: Final = 1 << 53


def common_format(formats: Iterable[PixelFormat]) -> PixelFormat | None:
    """Return a format in which planes of several formats can stand side by side.

    Integers stay integers where they are scaled alike. Integers scaled in several ways, and integers beside floats,
    become floats, if every value stays a different one. Undefined pixels stay undefined.

    Returns
    -------
    PixelFormat or None
        None if there is no such format: these planes are kept apart.
    """
    distinct = tuple(dict.fromkeys(formats))
    if len(distinct) == 1:
        return distinct[0]
    if any(pixels.bitpix < 0 for pixels in distinct):
        return _real(distinct)
    if all(_is_integer(pixels) for pixels in distinct):
        return _wider(distinct)
    if len({(pixels.bscale, pixels.bzero) for pixels in distinct}) > 1:
        return _real(distinct)
    # scaled alike: the stored numbers are compared, and the scale is put back
    plain = [PixelFormat(pixels.bitpix, blank=pixels.blank) for pixels in distinct]
    found = _wider(plain)
    if found is None or found.bzero:
        return None
    return PixelFormat(found.bitpix, distinct[0].bscale, distinct[0].bzero, found.blank)


def type_name(pixels: PixelFormat) -> str:
    """Return what the numbers are, in words: ``uint16``, ``float32``, ``int16 x 0.5 + 100``."""
    bits = abs(pixels.bitpix)
    if pixels.bitpix < 0:
        name = f"float{bits}"
    elif _is_integer(pixels) and pixels.bzero in (0, _unsigned_zero(bits)):
        unsigned = (bits == 8) == (pixels.bzero == 0)
        return f"{'u' if unsigned else ''}int{bits}"
    else:
        name = f"{'u' if bits == 8 else ''}int{bits}"
    scale = "" if pixels.bscale == 1 else f" x {pixels.bscale:g}"
    return f"{name}{scale}" if pixels.bzero == 0 else f"{name}{scale} {'-+'[pixels.bzero > 0]} {abs(pixels.bzero):g}"


def _is_integer(pixels: PixelFormat) -> bool:
    return pixels.bitpix > 0 and pixels.bscale == 1 and pixels.bzero.is_integer()


def _unsigned_zero(bits: int) -> int:
    """Return the BZERO that turns signed into unsigned numbers, and bytes into signed ones."""
    return -128 if bits == 8 else 1 << (bits - 1)


def _range(pixels: PixelFormat) -> tuple[int, int]:
    """Return the lowest and highest physical value that integers can have."""
    zero = int(pixels.bzero)
    if pixels.bitpix == 8:
        return zero, zero + 255
    half = 1 << (pixels.bitpix - 1)
    return zero - half, zero + half - 1


def _wider(formats: Sequence[PixelFormat]) -> PixelFormat | None:
    """Return the smallest integers that hold the physical values of all."""
    ranges = [_range(pixels) for pixels in formats]
    low, high = min(item[0] for item in ranges), max(item[1] for item in ranges)
    for candidate in _integers():
        lowest, highest = _range(candidate)
        if lowest > low or highest < high:
            continue
        if all(pixels.blank is None for pixels in formats):
            return candidate
        blank = next(_free_values(formats, lowest, highest), None)
        if blank is not None:
            return PixelFormat(candidate.bitpix, 1.0, candidate.bzero, blank - int(candidate.bzero))
    return None


def _integers() -> Iterator[PixelFormat]:
    for bits in (8, 16, 32, 64):
        yield PixelFormat(bits)
        yield PixelFormat(bits, 1.0, float(_unsigned_zero(bits)))


def _free_values(formats: Sequence[PixelFormat], lowest: int, highest: int) -> Iterator[int]:
    """Return physical values that no defined pixel of any format can have."""
    blanks = [pixels.blank + int(pixels.bzero) for pixels in formats if pixels.blank is not None]
    for value in (*blanks, lowest, highest):
        if all(_is_free(value, pixels) for pixels in formats):
            yield value


def _is_free(value: int, pixels: PixelFormat) -> bool:
    low, high = _range(pixels)
    if pixels.blank is not None and value == pixels.blank + int(pixels.bzero):
        return True
    return not low <= value <= high


def _real(formats: Sequence[PixelFormat]) -> PixelFormat | None:
    single = True
    for pixels in formats:
        if pixels.bitpix < 0:
            if (pixels.bscale, pixels.bzero) != (1.0, 0.0):
                return None  # a product of floats is rounded
            single = single and pixels.bitpix == -32
        elif not _is_exact(pixels):
            return None
        else:
            single = single and _is_integer(pixels) and max(map(abs, _range(pixels))) <= _EXACT_FLOAT32
    return PixelFormat(-32 if single else -64)


def _is_exact(pixels: PixelFormat) -> bool:
    """Tell whether every integer gives a double that it can be told from again."""
    half = 1 << (pixels.bitpix - 1)
    if _is_integer(pixels):
        return max(map(abs, _range(pixels))) <= _EXACT_FLOAT64
    step = abs(pixels.bscale)
    return step > 0 and (abs(pixels.bzero) + 2 * half * step) / _EXACT_FLOAT64 < step / 4
