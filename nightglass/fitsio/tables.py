"""Binary tables from `astropy.table.Table`: the bytes depend on the contents alone.

FITS Standard 4.0, section 7.3.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nightglass.errors import Misconfigured
from nightglass.fitsio.product_cards import CardValue, make_card, make_cards

if TYPE_CHECKING:
    from astropy.table import Column, Table
    from astropy.units import UnitBase

__all__ = ["lay_out_table", "table_head"]

_CODES = {"b": "L", "u1": "B", "i2": "I", "i4": "J", "i8": "K", "f4": "E", "f8": "D"}
_UNSIGNED = {"u2": ("i2", 1 << 15), "u4": ("i4", 1 << 31), "u8": ("i8", 1 << 63)}


def lay_out_table(table: Table) -> tuple[list[str], bytes]:
    """Return the cards of a table, from XTENSION on, and its rows.

    Raises
    ------
    Misconfigured
        If a column holds what a binary table cannot.
    """
    rows = len(table)
    columns: list[NDArray[np.uint8]] = []
    cards: list[str] = []
    for number, name in enumerate(table.colnames, start=1):
        described, stored = _column(number, table[name])
        cards += described
        columns.append(np.frombuffer(stored, np.uint8).reshape(rows, -1) if rows else np.empty((0, 0), np.uint8))
    widths = [_width(table[name]) for name in table.colnames]
    head = table_head(row_bytes=sum(widths), rows=rows, columns=len(table.colnames))
    data = np.concatenate(columns, axis=1).tobytes() if rows and columns else b""
    return make_cards(head) + cards, data


def table_head(*, row_bytes: int, rows: int, columns: int) -> dict[str, CardValue]:
    """Return the keywords that a binary table without a heap begins with."""
    return {
        "XTENSION": ("BINTABLE", "binary table"),
        "BITPIX": 8,
        "NAXIS": 2,
        "NAXIS1": (row_bytes, "bytes in a row"),
        "NAXIS2": (rows, "rows"),
        "PCOUNT": 0,
        "GCOUNT": 1,
        "TFIELDS": (columns, "columns"),
    }


def _values(column: Column) -> NDArray[Any]:
    filled = column.filled() if hasattr(column, "filled") else column
    array = np.asarray(filled)
    return np.char.encode(array, "ascii", "replace") if array.dtype.kind == "U" else array


def _width(column: Column) -> int:
    array = _values(column)
    per_row = int(np.prod(array.shape[1:], dtype=int))
    return max(array.dtype.itemsize, 1) * per_row


def _column(number: int, column: Column) -> tuple[list[str], bytes]:
    array = _values(column)
    kind = array.dtype.kind if array.dtype.kind in "bS" else array.dtype.str[1:]
    cards: dict[str, Any] = {f"TTYPE{number}": column.name}
    repeat = int(np.prod(array.shape[1:], dtype=int))
    if kind == "S":
        width = max(array.dtype.itemsize, 1)
        cards[f"TFORM{number}"] = f"{width * repeat}A"
        stored = array.astype(f"S{width}").tobytes()
    elif kind == "b":
        cards[f"TFORM{number}"] = f"{repeat}L"
        stored = np.where(array, np.uint8(ord("T")), np.uint8(ord("F"))).tobytes()
    elif kind in _CODES:
        cards[f"TFORM{number}"] = f"{repeat}{_CODES[kind]}"
        stored = array.astype(f">{kind}").tobytes()
    elif kind in _UNSIGNED:
        signed, zero = _UNSIGNED[kind]
        cards[f"TFORM{number}"] = f"{repeat}{_CODES[signed]}"
        cards[f"TZERO{number}"] = zero
        stored = (array ^ array.dtype.type(zero)).astype(f">{kind}").tobytes()
    else:
        message = f"column {column.name!r} of type {array.dtype} does not fit into a FITS table"
        raise Misconfigured(message, remedy="make it numbers or text")
    if array.ndim > 2:
        cards[f"TDIM{number}"] = "(" + ",".join(str(length) for length in array.shape[:0:-1]) + ")"
    if column.unit is not None and (unit := _unit(column.unit)):
        cards[f"TUNIT{number}"] = unit
    return [card for key, value in cards.items() for card in make_card(key, value)], stored


@lru_cache(maxsize=128)
def _unit(unit: UnitBase) -> str:
    """Return a unit in the notation of FITS, or nothing if FITS does not know it: then astropy takes a millisecond."""
    with warnings.catch_warnings():
        # astropy warns of units that are deprecated in FITS; they are written all the same
        warnings.simplefilter("ignore")
        try:
            return str(unit.to_string("fits"))
        except (ValueError, AttributeError):
            return ""
