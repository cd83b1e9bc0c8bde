"""Every header of every frame, byte for byte, in one small table: a header once, and of those like it what differs.

The table CARDS has one row for each HDU of each file, images or not. TEXT is the header as it stood in the file, whole
blocks with END and whatever follows it; or, where BASE is not -1, the cards in which it differs from the header of row
BASE (counted from 0), and CHANGED their numbers (counted from 0). DATA are the data of HDUs that are no images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nightglass.config import Limits
from nightglass.cubes.bintables import Column, TableRows, lay_out_rows, read_rows
from nightglass.cubes.headers import read_header
from nightglass.cubes.names import file_names
from nightglass.cubes.records import FrameFile, Survey, TablePlan
from nightglass.cubes.scanning import scan_file
from nightglass.errors import Rejected, Retryable
from nightglass.fitsio.cards import CARD
from nightglass.fitsio.headers import stream_limit
from nightglass.fitsio.sources import open_source

__all__ = ["CARDS", "MAX_DATA", "CardStore", "StoredFile", "StoredHdu", "cards_table", "read_cards", "read_data"]

CARDS: Final = "CARDS"
"""EXTNAME of the table."""
MAX_DATA: Final = 64 << 20
"""Bytes of tables that a card store takes at most; those of further ones are left out, which verification tells."""
_CHUNK: Final = 4 << 20
_TRIES: Final = 16
"""Headers of one length that serve as base before the rest is stored whole."""
_SMALL_HEAP: Final = 1 << 31
_COMMENTS: Final = (
    "Headers of all HDUs of all files of this cube, as they stood there.",
    "TEXT: the header; where BASE is not -1, only the cards that differ from",
    "the header of row BASE (from 0), and CHANGED their numbers (from 0).",
    "DATA: what followed the header, of HDUs that are no images.",
)


@dataclass(frozen=True, slots=True)
class StoredHdu:
    """One HDU of a file of frames.

    Attributes
    ----------
    number : int
        Which HDU of its file.
    text : bytes
        Its header, as `HduText.text`.
    data_size : int
        Bytes of its data in its file, not padded.
    data : bytes or None
        Its data, if it is no image and was small enough.
    """

    number: int
    text: bytes
    data_size: int
    data: bytes | None

    @property
    def is_table(self) -> bool:
        """Whether it is anything but an image, tile-compressed ones included."""
        return _is_table(self.text)

    @property
    def is_compressed(self) -> bool:
        """Whether it is a tile-compressed image."""
        return _is_compressed(self.text)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of frames; its name is one of `file_names`."""

    name: str
    hdus: tuple[StoredHdu, ...]


class CardStore:
    """The table CARDS of a cube; headers are put together when they are asked for."""

    def __init__(self, rows: TableRows) -> None:
        self._rows = rows
        self._bases: NDArray[np.int64] = rows.columns["BASE"].astype(np.int64)
        self._first: dict[str, list[int]] = {}
        for row, name in enumerate(rows.texts("FILE")):
            self._first.setdefault(name, []).append(row)

    @property
    def names(self) -> tuple[str, ...]:
        """Files, in the order of the survey."""
        return tuple(self._first)

    def __contains__(self, name: str) -> bool:
        return name in self._first

    def file(self, name: str) -> StoredFile:
        """Return the headers of one file.

        Raises
        ------
        Rejected
            If the store has no such file, or is damaged.
        """
        if name not in self._first:
            message = f"the card store has no file {name!r}"
            raise Rejected(message, remedy="the tables of the cube do not belong together: take another copy")
        return StoredFile(name, tuple(self._hdu(row) for row in self._first[name]))

    def _hdu(self, row: int) -> StoredHdu:
        columns = self._rows.columns
        size = int(columns["SIZE"][row])
        data = self._rows.cell("DATA", row) if "DATA" in columns else b""
        return StoredHdu(int(columns["HDU"][row]), self._text(row), size, data if len(data) == size > 0 else None)

    def _text(self, row: int) -> bytes:
        own, base = self._rows.cell("TEXT", row), int(self._bases[row])
        if base < 0:
            return own
        whole = bytearray(self._rows.cell("TEXT", base)) if base < len(self._bases) else bytearray()
        changed = np.frombuffer(self._rows.cell("CHANGED", row), ">i4")
        if len(own) != len(changed) * CARD or any((changed < 0) | (changed >= len(whole) // CARD)):
            message = f"row {row + 1} of the card store does not fit row {base + 1}, on which it is based"
            raise Rejected(message, remedy="the cube is damaged: take another copy")
        for number, place in enumerate(changed.tolist()):
            whole[place * CARD : (place + 1) * CARD] = own[number * CARD : (number + 1) * CARD]
        return bytes(whole)


def cards_table(survey: Survey, *, limits: Limits | None = None, max_data: int = MAX_DATA) -> TablePlan:
    """Make the table of all headers of all files, and of the data of HDUs that are no images.

    Parameters
    ----------
    limits : Limits, optional
        Bounds of gzip streams whose tables have to be read.
    max_data : int
        Bytes of tables that are taken; a table beyond that is left out whole.

    Raises
    ------
    Rejected, Retryable
        If a file with tables cannot be read any more.
    """
    names = [name.encode("ascii") for name in file_names([file.stamp.path for file in survey.files])]
    hdus = [(file, hdu) for file, found in enumerate(survey.files) for hdu in range(len(found.hdus))]
    texts = [survey.files[file].hdus[hdu].text for file, hdu in hdus]
    packed = _pack(texts)
    tables = _table_data(survey, hdus, limits or Limits(), max_data)
    heap, cells = _heap(packed, tables)
    wide = "Q" if len(heap) >= _SMALL_HEAP else "P"
    files = np.array([names[file] for file, _ in hdus], "S")
    sizes = [survey.files[file].hdus[hdu].data_size for file, hdu in hdus]
    columns = [
        Column(name="FILE", form=f"{files.dtype.itemsize}A", values=files),
        Column(name="HDU", form="1J", values=np.array([hdu for _, hdu in hdus])),
        Column(name="SIZE", form="1K", values=np.array(sizes)),
        Column(name="BASE", form="1J", values=packed.base),
        *(
            Column(name=name, form=f"1{wide}{code}({int(values[:, 0].max(initial=0))})", values=values)
            for name, code, values in cells
        ),
    ]
    return lay_out_rows(CARDS, columns, comments=_COMMENTS, heap=heap, extra={})


def read_cards(cube: Path, limits: Limits | None = None) -> CardStore | None:
    """Read the card store of a cube; None if it was made without one.

    Raises
    ------
    Rejected
        If the cube is damaged.
    Retryable
        If it cannot be read.
    """
    hdus = scan_file(cube, limits or Limits()).hdus
    found = next((hdu for hdu in hdus if read_header(hdu.text).get("EXTNAME") == CARDS), None)
    return None if found is None else CardStore(read_rows(cube, found))


@dataclass(slots=True)
class _Packed:
    """Headers as bases and differences, in the order of their rows."""

    base: NDArray[np.int64]
    text: list[bytes]
    changed: list[bytes] = field(default_factory=list)


def _pack(texts: Sequence[bytes]) -> _Packed:
    packed = _Packed(np.full(len(texts), -1), list(texts), [b""] * len(texts))
    by_length: dict[int, list[int]] = {}
    for row, text in enumerate(texts):
        by_length.setdefault(len(text), []).append(row)
    for length, rows in by_length.items():
        if length % CARD == 0:
            _pack_alike(packed, texts, rows, length)
    return packed


def _pack_alike(packed: _Packed, texts: Sequence[bytes], rows: list[int], length: int) -> None:
    """Replace headers of one length by their differences from a base, as far as these are fewer than half of them."""
    for _ in range(_TRIES):
        if len(rows) < 2:
            return
        base, others, left = rows[0], rows[1:], list[int]()
        step = max(_CHUNK // length, 1)
        for start in range(0, len(others), step):
            left += _difference(packed, texts, base, others[start : start + step])
        rows = left


def _difference(packed: _Packed, texts: Sequence[bytes], base: int, rows: list[int]) -> list[int]:
    """Pack some headers; returns those that are too different."""
    block = b"".join([texts[row] for row in rows])
    words = np.frombuffer(block, np.uint64).reshape(len(rows), -1, CARD // 8)
    differs = (words != np.frombuffer(texts[base], np.uint64).reshape(-1, CARD // 8)).any(axis=2)
    counts = differs.sum(axis=1)
    near = counts * 2 < words.shape[1]
    differs &= near[:, None]
    places = np.nonzero(differs)[1].astype(">i4").tobytes()
    cards = words[differs].tobytes()
    at = 0
    for row, count in zip(rows, np.where(near, counts, -1).tolist(), strict=True):
        if count < 0:
            continue
        packed.base[row] = base
        packed.text[row] = cards[at * CARD : (at + count) * CARD]
        packed.changed[row] = places[at * 4 : (at + count) * 4]
        at += count
    return [row for row, is_near in zip(rows, near.tolist(), strict=True) if not is_near]


def _heap(packed: _Packed, tables: dict[int, bytes]) -> tuple[bytes, list[tuple[str, str, NDArray[np.int64]]]]:
    """Return the heap, and for each column of arrays name, type and descriptors."""
    rows = range(len(packed.text))
    columns = [("CHANGED", "J", 4, packed.changed), ("TEXT", "B", 1, packed.text)]
    if tables:
        columns.append(("DATA", "B", 1, [tables.get(row, b"") for row in rows]))
    pieces: list[bytes] = []
    cells = []
    start = 0
    for name, code, size, values in columns:
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        starts = start + np.cumsum(lengths) - lengths
        # an empty array has no place: zero is what readers expect
        cells.append((name, code, np.stack([lengths // size, np.where(lengths > 0, starts, 0)], axis=1)))
        pieces += values
        start += int(lengths.sum())
    return b"".join(pieces), cells


def _table_data(survey: Survey, hdus: Sequence[tuple[int, int]], limits: Limits, max_data: int) -> dict[int, bytes]:
    """Return the data of HDUs that are no images, by row."""
    wanted: dict[int, list[tuple[int, int]]] = {}
    room = max_data
    for row, (file, hdu) in enumerate(hdus):
        found = survey.files[file].hdus[hdu]
        if found.data_size and found.data_size <= room and _is_table(found.text):
            wanted.setdefault(file, []).append((row, hdu))
            room -= found.data_size
    taken: dict[int, bytes] = {}
    for file, rows in wanted.items():
        data = read_data(survey.files[file], [hdu for _, hdu in rows], limits)
        taken |= {row: item for (row, _), (_, item) in zip(rows, data, strict=True)}
    return taken


def _is_table(text: bytes) -> bool:
    """Tell whether an HDU is anything but an image, tile-compressed ones included."""
    first = text[:CARD]
    if not first.startswith(b"XTENSION") or b"'IMAGE" in first or b"'IUEIMAGE" in first:
        return False
    return not _is_compressed(text)


def _is_compressed(text: bytes) -> bool:
    return b"ZIMAGE  =" in text and any(
        text.startswith(b"ZIMAGE  =", start) and text[start + 10 : start + CARD].split(b"/")[0].strip() == b"T"
        for start in range(0, len(text), CARD)
    )


def read_data(file: FrameFile, hdus: Sequence[int], limits: Limits) -> Iterator[tuple[int, bytes]]:
    """Read the data of some HDUs, in the order of the file.

    Raises
    ------
    Rejected, Retryable
        If the file cannot be read any more, or is shorter than it was.
    """
    path = file.stamp.path
    with open_source(path, limit=stream_limit(limits)) as source:
        for hdu in hdus:
            found = file.hdus[hdu]
            source.skip(found.data_offset - source.position)
            data = source.read(found.data_size)
            if len(data) < found.data_size:
                message = f"{path}: HDU {hdu} has {len(data)} of {found.data_size} bytes"
                raise Retryable(message, remedy="the file changed while it was read: try again")
            yield hdu, data
