"""A FITS table that grows at its end, and can be read at any time.

The file has an empty primary HDU and one binary table, with both checksums. Rows are written behind the last ones
first; NAXIS2, CHECKSUM and DATASUM, which stand together in one page of memory, are set then: whoever is killed between
the two leaves rows that nobody counts, and the next writer cuts them off (FITS Standard 4.0, 4.4.2.7 and 7.3). Until it
does, and for the instant between the two, they stand where zeros fill the last block, and the checksums do not fit.
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
from nightglass.fitsio.cards import BLOCK, CARD
from nightglass.fitsio.checksums import add_sums, sum_bytes
from nightglass.fitsio.filling import write_at
from nightglass.fitsio.product_cards import make_cards
from nightglass.fitsio.sealing import seal
from nightglass.fitsio.tables import table_head

__all__ = ["GrowingTable", "store_rows", "table_cards"]

_CODES = {"i4": "J", "i8": "K", "f8": "D"}
_NAXIS2, _CHECKSUM, _END = 4, 8, 10
"""Cards of the table's header: which is NAXIS2, which is the first checksum, and which follows both."""
_AT_ONCE = 1 << 20
"""Bytes that are summed at a time."""


class GrowingTable:
    """A table that is open for writing; one that was there is gone on with.

    Parameters
    ----------
    path : Path
        Its directory is made if it is missing.
    name : str
        EXTNAME.
    dtype : numpy.dtype
        Columns of ``i4``, ``i8``, ``f8``, ``?`` and ASCII text.
    units : mapping of str to str
        Column -> unit, of those that have one.

    Raises
    ------
    Rejected
        If the file is no such table, or does not hold the rows that were written.
    Retryable
        If the file system refuses.
    """

    def __init__(self, path: Path, name: str, dtype: np.dtype[Any], units: dict[str, str]) -> None:
        self.path = path
        self._name, self._dtype, self._units = name, dtype, units
        self._stored = _stored_dtype(dtype)
        self._primary = seal(make_cards({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "EXTEND": True}), 0)
        self._offset = len(self._primary) + len(self._header(0, 0))
        self._count = self._sum = 0
        with self._refusing():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with self._refusing():
                self._begin()
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
        stored = store_rows(rows)
        place = self._count * self._stored.itemsize
        with self._refusing():
            try:
                write_at(self._descriptor, stored, self._offset + place)
                self._pad(self._count + len(rows))
                self._settle(self._count + len(rows), add_sums(self._sum, sum_bytes(bytes(place % 4) + stored)))
            except OSError:
                with contextlib.suppress(OSError):  # what is behind the rows that count, the next ones overwrite
                    self._cut(self._count)
                raise

    def keep(self, count: int) -> None:
        """Forget all rows but the first ones.

        Raises
        ------
        Retryable
            If the file system refuses.
        """
        if count >= self._count:
            return
        with self._refusing():
            self._settle(count, self._sum_of(count))
            self._cut(count)

    def rows(self, first: int = 0, last: int | None = None) -> NDArray[np.void]:
        """Return rows as they went in, (last - first,) of the columns' dtype.

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

    def _begin(self) -> None:
        """Take the rows of the file, if it is ours, or write headers."""
        found = _read_all(self._descriptor, self._offset, 0)
        if len(found) < self._offset:
            os.ftruncate(self._descriptor, 0)
            write_at(self._descriptor, self._primary + self._header(0, 0), 0)
            return
        cards = found[len(self._primary) :]
        count, total = _number(cards, _NAXIS2), _number(cards, _CHECKSUM + 1)
        if found != self._primary + self._header(count, total):
            message = f"{self.path} is no table of these columns"
            raise Rejected(message, remedy="move it away: it is made anew")
        # a machine that lost its power may have kept the header, and not the rows
        if self._sum_of(count) != total:
            message = f"{self.path} does not hold the {count} rows that were written"
            raise Rejected(message, remedy="move it away: it is made anew")
        self._count, self._sum = count, total
        self._cut(self._count)

    def _header(self, count: int, total: int) -> bytes:
        cards = table_cards(self._name, self._dtype, self._units, rows=count)
        return seal(cards, total, place=_CHECKSUM)

    def _settle(self, count: int, total: int) -> None:
        """Let so many rows count."""
        changed = self._header(count, total)[CARD * _NAXIS2 : CARD * _END]
        write_at(self._descriptor, changed, len(self._primary) + CARD * _NAXIS2)
        self._count, self._sum = count, total

    def _sum_of(self, count: int) -> int:
        total, end = 0, count * self._stored.itemsize
        for start in range(0, end, _AT_ONCE):
            size = min(_AT_ONCE, end - start)
            piece = _read_all(self._descriptor, size, self._offset + start)
            if len(piece) < size:
                return -1
            total = add_sums(total, sum_bytes(piece))
        return total

    def _pad(self, count: int) -> None:
        end = self._offset + count * self._stored.itemsize
        os.ftruncate(self._descriptor, end + -end % BLOCK)

    def _cut(self, count: int) -> None:
        """Let zeros follow so many rows, and the file end."""
        os.ftruncate(self._descriptor, self._offset + count * self._stored.itemsize)
        self._pad(count)

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"{self.path}: {error.strerror or error}"
            raise Retryable(message, remedy="check the disk and the rights of the directory") from error


def table_cards(name: str, dtype: np.dtype[Any], units: dict[str, str], *, rows: int) -> list[str]:
    """Return the cards of a binary table, from XTENSION on; parameters as those of `GrowingTable`."""
    stored = _stored_dtype(dtype)
    cards = table_head(row_bytes=stored.itemsize, rows=rows, columns=len(dtype.names or ()))
    for number, column in enumerate(dtype.names or (), start=1):
        kind = dtype[column]
        cards[f"TTYPE{number}"] = column
        code = "L" if kind.kind == "b" else _CODES.get(kind.str[1:]) or f"{stored[column].itemsize}A"
        cards[f"TFORM{number}"] = code
        if column in units:
            cards[f"TUNIT{number}"] = units[column]
    cards["EXTNAME"] = name
    return make_cards(cards)


def store_rows(rows: NDArray[np.void]) -> bytes:
    """Return rows, (n,), as they stand in a file: columns as in `GrowingTable`; what is no ASCII becomes ``?``."""
    stored = np.zeros(len(rows), _stored_dtype(rows.dtype))
    for name in rows.dtype.names or ():
        column = rows[name]
        if column.dtype.kind == "b":
            stored[name] = np.where(column, b"T", b"F")
        else:
            stored[name] = np.char.encode(column, "ascii", "replace") if column.dtype.kind == "U" else column
    return stored.tobytes()


def _stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    def stored(kind: np.dtype[Any]) -> str:
        if kind.kind == "U":
            return f"S{kind.itemsize // 4}"
        return "S1" if kind.kind == "b" else f">{kind.str[1:]}"

    return np.dtype([(name, stored(dtype[name])) for name in dtype.names or ()])


def _number(cards: bytes, place: int) -> int:
    """Return the number of a card, or what no card of ours has."""
    text = cards[CARD * place :][10:30].strip(b" '")
    return int(text) if text.isdigit() else -1


def _read_all(descriptor: int, count: int, offset: int) -> bytes:
    pieces = []
    while count and (piece := os.pread(descriptor, count, offset)):
        pieces.append(piece)
        count, offset = count - len(piece), offset + len(piece)
    return b"".join(pieces)
