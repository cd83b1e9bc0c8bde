"""A time step of a radio sky as one FITS file: an image of every sub-band, in the order of frequency.

The primary HDU holds no data. Each sub-band is an image extension ``SB0``, ``SB1``... of float32, with the cards of its
window as far as the standard allows them. What the file holds depends on its members alone, not on the order of their
arrival or on how often it was written; each HDU has CHECKSUM and DATASUM.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.errors import Rejected
from nightglass.fitsio.atomic import write_atomic
from nightglass.fitsio.product_cards import CardValue, make_cards, raw_cards
from nightglass.fitsio.sequences import ReadyHdu, write_hdus
from nightglass.streams.aartfaac.window import Window, WindowStatus

__all__ = ["Band", "band_key", "band_of", "exposure_number", "iso_time", "read_bands", "write_timestep"]

_KEY = "BANDKEY"
_OURS = frozenset({_KEY, "EXTNAME", "EXTVER", "CHECKSUM", "DATASUM", "WINFAULT", "DATE-OBS", "RESTFRQ"})
_HARMLESS = WindowStatus.BYTES_SWAPPED
_STRIP = 64
"""Rows of an image that are turned at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """One sub-band of a time step.

    Attributes
    ----------
    header : astropy.io.fits.Header
        As it came.
    pixels : ndarray of float32, (NAXIS2, NAXIS1)
    timestamp : datetime or None
        Its own, UTC.
    frequency_hz : float or None
    faults : str
        What was wrong with its window, by the names of status bits.
    """

    header: fits.Header
    pixels: NDArray[np.float32]
    timestamp: datetime | None
    frequency_hz: float | None
    faults: str = ""


def band_key(frequency_hz: float | None, peer: str) -> str:
    """Return what a sub-band is known by: its frequency, so that keys sort by it, or else its sender."""
    return f"from {peer}" if frequency_hz is None else f"{frequency_hz:017.3f}"


def band_of(window: Window) -> Band:
    """Return the sub-band that a window brings; its pixels are not copied."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever a sender puts into a header, `raw_cards` makes it legal
        header = fits.Header.fromstring(window.header)
    faults = ",".join(str(bit.name) for bit in window.status & ~_HARMLESS)
    return Band(header, window.pixels, window.timestamp, window.frequency_hz, faults)


def exposure_number(moment: datetime) -> int:
    """Return the number of an exposure that began at a moment: DDHHMMSSmmm in UTC, alone in its night."""
    moment = moment.astimezone(UTC)
    return int(f"{moment:%d%H%M%S}{moment.microsecond // 1000:03d}")


def iso_time(moment: datetime) -> str:
    """Return a moment as FITS has it: UTC, without a zone."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def write_timestep(
    path: Path, timestamp: datetime, bands: Mapping[str, Band], *, order: Sequence[str], expected: int, stream: str
) -> None:
    """Write a time step; an existing file is replaced at once.

    Parameters
    ----------
    bands : mapping of str to Band
        By their keys, see `band_key`.
    order : sequence of str
        Keys of all sub-bands of the stream, sorted: they give the numbers in ``SB0``, ``SB1``, so that one that is
        missing leaves its number free.
    expected : int
        Sub-bands that make the step whole.

    Raises
    ------
    Retryable
        If the file system refuses.
    """
    places = {key: place for place, key in enumerate(sorted({*order, *bands}))}
    primary: dict[str, CardValue] = {
        "SIMPLE": (True, "conforms to the FITS standard"),
        "BITPIX": 8,
        "NAXIS": 0,
        "EXTEND": True,
        "NEXTEND": (len(bands), "extensions in this file"),
        "STREAM": (stream, "stream that it was received from"),
        "EXPNUM": (exposure_number(timestamp), "day, time and milliseconds, UTC"),
        "DATE-OBS": (iso_time(timestamp), "of the time step"),
        "TIMESYS": "UTC",
        "NBANDS": (len(bands), "sub-bands that are here"),
        "NEXPECT": (expected, "sub-bands of a whole time step"),
    }
    hdus = [ReadyHdu(make_cards(primary))]
    hdus += [_image(key, f"SB{places[key]}", band) for key, band in sorted(bands.items())]
    with write_atomic(path) as part:
        write_hdus(part, hdus)


def read_bands(path: Path) -> dict[str, Band]:
    """Read the sub-bands of a file that `write_timestep` wrote, by their keys.

    Raises
    ------
    Rejected
        If it is no such file.
    """
    try:
        with fits.open(path, memmap=False) as hdus:
            return {str(hdu.header[_KEY]): _read(hdu) for hdu in hdus[1:]}
    except (OSError, KeyError, ValueError, TypeError) as error:
        message = f"{path} is no time step of a stream: {error!r}"
        raise Rejected(message, remedy="move it away; what comes in is written anew") from error


def _image(key: str, name: str, band: Band) -> ReadyHdu:
    rows, columns = band.pixels.shape
    ours: dict[str, CardValue] = {
        "XTENSION": ("IMAGE", "image extension"),
        "BITPIX": -32,
        "NAXIS": 2,
        "NAXIS1": columns,
        "NAXIS2": rows,
        "PCOUNT": 0,
        "GCOUNT": 1,
        "EXTNAME": name,
        _KEY: (key, "what the sub-band is known by"),
    }
    if band.timestamp is not None:
        ours["DATE-OBS"] = iso_time(band.timestamp)
    if band.frequency_hz is not None:
        ours["RESTFRQ"] = (float(band.frequency_hz), "[Hz]")
    if band.faults:
        ours["WINFAULT"] = (band.faults, "what was wrong with the window")
    unit = band.header.get("BUNIT")
    if isinstance(unit, str) and unit.strip():
        ours["BUNIT"] = unit.strip()
    header = band.header.copy()
    for keyword in _OURS & set(header):
        del header[keyword]
    data = _big_endian(band.pixels)
    return ReadyHdu(make_cards(ours) + raw_cards(header, ours), data.reshape(-1).view(np.uint8).data)


def _big_endian(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return pixels row by row as FITS has them.

    Where they came column by column, as windows do, that is done strip by strip. Neighbours in a row are a whole column
    apart then, which is a power of two often enough: the cache has a few places for all of them, and loses each line
    before its other pixels are wanted.
    """
    if pixels.flags.c_contiguous:
        return pixels.astype(">f4")
    turned = np.empty(pixels.shape, ">f4")
    for first in range(0, len(pixels), _STRIP):
        strip = np.ascontiguousarray(pixels.T[:, first : first + _STRIP])
        turned[first : first + _STRIP] = strip.T
    return turned


def _read(hdu: fits.ImageHDU) -> Band:
    header = hdu.header
    text = header.get("DATE-OBS")
    return Band(
        header=header,
        pixels=np.asarray(hdu.data, np.float32),
        timestamp=datetime.fromisoformat(text).replace(tzinfo=UTC) if text else None,
        frequency_hz=float(header["RESTFRQ"]) if "RESTFRQ" in header else None,
        faults=str(header.get("WINFAULT", "")),
    )
