"""What the headers of frames say, as a table: one row a plane, one typed column a keyword; and what is missing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nightglass.cubes.bintables import MAX_COLUMNS, Column, TableRows, lay_out_rows
from nightglass.cubes.headers import HeaderStack
from nightglass.cubes.names import file_names
from nightglass.cubes.records import Plane, Survey, TablePlan
from nightglass.fitsio.cards import Scalar
from nightglass.fitsio.product_cards import value_text
from nightglass.fitsio.structure import is_structural

__all__ = ["OWN_COLUMNS", "column_values", "gaps_table", "keyword_column", "metadata_table", "mjd", "wrong_rows"]

OWN_COLUMNS: Final = ("FRAME", "START_MJD", "START", "FILE", "HDU", "PLANE")
"""Columns that are no keywords: number of the frame, start in UTC, and where the plane came from."""
_EPOCH: Final = datetime(1858, 11, 17, tzinfo=UTC)
_DAY_S: Final = 86400.0
_INT32: Final = 1 << 31
_INT64: Final = 1 << 63
_EXACT: Final = 1 << 53
"""Integers up to here are exact as double."""
_WILD = re.compile(r"[*?\[]")
_NOT_NAME = re.compile(r"[^A-Z0-9_]")


def metadata_table(
    name: str,
    planes: Sequence[Plane],
    survey: Survey,
    keywords: Sequence[str],
    times: Sequence[datetime | None],
) -> TablePlan:
    """Make the table of one source: what the headers of its frames say.

    A keyword that the image's own header lacks comes from the primary header of its file. Columns are logical,
    64-bit integer, double or text, whichever holds all values without loss; a missing or undefined value is NUL,
    TNULL, NaN or an empty text. TCOMM names the keyword, since TTYPE can hold letters, digits and underscores only.

    Parameters
    ----------
    name : str
        EXTNAME of the table.
    planes : sequence of Plane
        In the order of the planes of the cube.
    keywords : sequence of str
        Shell patterns. Keywords that describe the layout of a file are taken only where a pattern without wildcards
        names them.
    times : sequence of datetime or None
        Start of each plane, aware.
    """
    values, index = _Headers.of(planes, survey), _rows_of(planes)
    columns = _own_columns(planes, survey, times)
    taken = {column.name for column in columns}
    room = MAX_COLUMNS - len(columns)
    wanted = [keyword for keyword in values.keywords if _is_wanted(keyword, keywords)]
    for keyword in wanted[:room]:
        distinct, rows = values.column(keyword), index
        if values.constant(keyword):  # most are: no need to look at each row
            distinct, rows = distinct[:1], np.zeros_like(index)
        made = keyword_column(keyword, distinct, rows, name=_column_name(keyword, taken))
        if _repeats_frame(keyword, made, columns[0]):
            continue
        taken.add(made.name)
        columns.append(made)
    comments = [f"{len(wanted) - room} further keywords do not fit into a table"] if len(wanted) > room else []
    return lay_out_rows(name, columns, comments=comments, extra={})


def keyword_column(keyword: str, values: Sequence[Scalar], index: NDArray[np.intp], *, name: str) -> Column:
    """Make a column of the values of a keyword.

    Parameters
    ----------
    values : sequence
        Distinct headers' values, None where there is none.
    index : ndarray of int
        Which of them each row has.
    """
    kinds = {*map(type, values)}
    nothing = type(None) in kinds
    kinds.discard(type(None))
    if kinds == {bool}:
        logical = np.array([b"" if value is None else b"T" if value else b"F" for value in values], "S1")
        return Column(name=name, form="1L", values=logical[index], keyword=keyword)
    if kinds == {int} and (column := _integers(name, keyword, values, index, nothing=nothing)):
        return column
    if kinds and kinds <= {int, float} and all(type(value) is not int or abs(value) <= _EXACT for value in values):
        real = np.array([np.nan if value is None else value for value in values], float)
        return Column(name=name, form="1D", values=real[index], keyword=keyword)
    texts = np.array([_as_text(value) for value in values], "S")
    return Column(name=name, form=f"{texts.dtype.itemsize}A", values=texts[index], keyword=keyword)


def gaps_table(survey: Survey) -> TablePlan | None:
    """Make the table of what is not there: frames that a source lacks, and files that were left out.

    FIRST and LAST are the numbers of a run of missing frames, counted between the first and the last frame that any
    source has; they are null for a file that was left out. None if nothing is missing.
    """
    frames = [plane.frame for plane in survey.planes]
    rows: list[tuple[str, int | None, int | None, str, str]] = []
    have: dict[str, set[int]] = {}
    for plane in survey.planes:
        have.setdefault(plane.source, set()).add(plane.frame)
    for source, numbers in have.items():
        rows += [
            (source, first, last, "", "no such frame of this source")
            for first, last in _runs_between(sorted({*numbers, min(frames) - 1, max(frames) + 1}))
        ]
    names = file_names([problem.path for problem in survey.problems])
    rows += [("", None, None, name, problem.reason) for name, problem in zip(names, survey.problems, strict=True)]
    if not rows:
        return None
    everything = np.arange(len(rows))
    columns = [
        keyword_column("", [row[0] or None for row in rows], everything, name="SOURCE"),
        _always_integers("FIRST", [row[1] for row in rows]),
        _always_integers("LAST", [row[2] for row in rows]),
        keyword_column("", [row[3] or None for row in rows], everything, name="FILE"),
        keyword_column("", [row[4] for row in rows], everything, name="REASON"),
    ]
    return lay_out_rows("GAPS", columns, comments=["Frames that are not in this cube, and why"], extra={})


def column_values(rows: TableRows, name: str) -> list[Scalar]:
    """Return a column as values, None where there is none: the inverse of `keyword_column`."""
    stored = rows.columns[name].tolist()
    kind = rows.columns[name].dtype
    if kind.kind == "S" and rows.forms[name].endswith("L"):
        return [None if value == b"" else value == b"T" for value in stored]
    if kind.kind == "S":
        return [value.rstrip(b" ").decode("latin-1") if value else None for value in stored]
    if kind.kind == "f":
        return [None if value != value else value for value in stored]
    null = rows.nulls.get(name)
    return [None if value == null else value for value in stored]


def wrong_rows(rows: TableRows, planes: Sequence[Plane], survey: Survey) -> list[str]:
    """Compare a table with the headers that it was made of; returns what differs, one line a column.

    Parameters
    ----------
    planes : sequence of Plane
        Of the rows, in their order.
    """
    headers, index = _Headers.of(planes, survey), _rows_of(planes).tolist()
    wrong = []
    for name, keyword in rows.keywords.items():
        have, distinct = column_values(rows, name), headers.column(keyword)
        text = rows.columns[name].dtype.kind == "S" and not rows.forms[name].endswith("L")
        if text:
            distinct = [None if value is None else _as_text(value).rstrip(b" ").decode("ascii") for value in distinct]
        for row, place in enumerate(index):
            if have[row] != distinct[place]:
                wrong.append(f"row {row + 1} of column {name} is {have[row]!r}, {keyword} was {distinct[place]!r}")
                break
    return wrong


def mjd(moment: datetime) -> float:
    """Return a moment as modified Julian date in UTC, days."""
    since = moment - _EPOCH
    # days apart from the rest of the day: a division of all microseconds at once would round twice
    return since.days + (since.seconds + since.microseconds * 1e-6) / _DAY_S


class _Headers:
    """Values of the distinct headers of planes, completed from the primary headers of their files."""

    def __init__(self, own: Sequence[bytes], primary: Sequence[bytes]) -> None:
        self._own = HeaderStack(own)
        self._primary = HeaderStack(primary) if primary else None
        more = self._primary.keywords if self._primary else ()
        self.keywords = tuple(dict.fromkeys((*self._own.keywords, *more)))

    @classmethod
    def of(cls, planes: Sequence[Plane], survey: Survey) -> _Headers:
        places = list(dict.fromkeys((plane.file, plane.hdu) for plane in planes))
        own = [survey.files[file].hdus[hdu].text for file, hdu in places]
        inherits = any(hdu for _, hdu in places)
        return cls(own, [survey.files[file].hdus[0].text for file, _ in places] if inherits else ())

    def column(self, keyword: str) -> list[Scalar]:
        values = self._own.column(keyword)
        if self._primary is None or keyword not in self._primary.keywords:
            return values
        have = self._own.present(keyword)
        inherited = self._primary.column(keyword)
        return [value if there else other for value, there, other in zip(values, have, inherited, strict=True)]

    def constant(self, keyword: str) -> bool:
        """Tell whether all headers surely have the same value; cheap."""
        if not self._own.constant(keyword):
            return False
        return self._primary is None or self._primary.constant(keyword)


def _rows_of(planes: Sequence[Plane]) -> NDArray[np.intp]:
    """Return which of the distinct headers each plane has."""
    numbers: dict[tuple[int, int], int] = {}
    found = [numbers.setdefault((plane.file, plane.hdu), len(numbers)) for plane in planes]
    return np.array(found, np.intp)


def _own_columns(planes: Sequence[Plane], survey: Survey, times: Sequence[datetime | None]) -> list[Column]:
    names = [name.encode("ascii") for name in file_names([file.stamp.path for file in survey.files])]
    files = np.array([names[plane.file] for plane in planes], "S")
    days = [np.nan if moment is None else mjd(moment) for moment in times]
    texts = np.array([b"" if moment is None else _iso(moment) for moment in times], "S")
    return [
        _always_integers("FRAME", [plane.frame for plane in planes]),
        Column(name="START_MJD", form="1D", values=np.array(days, float)),
        Column(name="START", form=f"{max(texts.dtype.itemsize, 1)}A", values=texts),
        Column(name="FILE", form=f"{files.dtype.itemsize}A", values=files),
        Column(name="HDU", form="1J", values=np.array([plane.hdu for plane in planes])),
        Column(name="PLANE", form="1J", values=np.array([plane.number for plane in planes])),
    ]


def _iso(moment: datetime) -> bytes:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds").encode("ascii")


def _is_wanted(keyword: str, patterns: Sequence[str]) -> bool:
    if keyword in patterns:
        return True
    if is_structural(keyword):
        return False
    return any(fnmatchcase(keyword, pattern) for pattern in patterns if _WILD.search(pattern))


def _column_name(keyword: str, taken: set[str]) -> str:
    """Return a name that no other column has; FITS does not tell capitals from small letters."""
    stem = name = _NOT_NAME.sub("_", keyword.upper())
    number = 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    return name


def _repeats_frame(keyword: str, column: Column, frames: Column) -> bool:
    """Tell whether a keyword FRAME says what the column of frames says already."""
    return keyword == "FRAME" and column.values.dtype.kind == "i" and np.array_equal(column.values, frames.values)


def _integers(
    name: str, keyword: str, values: Sequence[Scalar], index: NDArray[np.intp], *, nothing: bool
) -> Column | None:
    """Make a column of 64-bit integers; None where they do not fit."""
    whole = [value for value in values if isinstance(value, int)]
    if min(whole) < -_INT64 or max(whole) >= _INT64:
        return None
    null = None
    if nothing:
        there = {*whole}
        null = next(number for number in range(-_INT64, -_INT64 + len(there) + 1) if number not in there)
    numbers = np.array([null if value is None else value for value in values], np.int64)
    return Column(name=name, form="1K", values=numbers[index], null=null, keyword=keyword)


def _always_integers(name: str, values: Sequence[int | None]) -> Column:
    whole = [value for value in values if value is not None]
    small = all(-_INT32 < value < _INT32 for value in whole)
    null = (-_INT32 if small else -_INT64) if len(whole) < len(values) else None
    numbers = np.array([null if value is None else value for value in values], np.int64)
    return Column(name=name, form="1J" if small else "1K", values=numbers, null=null)


def _as_text(value: Scalar) -> bytes:
    if value is None:
        return b""
    text = value if isinstance(value, str) else value_text(value)
    return text.encode("ascii", "replace") or b" "  # an empty text is blank, nothing is NUL


def _runs_between(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return first and last number of each run that a sorted sequence leaves out."""
    return [(before + 1, after - 1) for before, after in pairwise(numbers) if after - before > 1]
