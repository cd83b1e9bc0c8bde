"""The light curves of a field: one row for each source, band and time step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nightglass.lightcurves.associating import SourceList
from nightglass.lightcurves.variability import RunningFlux
from nightglass.model import DQ

if TYPE_CHECKING:
    from astropy.wcs import WCS

    from nightglass.config import LightCurveRule
    from nightglass.image import Image

__all__ = ["CURVE_DTYPE", "SUMMARY_DTYPE", "LightCurves"]

CURVE_DTYPE = np.dtype(
    [
        ("source", "i4"),
        ("band", "U16"),
        ("frequency", "f8"),
        ("step", "i4"),
        ("mjd", "f8"),
        ("flux", "f8"),
        ("flux_error", "f8"),
        ("detected", "?"),
        ("v", "f8"),
        ("eta", "f8"),
    ]
)
"""A measurement: flux in a circle, and the variability of the source in this band up to now."""

SUMMARY_DTYPE = np.dtype(
    [
        ("source", "i4"),
        ("band", "U16"),
        ("ra", "f8"),
        ("dec", "f8"),
        ("position_error", "f8"),
        ("measurements", "i4"),
        ("detections", "i4"),
        ("mean_flux", "f8"),
        ("weighted_flux", "f8"),
        ("v", "f8"),
        ("eta", "f8"),
    ]
)
"""A source in a band; positions in degrees."""

_EXCLUDED = np.uint16(DQ.BAD | DQ.NO_DATA | DQ.LOW_FLAT)
_DAY_S = 86400.0
_MJD_UNIX = 40587.0


@dataclass(frozen=True, slots=True)
class _Band:
    """What was found in one image: where, and how bright."""

    pixels: NDArray[np.float64]
    sky: NDArray[np.float64]
    errors_deg: NDArray[np.float64]
    flux: NDArray[np.float64]
    flux_error: NDArray[np.float64]


class LightCurves:
    """Grows by one time step after the other; the same step again changes nothing.

    All bands share one list of sources. What is known and not found in an image is measured at its place; what is new
    has no measurements before it was found.
    """

    def __init__(self, rule: LightCurveRule) -> None:
        self._rule = rule
        self._sources = SourceList(de_ruiter=rule.de_ruiter, search_deg=rule.search_arcsec / 3600.0)
        self._running: dict[tuple[int, str], RunningFlux] = {}
        self._detections: dict[tuple[int, str], int] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._steps: dict[str, int] = {}
        self.skipped = 0

    @property
    def steps(self) -> tuple[str, ...]:
        """Ids of the time steps that are in, in order."""
        return tuple(self._steps)

    @property
    def curves(self) -> NDArray[np.void]:
        """All measurements: CURVE_DTYPE, in the order of time steps and bands."""
        return np.array(self._rows, CURVE_DTYPE)

    @property
    def summary(self) -> NDArray[np.void]:
        """Each source in each band: SUMMARY_DTYPE."""
        positions, errors = self._sources.positions, self._sources.errors_deg
        rows = [
            (
                source,
                band,
                *positions[source],
                errors[source],
                running.count,
                self._detections.get((source, band), 0),
                running.mean,
                running.weighted_mean,
                running.variation,
                running.significance,
            )
            for (source, band), running in sorted(self._running.items())
        ]
        return np.array(rows, SUMMARY_DTYPE)

    def add(self, key: str, started_at: datetime, images: Iterable[Image]) -> None:
        """Take in a time step, its images in the order of frequency.

        Parameters
        ----------
        key : str
            Id of the exposure.
        images : iterable of Image
            Reduced, with catalogues; those without a celestial WCS are skipped and counted.
        """
        if key in self._steps:
            return
        self._steps[key] = len(self._steps)
        mjd = _MJD_UNIX + started_at.timestamp() / _DAY_S
        for image in sorted(images, key=_frequency):
            self._add_image(image, self._steps[key], mjd)

    def _add_image(self, image: Image, step: int, mjd: float) -> None:
        from nightglass.steps.wcs import celestial_wcs

        wcs = celestial_wcs(image.header)
        if wcs is None or image.catalogue is None:
            self.skipped += 1
            return
        found = _found(image, wcs, self._rule)
        before = len(self._sources)
        numbers = self._sources.take(found.sky, found.errors_deg)
        for number, flux, error in zip(numbers.tolist(), found.flux, found.flux_error, strict=True):
            self._row(number, image, step, mjd, flux, error, detected=True)
        unseen = np.setdiff1d(np.arange(before), numbers)
        flux, error = _forced(image, wcs, self._sources.positions[unseen], self._rule)
        for number, value, spread in zip(unseen.tolist(), flux, error, strict=True):
            if math.isfinite(value):
                self._row(number, image, step, mjd, value, spread, detected=False)

    def _row(
        self, source: int, image: Image, step: int, mjd: float, flux: float, error: float, *, detected: bool
    ) -> None:
        key = (source, image.detector)
        running = self._running[key] = self._running.get(key, RunningFlux()).adding(float(flux), float(error))
        self._detections[key] = self._detections.get(key, 0) + detected
        self._rows.append(
            (
                source,
                image.detector,
                _frequency(image),
                step,
                mjd,
                flux,
                error,
                detected,
                running.variation,
                running.significance,
            )
        )


def _frequency(image: Image) -> float:
    try:
        return float(image.header.get("RESTFRQ", 0.0))
    except (TypeError, ValueError):
        return 0.0


def _found(image: Image, wcs: WCS, rule: LightCurveRule) -> _Band:
    """Return the sources of an image that are good enough, brightest first."""
    table = image.catalogue
    assert table is not None
    snr, fwhm = (np.asarray(table[name], np.float64) for name in ("SNR", "FWHM"))
    pixels = np.column_stack([np.asarray(table[name], np.float64) - 1.0 for name in ("X", "Y")])
    sky = np.asarray(wcs.wcs_pix2world(pixels, 0), np.float64).reshape(-1, 2)[:, [wcs.wcs.lng, wcs.wcs.lat]]
    scale_deg = math.sqrt(abs(float(np.linalg.det(wcs.pixel_scale_matrix))))
    with np.errstate(divide="ignore", invalid="ignore"):
        # Condon 1997, PASP 109, 166: about half the width by the signal-to-noise ratio, and what calibration leaves
        errors = scale_deg * np.hypot(np.nan_to_num(fwhm, nan=1.0) / (2.0 * snr), rule.position_error_pixels)
    flux, flux_error = _aperture(image, pixels, rule)
    good = np.flatnonzero((snr > 0) & np.isfinite(errors) & np.isfinite(sky).all(axis=1) & np.isfinite(flux))
    good = good[: rule.most_sources]
    return _Band(pixels[good], sky[good], errors[good], flux[good], flux_error[good])


def _forced(
    image: Image, wcs: WCS, sky: NDArray[np.float64], rule: LightCurveRule
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure at places on the sky; NaN for those that the image does not show."""
    world = sky if wcs.wcs.lng == 0 else sky[:, ::-1]
    pixels = np.asarray(wcs.wcs_world2pix(world, 0), np.float64).reshape(-1, 2)
    return _aperture(image, pixels, rule)


def _aperture(
    image: Image, pixels: NDArray[np.float64], rule: LightCurveRule
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return flux in a circle and its error, sky subtracted; NaN off the image and where all is masked."""
    import sep

    rows, columns = image.data.shape
    flux, error = np.full((2, len(pixels)), np.nan)
    # comparisons with NaN are false
    inside = np.asarray(((pixels > -0.5) & (pixels < [columns - 0.5, rows - 0.5])).all(axis=1))
    mask = (image.mask & _EXCLUDED) != 0
    if not inside.any() or mask.all():
        return flux, error
    # sep wants memory that it may write to, and the byte order of this machine
    data = np.array(image.data, np.float32, order="C")
    background = sep.Background(data, mask=mask)
    background.subfrom(data)
    x, y = pixels[inside].T
    value, spread, flags = sep.sum_circle(
        data, x, y, rule.aperture_pixels, err=background.globalrms, mask=mask, subpix=5
    )
    hidden = (flags & sep.APER_ALLMASKED) != 0
    flux[inside], error[inside] = np.where(hidden, np.nan, value), np.where(hidden, np.nan, spread)
    return flux, error
