"""FITS files of HDUs that are in memory: sealed with checksums, without time stamps."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nightglass.fitsio.cards import BLOCK
from nightglass.fitsio.checksums import sum_bytes
from nightglass.fitsio.filling import append
from nightglass.fitsio.sealing import seal

__all__ = ["ReadyHdu", "write_hdus"]


@dataclass(frozen=True, slots=True)
class ReadyHdu:
    """Cards, without END and checksums, and data in the byte order of FITS, without padding."""

    cards: list[str]
    data: bytes | memoryview = b""


def write_hdus(path_part: Path, hdus: Iterable[ReadyHdu]) -> None:
    """Write HDUs one behind the other, each with CHECKSUM and DATASUM, and sync the file.

    Parameters
    ----------
    path_part : Path
        As `nightglass.fitsio.write_atomic` gives it.

    Raises
    ------
    OSError
        If the file system refuses; `write_atomic` makes it a `Retryable`.
    """
    with path_part.open("wb", buffering=0) as stream:
        for hdu in hdus:
            append(stream, seal(hdu.cards, sum_bytes(hdu.data)))
            append(stream, hdu.data)
            append(stream, bytes(-len(hdu.data) % BLOCK))
        os.fsync(stream.fileno())
