"""Reading products of Nightglass: whole, or in strips by header arithmetic."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.closing import Closing
from nightglass.config import Limits
from nightglass.errors import Rejected, Retryable
from nightglass.fitsio.cards import pad_header
from nightglass.fitsio.detectors import plane_shape
from nightglass.fitsio.headers import HduInfo, card_value, scan_headers
from nightglass.fitsio.reading import image_header
from nightglass.fitsio.sources import reading
from nightglass.image import AmplifierView, Image
from nightglass.model import StepRecord

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["ProductReader", "read_product", "read_strip"]

_DTYPES = {-32: ">f4", 16: ">i2"}
_NUMBERS = {"1B": "u1", "1I": ">i2", "1J": ">i4", "1K": ">i8", "1E": ">f4", "1D": ">f8"}
_WIDTHS = {"L": 1, "A": 1, "B": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8}


class ProductReader(Closing):
    """An open product; reads strips without reading more than them.

    Parameters
    ----------
    path : Path
        A file that `write_product` made.

    Raises
    ------
    Rejected, Retryable
        As `nightglass.fitsio.scan_headers`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.headers = scan_headers(path, Limits.model_validate({}))
        with reading(path):
            self._descriptor = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    @property
    def detectors(self) -> tuple[str, ...]:
        """Names of the detectors, in the order of EXTVER."""
        return tuple(str(card_value(info.header, "DETECTOR") or "") for info in self.headers if info.name == "SCI")

    def find(self, name: str, ver: int = 1) -> HduInfo:
        """Return an HDU.

        Raises
        ------
        Rejected
            If the product has none of that name and version.
        """
        for info in self.headers:
            if info.name == name and info.ver == ver:
                return info
        message = f"{self.path} has no HDU {name},{ver}"
        raise Rejected(message, remedy="it is no product of Nightglass, or of another version")

    def read(self, name: str, ver: int = 1, rows: slice = slice(None)) -> NDArray[Any]:
        """Return rows of an image: float32 of SCI and ERR, uint16 of DQ; native byte order, shape (rows, nx).

        Raises
        ------
        Rejected
            If there is no such image.
        Retryable
            If the file ends early.
        """
        info = self.find(name, ver)
        shape = plane_shape(info)
        if shape is None or info.bitpix not in _DTYPES:
            message = f"{self.path}: HDU {name},{ver} is no image of a product"
            raise Rejected(message, remedy="it is no product of Nightglass, or of another version")
        first, last, _ = rows.indices(shape[0])
        width = shape[1] * abs(info.bitpix) // 8
        stored = self._bytes(info.data_offset + first * width, max(last - first, 0) * width)
        pixels = np.frombuffer(stored, _DTYPES[info.bitpix]).reshape(-1, shape[1])
        if info.bitpix == 16:
            return pixels.astype(np.int16).view(np.uint16) ^ np.uint16(1 << 15)
        return pixels.astype(np.float32)

    def table(self, name: str, ver: int = 1) -> Table:
        """Return a table.

        Raises
        ------
        Rejected, Retryable
            As `read`.
        """
        from astropy.table import Table

        info = self.find(name, ver)
        cards = [str(card.image) for card in info.header.cards]
        stored = self._bytes(info.data_offset, info.padded_size)
        with warnings.catch_warnings():
            # units that astropy does not know stay text
            warnings.simplefilter("ignore")
            hdu = fits.BinTableHDU.fromstring(pad_header(cards) + stored)
            table = Table(hdu.data)
            for number, column in enumerate(table.colnames, start=1):
                table[column].unit = card_value(info.header, f"TUNIT{number}")
        return table

    def rows(self, name: str, columns: Sequence[str], ver: int = 1) -> NDArray[np.void]:
        """Return columns of a table as they are stored, big-endian; `table` takes some hundred times as long.

        Parameters
        ----------
        columns : sequence of str
            Each of one number, neither scaled nor unsigned.

        Raises
        ------
        Rejected
            If there is no such table, or no such column in it.
        Retryable
            If the file ends early.
        """
        info = self.find(name, ver)
        formats: dict[str, tuple[str, int]] = {}
        place = 0
        for number in range(1, int(card_value(info.header, "TFIELDS") or 0) + 1):
            form = str(card_value(info.header, f"TFORM{number}") or "").strip()
            stored = np.dtype(_NUMBERS.get(form, "V1"))
            formats[str(card_value(info.header, f"TTYPE{number}") or "").strip()] = (stored.str, place)
            place += stored.itemsize if form in _NUMBERS else _width(form)
        width, count = (int(card_value(info.header, f"NAXIS{axis}") or 0) for axis in (1, 2))
        if place != width or not set(columns) <= formats.keys():
            message = f"{self.path}: HDU {name},{ver} is no table with {', '.join(columns)}"
            raise Rejected(message, remedy="it is no product of Nightglass, or of another version")
        kinds, offsets = zip(*(formats[column] for column in columns), strict=True)
        dtype = np.dtype({"names": list(columns), "formats": list(kinds), "offsets": list(offsets), "itemsize": width})
        return np.frombuffer(self._bytes(info.data_offset, width * count), dtype)

    def _bytes(self, offset: int, count: int) -> bytearray:
        stored = bytearray(count)
        view = memoryview(stored)
        with reading(self.path):
            while len(view):
                got = os.preadv(self._descriptor, [view], offset)
                if not got:
                    message = f"{self.path} ends in the middle of its data"
                    raise Retryable(message, remedy="reduce the exposure again")
                view, offset = view[got:], offset + got
        return stored


def _width(form: str) -> int:
    """Return the bytes of a column that is no single number; 0 for one that products do not have."""
    repeat, code = form[:-1], form[-1:]
    return _WIDTHS.get(code, 0) * int(repeat) if repeat.isdigit() else _WIDTHS.get(code, 0)


def read_strip(path: Path, hdu_name: str, ver: int, rows: slice) -> NDArray[Any]:
    """Return rows of an image of a product; many strips of one file are read faster through `ProductReader`.

    Raises
    ------
    Rejected, Retryable
        As `ProductReader.read`.
    """
    with ProductReader(path) as reader:
        return reader.read(hdu_name, ver, rows)


def read_product(path: Path) -> tuple[Image, ...]:
    """Read a product back: one image a detector, as `nightglass.fitsio.write_product` got it.

    Raises
    ------
    Rejected
        If it is no product.
    Retryable
        If it cannot be read.
    """
    with ProductReader(path) as reader:
        images = tuple(_image(reader, ver) for ver in range(1, len(reader.detectors) + 1))
    if not images:
        message = f"{path} has no HDU SCI"
        raise Rejected(message, remedy="it is no product of Nightglass")
    return images


def _image(reader: ProductReader, ver: int) -> Image:
    info, primary = reader.find("SCI", ver), reader.headers[0]
    data = reader.read("SCI", ver)
    error = reader.read("ERR", ver)
    whole = (slice(0, data.shape[0]), slice(0, data.shape[1]))
    named = {(item.name, item.ver) for item in reader.headers}
    seconds = card_value(info.header, "XPOSURE")
    return Image(
        data=data,
        variance=np.square(error, out=error),
        mask=reader.read("DQ", ver),
        header=image_header(info, primary),
        detector=str(card_value(info.header, "DETECTOR") or ""),
        amplifiers=(AmplifierView(data=whole, place=whole),),
        exposure_time_s=float(seconds) if isinstance(seconds, (int, float)) else 0.0,
        unit=str(card_value(info.header, "BUNIT") or "adu"),
        catalogue=reader.table("CAT", ver) if ("CAT", ver) in named else None,
        measured=json.loads(str(card_value(info.header, "MEASURED") or "{}")),
        history=_history(primary),
    )


def _history(primary: HduInfo) -> tuple[StepRecord, ...]:
    """Read back what `nightglass.reduction` wrote into the primary header, see there."""
    records = []
    number = 1
    while text := card_value(primary.header, f"NGSTEP{number}"):
        step, _, version = str(text).partition(" ")
        parameters = card_value(primary.header, f"NGPAR{number}")
        records.append(
            StepRecord(
                step=step,
                version=version,
                parameters=json.loads(str(parameters)) if parameters else {},
                calibrations=tuple(str(card_value(primary.header, f"NGCAL{number}") or "").split()),
                note=str(card_value(primary.header, f"NGNOT{number}") or ""),
            )
        )
        number += 1
    return tuple(records)
