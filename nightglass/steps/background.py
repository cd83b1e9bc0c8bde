"""Step ``background``: the sky, as a smooth surface."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from nightglass.config.section import Section
from nightglass.image import Image
from nightglass.steps.step import Step, StepContext, applied, with_cards

__all__ = ["STEP", "BackgroundSettings", "measure_background"]

VERSION = "1"


class BackgroundSettings(Section):
    """The mesh on which the sky is measured, and what becomes of it."""

    box: int = Field(64, ge=8)
    """Side of a mesh cell in pixels: larger than the largest object that shall stay."""
    filter: int = Field(3, ge=1)
    """Side of the median filter over cells."""
    sky: Literal["keep", "subtract"] = "keep"
    """``keep`` leaves the sky in the product (sources are measured without it either way)."""


def measure_background(image: Image, context: StepContext, settings: BackgroundSettings) -> Image:
    """Measure sky level and noise in a mesh (Bertin & Arnouts 1996, A&AS 117, 393, as `sep` does it)."""
    del context
    import sep

    masked = image.mask != 0
    if masked.all():
        measured = image.measured | {"background": float("nan"), "noise": float("nan")}
        return applied(
            image, "background", VERSION, settings, note="every pixel is masked: no background", measured=measured
        )
    found = sep.Background(
        np.require(image.data, requirements=["C", "W"]),  # sep writes nothing, but takes no read-only array
        mask=masked,
        bw=settings.box,
        bh=settings.box,
        fw=settings.filter,
        fh=settings.filter,
    )
    level, noise = float(found.globalback), float(found.globalrms)
    surface = found.back(dtype=np.float32)
    subtracted = settings.sky == "subtract"
    cards: dict[str, tuple[str | float | bool, str]] = {
        "SKYLEVEL": (round(level, 4), f"[{image.unit}] median sky"),
        "SKYRMS": (round(noise, 4), f"[{image.unit}] noise of the sky"),
        "SKYSUB": (subtracted, "is the sky subtracted from the pixels?"),
    }
    return applied(
        image,
        "background",
        VERSION,
        settings,
        data=image.data - surface if subtracted else image.data,
        sky=None if subtracted else surface,
        header=with_cards(image.header, cards),
        measured=image.measured | {"background": level, "noise": noise},
    )


STEP = Step(
    name="background",
    version=VERSION,
    settings=BackgroundSettings,
    apply=measure_background,
    doc="Measure the sky level and its noise.",
)
