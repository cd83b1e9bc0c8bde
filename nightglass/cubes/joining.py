"""Tile-compressed planes put together without being decompressed: tables joined, heaps moved as bytes.

FITS Standard 4.0, section 10. Columns are joined by name, descriptors point to where the heaps went.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nightglass.cubes.records import FrameFile
from nightglass.errors import Rejected
from nightglass.fitsio.product_cards import CardValue

__all__ = [
    "WIDE_HEAP",
    "DamagedTiles",
    "JoinedTiles",
    "PlaneTiles",
    "Segment",
    "descriptor_size",
    "difference_of_columns",
    "join_tiles",
]

WIDE_HEAP: Final = 1 << 31
"""Bytes of heap from which on descriptors have 64 bits, because those of 32 bits are signed."""
_FORM: Final = re.compile(r"1?([PQ])([BIJKED])(?:\((\d+)\))?|1?([BIJKED])")
_TYPES: Final = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_DESCRIPTORS: Final = {"P": ">i4", "Q": ">i8"}
_DAMAGED: Final = "transfer the file again"
_Columns = tuple[tuple[str, str], ...]


class DamagedTiles(Rejected):
    """Tables that cannot be joined.

    Attributes
    ----------
    reasons : dict
        Number of the plane, in the order in which they were given, to what is wrong with it.
    """

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__("; ".join(list(reasons.values())[:3]), remedy=_DAMAGED)
        self.reasons = reasons


@dataclass(frozen=True, slots=True)
class PlaneTiles:
    """The tiles of one plane, wherever they are.

    Attributes
    ----------
    file : FrameFile
        Frame or fragment; without headers.
    columns : tuple of pairs
        TTYPE and TFORM.
    tiles : int
        How many there are.
    rows : bytes
        Rows of the table, one a tile.
    heap_offset, heap_size : int
        Bytes; what descriptors count from, and how far they may reach.
    """

    file: FrameFile
    columns: _Columns
    tiles: int
    rows: bytes
    heap_offset: int
    heap_size: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes of a file that are moved into the joined heap, behind those of the former segment."""

    plane: int
    file: FrameFile
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class JoinedTiles:
    """A table over all planes.

    Attributes
    ----------
    columns : tuple of pairs
        TTYPE and TFORM.
    rows : bytes
    segments : tuple of Segment
        What the heap is made of.
    """

    columns: _Columns
    row_size: int
    rows: bytes
    segments: tuple[Segment, ...]

    @property
    def heap_size(self) -> int:
        """Bytes."""
        return sum(segment.size for segment in self.segments)

    def cards(
        self,
        *,
        bitpix: int,
        shape: Sequence[int],
        tile: Sequence[int],
        algorithm: str,
        options: Sequence[tuple[str, int]],
    ) -> dict[str, CardValue]:
        """Return the keywords of the compressed image up to how it is compressed: FITS 4.0, section 10.1.

        Parameters
        ----------
        shape, tile : sequence of int
            Pixels of the image and of a tile, slowest axis first.
        algorithm : str
            ZCMPTYPE.
        options : sequence of pairs
            ZNAME and ZVAL.
        """
        values: dict[str, CardValue] = {
            "XTENSION": ("BINTABLE", "tile-compressed image"),
            "BITPIX": 8,
            "NAXIS": 2,
            "NAXIS1": (self.row_size, "bytes of a row"),
            "NAXIS2": (len(self.rows) // self.row_size, "tiles"),
            "PCOUNT": (self.heap_size, "bytes of the heap"),
            "GCOUNT": 1,
            "TFIELDS": len(self.columns),
        }
        for number, (name, form) in enumerate(self.columns, start=1):
            values |= {f"TTYPE{number}": name, f"TFORM{number}": form}
        values |= {
            "ZIMAGE": (True, "this is a compressed image"),
            "ZTENSION": ("IMAGE", "of an image extension"),
            "ZBITPIX": bitpix,
            "ZNAXIS": len(shape),
        }
        values |= {f"ZNAXIS{axis}": length for axis, length in enumerate(reversed(shape), start=1)}
        values |= {"ZPCOUNT": 0, "ZGCOUNT": 1}
        values |= {f"ZTILE{axis}": length for axis, length in enumerate(reversed(tile), start=1)}
        values["ZCMPTYPE"] = algorithm
        for number, (name, value) in enumerate(options, start=1):
            values |= {f"ZNAME{number}": name, f"ZVAL{number}": value}
        return values


@dataclass(frozen=True, slots=True)
class _Column:
    """One column of one plane, read: cells of numbers, or counts and places of arrays of them."""

    element: str
    values: NDArray[Any] | None = None
    counts: NDArray[np.int64] | None = None
    places: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        cells = self.counts if self.values is None else self.values
        return 0 if cells is None else len(cells)


def descriptor_size(*, wide: bool) -> int:
    """Return how many bytes a descriptor takes: two numbers of 32 or of 64 bits."""
    return 2 * np.dtype(_DESCRIPTORS["Q" if wide else "P"]).itemsize


def join_tiles(planes: Sequence[PlaneTiles], *, wide_heap: int = WIDE_HEAP) -> JoinedTiles:
    """Join the tiles of planes, in their order.

    Parameters
    ----------
    wide_heap : int
        Bytes of heap from which on descriptors are 64 bits wide.

    Raises
    ------
    DamagedTiles
        If descriptors point outside of their heap, or rows are missing.
    Rejected
        If columns differ in more than that an array is missing here or there, see `difference_of_columns`.
    """
    difference = difference_of_columns(plane.columns for plane in planes)
    if difference:
        message = f"{planes[0].file.stamp.path} and others: {difference}"
        raise Rejected(message, remedy="archive them in a plain cube")
    tables = _read_all(planes)
    segments: list[Segment] = []
    size = 0
    for number, (plane, table) in enumerate(zip(planes, tables, strict=True)):
        parts = _Parts.of(table)
        parts.move(table, size)
        size += parts.size
        segments += [
            Segment(number, plane.file, plane.heap_offset + first, last - first)
            for first, last in zip(parts.firsts.tolist(), parts.lasts.tolist(), strict=True)
        ]
    return _lay_out(tables, _all_elements(planes), "Q" if size >= wide_heap else "P", tuple(segments))


def difference_of_columns(tables: Iterable[_Columns]) -> str:
    """Say why tables cannot be joined; empty if they can.

    An array that is missing in one of them is empty there, but a number that is missing is not zero.
    """
    distinct = dict.fromkeys(tables)
    kinds: dict[str, tuple[bool, str]] = {}
    for columns in distinct:
        for name, form in columns:
            if not name or _FORM.fullmatch(form) is None:
                return f"column {name!r} of {form!r} is none of a compressed image"
            if kinds.setdefault(name, _kind(form)) != _kind(form):
                return f"their columns {name} are not of one type"
    for columns in distinct:
        names = {name for name, _ in columns}
        lacking = [name for name, (arrays, _) in kinds.items() if not arrays and name not in names]
        if lacking:
            return f"some have a column {lacking[0]}, others have not"
    return ""


def _kind(form: str) -> tuple[bool, str]:
    """Return whether a column has arrays, and of what."""
    wide, element = _parse(form)
    return bool(wide), element


def _read_all(planes: Sequence[PlaneTiles]) -> list[dict[str, _Column]]:
    tables: list[dict[str, _Column]] = []
    reasons: dict[int, str] = {}
    for number, plane in enumerate(planes):
        try:
            tables.append(_read(plane))
        except Rejected as error:
            reasons[number] = str(error)
    if reasons:
        raise DamagedTiles(reasons)
    return tables


def _read(plane: PlaneTiles) -> dict[str, _Column]:
    path = plane.file.stamp.path
    names = [name for name, _ in plane.columns]
    if not names or "" in names or len(set(names)) < len(names):
        message = f"{path}: the columns of a compressed image are {names}"
        raise Rejected(message, remedy=_DAMAGED)
    forms = [(name, _parse(form)) for name, form in plane.columns]
    dtype = np.dtype(
        [(name, _DESCRIPTORS[wide], (2,)) if wide else (name, _TYPES[element], ()) for name, (wide, element) in forms]
    )
    if len(plane.rows) != plane.tiles * dtype.itemsize:
        message = f"{path}: {plane.tiles} tiles take {dtype.itemsize} bytes each, not {len(plane.rows)} together"
        raise Rejected(message, remedy=_DAMAGED)
    rows = np.frombuffer(plane.rows, dtype)
    found: dict[str, _Column] = {}
    for name, (wide, element) in forms:
        cells = rows[name]
        if not wide:
            found[name] = _Column(element, values=cells)
            continue
        counts, places = cells[:, 0].astype(np.int64), cells[:, 1].astype(np.int64)
        size = np.dtype(_TYPES[element]).itemsize
        # each on its own first, because sums and products of 64-bit descriptors may overflow
        bad = (counts < 0) | (counts > plane.heap_size // size)
        bad |= (counts != 0) & ((places < 0) | (places > plane.heap_size))
        bad |= (counts != 0) & ~bad & (np.where(bad, 0, places) + np.where(bad, 0, counts) * size > plane.heap_size)
        if bad.any():
            message = f"{path}: a tile in {name} lies outside of its heap of {plane.heap_size} bytes"
            raise Rejected(message, remedy=_DAMAGED)
        found[name] = _Column(element, counts=counts, places=places)
    return found


def _parse(form: str) -> tuple[str, str]:
    match = _FORM.fullmatch(form)
    if match is None:
        message = f"TFORM {form!r} is none of a compressed image"
        raise Rejected(message, remedy="archive it in a plain cube")
    return match[1] or "", match[2] or match[4]


def _all_elements(planes: Sequence[PlaneTiles]) -> dict[str, tuple[bool, str]]:
    """Return the columns of all planes in the order in which they appear: whether arrays, and of what."""
    return {name: _kind(form) for columns in dict.fromkeys(plane.columns for plane in planes) for name, form in columns}


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a heap that are used, in order; what lies between them is left behind."""

    firsts: NDArray[np.int64]
    lasts: NDArray[np.int64]

    @classmethod
    def of(cls, table: dict[str, _Column]) -> _Parts:
        """Find them: cells may follow one another, leave room, or share bytes."""
        cells = _cells(table)
        cells = cells[np.argsort(cells[:, 0], kind="stable")]
        ends = np.maximum.accumulate(cells[:, 1])
        breaks = np.flatnonzero(cells[1:, 0] > ends[:-1])
        return cls(cells[np.r_[0, breaks + 1], 0], ends[np.r_[breaks, -1]]) if len(cells) else cls(ends, ends)

    @property
    def size(self) -> int:
        """Bytes of all."""
        return int((self.lasts - self.firsts).sum())

    def move(self, table: dict[str, _Column], base: int) -> None:
        """Point the descriptors of a plane to where its parts go, one behind the other, in the new heap."""
        if not len(self.firsts):
            return
        targets = base + np.cumsum(self.lasts - self.firsts) - (self.lasts - self.firsts)
        for column in table.values():
            if column.counts is not None and column.places is not None:
                part = np.clip(np.searchsorted(self.firsts, column.places, "right") - 1, 0, None)
                column.places[...] = np.where(column.counts > 0, column.places - self.firsts[part] + targets[part], 0)


def _cells(table: dict[str, _Column]) -> NDArray[np.int64]:
    """Return begin and end of every cell that is not empty."""
    parts = []
    for column in table.values():
        if column.counts is not None and column.places is not None:
            used = column.counts > 0
            first = column.places[used]
            parts.append(np.stack([first, first + column.counts[used] * np.dtype(_TYPES[column.element]).itemsize], 1))
    return np.concatenate(parts) if parts else np.empty((0, 2), np.int64)


def _lay_out(
    tables: Sequence[dict[str, _Column]],
    elements: dict[str, tuple[bool, str]],
    letter: str,
    segments: tuple[Segment, ...],
) -> JoinedTiles:
    dtype = np.dtype(
        [
            (name, _DESCRIPTORS[letter], (2,)) if arrays else (name, _TYPES[element], ())
            for name, (arrays, element) in elements.items()
        ]
    )
    counts = [len(next(iter(table.values()))) for table in tables]
    joined = np.zeros(sum(counts), dtype)
    longest = dict.fromkeys(elements, 0)
    start = 0
    for table, count in zip(tables, counts, strict=True):
        for name, column in table.items():
            if column.counts is None or column.places is None:
                joined[name][start : start + count] = column.values
            else:
                joined[name][start : start + count, 0] = column.counts
                joined[name][start : start + count, 1] = column.places
                longest[name] = max(longest[name], int(column.counts.max(initial=0)))
        start += count
    columns = tuple(
        (name, f"1{letter}{element}({longest[name]})" if arrays else f"1{element}")
        for name, (arrays, element) in elements.items()
    )
    return JoinedTiles(columns, dtype.itemsize, joined.tobytes(), segments)
