"""Products: one multi-extension file, the same bytes for the same contents."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightglass.errors import Misconfigured, Retryable
from nightglass.fitsio.cards import BLOCK
from nightglass.fitsio.checksums import add_sums, sum_bytes
from nightglass.fitsio.filling import append
from nightglass.fitsio.product_cards import CardValue, make_cards, raw_cards
from nightglass.fitsio.sealing import seal, sealed_size
from nightglass.fitsio.tables import lay_out_table
from nightglass.image import Image
from nightglass.model import DQ

__all__ = ["write_product"]

_PIECE = 1 << 16
"""Pixels converted, summed and written at a time: they stay in the cache."""
_DQ_ZERO = 1 << 15


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hdu:
    """Cards of an HDU and its data: an array that is converted piece by piece, or bytes that are ready."""

    cards: list[str]
    pixels: NDArray[Any] | None = None
    variance: NDArray[np.float32] | None = None
    ready: bytes = b""

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the data in big-endian bytes."""
        array = self.pixels if self.variance is None else self.variance
        if array is None:
            yield self.ready
            return
        flat = np.ascontiguousarray(array).reshape(-1)
        unsigned = flat.dtype == np.uint16
        buffer = np.empty(min(_PIECE, flat.size), ">u2" if unsigned else ">f4")
        for start in range(0, flat.size, _PIECE):
            piece = flat[start : start + _PIECE]
            target = buffer[: piece.size]
            if self.variance is not None:
                piece = np.sqrt(np.maximum(piece, 0))
            target[...] = piece ^ np.uint16(_DQ_ZERO) if unsigned else piece
            yield target.view(np.uint8).data


def write_product(
    path_part: Path,
    images: Sequence[Image],
    *,
    cards: Mapping[str, CardValue],
    history: Sequence[str] = (),
) -> None:
    """Write images with their errors, masks and catalogues, and sync the file.

    The primary HDU holds `cards` and no data. Each detector has ``SCI`` and ``ERR`` (float32), ``DQ`` (uint16) and,
    where it has a catalogue, ``CAT``; EXTVER counts detectors from 1.
    Every HDU has CHECKSUM and DATASUM, without time stamps.

    Parameters
    ----------
    path_part : Path
        Where to write, see `part_path`; its directory is made.
    cards : mapping
        Keyword to value, or to a pair of value and comment.
    history : sequence of str
        Lines for the primary header.

    Raises
    ------
    Retryable
        If the file system refuses; nothing is left behind.
    Misconfigured
        If a card or a column of a catalogue is none.
    """
    try:
        hdus = [_primary(images, cards, history)]
        for version, image in enumerate(images, start=1):
            hdus += _detector(version, image)
    except ValueError as error:
        message = f"product {path_part}: {error}"
        raise Misconfigured(message) from error
    try:
        path_part.parent.mkdir(parents=True, exist_ok=True)
        with path_part.open("wb", buffering=0) as stream:
            for hdu in hdus:
                _write(stream, hdu)
            os.fsync(stream.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):  # the first failure is the one to tell
            path_part.unlink(missing_ok=True)
        message = f"{path_part} cannot be written: {error}"
        raise Retryable(message, remedy="check the disk and the rights of the directory") from error


def _write(stream: FileIO, hdu: _Hdu) -> None:
    """Write data first, for the header tells their sum."""
    start = stream.tell()
    stream.seek(start + sealed_size(hdu.cards))
    total = size = 0
    for piece in hdu.pieces():
        append(stream, piece)
        total = add_sums(total, sum_bytes(piece))
        size += len(piece)
    append(stream, bytes(-size % BLOCK))
    end = stream.tell()
    stream.seek(start)
    append(stream, seal(hdu.cards, total))
    stream.seek(end)


def _primary(images: Sequence[Image], cards: Mapping[str, CardValue], history: Sequence[str]) -> _Hdu:
    head = {
        "SIMPLE": (True, "conforms to the FITS standard"),
        "BITPIX": 8,
        "NAXIS": 0,
        "EXTEND": True,
        "NEXTEND": (sum(3 + (image.catalogue is not None) for image in images), "extensions in this file"),
    }
    return _Hdu(cards=make_cards(head | dict(cards), history))


def _detector(version: int, image: Image) -> Iterator[_Hdu]:
    sci = _image_cards("SCI", version, image, BITPIX=-32) | {
        "BUNIT": (image.unit, "unit of the pixels"),
        "XPOSURE": (float(image.exposure_time_s), "[s] exposure time"),
    }
    if image.measured:
        measured = {name: float(value) for name, value in image.measured.items()}
        sci["MEASURED"] = (json.dumps(measured, sort_keys=True, separators=(",", ":")), "")
    yield _Hdu(cards=make_cards(sci) + raw_cards(image.header, sci), pixels=image.data.astype(np.float32, copy=False))
    err = _image_cards("ERR", version, image, BITPIX=-32) | {"BUNIT": (image.unit, "1 sigma, unit of the pixels")}
    yield _Hdu(cards=make_cards(err), variance=image.variance.astype(np.float32, copy=False))
    bits = {f"DQBIT{flag.bit_length() - 1}": (flag.name, f"pixel value {flag.value}") for flag in DQ}
    dq = _image_cards("DQ", version, image, BITPIX=16, BSCALE=1, BZERO=_DQ_ZERO) | bits
    yield _Hdu(cards=make_cards(dq), pixels=image.mask.astype(np.uint16, copy=False))
    if image.catalogue is not None:
        cards, rows = lay_out_table(image.catalogue)
        named = {"EXTNAME": "CAT", "EXTVER": version, "DETECTOR": image.detector}
        yield _Hdu(cards=cards + make_cards(named), ready=rows)


def _image_cards(name: str, version: int, image: Image, **numbers: int) -> dict[str, CardValue]:
    rows, columns = image.data.shape
    head: dict[str, CardValue] = {
        "XTENSION": ("IMAGE", "image extension"),
        "BITPIX": numbers.pop("BITPIX"),
        "NAXIS": 2,
        "NAXIS1": columns,
        "NAXIS2": rows,
        "PCOUNT": 0,
        "GCOUNT": 1,
    }
    named = {"EXTNAME": name, "EXTVER": version, "DETECTOR": (image.detector, "detector")}
    return head | numbers | named
