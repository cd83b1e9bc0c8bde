"""The images of a reduced exposure, as far as light curves need them: pixels are read only around what is asked for."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.fitsio.headers import HduInfo, card_value
from nightglass.fitsio.products import ProductReader
from nightglass.model import DQ
from nightglass.steps.wcs import celestial_wcs

if TYPE_CHECKING:
    from astropy.wcs import WCS

    from nightglass.config import LightCurveRule

__all__ = ["Detections", "Frame", "open_frames"]

Floats = NDArray[np.float64]

_COLUMNS = ("X", "Y", "SNR", "FWHM", "FLUX_APER", "FLUXERR_APER")
_OF_WCS = ("CTYPE", "CRVAL", "CRPIX", "CDELT", "CUNIT", "CD", "PC", "PV", "CROTA")
_OF_WCS_TOO = {"LONPOLE", "LATPOLE", "RADESYS", "EQUINOX", "WCSAXES"}
_EXCLUDED = np.uint16(DQ.BAD | DQ.NO_DATA | DQ.LOW_FLAT)
_RING = (2.5, 4.0)
"""Radii of the ring whose median is the sky, in those of the circle."""
_MEDIAN_ERROR = math.sqrt(math.pi / 2)
_AT_ONCE = 1 << 20
"""Pixels of stamps that are measured at a time."""
_STRIP = 1 << 17
"""Pixels that are read at a time: to get fresh memory for a whole image takes longer than to read it."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What was found in one image, brightest first.

    Attributes
    ----------
    sky : ndarray, (n, 2)
        Longitudes and latitudes in degrees.
    errors_deg, flux, flux_error : ndarray, (n,)
        1 sigma; fluxes in the circle of the step ``sources``.
    """

    sky: Floats
    errors_deg: Floats
    flux: Floats
    flux_error: Floats


class Frame:
    """One image of a product that is open.

    Attributes
    ----------
    band : str
        Name of the detector, which is that of a sub-band.
    frequency : float
        In Hz; 0 where the header has none.
    noise : float
        Standard deviation of the sky; NaN where it was not measured.
    trouble : str
        Why it says nothing about sources; empty: it does.
    """

    def __init__(self, reader: ProductReader, ver: int) -> None:
        self._reader = reader
        self._ver = ver
        info = reader.find("SCI", ver)
        self._shape = info.shape
        self._wcs = _wcs(_wcs_cards(info))
        self._aperture = _number(info, "APERRAD", 5.0)
        self.band = str(card_value(info.header, "DETECTOR") or "")
        self.frequency = _number(info, "RESTFRQ", 0.0)
        self.noise = float(json.loads(str(card_value(info.header, "MEASURED") or "{}")).get("noise", math.nan))
        self.trouble = "" if self._wcs is not None else "no coordinates"
        if str(card_value(info.header, "QUALITY") or "") == "bad":
            self.trouble = str(card_value(info.header, "QUAL1") or "bad")
        if ("CAT", ver) not in {(item.name, item.ver) for item in reader.headers}:
            self.trouble = self.trouble or "no catalogue"

    def detections(self, rule: LightCurveRule) -> Detections:
        """Return the sources that were found and are good enough.

        Raises
        ------
        Rejected, Retryable
            As `ProductReader.rows`.
        """
        wcs = self._wcs
        assert wcs is not None
        table = self._reader.rows("CAT", _COLUMNS, self._ver)
        x, y, snr, fwhm, flux, error = (table[name].astype(np.float64) for name in _COLUMNS)
        pixels = np.column_stack([x, y]) - 1.0
        sky = np.asarray(wcs.wcs_pix2world(pixels, 0), np.float64).reshape(-1, 2)[:, [wcs.wcs.lng, wcs.wcs.lat]]
        scale_deg = math.sqrt(abs(float(np.linalg.det(wcs.pixel_scale_matrix))))
        with np.errstate(divide="ignore", invalid="ignore"):
            # Condon 1997, PASP 109, 166: about half the width by the signal-to-noise ratio, and what calibration leaves
            errors = scale_deg * np.hypot(np.nan_to_num(fwhm, nan=1.0) / (2.0 * snr), rule.position_error_pixels)
        good = np.flatnonzero((snr > 0) & np.isfinite(errors) & np.isfinite(sky).all(axis=1) & np.isfinite(flux))
        good = good[: rule.most_sources]
        return Detections(sky[good], errors[good], flux[good], error[good])

    def measure(self, sky: Floats) -> tuple[Floats, Floats]:
        """Measure at places on the sky, (n, 2) in degrees: flux in the circle and its error, (n,).

        The median of a ring is subtracted. NaN for places that the image does not show, and where all is masked.

        Raises
        ------
        Rejected, Retryable
            As `ProductReader.read`.
        """
        wcs = self._wcs
        assert wcs is not None
        flux, error = np.full((2, len(sky)), np.nan)
        if not len(sky):
            return flux, error
        world = sky if wcs.wcs.lng == 0 else sky[:, ::-1]
        pixels = np.asarray(wcs.wcs_world2pix(world, 0), np.float64).reshape(-1, 2)
        rows, columns = self._shape
        # comparisons with NaN are false
        inside = np.flatnonzero(((pixels > -0.5) & (pixels < [columns - 0.5, rows - 0.5])).all(axis=1))
        half = math.ceil(min(self._ring[1], max(self._shape))) + 1
        size = 2 * half + 1
        at_once = max(_AT_ONCE // size**2, 1)
        for start in range(0, len(inside), at_once):
            part = inside[start : start + at_once]
            flux[part], error[part] = self._apertures(pixels[part], half)
        return flux, error

    @property
    def _ring(self) -> tuple[float, float]:
        """Radii of the ring in pixels; some lie between them, however small the circle is."""
        inner = max(_RING[0] * self._aperture, 1.0)
        return inner, max(_RING[1] * self._aperture, inner + 1.0)

    def _apertures(self, pixels: Floats, half: int) -> tuple[Floats, Floats]:
        """Measure in stamps that are piled up in one array."""
        import sep

        size, corners = 2 * half + 1, np.rint(pixels).astype(int) - half
        data = self._stamps("SCI", corners, size, np.float32(np.nan))
        bad = (self._stamps("DQ", corners, size, np.uint16(DQ.NO_DATA)) & _EXCLUDED) != 0
        bad |= ~np.isfinite(data)
        data[bad] = np.nan
        away = np.hypot(*np.mgrid[-half : half + 1, -half : half + 1])
        ring = np.sort(data[:, (away >= self._ring[0]) & (away <= self._ring[1])], axis=1)
        if not ring.shape[1]:  # it lies beyond the image everywhere
            return np.full(len(pixels), np.nan), np.full(len(pixels), np.nan)
        count = np.isfinite(ring).sum(axis=1)  # NaNs are sorted to the end
        every = np.arange(len(ring))
        level = (
            ring[every, np.maximum(count - 1, 0) // 2] + ring[every, np.minimum(count // 2, ring.shape[1] - 1)]
        ) / 2
        np.nan_to_num(data, copy=False)
        data -= np.nan_to_num(level)[:, None, None].astype(np.float32)
        x, y = (pixels - corners).T
        value, spread, flags = sep.sum_circle(
            data.reshape(-1, size),
            x,
            y + size * every,
            self._aperture,
            err=self.noise if self.noise > 0 else None,
            mask=bad.reshape(-1, size),
            subpix=5,
        )
        hidden = ((flags & sep.APER_ALLMASKED) != 0) | (count == 0)
        area = math.pi * self._aperture**2
        spread = np.hypot(spread, area * self.noise * _MEDIAN_ERROR / np.sqrt(np.maximum(count, 1)))
        return np.where(hidden, np.nan, value), np.where(hidden, np.nan, spread)

    def _stamps(self, name: str, corners: NDArray[np.int_], size: int, outside: Any) -> NDArray[Any]:
        """Return squares of an image, (n, size, size), whose first pixels are at corners, (n, 2), as (x, y)."""
        rows, columns = self._shape
        stamps = np.full((len(corners), size, size), outside)
        lows, highs = np.maximum(corners[:, 1], 0), np.minimum(corners[:, 1] + size, rows)
        step = max(_STRIP // columns, 1)
        for first in range(int(lows.min()), int(highs.max()), step):
            last = min(first + step, rows)
            places = np.flatnonzero((lows < last) & (highs > first)).tolist()
            if not places:
                continue
            strip = self._reader.read(name, self._ver, slice(first, last))
            for place in places:
                left, low = corners[place].tolist()
                down, up, west, east = max(low, first), min(low + size, last), max(left, 0), min(left + size, columns)
                stamps[place, down - low : up - low, west - left : east - left] = strip[
                    down - first : up - first, west:east
                ]
        return stamps


@contextmanager
def open_frames(path: Path) -> Iterator[tuple[Frame, ...]]:
    """Give the images of a product in the order of frequency.

    Raises
    ------
    Rejected, Retryable
        As `ProductReader`.
    """
    with ProductReader(path) as reader:
        frames = (Frame(reader, ver) for ver in range(1, len(reader.detectors) + 1))
        yield tuple(sorted(frames, key=lambda frame: (frame.frequency, frame.band)))


def _number(info: HduInfo, keyword: str, otherwise: float) -> float:
    value = card_value(info.header, keyword)
    return float(value) if isinstance(value, (int, float)) else otherwise


def _wcs_cards(info: HduInfo) -> tuple[tuple[str, Any], ...]:
    header = info.header
    return tuple(
        (keyword, card_value(header, keyword))
        for keyword in header
        if keyword.startswith(_OF_WCS) or keyword in _OF_WCS_TOO
    )


@functools.lru_cache(maxsize=64)
def _wcs(cards: tuple[tuple[str, Any], ...]) -> WCS | None:
    """Return the coordinates that cards describe; most images of a night share theirs."""
    return celestial_wcs(fits.Header(dict(cards)))
