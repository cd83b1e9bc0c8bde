"""Step ``cosmics``: find cosmic rays by their sharp edges."""

from __future__ import annotations

import os
from typing import Literal

import numpy as np
from pydantic import Field

from nightglass.config.section import Section
from nightglass.image import Image
from nightglass.model import DQ
from nightglass.steps.step import Step, StepContext, applied

__all__ = ["STEP", "CosmicsSettings", "find_cosmics"]

VERSION = "1"
_SMALLEST_SIDE = 16
"""astroscrappy 1.3 writes beyond its arrays where a side is shorter than 4 pixels."""
_LEAST_VARIANCE = np.float32(1e-6)
"""astroscrappy divides by the root of the variance."""


class CosmicsSettings(Section):
    """Limits of L.A.Cosmic, under the names of `astroscrappy.detect_cosmics`."""

    sigclip: float = Field(4.5, gt=0)
    """Laplacian over noise from which a pixel is taken for a hit."""
    sigfrac: float = Field(0.3, gt=0, le=1)
    """Fraction of sigclip that neighbours of a hit need."""
    objlim: float = Field(5.0, gt=0)
    """Contrast between Laplacian and fine structure; higher protects sharp stars."""
    iterations: int = Field(4, ge=1, le=20)
    """Passes, at most: each finds what the one before uncovered."""
    clean: Literal["mark", "replace"] = "mark"
    """``replace`` puts a local mean in the place of hits, beside marking them."""


def find_cosmics(image: Image, context: StepContext, settings: CosmicsSettings) -> Image:
    """Mark cosmic rays with L.A.Cosmic (van Dokkum 2001, PASP 113, 1420) as `astroscrappy` does it.

    The noise is that of the variance where there is one (the step noise came before), and else
    photon and read noise of the data. Pixels that are masked already take no part.
    """
    del context
    if min(image.data.shape) < _SMALLEST_SIDE:
        return applied(image, "cosmics", VERSION, settings, note=f"too small: {image.data.shape}")
    # one worker is one core; OpenMP reads this when its library is loaded, which is why the import is here
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import astroscrappy

    known = image.mask != 0
    noisy = bool(np.any(image.variance > 0))
    variance = np.maximum(image.variance, _LEAST_VARIANCE) if noisy else None
    gain = 1.0 if image.unit == "electron" else _mean(tuple(item.gain for item in image.amplifiers))
    hits, cleaned = astroscrappy.detect_cosmics(
        np.ascontiguousarray(image.data),
        inmask=known,
        invar=variance,
        sigclip=settings.sigclip,
        sigfrac=settings.sigfrac,
        objlim=settings.objlim,
        gain=gain,
        readnoise=_mean(tuple(item.read_noise for item in image.amplifiers)),
        satlevel=np.inf,  # saturated pixels are in the mask, where their amplifier's own level put them
        niter=settings.iterations,
        sepmed=True,
    )
    hits &= ~known
    mask = image.mask.copy()
    mask[hits] |= np.uint16(DQ.COSMIC)
    data = image.data
    if settings.clean == "replace":
        data = np.where(hits, (cleaned / gain).astype(np.float32), data)
    count = int(np.count_nonzero(hits))
    return applied(
        image,
        "cosmics",
        VERSION,
        settings,
        note=f"{count} pixels",
        data=data,
        mask=mask,
        measured=image.measured | {"cosmics": float(count)},
    )


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values) if values else 1.0


STEP = Step(
    name="cosmics",
    version=VERSION,
    settings=CosmicsSettings,
    apply=find_cosmics,
    doc="Find cosmic rays (L.A.Cosmic).",
)
