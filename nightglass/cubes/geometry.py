"""Header arithmetic of one HDU: how many bytes its data take, and the image in it.

FITS Standard 4.0, sections 3.1, 4.4.1, 6 (random groups), 7.3 (binary tables) and 10.1 (compressed images).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nightglass.config import Limits
from nightglass.cubes.records import PixelFormat, TileLayout
from nightglass.errors import Rejected
from nightglass.fitsio.cards import Scalar

__all__ = ["GEOMETRIC", "MAX_PLANES", "Picture", "Values", "data_size", "find_picture"]

Values = Mapping[str, Scalar]
"""Keyword to value, as `nightglass.cubes.headers` gives them."""

GEOMETRIC: Final = re.compile(
    r"XTENSION|BITPIX|NAXIS\d*|[PG]COUNT|GROUPS|BSCALE|BZERO|BLANK|TFIELDS|THEAP|T(?:TYPE|FORM)\d+"
    r"|Z(?:IMAGE|CMPTYPE|BITPIX|NAXIS\d*|TILE\d+|NAME\d+|VAL\d+|QUANTIZ|DITHER0)"
)
"""Keywords on which `data_size` and `find_picture` depend."""

_BITPIX: Final = frozenset({8, 16, 32, 64, -32, -64})
_MAX_AXES: Final = 999
MAX_PLANES: Final = 100_000
"""Of one file: axes of unit pixels must not become millions of planes."""
_SEEDS: Final = 10_000
_MALFORMED: Final = "the header is malformed"
_TABLES: Final = frozenset({"BINTABLE", "A3DTABLE"})
_IMAGES: Final = frozenset({"", "IMAGE", "IUEIMAGE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The image of an HDU.

    Attributes
    ----------
    shape : tuple of int
        (rows, columns) of a plane; an image of one axis has one row.
    planes : int
        How many there are, whatever axes count them.
    tiles : TileLayout or None
        Of the whole image, with offsets from the begin of the data and the rows of one plane.
    whole : bool
        Whether tiles reach over several planes, so that these cannot be told apart without decompression.
    """

    shape: tuple[int, int]
    planes: int
    format: PixelFormat
    tiles: TileLayout | None = None
    whole: bool = False

    @property
    def plane_size(self) -> int:
        """Bytes of a plane, uncompressed."""
        return self.shape[0] * self.shape[1] * self.format.itemsize


def data_size(values: Values, index: int) -> int:
    """Return how many bytes the data of an HDU take, without the fill of the last block.

    Raises
    ------
    Rejected
        If the header does not say so.
    """
    bitpix = _bitpix(values, "BITPIX", index)
    axes = _axes(values, index)
    parameters = _integer(values, "PCOUNT", index, 0)
    groups = _integer(values, "GCOUNT", index, 1)
    if parameters < 0 or groups < 0:
        message = f"PCOUNT or GCOUNT of HDU {index} is negative"
        raise Rejected(message, remedy=_MALFORMED)
    if not axes:
        return 0
    if _random_groups(values, index, axes):
        return abs(bitpix) // 8 * groups * (parameters + math.prod(axes[1:]))
    if index == 0:
        return abs(bitpix) // 8 * math.prod(axes)
    return abs(bitpix) // 8 * groups * (parameters + math.prod(axes))


def find_picture(values: Values, index: int, limits: Limits) -> Picture | None:
    """Describe the image of an HDU; None for a table, random groups, and an image without pixels.

    Raises
    ------
    Rejected
        If the header is malformed, or a plane is larger than the limits allow.
    """
    kind = "" if index == 0 else str(values.get("XTENSION") or "").strip().upper()
    if kind in _TABLES and values.get("ZIMAGE") is True:
        return _compressed(values, index, limits)
    axes = _axes(values, index)
    if kind not in _IMAGES or 0 in axes or not axes or _random_groups(values, index, axes):
        return None
    picture = _picture(values, index, axes, _bitpix(values, "BITPIX", index), limits)
    if index and data_size(values, index) != picture.plane_size * picture.planes:
        message = f"image HDU {index} has PCOUNT {values.get('PCOUNT')} and GCOUNT {values.get('GCOUNT')}"
        raise Rejected(message, remedy=_MALFORMED)
    return picture


def _picture(values: Values, index: int, axes: tuple[int, ...], bitpix: int, limits: Limits) -> Picture:
    columns, rows = (*axes, 1)[:2]
    planes = math.prod(axes[2:])
    pixels = PixelFormat(
        bitpix=bitpix,
        bscale=_number(values, "BSCALE", index, 1.0),
        bzero=_number(values, "BZERO", index, 0.0),
        blank=_blank(values, bitpix),
    )
    size = rows * columns * pixels.itemsize
    if size > limits.image_mib << 20:
        message = f"a plane of HDU {index} takes {size >> 20} MiB, more than {limits.image_mib} MiB"
        raise Rejected(message, remedy="raise limits.image_mib if such frames are wanted")
    if planes > MAX_PLANES:
        message = f"HDU {index} has {planes} planes, more than {MAX_PLANES}"
        raise Rejected(message, remedy="write so many frames into several files")
    return Picture(shape=(rows, columns), planes=planes, format=pixels)


def _compressed(values: Values, index: int, limits: Limits) -> Picture | None:
    axes = _axes(values, index, "Z")
    if not axes or 0 in axes:
        return None
    plain = _picture(values, index, axes, _bitpix(values, "ZBITPIX", index), limits)
    default = (axes[0], *[1] * (len(axes) - 1))
    tile = tuple(
        min(_integer(values, f"ZTILE{axis}", index, usual), length)
        for axis, (usual, length) in enumerate(zip(default, axes, strict=True), start=1)
    )
    if min(tile) < 1:
        message = f"the tiles of HDU {index} are {tile}"
        raise Rejected(message, remedy=_MALFORMED)
    counts = [-(-length // size) for length, size in zip(axes, tile, strict=True)]
    row_size, rows = (*_axes(values, index), 0, 0)[:2]
    if rows != math.prod(counts) or not row_size:
        message = f"HDU {index} has {rows} rows of {row_size} bytes, but its image has {math.prod(counts)} tiles"
        raise Rejected(message, remedy=_MALFORMED)
    heap = _integer(values, "THEAP", index, row_size * rows)
    heap_size = _integer(values, "PCOUNT", index, 0) - (heap - row_size * rows)
    if heap < row_size * rows or heap_size < 0:
        message = f"the heap of HDU {index} begins at {heap}, which is not between its table and its end"
        raise Rejected(message, remedy=_MALFORMED)
    quantize = str(values.get("ZQUANTIZ") or "").strip().upper()
    dither0 = _integer(values, "ZDITHER0", index, 0)
    if quantize.startswith("SUBTRACTIVE") and not 1 <= dither0 <= _SEEDS:
        # decoders take it for a place in a table, and read beyond its ends
        message = f"ZDITHER0 of HDU {index} is {dither0}, not a number from 1 to {_SEEDS}"
        raise Rejected(message, remedy=_MALFORMED)
    layout = TileLayout(
        algorithm=str(values.get("ZCMPTYPE") or "").strip().upper(),
        tile=((*tile, 1)[1], tile[0]),
        options=_options(values),
        quantize=quantize,
        dither0=dither0,
        rows=math.prod(counts[:2]),
        columns=_columns(values, index),
        row_size=row_size,
        heap_offset=heap,
        heap_size=heap_size,
    )
    whole = any(size > 1 for size in tile[2:])
    return Picture(shape=plain.shape, planes=plain.planes, format=plain.format, tiles=layout, whole=whole)


def _options(values: Values) -> tuple[tuple[str, int], ...]:
    """Return ZNAMEi and ZVALi, in order, as far as they are numbered without a gap."""
    found: list[tuple[str, int]] = []
    for number in range(1, _MAX_AXES):
        name = values.get(f"ZNAME{number}")
        if name is None:
            break
        value = values.get(f"ZVAL{number}")
        # whole numbers are all that the algorithms know, but some writers put a point behind them
        whole = round(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0
        found.append((str(name).strip().upper(), whole))
    return tuple(found)


def _columns(values: Values, index: int) -> tuple[tuple[str, str], ...]:
    count = _integer(values, "TFIELDS", index)
    if not 0 <= count <= _MAX_AXES:
        message = f"TFIELDS of HDU {index} is {count}"
        raise Rejected(message, remedy=_MALFORMED)
    return tuple(
        (str(values.get(f"TTYPE{number}") or "").strip().upper(), str(values.get(f"TFORM{number}") or "").strip())
        for number in range(1, count + 1)
    )


def _random_groups(values: Values, index: int, axes: tuple[int, ...]) -> bool:
    return index == 0 and bool(axes) and axes[0] == 0 and values.get("GROUPS") is True


def _integer(values: Values, keyword: str, index: int, default: int | None = None) -> int:
    value = values.get(keyword)
    if value is None and default is not None:
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        message = f"{keyword} of HDU {index} is {value!r}, not an integer"
        raise Rejected(message, remedy=_MALFORMED)
    return value


def _number(values: Values, keyword: str, index: int, default: float) -> float:
    value = values.get(keyword)
    if value is None:
        return default
    if not isinstance(value, (int, float)) or isinstance(value, bool) or abs(value) > 1e300 or value != value:
        message = f"{keyword} of HDU {index} is {value!r}, not a number"
        raise Rejected(message, remedy=_MALFORMED)
    return float(value)


def _blank(values: Values, bitpix: int) -> int | None:
    """Return BLANK where it has a meaning: an integer that a pixel of integers can hold."""
    value = values.get("BLANK")
    if bitpix < 0 or not isinstance(value, int) or isinstance(value, bool):
        return None
    low, high = (0, 255) if bitpix == 8 else (-(1 << (bitpix - 1)), (1 << (bitpix - 1)) - 1)
    return value if low <= value <= high else None


def _axes(values: Values, index: int, prefix: str = "") -> tuple[int, ...]:
    """Return the lengths of the axes, fastest first."""
    count = _integer(values, f"{prefix}NAXIS", index)
    if not 0 <= count <= _MAX_AXES:
        message = f"{prefix}NAXIS of HDU {index} is {count}"
        raise Rejected(message, remedy=_MALFORMED)
    axes = tuple(_integer(values, f"{prefix}NAXIS{axis}", index) for axis in range(1, count + 1))
    if any(length < 0 for length in axes):
        message = f"HDU {index} has axes of negative length: {axes}"
        raise Rejected(message, remedy=_MALFORMED)
    return axes


def _bitpix(values: Values, keyword: str, index: int) -> int:
    bitpix = _integer(values, keyword, index)
    if bitpix not in _BITPIX:
        message = f"{keyword} of HDU {index} is {bitpix}"
        raise Rejected(message, remedy="8, 16, 32, 64, -32 and -64 are known")
    return bitpix
