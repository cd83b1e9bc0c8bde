"""Step ``sources``: find sources and measure them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nightglass.catalogues import source_table
from nightglass.config.section import Section
from nightglass.image import Image
from nightglass.model import DQ
from nightglass.steps.step import Step, StepContext, applied, with_cards
from nightglass.steps.wcs import celestial_wcs

__all__ = ["STEP", "SourcesSettings", "find_sources"]

VERSION = "1"
_PIXEL_STACK = 300_000
"""Pixels above the threshold that sep has room for at first. It writes all over that room before it begins: for the
largest stack this took longer than to find the sources of a usual field."""
_LARGEST_PIXEL_STACK = 3_000_000
_SUB_OBJECTS = 2048
"""Limits of sep for pixels above the threshold and parts of a blend; its own (300 000, 1024) fail in crowded fields,
and much larger ones take minutes to fail."""
_STACK_FULL = "pixel buffer full"
"""In sep's message."""
_RETRIES = 3
_RETRY_FACTOR = 3.0
_NOISE_RATIO = (0.8, 1.25)
_LEAST_NOISE = 0.1
_KRON = 2.5
_KRON_SMALLEST_RADIUS = 1.75
"""SExtractor's PHOT_AUTOPARAMS and the circle that replaces ellipses smaller than it."""
_FOR_SEP: tuple[Literal["C"], Literal["W"]] = ("C", "W")
"""sep writes nothing, but takes no read-only array."""
_MAG = 2.5 / np.log(10)

_NOTHING = [(name, "f8") for name in ("x", "y", "a", "b", "theta", "flux", "peak")] + [("npix", "i4"), ("flag", "i2")]

Values = NDArray[Any]


class SourcesSettings(Section):
    """What counts as a source."""

    threshold: float = Field(3.0, gt=0)
    """Height above the sky in standard deviations, after smoothing with a 3x3 kernel."""
    min_area: int = Field(5, ge=1)
    """Connected pixels above the threshold."""
    deblend_levels: int = Field(32, ge=1)
    """Levels between threshold and peak at which blends are looked for."""
    deblend_contrast: float = Field(0.005, ge=0, le=1)
    """1 leaves blends together."""
    aperture: float = Field(5.0, gt=0)
    """Radius of the fixed aperture in pixels."""
    saturated: Literal["flag", "mask"] = "flag"
    """``flag`` keeps a saturated star as one source, marked in DQ; ``mask`` leaves its pixels out: a ring."""
    limit: int = Field(100_000, ge=1)
    """Sources kept, brightest first."""


def find_sources(image: Image, context: StepContext, settings: SourcesSettings) -> Image:
    """Find sources above the sky and measure position, flux and shape (`sep`: Barbary 2016, JOSS 1, 58).

    Errors come from the variance. Where that does not explain the noise of the sky (unknown gain or read
    noise) it is scaled until it does, and the note says by how much. A field too crowded for
    sep is tried again with higher thresholds, down to an empty table with a note; it never fails.
    """
    del context
    sky, noise, notes = _sky(image)
    data = image.data - sky if sky is not None else np.require(image.data, requirements=_FOR_SEP)
    variance, scale = _variance(image, noise)
    if scale != 1:
        notes.append(f"errors scaled by {scale:.3g} to explain the sky's noise")
    excluded = DQ.BAD | DQ.LOW_FLAT | DQ.COSMIC | DQ.NO_DATA
    if settings.saturated == "mask":
        excluded |= DQ.SATURATED
    mask = (image.mask & np.uint16(excluded)) != 0
    found, threshold, trouble = _extract(data, variance, mask, settings)
    notes.extend(trouble)
    found = found[np.argsort(-found["flux"], kind="stable")][: settings.limit]
    columns = _measure(data, variance, mask, found, settings)
    columns["DQ"] = _bits_around(image.mask, found["x"], found["y"])
    wcs = celestial_wcs(image.header) if len(found) else None
    if wcs is not None:
        columns["RA"], columns["DEC"] = wcs.wcs_pix2world(found["x"], found["y"], 0)
    time = image.exposure_time_s if image.exposure_time_s > 0 else 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        columns["SNR"] = columns["FLUX"] / columns["FLUXERR"]
        columns["MAG_INST"] = np.where(columns["FLUX"] > 0, -_MAG * np.log(columns["FLUX"] / time), np.nan)
        columns["MAGERR"] = np.where(columns["FLUX"] > 0, _MAG * columns["FLUXERR"] / columns["FLUX"], np.nan)
    cards: dict[str, tuple[float | int | str, str]] = {
        "NSOURCES": (len(found), "sources in the table"),
        "DETTHRES": (threshold, "detection threshold in standard deviations"),
        "APERRAD": (settings.aperture, "[pixel] radius of FLUX_APER"),
    }
    return applied(
        image,
        "sources",
        VERSION,
        settings,
        note="; ".join(notes),
        catalogue=source_table(columns, unit=image.unit),
        header=with_cards(image.header, cards),
        measured=image.measured | {"sources": float(len(found))},
    )


def _sky(image: Image) -> tuple[NDArray[np.float32] | None, float, list[str]]:
    """Return the sky still in the data, its noise, and what there is to note."""
    if "noise" in image.measured:
        return image.sky, image.measured["noise"], []
    import sep

    masked = image.mask != 0
    if masked.all():
        return None, float("nan"), ["every pixel is masked"]
    found = sep.Background(np.require(image.data, requirements=_FOR_SEP), mask=masked)
    return (
        found.back(dtype=np.float32),
        float(found.globalrms),
        ["no step background before: sky measured in 64-pixel cells"],
    )


def _variance(image: Image, noise: float) -> tuple[NDArray[np.float32], float]:
    """Return the variance, scaled where it fails to explain the sky's noise, and the factor on errors."""
    noise = noise if np.isfinite(noise) and noise > 0 else 1.0
    sample = image.variance[::16, ::16][image.mask[::16, ::16] == 0]
    typical = float(np.sqrt(np.median(sample))) if sample.size else 0.0
    if typical <= 0:
        return np.full(image.data.shape, noise**2, dtype=np.float32), 1.0
    least = np.float32(_LEAST_NOISE * min(noise, typical)) ** 2
    variance = image.variance
    if variance.min() < least:  # without read noise dark pixels have none, and each would be a source
        variance = np.maximum(variance, least)
    ratio = noise / typical
    if _NOISE_RATIO[0] <= ratio <= _NOISE_RATIO[1]:
        return np.require(variance, requirements=_FOR_SEP), 1.0
    return variance * np.float32(ratio**2), ratio


def _extract(
    data: NDArray[np.float32], variance: NDArray[np.float32], mask: NDArray[np.bool_], settings: SourcesSettings
) -> tuple[Values, float, list[str]]:
    import sep

    stacks = [max(_LARGEST_PIXEL_STACK, data.size // 2), _PIXEL_STACK]
    sep.set_extract_pixstack(stacks.pop())
    sep.set_sub_object_limit(_SUB_OBJECTS)
    threshold, notes = settings.threshold, []
    tries = _RETRIES + 1
    while tries:
        try:
            found = sep.extract(
                data,
                threshold,
                var=variance,
                mask=mask,
                minarea=settings.min_area,
                filter_type="conv",
                deblend_nthresh=settings.deblend_levels,
                deblend_cont=settings.deblend_contrast,
            )
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - sep raises plain Exception for its limits; the text is kept
            if stacks and _STACK_FULL in str(error):
                sep.set_extract_pixstack(stacks.pop())  # a crowded field: the same again with more room
                continue
            notes.append(f"threshold {threshold:g}: {error}"[:120])
            threshold *= _RETRY_FACTOR
            tries -= 1
        else:
            return found, threshold, notes
    return np.empty(0, dtype=_NOTHING), threshold, [*notes, "gave up: no sources"]


def _measure(
    data: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.bool_],
    found: Values,
    settings: SourcesSettings,
) -> dict[str, Values]:
    """Measure Kron and aperture fluxes and half-light radii."""
    import sep

    x, y = found["x"], found["y"]
    a, b = np.maximum(found["a"], 0.3), np.maximum(found["b"], 0.3)
    theta = np.clip(found["theta"], -np.pi / 2, np.pi / 2)
    kron, kron_flags = sep.kron_radius(data, x, y, a, b, theta, 6.0, mask=mask)
    kron = np.where(np.isfinite(kron), kron, 0.0)
    small = _KRON * kron * np.sqrt(a * b) < _KRON_SMALLEST_RADIUS
    radius = np.where(small, _KRON_SMALLEST_RADIUS / np.sqrt(a * b), _KRON * kron)
    flux, error, flags = sep.sum_ellipse(data, x, y, a, b, theta, radius, var=variance, mask=mask, subpix=1)
    aper, aper_error, _ = sep.sum_circle(data, x, y, settings.aperture, var=variance, mask=mask, subpix=5)
    half, half_flags = sep.flux_radius(
        data, x, y, np.maximum(3.0 * a, 3.0), 0.5, normflux=np.maximum(flux, 1e-9), mask=mask, subpix=5
    )
    return {
        "NUMBER": np.arange(1, len(found) + 1),
        "X": x + 1,  # sep counts from 0, FITS from 1
        "Y": y + 1,
        "FLUX": flux,
        "FLUXERR": error,
        "FLUX_APER": aper,
        "FLUXERR_APER": aper_error,
        "PEAK": found["peak"],
        "FWHM": np.where(half > 0, 2 * half, np.nan),
        "ELLIPTICITY": 1 - b / a,
        "THETA": np.degrees(theta),
        "KRON_RADIUS": radius,
        "NPIX": found["npix"],
        "FLAGS": found["flag"] | flags | kron_flags | half_flags,
    }


def _bits_around(mask: NDArray[np.uint16], x: Values, y: Values) -> NDArray[np.uint16]:
    """Join the mask bits within 3 pixels (a square) of each position."""
    offsets = np.arange(-3, 4)
    rows = np.clip(np.rint(y).astype(int)[:, None, None] + offsets[:, None], 0, mask.shape[0] - 1)
    columns = np.clip(np.rint(x).astype(int)[:, None, None] + offsets, 0, mask.shape[1] - 1)
    return np.asarray(np.bitwise_or.reduce(mask[rows, columns], axis=(1, 2)), dtype=np.uint16)


STEP = Step(
    name="sources",
    version=VERSION,
    settings=SourcesSettings,
    apply=find_sources,
    doc="Find sources and measure position, flux and shape.",
)
