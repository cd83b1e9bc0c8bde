"""Step ``wcs``: keep the header's WCS and say whether it can be believed."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

from pydantic import Field

from nightglass.config.section import Section
from nightglass.image import Image
from nightglass.steps.step import Step, StepContext, applied, with_cards

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from astropy.wcs import WCS

__all__ = ["STEP", "WcsSettings", "celestial_wcs", "check_wcs", "pixel_scale"]

VERSION = "1"
_ARCSEC = 3600.0


class WcsSettings(Section):
    """How far a WCS may be from what the camera file says."""

    scale_tolerance: float = Field(0.1, gt=0)
    """Largest relative difference between the WCS's scale and the camera's pixel_scale (times binning)."""
    shear_tolerance: float = Field(0.1, gt=0)
    """Largest relative difference between the scales along the two axes."""


def celestial_wcs(header: Header) -> WCS | None:
    """Return the two-dimensional celestial WCS of a header, or None where it has none that astropy can read."""
    if "CTYPE1" not in header:
        return None
    from astropy.wcs import WCS, WcsError

    with warnings.catch_warnings():
        # astropy warns of each date or unit that it mends; what it cannot mend it raises
        warnings.simplefilter("ignore")
        try:
            found = WCS(header).celestial
            usable = found.naxis == 2 and found.has_celestial and math.isfinite(_area(found))
        except (WcsError, ValueError, KeyError, TypeError, ArithmeticError):
            return None  # the caller says so in the product: "no celestial WCS"
    return found if usable else None


def _area(wcs: WCS) -> float:
    """Return the area of a pixel at the reference point, in square degrees."""
    matrix = wcs.pixel_scale_matrix
    return abs(float(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]))


def pixel_scale(header: Header, context: StepContext) -> float | None:
    """Return arcseconds per pixel: of the WCS if it is believable, else of the camera, times binning."""
    wcs = celestial_wcs(header)
    nominal = _nominal_scale(context)
    if wcs is not None and header.get("WCSOK", True):
        scale = math.sqrt(_area(wcs)) * _ARCSEC
        if scale > 0:
            return scale
    return nominal


def _nominal_scale(context: StepContext) -> float | None:
    if context.camera.pixel_scale is None:
        return None
    factors = [int(part) for part in context.ref.binning.lower().split("x") if part.isdigit() and int(part) > 0]
    return context.camera.pixel_scale * math.sqrt(math.prod(factors)) if factors else context.camera.pixel_scale


def check_wcs(image: Image, context: StepContext, settings: WcsSettings) -> Image:
    """Check that the WCS is celestial, its centre lies on the sky, and its scale fits the camera.

    A WCS that fails is left in the header, with ``WCSOK = F`` and the reason in ``WCSNOTE``; the image is not rejected.
    """
    wcs = celestial_wcs(image.header)
    if wcs is None:
        cards = {"WCSOK": (False, "no celestial WCS")}
        return applied(image, "wcs", VERSION, settings, note="no celestial WCS", header=with_cards(image.header, cards))
    ny, nx = image.data.shape
    centre = [float(value) for value in wcs.wcs_pix2world([[(nx - 1) / 2, (ny - 1) / 2]], 0)[0]]
    longitude, latitude = centre[wcs.wcs.lng], centre[wcs.wcs.lat]
    problems = _problems(wcs, longitude, latitude, _nominal_scale(context), settings)
    cards_: dict[str, tuple[str | float | bool, str]] = {"WCSOK": (not problems, "WCS is celestial and plausible")}
    if problems:
        cards_["WCSNOTE"] = ("; ".join(problems)[:60], "why the WCS is doubted")
    else:
        cards_["CENRA"] = (round(longitude % 360, 7), "[deg] longitude at the centre of the image")
        cards_["CENDEC"] = (round(latitude, 7), "[deg] latitude at the centre of the image")
        cards_["PIXSCALE"] = (round(math.sqrt(_area(wcs)) * _ARCSEC, 6), "[arcsec/pixel] of the WCS")
    return applied(image, "wcs", VERSION, settings, note="; ".join(problems), header=with_cards(image.header, cards_))


def _problems(wcs: WCS, longitude: float, latitude: float, nominal: float | None, settings: WcsSettings) -> list[str]:
    problems = []
    if not (math.isfinite(longitude) and math.isfinite(latitude) and abs(latitude) <= 90):
        problems.append(f"centre at {longitude:.4f}, {latitude:.4f} deg is not on the sky")
    matrix = wcs.pixel_scale_matrix
    sides = [math.hypot(float(matrix[0, axis]), float(matrix[1, axis])) * _ARCSEC for axis in (0, 1)]
    scale = math.sqrt(_area(wcs)) * _ARCSEC
    if min(sides) <= 0 or scale <= 0:
        return [*problems, "the scale is zero"]
    if abs(sides[0] / sides[1] - 1) > settings.shear_tolerance:
        problems.append(f"scales of the axes differ: {sides[0]:.3f} and {sides[1]:.3f} arcsec")
    if nominal is not None and abs(scale / nominal - 1) > settings.scale_tolerance:
        problems.append(f"scale {scale:.4g} arcsec, camera says {nominal:.4g}")
    return problems


STEP = Step(
    name="wcs",
    version=VERSION,
    settings=WcsSettings,
    apply=check_wcs,
    doc="Keep the WCS of the header and check it.",
)
