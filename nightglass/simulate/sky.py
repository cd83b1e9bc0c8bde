"""A simulated sky: seeded stars and galaxies, seen through an atmosphere, at places that a TAN WCS gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from nightglass.simulate.chip import Pixels
from nightglass.simulate.stamps import window

__all__ = ["Field", "Pointing", "Scene", "make_field", "render"]

ZERO_POINT_MAG = 25.0
"""Magnitude of a source that gives one electron per second."""
SKY_MAG = {"g": 21.3, "r": 20.6}
"""Surface brightness of the night sky, magnitudes per square arcsecond, for filters that matter here."""
_SKY_MAG_ELSEWHERE = 20.8
_FAINTEST_MAG = 20.8
_BRIGHTEST_MAG = 10.5
_MAG_SLOPE = 0.30
"""log10 of the number of stars grows by this much per magnitude, as at middle galactic latitudes."""
_MOFFAT_BETA = 3.0
_LARGEST_STAMP_PX = 160
_FAINT_EDGE_E = 0.4
"""A stamp ends where the source gives less than this many electrons in a pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """What there is around one place of the sky.

    Attributes
    ----------
    ra_deg, dec_deg : float
        Centre, ICRS degrees.
    star_ra_deg, star_dec_deg, star_mag, star_colour : ndarray of float64, (n,)
        Stars; the magnitude is that of filter ``r``, the colour is g - r.
    galaxies : ndarray of float64, (m, 6)
        Right ascension, declination, magnitude, scale length in arcseconds, axis ratio, position angle in radians.
    """

    name: str
    ra_deg: float
    dec_deg: float
    star_ra_deg: NDArray[np.float64]
    star_dec_deg: NDArray[np.float64]
    star_mag: NDArray[np.float64]
    star_colour: NDArray[np.float64]
    galaxies: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointing:
    """Where and through what the telescope looks.

    Attributes
    ----------
    offset_arcsec : tuple of float
        Dither offset to the east and to the north.
    fwhm_px : float
        Seeing.
    transparency : float
        1 for a clear sky.
    """

    shape: tuple[int, int]
    filter: str
    pixel_scale_arcsec: float = 0.8
    rotation_deg: float = 2.0
    offset_arcsec: tuple[float, float] = (0.0, 0.0)
    fwhm_px: float = 3.2
    transparency: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A rendered field and the truth about it.

    Attributes
    ----------
    light_e : ndarray of float32, (ny, nx)
        Electrons that an ideal chip would collect, without noise.
    x, y : ndarray of float64, (n,)
        Centres of the stars that fall on the chip, 0-based pixels of the data section.
    flux_e : ndarray of float64, (n,)
        Electrons of each of them, all over its PSF.
    background_e : float
        Electrons of the sky in each pixel.
    wcs : Header
        The WCS cards.
    """

    light_e: Pixels
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    ra_deg: NDArray[np.float64]
    dec_deg: NDArray[np.float64]
    flux_e: NDArray[np.float64]
    background_e: float
    fwhm_px: float
    wcs: fits.Header


def make_field(
    name: str, *, ra_deg: float, dec_deg: float, radius_deg: float, seed: int, stars_per_sq_arcmin: float = 3.0
) -> Field:
    """Scatter stars and galaxies over a disc on the sky; the same seed gives the same field.

    Parameters
    ----------
    ra_deg, dec_deg : float
        Centre, ICRS degrees.
    radius_deg : float
        Of the disc; make it larger than half the diagonal of the chip and the dithers.
    """
    rng = np.random.default_rng([seed, 2])
    area = np.pi * (radius_deg * 60) ** 2
    stars = int(rng.poisson(stars_per_sq_arcmin * area))
    ra, dec = _scatter(stars, ra_deg, dec_deg, radius_deg, rng)
    faintest, brightest = (10 ** (_MAG_SLOPE * mag) for mag in (_FAINTEST_MAG, _BRIGHTEST_MAG))
    mag = np.log10(rng.uniform(brightest, faintest, stars)) / _MAG_SLOPE
    count = int(rng.poisson(0.12 * stars_per_sq_arcmin * area))
    galaxy_ra, galaxy_dec = _scatter(count, ra_deg, dec_deg, radius_deg, rng)
    galaxies = np.column_stack(
        [
            galaxy_ra,
            galaxy_dec,
            20.3 - rng.exponential(1.0, count),
            rng.lognormal(0.6, 0.5, count),
            rng.uniform(0.25, 1.0, count),
            rng.uniform(0, np.pi, count),
        ]
    )
    return Field(
        name=name,
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        star_ra_deg=ra,
        star_dec_deg=dec,
        star_mag=mag,
        star_colour=rng.normal(0.6, 0.35, stars),
        galaxies=galaxies,
    )


def render(field: Field, pointing: Pointing, exposure_time_s: float) -> Scene:
    """Draw a field as an ideal detector sees it.

    Notes
    -----
    Stars are Moffat profiles (Moffat 1969, A&A 3, 455) with beta 3, sampled at pixel centres; galaxies are
    exponential discs whose cores are softened by the seeing.
    """
    cards = _wcs_cards(field, pointing)
    wcs = WCS(cards)
    ny, nx = pointing.shape
    seconds = exposure_time_s * pointing.transparency
    sky_mag = SKY_MAG.get(pointing.filter, _SKY_MAG_ELSEWHERE)
    background = _electrons(sky_mag, exposure_time_s) * pointing.pixel_scale_arcsec**2
    light = np.full(pointing.shape, background, np.float32)
    x, y = wcs.wcs_world2pix(field.star_ra_deg, field.star_dec_deg, 0)
    colour = field.star_colour if pointing.filter == "g" else 0.0
    flux = np.asarray(_electrons(field.star_mag + colour, seconds))
    alpha = pointing.fwhm_px / (2 * np.sqrt(2 ** (1 / _MOFFAT_BETA) - 1))
    for index in np.flatnonzero((np.abs(x - nx / 2) < nx / 2 + 40) & (np.abs(y - ny / 2) < ny / 2 + 40)):
        _add_star(light, x[index], y[index], flux[index], alpha)
    _add_galaxies(light, field, pointing, wcs, seconds)
    inside = (x >= -0.5) & (x < nx - 0.5) & (y >= -0.5) & (y < ny - 0.5)
    return Scene(
        light_e=light,
        x=x[inside],
        y=y[inside],
        ra_deg=field.star_ra_deg[inside],
        dec_deg=field.star_dec_deg[inside],
        flux_e=flux[inside],
        background_e=float(background),
        fwhm_px=pointing.fwhm_px,
        wcs=cards,
    )


def _scatter(
    count: int, ra_deg: float, dec_deg: float, radius_deg: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    distance = radius_deg * np.sqrt(rng.random(count))
    angle = rng.uniform(0, 2 * np.pi, count)
    dec = dec_deg + distance * np.sin(angle)
    return (ra_deg + distance * np.cos(angle) / np.cos(np.radians(dec))) % 360, dec


def _electrons(mag: NDArray[np.float64] | float, seconds: float) -> NDArray[np.float64] | float:
    return seconds * 10 ** (0.4 * (ZERO_POINT_MAG - mag))


def _wcs_cards(field: Field, pointing: Pointing) -> fits.Header:
    """North up and east to the left, but for the rotation of the camera."""
    scale = pointing.pixel_scale_arcsec / 3600
    cosine, sine = (function(np.radians(pointing.rotation_deg)) for function in (np.cos, np.sin))
    east, north = (offset / 3600 for offset in pointing.offset_arcsec)
    header = fits.Header()
    header["RADESYS"] = "ICRS"
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CUNIT1"], header["CUNIT2"] = "deg", "deg"
    header["CRVAL1"] = (field.ra_deg + east / np.cos(np.radians(field.dec_deg))) % 360
    header["CRVAL2"] = field.dec_deg + north
    header["CRPIX1"] = (pointing.shape[1] + 1) / 2
    header["CRPIX2"] = (pointing.shape[0] + 1) / 2
    header["CD1_1"], header["CD1_2"] = -scale * cosine, scale * sine
    header["CD2_1"], header["CD2_2"] = scale * sine, scale * cosine
    return header


def _add_star(light: Pixels, x0: float, y0: float, flux_e: float, alpha: float) -> None:
    peak = flux_e * (_MOFFAT_BETA - 1) / (np.pi * alpha**2)
    edge = alpha * np.sqrt(max((peak / _FAINT_EDGE_E) ** (1 / _MOFFAT_BETA) - 1, 4.0))
    box = window(light.shape, y0, x0, min(edge, _LARGEST_STAMP_PX))
    y = (np.arange(box[0].start, box[0].stop, dtype=np.float32) - np.float32(y0)) / np.float32(alpha)
    x = (np.arange(box[1].start, box[1].stop, dtype=np.float32) - np.float32(x0)) / np.float32(alpha)
    profile = (1 + y * y)[:, None] + (x * x)[None, :]
    light[box] += np.float32(peak) / (profile * profile * profile)


def _add_galaxies(light: Pixels, field: Field, pointing: Pointing, wcs: WCS, seconds: float) -> None:
    x, y = wcs.wcs_world2pix(field.galaxies[:, 0], field.galaxies[:, 1], 0)
    ny, nx = pointing.shape
    softening = (0.5 * pointing.fwhm_px) ** 2
    for index in np.flatnonzero((x > -20) & (x < nx + 20) & (y > -20) & (y < ny + 20)):
        mag, scale_arcsec, ratio, angle = field.galaxies[index, 2:]
        scale = scale_arcsec / pointing.pixel_scale_arcsec
        box = window(light.shape, y[index], x[index], 7 * scale + 2 * pointing.fwhm_px)
        rows, columns = np.ogrid[box]
        dy, dx = rows - y[index], columns - x[index]
        major = dx * np.cos(angle) + dy * np.sin(angle)
        minor = (dy * np.cos(angle) - dx * np.sin(angle)) / ratio
        profile = np.exp(-np.sqrt(major**2 + minor**2 + softening) / scale)
        total = 2 * np.pi * scale**2 * ratio * np.exp(-np.sqrt(softening) / scale) * (1 + np.sqrt(softening) / scale)
        light[box] += (_electrons(mag, seconds) / total * profile).astype(np.float32)
