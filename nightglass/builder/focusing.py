"""How far out of focus: a simple measure of the images of stars, sharp or doughnut-shaped.

The second moment of an evenly lit ring of outer radius R and hole e R is <r^2> = R^2 (1 + e^2) / 2; of a Gaussian
<r^2> = 2 sigma^2. So one moment gives both, and the depth of the hole says which of them is meant.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nightglass.builder.pictures import physical
from nightglass.builder.records import ExtensionRecord
from nightglass.builder.tiles import find_planes
from nightglass.config import Limits
from nightglass.cubes.converting import read_plane
from nightglass.errors import NightglassError

__all__ = ["Defocus", "measure_defocus", "measure_extensions"]

_log = logging.getLogger(__name__)

_THRESHOLD: Final = 5.0
_SMALLEST: Final = 5
_SOURCES: Final = 50
_SMALLEST_IMAGE: Final = 16
_OBSCURATION: Final = 0.3
"""Hole of the pupil in units of its radius, where nobody says another."""
_FWHM_PER_SIGMA: Final = 2.0 * math.sqrt(2.0 * math.log(2.0))
_HOLLOW: Final = 0.7
"""A centre this much fainter than the ring is a hole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defocus:
    """What the stars of one image say; NaN where there are none.

    Attributes
    ----------
    stars : int
        How many were measured.
    rms_radius : float
        Median root of the second moment, pixels.
    fwhm : float
        Of a Gaussian with that moment, pixels.
    donut_radius : float
        Outer radius of a ring with that moment, pixels; 0 where images have no hole.
    hole : float
        1 - brightness of the centre / that of the ring; 0 or less: no hole.
    ellipticity : float
        1 - minor / major axis.
    """

    extension: str
    stars: int
    rms_radius: float
    fwhm: float
    donut_radius: float
    hole: float
    ellipticity: float

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; what is not known is None."""
        values = asdict(self)
        return {
            name: None if isinstance(item, float) and not math.isfinite(item) else item for name, item in values.items()
        }


def measure_extensions(extensions: Sequence[ExtensionRecord]) -> tuple[Defocus, ...]:
    """Measure the images of a frame; what cannot be read has no stars."""
    found = []
    for item in extensions:
        if len(item.shape) < 2:
            continue
        try:
            file, planes = find_planes(item.path, item.hdu, Limits())
            pixels = physical(read_plane(file, planes[-1]), planes[-1].format)
        except (NightglassError, IndexError):
            pixels = np.zeros((1, 1), np.float32)
        found.append(measure_defocus(pixels, name=item.name))
    return tuple(found)


def measure_defocus(pixels: NDArray[np.float32], *, name: str = "", obscuration: float = _OBSCURATION) -> Defocus:
    """Measure one image.

    Parameters
    ----------
    pixels : ndarray of float32, (ny, nx)
        Stars on a smooth background; NaN where undefined.
    obscuration : float
        Hole of the pupil in units of its radius.
    """
    import sep

    nothing = Defocus(
        extension=name,
        stars=0,
        rms_radius=math.nan,
        fwhm=math.nan,
        donut_radius=math.nan,
        hole=math.nan,
        ellipticity=math.nan,
    )
    known = np.isfinite(pixels)
    if min(pixels.shape) < _SMALLEST_IMAGE or not known.any():
        return nothing
    data = np.where(known, pixels, np.float32(np.median(pixels[known])))
    try:
        background = sep.Background(data, bw=min(64, data.shape[1]), bh=min(64, data.shape[0]))
        data -= background.back()
        noise = max(float(background.globalrms), 1e-6)
        # deblending would take a ring apart
        kernel = np.ones((3, 3), np.float32)
        sources = sep.extract(data, _THRESHOLD, err=noise, minarea=_SMALLEST, deblend_cont=1.0, filter_kernel=kernel)
    except Exception as error:  # noqa: BLE001 - sep raises plain Exception for its limits
        _log.warning("the focus of %s is not known: %s", name or "an image", error)
        return nothing
    sources = sources[np.argsort(-sources["flux"])][:_SOURCES]
    measured = [one for source in sources if (one := _measure(data, source, noise)) is not None]
    if not measured:
        return nothing
    rms, hole, ellipticity = (float(np.median(column)) for column in zip(*measured, strict=True))
    ring = rms * math.sqrt(2.0 / (1.0 + obscuration**2)) if hole > 1 - _HOLLOW else 0.0
    return Defocus(
        extension=name,
        stars=len(measured),
        rms_radius=rms,
        fwhm=rms / math.sqrt(2.0) * _FWHM_PER_SIGMA,
        donut_radius=ring,
        hole=hole,
        ellipticity=ellipticity,
    )


def _measure(data: NDArray[np.float32], source: Any, noise: float) -> tuple[float, float, float] | None:
    """Return root of the second moment, hole and ellipticity of one source; None if it is at the edge or too faint."""
    reach = math.ceil(max(source["xmax"] - source["xmin"], source["ymax"] - source["ymin"]) / 2) + 3
    x, y = round((source["xmax"] + source["xmin"]) / 2), round((source["ymax"] + source["ymin"]) / 2)
    if x < reach or y < reach or x + reach >= data.shape[1] or y + reach >= data.shape[0]:
        return None
    cut = data[y - reach : y + reach + 1, x - reach : x + reach + 1].astype(np.float64)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    inside = rows**2 + columns**2 <= reach**2
    weight = np.where(inside & (cut > noise), cut, 0.0)
    total = float(weight.sum())
    if total <= 0:
        return None
    mean_x, mean_y = float((weight * columns).sum() / total), float((weight * rows).sum() / total)
    dx, dy = columns - mean_x, rows - mean_y
    xx, yy, xy = (float((weight * product).sum() / total) for product in (dx * dx, dy * dy, dx * dy))
    spread = math.hypot((xx - yy) / 2, xy)
    major, minor = (xx + yy) / 2 + spread, max((xx + yy) / 2 - spread, 0.0)
    radius = math.sqrt(max(xx + yy, 0.0))
    distance = np.hypot(dx, dy)
    centre = cut[distance <= max(radius * 0.25, 0.71)]
    ring = cut[(distance > radius * 0.7) & (distance <= radius * 1.1)]
    if not centre.size or not ring.size or ring.mean() <= 0 or major <= 0:
        return None
    return radius, 1.0 - float(centre.mean() / ring.mean()), 1.0 - math.sqrt(minor / major)
