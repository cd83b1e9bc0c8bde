"""Binary tables as bytes: laid out for a plan, and read back without astropy's per-cell cost.

FITS Standard 4.0, sections 7.3.2 (columns), 7.3.5 (variable-length arrays).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.cubes.headers import read_header
from nightglass.cubes.records import HduText, TablePlan
from nightglass.errors import Rejected
from nightglass.fitsio.cards import CARD, Scalar, comment_cards
from nightglass.fitsio.product_cards import make_card
from nightglass.fitsio.sources import reading

__all__ = ["MAX_COLUMNS", "Column", "TableRows", "lay_out_rows", "read_rows"]

MAX_COLUMNS: Final = 999
"""TFIELDS can say no more: section 7.3.1."""
_DTYPES: Final = {"L": "S1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_DESCRIPTORS: Final = {"P": ">i4", "Q": ">i8"}
_FORM = re.compile(r"(\d*)([LBIJKEDA])|1?([PQ])([BIJKED])(?:\(\d*\))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name : str
        TTYPE: letters, digits and underscores.
    form : str
        TFORM.
    values : ndarray
        One row each: numbers, ``S1`` of ``T``, ``F`` and NUL for logical ones, bytes for text; for variable-length
        arrays (rows, 2): how many elements, and where in the heap.
    null : int or None
        TNULL: the stored integer that stands for nothing.
    keyword : str
        The header keyword whose values these are (TCOMM).
    """

    name: str
    form: str
    values: NDArray[Any]
    null: int | None = None
    keyword: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRows:
    """A table that was read.

    Attributes
    ----------
    length : int
        Rows.
    columns : dict
        By TTYPE; variable-length arrays as (rows, 2) descriptors, see `cell`.
    forms : dict
        TTYPE to TFORM.
    keywords, nulls : dict
        TTYPE to TCOMM and to TNULL, for the columns that have one.
    heap : bytes
        What follows the rows.
    elements : dict
        TTYPE to type of the elements of variable-length arrays.
    """

    length: int
    columns: dict[str, NDArray[Any]]
    forms: dict[str, str]
    keywords: dict[str, str]
    nulls: dict[str, int]
    heap: bytes
    elements: dict[str, np.dtype[Any]]

    def __len__(self) -> int:
        return self.length

    def texts(self, name: str) -> list[str]:
        """Return a column of text, without the blanks and NULs that fill it."""
        return [value.decode("latin-1").rstrip(" ") for value in self.columns[name].tolist()]

    def cell(self, name: str, row: int) -> bytes:
        """Return the bytes of one variable-length cell.

        Raises
        ------
        Rejected
            If its descriptor points outside of the heap.
        """
        count, start = (int(item) for item in self.columns[name][row])
        size = count * self.elements[name].itemsize
        if count < 0 or start < 0 or start + size > len(self.heap):
            message = f"row {row + 1} of {name}: {size} bytes at {start} of a heap of {len(self.heap)}"
            raise Rejected(message, remedy="the table is damaged: take another copy of the cube")
        return self.heap[start : start + size]


def lay_out_rows(
    name: str, columns: Sequence[Column], *, comments: Sequence[str] = (), heap: bytes = b"", extra: Mapping[str, Any]
) -> TablePlan:
    """Make a table of columns of equal length.

    Parameters
    ----------
    comments : sequence of str
        For people who meet the table without this program.
    heap : bytes
        What the descriptors of variable-length arrays point into.
    extra : mapping
        Further cards.
    """
    rows = len(columns[0].values)
    dtype = np.dtype([(column.name, _stored(column.form)[0], _stored(column.form)[1]) for column in columns])
    table = np.zeros(rows, dtype)
    for column in columns:
        table[column.name] = column.values
    cards: dict[str, Any] = {
        "XTENSION": ("BINTABLE", "binary table"),
        "BITPIX": (8, "bytes"),
        "NAXIS": (2, "rows and columns"),
        "NAXIS1": (dtype.itemsize, "bytes in a row"),
        "NAXIS2": (rows, "rows"),
        "PCOUNT": (len(heap), "bytes of the heap"),
        "GCOUNT": (1, "one table"),
        "TFIELDS": (len(columns), "columns"),
        "EXTNAME": (name, "name of this table"),
    }
    for number, column in enumerate(columns, start=1):
        cards[f"TTYPE{number}"] = column.name
        cards[f"TFORM{number}"] = column.form
        if column.null is not None:
            cards[f"TNULL{number}"] = (column.null, "stands for nothing")
        if column.keyword:
            cards[f"TCOMM{number}"] = column.keyword
    lines = [card for keyword, value in (cards | dict(extra)).items() for card in make_card(keyword, value)]
    lines += [card for text in comments for card in comment_cards("COMMENT", text)]
    header = fits.Header.fromstring("".join(lines) + "END".ljust(CARD))
    return TablePlan(name=name, header=header, data=table.tobytes() + heap)


def _stored(form: str) -> tuple[str, tuple[int, ...]]:
    """Return type and shape of a cell of a row."""
    found = _FORM.fullmatch(form.strip())
    if found is None:
        message = f"TFORM {form!r} is not one that a cube has"
        raise Rejected(message, remedy="the table was written by another program")
    if found[3]:
        return _DESCRIPTORS[found[3]], (2,)
    repeat = int(found[1] or 1)
    if found[2] == "A":
        return f"S{max(repeat, 1)}", ()
    return _DTYPES[found[2]], () if repeat == 1 else (repeat,)


def read_rows(path: Path, hdu: HduText) -> TableRows:
    """Read a table with its heap.

    Raises
    ------
    Rejected
        If it has columns of a kind that `lay_out_rows` does not write, or rows and header do not agree.
    Retryable
        If the file cannot be read.
    """
    values = read_header(hdu.text)
    fields: list[tuple[str, str, tuple[int, ...]]] = []
    elements: dict[str, np.dtype[Any]] = {}
    forms: dict[str, str] = {}
    keywords: dict[str, str] = {}
    nulls: dict[str, int] = {}
    for number in range(1, _count(values, "TFIELDS") + 1):
        name, form = str(values.get(f"TTYPE{number}", f"COLUMN{number}")), str(values.get(f"TFORM{number}", ""))
        fields.append((name, *_stored(form)))
        forms[name] = form.strip()
        found = _FORM.fullmatch(form.strip())
        if found is not None and found[4]:
            elements[name] = np.dtype(_DTYPES[found[4]])
        if f"TCOMM{number}" in values:
            keywords[name] = str(values[f"TCOMM{number}"])
        if f"TNULL{number}" in values:
            nulls[name] = _count(values, f"TNULL{number}")
    dtype, rows, width = np.dtype(fields), _count(values, "NAXIS2"), _count(values, "NAXIS1")
    with reading(path), path.open("rb", buffering=0) as stream:
        data = os.pread(stream.fileno(), hdu.data_size, hdu.data_offset)
    size = width * rows
    if dtype.itemsize != width or len(data) < max(size, hdu.data_size):
        message = f"{path}: table {values.get('EXTNAME')!r} has {len(data)} bytes and rows of {width}: not as declared"
        raise Rejected(message, remedy="the file is damaged: take another copy")
    table = np.frombuffer(data, dtype, rows)
    return TableRows(
        length=rows,
        columns={name: table[name] for name, *_ in fields},
        forms=forms,
        keywords=keywords,
        nulls=nulls,
        heap=data[size:],
        elements=elements,
    )


def _count(values: Mapping[str, Scalar], keyword: str) -> int:
    value = values.get(keyword)
    return value if isinstance(value, int) else 0
