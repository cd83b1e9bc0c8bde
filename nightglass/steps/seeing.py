"""Step ``seeing``: the width of stars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nightglass.config.section import Section
from nightglass.image import Image
from nightglass.model import DQ
from nightglass.profiles import ProfileFits, fit_profiles, stamps
from nightglass.steps.step import Step, StepContext, applied, with_cards
from nightglass.steps.wcs import pixel_scale

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["STEP", "SeeingSettings", "measure_seeing"]

VERSION = "1"
_MAD_TO_SIGMA = 1.4826
_STAMP_WIDTHS = 2.0
"""Half side of a stamp in widths of a star."""
_LARGEST_STAMP = 20
_SMALLEST_WIDTH = 1.2
"""Pixels; what is sharper is a cosmic ray or a hot pixel, no star."""


class SeeingSettings(Section):
    """Which stars are taken."""

    stars: int = Field(50, ge=3)
    """The best stars, at most."""
    min_snr: float = Field(20.0, gt=0)
    """Fainter stars are not taken."""
    max_ellipticity: float = Field(0.5, gt=0, le=1)
    """Longer ones are galaxies or trails."""


def measure_seeing(image: Image, context: StepContext, settings: SeeingSettings) -> Image:
    """Fit profiles to the brightest good stars and take the median width.

    Widths by second moments grow with flux, so they only choose the stars; the seeing is that of fitted Moffat
    profiles. In arcseconds where WCS or camera give a scale, else in pixels; the card's comment says which.
    ``measured`` gets ``seeing`` and ``elongation``, NaN where there are too few stars.
    """
    fits, used = _fits(image, settings)
    good = np.isfinite(fits.fwhm)
    if used == 0 or int(good.sum()) < 3:
        measured = image.measured | {"seeing": float("nan"), "elongation": float("nan")}
        note = f"too few stars: {int(good.sum())}"
        return applied(image, "seeing", VERSION, settings, note=note, measured=measured)
    good &= _within(fits.fwhm, good)
    fwhm, elongation = float(np.median(fits.fwhm[good])), float(np.median(fits.elongation[good]))
    scale = pixel_scale(image.header, context)
    unit, seeing = ("pixel", fwhm) if scale is None else ("arcsec", fwhm * scale)
    cards: dict[str, tuple[str | float | int, str]] = {
        "SEEING": (round(seeing, 4), f"[{unit}] median FWHM of {int(good.sum())} stars"),
        "FWHMPIX": (round(fwhm, 4), "[pixel] the same"),
        "ELONGAT": (round(elongation, 4), "median ratio of major to minor axis"),
    }
    return applied(
        image,
        "seeing",
        VERSION,
        settings,
        note="" if scale is not None else "in pixels: neither WCS nor camera give a scale",
        header=with_cards(image.header, cards),
        measured=image.measured | {"seeing": seeing, "fwhm_pixels": fwhm, "elongation": elongation},
    )


def _fits(image: Image, settings: SeeingSettings) -> tuple[ProfileFits, int]:
    none = ProfileFits(*(np.empty(0) for _ in range(4)))
    if image.catalogue is None or len(image.catalogue) == 0:
        return none, 0
    chosen = _choose(image.catalogue, settings)
    if len(chosen) == 0:
        return none, 0
    x, y, width = (np.asarray(image.catalogue[name], dtype=np.float64)[chosen] for name in ("X", "Y", "FWHM"))
    guess = float(np.median(width))
    radius = int(np.clip(round(_STAMP_WIDTHS * guess), 4, _LARGEST_STAMP))
    cut, dx, dy = stamps(image.data, x - 1, y - 1, radius=radius)
    return fit_profiles(cut, dx, dy, fwhm=guess), len(cut)


def _choose(catalogue: Table, settings: SeeingSettings) -> NDArray[np.intp]:
    """Return the rows of the best stars, brightest first."""
    width = np.asarray(catalogue["FWHM"], dtype=np.float64)
    spoilt = np.int16(DQ.BAD | DQ.SATURATED | DQ.COSMIC | DQ.NO_DATA)
    good = (np.asarray(catalogue["FLAGS"]) == 0) & (np.asarray(catalogue["DQ"]) & spoilt == 0)
    good &= np.asarray(catalogue["SNR"]) >= settings.min_snr
    good &= np.asarray(catalogue["ELLIPTICITY"]) <= settings.max_ellipticity
    good &= np.isfinite(width) & (width >= _SMALLEST_WIDTH)
    rows = np.flatnonzero(good)
    rows = rows[np.argsort(-np.asarray(catalogue["FLUX"])[rows], kind="stable")]
    if len(rows) < 3:
        return rows
    # galaxies are wider than stars: look at many, keep those near the typical width
    many = rows[: 6 * settings.stars]
    near = _within(width[many], np.ones(len(many), dtype=bool))
    return many[near][: settings.stars]


def _within(values: NDArray[np.float64], used: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which values lie within three robust deviations of the median of the used ones."""
    middle = float(np.median(values[used]))
    spread = _MAD_TO_SIGMA * float(np.median(np.abs(values[used] - middle)))
    return np.asarray(used & (np.abs(values - middle) <= 3 * spread + 1e-3 * middle))


STEP = Step(
    name="seeing",
    version=VERSION,
    settings=SeeingSettings,
    apply=measure_seeing,
    doc="Measure the width of stars by profile fits.",
)
