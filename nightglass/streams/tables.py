"""Hits as tables, and tables as files.

====================== ===================================================================================
suffix                 what is written
====================== ===================================================================================
``.csv``               the header of the run as JSON behind ``#``, column names, rows
``.ecsv``              the same with units and types, as astropy reads it
``.fits``              a binary table HITS with checksums; the header as JSON in the long text APXHEAD
``.hdf5``, ``.h5``     a table `hits`; needs the extra `hdf5`
``.parquet``           needs the extra `parquet`
``.apx``               the readouts themselves, without what was damaged
====================== ===================================================================================

Every file appears whole or not at all. The same hits give the same bytes, but for ``.hdf5`` and ``.parquet``, whose
libraries write their own versions.
"""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nightglass.errors import Misconfigured
from nightglass.fitsio.atomic import write_atomic
from nightglass.streams.astropix.apx import ApxWriter
from nightglass.streams.astropix.hits import HIT_DTYPE
from nightglass.streams.astropix.runs import RunSummary, decode_run, read_run

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["TABLE_SUFFIXES", "convert_run", "hits_table", "select_columns", "write_hits"]

_UNITS = {"timestamp": "ns", "tot_us": "us"}
_ROWS = 65536
_WHEN = "when the table was written"
"""What the checksum cards say; astropy would put the clock there, and no two files were alike."""


def select_columns(hits: NDArray[np.void], columns: Sequence[str] | None) -> NDArray[np.void]:
    """Return hits with some of their columns, in the order asked for.

    Raises
    ------
    Misconfigured
        If there is no such column, or one is named twice.
    """
    if columns is None:
        return hits
    known = hits.dtype.names or ()
    wrong = [name for name in columns if name not in known or columns.count(name) > 1]
    if wrong or not columns:
        message = f"columns {', '.join(columns) or '(none)'}: {', '.join(wrong) or 'nothing'} cannot be chosen"
        raise Misconfigured(message, remedy=f"each once, of {', '.join(known)}")
    chosen = np.empty(len(hits), [(name, hits.dtype[name]) for name in columns])
    for name in columns:
        chosen[name] = hits[name]
    return chosen


def hits_table(hits: NDArray[np.void], *, header: Mapping[str, Any] | None = None) -> Table:
    """Return hits as an astropy table with units; the header of the run is its metadata ``header``."""
    from astropy.table import Table  # half a second, which a receiver need not pay

    table = Table(hits, copy=False, meta={"header": dict(header)} if header else {})
    for name, unit in _UNITS.items():
        if name in table.colnames:
            table[name].unit = unit
    return table


def write_hits(path: Path, hits: NDArray[np.void], *, header: Mapping[str, Any]) -> None:
    """Write hits to a file of the kind that its suffix names; an existing one is replaced.

    Raises
    ------
    Misconfigured
        If there is no such kind, or what it needs is not installed.
    Retryable
        If the file system refuses.
    """
    write = _writer(path)
    with write_atomic(path) as part:
        write(part, hits, header)


def convert_run(source: Path, target: Path, *, columns: Sequence[str] | None = None) -> RunSummary:
    """Convert a file of readouts, and return what was in it.

    Raises
    ------
    Misconfigured
        If one of the names has no suffix that is known, there is no such column, or something is not installed.
    Rejected
        If the source is no file of readouts.
    Retryable
        If the file system refuses.
    """
    summary = RunSummary()
    if target.suffix.lower() == ".apx":
        if columns is not None:
            message = f"{target}: columns cannot be chosen of readouts"
            raise Misconfigured(message, remedy="leave the columns out, or write a table")
        _convert_to_apx(source, target, summary)
        return summary
    _writer(target)
    select_columns(np.empty(0, HIT_DTYPE), columns)
    header, pieces = read_run(source, summary)
    hits = [select_columns(piece, columns) for piece in decode_run(pieces, summary)]
    write_hits(target, np.concatenate(hits) if hits else select_columns(np.empty(0, HIT_DTYPE), columns), header=header)
    return summary


def _convert_to_apx(source: Path, target: Path, summary: RunSummary) -> None:
    header, pieces = read_run(source, summary)
    # the hits are decoded for the summary's sake
    shown, written = itertools.tee(pieces)
    with write_atomic(target) as part, ApxWriter(part, header) as writer:
        for piece, _ in zip(written, decode_run(shown, summary), strict=True):
            writer.write(piece)


_Write = Callable[[Path, NDArray[np.void], Mapping[str, Any]], None]


def _write_csv(path: Path, hits: NDArray[np.void], header: Mapping[str, Any]) -> None:
    with path.open("w", encoding="ascii", newline="\n") as stream:
        stream.write(f"#{json.dumps(dict(header))}\n{','.join(hits.dtype.names or ())}\n")
        for rows in _pieces(hits):
            stream.writelines(",".join(map(repr, row)) + "\n" for row in rows.tolist())


def _write_ecsv(path: Path, hits: NDArray[np.void], header: Mapping[str, Any]) -> None:
    hits_table(hits, header=header).write(path, format="ascii.ecsv", overwrite=True)


def _write_fits(path: Path, hits: NDArray[np.void], header: Mapping[str, Any]) -> None:
    from astropy.io import fits

    table = fits.table_to_hdu(hits_table(hits))
    table.name = "HITS"
    table.header["LONGSTRN"] = ("OGIP 1.0", "long strings go on in CONTINUE")
    table.header["APXHEAD"] = json.dumps(dict(header))
    hdus = fits.HDUList([fits.PrimaryHDU(), table])
    for hdu in hdus:
        hdu.add_checksum(when=_WHEN)
    hdus.writeto(path)


def _write_hdf5(path: Path, hits: NDArray[np.void], header: Mapping[str, Any]) -> None:
    hits_table(hits, header=header).write(path, format="hdf5", path="hits", serialize_meta=True)


def _write_parquet(path: Path, hits: NDArray[np.void], header: Mapping[str, Any]) -> None:
    hits_table(hits, header=header).write(path, format="parquet")


def _pieces(hits: NDArray[np.void]) -> Iterator[NDArray[np.void]]:
    for start in range(0, len(hits), _ROWS):
        yield hits[start : start + _ROWS]


_WRITERS: dict[str, tuple[_Write, str, str]] = {
    ".csv": (_write_csv, "", ""),
    ".ecsv": (_write_ecsv, "", ""),
    ".fits": (_write_fits, "", ""),
    ".hdf5": (_write_hdf5, "h5py", "hdf5"),
    ".h5": (_write_hdf5, "h5py", "hdf5"),
    ".parquet": (_write_parquet, "pyarrow", "parquet"),
}
"""Suffix -> writer, the library that it needs, and the extra that brings it."""

TABLE_SUFFIXES = tuple(_WRITERS)


def _writer(path: Path) -> _Write:
    """Return what writes files of this suffix.

    Raises
    ------
    Misconfigured
        If there is no such kind, or what it needs is not installed.
    """
    try:
        write, library, extra = _WRITERS[path.suffix.lower()]
    except KeyError:
        message = f"{path}: tables of kind {path.suffix!r} are not known"
        raise Misconfigured(message, remedy=f"end the name in one of {', '.join((*_WRITERS, '.apx'))}") from None
    if library:
        try:
            importlib.import_module(library)
        except ImportError as error:
            message = f"{path}: {library} is not installed"
            raise Misconfigured(message, remedy=f"pip install 'nightglass[{extra}]'") from error
    return write
