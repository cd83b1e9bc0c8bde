"""A FITS table that grows at its end, and can be read at any time.

The file has an empty primary HDU and one binary table, without checksums. Rows are written behind the last ones first,
and NAXIS2 is set then: whoever is killed between the two leaves rows that nobody counts (FITS Standard 4.0, 7.3).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightglass.errors import Rejected, Retryable
from nightglass.fitsio.cards import BLOCK, CARD, pad_header
from nightglass.fitsio.product_cards import make_card, make_cards

__all__ = ["GrowingTable", "table_cards"]

_CODES = {"i4": "J", "i8": "K", "f8": "D"}


class GrowingTable:
    """A table that is open for writing; one that was there is gone on with.

    Parameters
    ----------
    dtype : numpy.dtype
        Columns of ``i4``, ``i8``, ``f8``, ``?`` and ASCII text.
    units : mapping of str to str

    Raises
    ------
    Rejected
        If the file is no such table.
    Retryable
        If the file system refuses.
    """

    def __init__(self, path: Path, name: str, dtype: np.dtype[Any], units: dict[str, str]) -> None:
        self.path = path
        self._dtype = dtype
        self._stored = _stored_dtype(dtype)
        primary = pad_header(make_cards({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "EXTEND": True}))
        cards = table_cards(name, dtype, units, rows=0)
        self._offset = len(primary + pad_header(cards))
        self._counter = len(primary) + CARD * next(place for place, card in enumerate(cards) if card[:7] == "NAXIS2 ")
        self._count = 0
        with self._refusing():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._begin(primary + pad_header(cards))
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._count

    def append(self, rows: NDArray[np.void]) -> None:
        """Add rows: all of them are there afterwards, or none.

        Raises
        ------
        Retryable
            If the file system refuses.
        """
        if not len(rows):
            return
        stored = np.zeros(len(rows), self._stored)
        for name in self._dtype.names or ():
            column = rows[name]
            stored[name] = np.where(column, b"T", b"F") if column.dtype.kind == "b" else _ascii(column)
        with self._refusing():
            place = self._offset + self._count * self._stored.itemsize
            _write_all(self._descriptor, stored.tobytes(), place)
            self._settle(self._count + len(rows))

    def keep(self, count: int) -> None:
        """Forget all rows but the first ones.

        Raises
        ------
        Retryable
            If the file system refuses.
        """
        with self._refusing():
            self._settle(min(count, self._count))

    def rows(self, first: int = 0, last: int | None = None) -> NDArray[np.void]:
        """Return rows as they went in.

        Raises
        ------
        Retryable
            If the file system refuses.
        """
        first, last, _ = slice(first, last).indices(self._count)
        width = self._stored.itemsize
        with self._refusing():
            raw = _read_all(self._descriptor, max(last - first, 0) * width, self._offset + first * width)
        stored = np.frombuffer(raw, self._stored)
        rows = np.zeros(len(stored), self._dtype)
        for name in self._dtype.names or ():
            rows[name] = stored[name] == b"T" if self._dtype[name].kind == "b" else stored[name]
        return rows

    def view(self) -> memoryview:
        """Return the rows as they stand in the file, without reading them all at once."""
        size = self._count * self._stored.itemsize
        return np.memmap(self.path, np.uint8, "r", self._offset, (size,)).data if size else memoryview(b"")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _begin(self, header: bytes) -> None:
        """Take the header of the file, if it is ours, or write it."""
        with self._refusing():
            found = _read_all(self._descriptor, self._offset, 0)
            if len(found) < self._offset:
                os.ftruncate(self._descriptor, 0)
                _write_all(self._descriptor, header, 0)
                return
            size = os.fstat(self._descriptor).st_size
        counter = slice(self._counter, self._counter + CARD)
        count = found[counter][10:30].strip()
        if not count.isdigit() or found[: counter.start] + found[counter.stop :] != (
            header[: counter.start] + header[counter.stop :]
        ):
            message = f"{self.path} is no table of these columns"
            raise Rejected(message, remedy="move it away: it is made anew")
        if self._offset + int(count) * self._stored.itemsize > size:
            message = f"{self.path} is shorter than its {int(count)} rows"
            raise Rejected(message, remedy="move it away: it is made anew")
        self._count = int(count)

    def _settle(self, count: int) -> None:
        end = self._offset + count * self._stored.itemsize
        if count > self._count:
            os.ftruncate(self._descriptor, end + -end % BLOCK)
        (card,) = make_card("NAXIS2", (count, "rows"))
        _write_all(self._descriptor, card.encode("ascii"), self._counter)
        if count <= self._count:
            os.ftruncate(self._descriptor, end)  # what was counted no more becomes zeros
            os.ftruncate(self._descriptor, end + -end % BLOCK)
        self._count = count

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"{self.path}: {error.strerror or error}"
            raise Retryable(message, remedy="check the disk and the rights of the directory") from error


def table_cards(name: str, dtype: np.dtype[Any], units: dict[str, str], *, rows: int) -> list[str]:
    """Return the cards of a binary table, from XTENSION on."""
    stored = _stored_dtype(dtype)
    cards: dict[str, Any] = {
        "XTENSION": ("BINTABLE", "binary table"),
        "BITPIX": 8,
        "NAXIS": 2,
        "NAXIS1": (stored.itemsize, "bytes in a row"),
        "NAXIS2": (rows, "rows"),
        "PCOUNT": 0,
        "GCOUNT": 1,
        "TFIELDS": (len(dtype.names or ()), "columns"),
    }
    for number, column in enumerate(dtype.names or (), start=1):
        kind = dtype[column]
        cards[f"TTYPE{number}"] = column
        code = "L" if kind.kind == "b" else _CODES.get(kind.str[1:]) or f"{stored[column].itemsize}A"
        cards[f"TFORM{number}"] = code
        if column in units:
            cards[f"TUNIT{number}"] = units[column]
    cards["EXTNAME"] = name
    return make_cards(cards)


def _stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    def stored(kind: np.dtype[Any]) -> str:
        if kind.kind == "U":
            return f"S{kind.itemsize // 4}"
        return "S1" if kind.kind == "b" else f">{kind.str[1:]}"

    return np.dtype([(name, stored(dtype[name])) for name in dtype.names or ()])


def _ascii(column: NDArray[Any]) -> NDArray[Any]:
    return np.char.encode(column, "ascii", "replace") if column.dtype.kind == "U" else column


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while len(view):
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _read_all(descriptor: int, count: int, offset: int) -> bytes:
    pieces = []
    while count and (piece := os.pread(descriptor, count, offset)):
        pieces.append(piece)
        count, offset = count - len(piece), offset + len(piece)
    return b"".join(pieces)
