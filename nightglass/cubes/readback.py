"""A file that was just written, read back: every HDU against its own DATASUM and CHECKSUM."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nightglass.config import Limits
from nightglass.cubes.headers import read_header
from nightglass.cubes.outlets import read_uncached
from nightglass.cubes.records import HduText
from nightglass.cubes.scanning import scan_file
from nightglass.cubes.sums import sum_block
from nightglass.cubes.working import run_tasks
from nightglass.errors import Retryable
from nightglass.fitsio.checksums import add_sums
from nightglass.fitsio.sources import reading
from nightglass.pool import Pool

__all__ = ["read_back"]

_PIECE: Final = 32 << 20
"""Bytes of a task; a multiple of 4, so that sums of pieces can be added."""
_ZERO: Final = 0xFFFFFFFF
"""In ones' complement another way to write 0, and what a whole HDU comes to."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Part of the data of an HDU."""

    path: Path
    hdu: int
    offset: int
    size: int


def read_back(path: Path, *, pool: Pool, limits: Limits) -> None:
    """Read a whole file, on the workers of a pool, and compare it with its own checksums.

    A synced file is read from the disk, past the page cache or, where that is not possible, after what can be dropped
    from it was. This proves that system and
    device return what was put in; not that a device which acknowledged the sync out of a volatile cache of its own
    would still do so after a loss of power.

    Raises
    ------
    Retryable
        If a sum is not what it ought to be: what was written is not what is there.
    """
    with reading(path), path.open("rb", buffering=0) as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    hdus = scan_file(path, limits).hdus
    totals = [0] * len(hdus)
    for piece, total in run_tasks(pool, _sum_piece, _pieces(path, hdus), key=f"read back {path.name}"):
        totals[piece.hdu] = add_sums(totals[piece.hdu], total)
    for index, (hdu, total) in enumerate(zip(hdus, totals, strict=True)):
        _check(path, index, hdu, total)


def _pieces(path: Path, hdus: Sequence[HduText]) -> Iterator[_Piece]:
    for index, hdu in enumerate(hdus):
        for start in range(0, hdu.data_size, _PIECE):
            yield _Piece(path, index, hdu.data_offset + start, min(_PIECE, hdu.data_size - start))


def _sum_piece(piece: _Piece) -> int:
    total = 0
    with reading(piece.path), contextlib.closing(read_uncached(piece.path, piece.offset, piece.size)) as parts:
        for part in parts:
            total = add_sums(total, sum_block(part))
    return total


def _check(path: Path, index: int, hdu: HduText, total: int) -> None:
    written = int(str(read_header(hdu.text).get("DATASUM") or 0))
    if written % _ZERO != total % _ZERO:
        message = f"{path}: HDU {index} reads back with sum {total}, written was {written}"
        raise Retryable(message, remedy="the disk or its cable may be failing; it is written again")
    if add_sums(sum_block(hdu.text), total) != _ZERO:
        message = f"{path}: CHECKSUM of HDU {index} does not hold"
        raise Retryable(message, remedy="the disk or its cable may be failing; it is written again")
