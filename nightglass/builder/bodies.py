"""What a body holds: a FITS file as it came, or bare pixels and a header of their own.

Bare pixels come in one of two forms. With BITPIX, NAXIS1, NAXIS2... in the header they are as FITS has them: big-endian
(unsigned numbers by BZERO). With ``dtype`` (as ``uint16``, ``<u2``) and ``shape`` (slowest axis first) they are as
numpy has them, and are converted while they come; without a byte order they are little-endian.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightglass.builder.headertext import cards_of
from nightglass.builder.instructions import instructions_in
from nightglass.builder.records import NO_INSTRUCTIONS, Instructions
from nightglass.errors import Rejected
from nightglass.fitsio.cards import BLOCK, format_card, pad_header

__all__ = ["PixelForm", "PixelStream", "pixel_form"]

_MOST_AXES = 8
_AXIS = re.compile(r"NAXIS[1-9]\d*")
_STRUCTURE = frozenset({"SIMPLE", "XTENSION", "BITPIX", "NAXIS", "EXTEND", "PCOUNT", "GCOUNT", "CHECKSUM", "DATASUM"})
_OURS = frozenset({"DTYPE", "SHAPE", "DATA_TYPE"})
_ZEROS: Mapping[str, tuple[int, int]] = {"u2": (16, 1 << 15), "u4": (32, 1 << 31), "u8": (64, 1 << 63), "i1": (8, -128)}
"""Types that FITS does not have -> BITPIX and BZERO (FITS Standard 4.0, table 11)."""
_PLAIN = {"u1": 8, "i2": 16, "i4": 32, "i8": 64, "f4": -32, "f8": -64}


@dataclass(frozen=True, slots=True)
class PixelForm:
    """How bare pixels come, and the header that goes before them.

    Attributes
    ----------
    header : bytes
        Of a primary HDU, whole blocks.
    size : int
        Bytes of the pixels.
    source : dtype
        As they come.
    instructions : Instructions
        Control words of the header.
    """

    header: bytes
    size: int
    source: np.dtype[Any]
    instructions: Instructions = NO_INSTRUCTIONS

    @property
    def padded_size(self) -> int:
        """Bytes of the pixels with the fill of the last block."""
        return -(-self.size // BLOCK) * BLOCK

    def begin(self) -> PixelStream:
        """Return what converts them, piece by piece."""
        return PixelStream(self)


class PixelStream:
    """Pixels that come in pieces of any length, and go on as FITS has them."""

    def __init__(self, form: PixelForm) -> None:
        self._form = form
        self._rest = b""
        self._seen = 0
        kind = form.source.str[1:]
        self._moved = form.source.str[0] in ">|" and kind not in _ZEROS
        self._flip = _ZEROS[kind][1] % (1 << 8 * form.source.itemsize) if kind in _ZEROS else 0

    def feed(self, chunk: bytes | bytearray | memoryview) -> Iterator[bytes | memoryview]:
        """Yield what can be written.

        Raises
        ------
        Rejected
            If more comes than the header says.
        """
        self._seen += len(chunk)
        if self._seen > self._form.size:
            message = f"more than {self._form.size} bytes of pixels came"
            raise Rejected(message, remedy="the header must tell the shape and type of the pixels that follow")
        if self._moved:
            yield memoryview(chunk)
            return
        data = b"".join((self._rest, chunk)) if self._rest else chunk
        whole = len(data) // self._form.source.itemsize * self._form.source.itemsize
        self._rest = bytes(data[whole:])
        if whole:
            yield self._converted(memoryview(data)[:whole])

    def end(self) -> None:
        """See that all came.

        Raises
        ------
        Rejected
        """
        if self._seen != self._form.size:
            message = f"{self._seen} bytes of pixels came, the header says {self._form.size}"
            raise Rejected(message, remedy="the header must tell the shape and type of the pixels that follow")

    def _converted(self, data: memoryview) -> memoryview:
        itemsize = self._form.source.itemsize
        order = self._form.source.str[0] if itemsize > 1 else "|"
        numbers: NDArray[Any] = np.frombuffer(data, np.dtype(f"{order}u{itemsize}"))
        if self._flip:
            numbers = numbers ^ numbers.dtype.type(self._flip)
        return numbers.astype(f">u{itemsize}" if itemsize > 1 else "u1", copy=False).view(np.uint8).data


def pixel_form(values: Mapping[str, Any]) -> PixelForm:
    """Return the form of bare pixels from the header that came with them.

    Parameters
    ----------
    values : mapping
        Keyword -> value, or pair of value and comment; BITPIX and NAXISn, or ``dtype`` and ``shape`` among them.

    Raises
    ------
    Rejected
        If that is missing, or makes no sense.
    Misconfigured
        If the value of a control word does not fit.
    """
    upper = {str(key).upper(): value for key, value in values.items()}
    rest = {key: value for key, value in upper.items() if key not in _STRUCTURE | _OURS and not _AXIS.fullmatch(key)}
    if "DTYPE" in upper or "DATA_TYPE" in upper:
        source, shape, bitpix = _numpy_form(upper)
        zero = _ZEROS.get(source.str[1:], (0, 0))[1]
        rest = {key: value for key, value in rest.items() if key not in ("BZERO", "BSCALE")}
    else:
        source, shape, bitpix = _fits_form(upper)
        zero = 0
    cards = [
        *format_card("SIMPLE", "T", "conforms to the FITS standard"),
        *format_card("BITPIX", str(bitpix), ""),
        *format_card("NAXIS", str(len(shape)), ""),
    ]
    cards += [
        card for axis, length in enumerate(shape[::-1], 1) for card in format_card(f"NAXIS{axis}", str(length), "")
    ]
    cards += [*format_card("BSCALE", "1", ""), *format_card("BZERO", str(zero), "")] if zero else []
    return PixelForm(
        pad_header([*cards, *cards_of(rest)]), math.prod(shape) * source.itemsize, source, instructions_in(rest)
    )


def _numpy_form(values: Mapping[str, Any]) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    named = _first(values.get("DTYPE", values.get("DATA_TYPE")))
    try:
        dtype = np.dtype(str(named))
    except (TypeError, ValueError):
        dtype = np.dtype("V1")
    kind = dtype.str[1:]
    if kind not in _ZEROS and kind not in _PLAIN:
        message = f"pixels of type {named!r}"
        raise Rejected(message, remedy=f"choices: {', '.join(sorted((*_ZEROS, *_PLAIN)))}, or uint16 and the like")
    if not str(named).startswith(("<", ">", "=", "|")):
        dtype = dtype.newbyteorder("<")
    shape = values.get("SHAPE")
    if not isinstance(shape, (list, tuple)):
        message = f"the shape of the pixels is {shape!r}"
        raise Rejected(message, remedy="write it as [rows, columns]")
    bitpix = _ZEROS[kind][0] if kind in _ZEROS else _PLAIN[kind]
    return dtype, _lengths(shape), bitpix


def _fits_form(values: Mapping[str, Any]) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    bitpix = _first(values.get("BITPIX"))
    kinds = {size: kind for kind, size in _PLAIN.items()}
    if isinstance(bitpix, bool) or bitpix not in kinds:
        message = f"BITPIX of the pixels is {bitpix!r}"
        raise Rejected(message, remedy="give BITPIX and NAXIS1, NAXIS2..., or dtype and shape, with bare pixels")
    numbers = sorted(int(key[5:]) for key in values if _AXIS.fullmatch(key))
    count = _first(values.get("NAXIS", len(numbers)))
    if numbers != list(range(1, len(numbers) + 1)) or count != len(numbers):
        message = f"NAXIS is {count!r}, and there are {len(numbers)} lengths"
        raise Rejected(message, remedy="give NAXIS1, NAXIS2... of the pixels that follow")
    lengths = _lengths([_first(values[f"NAXIS{number}"]) for number in numbers])
    return np.dtype(f">{kinds[bitpix]}"), lengths[::-1], bitpix


def _lengths(values: list[Any] | tuple[Any, ...]) -> tuple[int, ...]:
    fine = all(isinstance(item, int) and not isinstance(item, bool) and 0 < item < 1 << 31 for item in values)
    if not fine or not 1 <= len(values) <= _MOST_AXES:
        message = f"axes of {list(values)!r} pixels"
        raise Rejected(message, remedy=f"1 to {_MOST_AXES} axes, each a number of pixels")
    return tuple(values)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, (list, tuple)) and value else value
