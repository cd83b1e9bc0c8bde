"""Step ``mask``: mark bad and saturated pixels."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from nightglass.config.section import Section
from nightglass.errors import Rejected
from nightglass.image import Image
from nightglass.model import DQ
from nightglass.steps.step import Step, StepContext, applied

__all__ = ["STEP", "MaskSettings", "mark_bad_pixels", "mark_saturated"]

VERSION = "1"
_MARKED = "saturated"


class MaskSettings(Section):
    """What counts as saturated."""

    saturation_fraction: float = Field(1.0, gt=0, le=1)
    """Fraction of the saturation level from which a pixel is marked: below 1 where the response bends before."""


def mark_saturated(image: Image, context: StepContext, settings: MaskSettings) -> Image:
    """Mark the pixels at or above the saturation level of their amplifier, on the raw image.

    The level is one of raw ADU, and once bias or overscan are subtracted the comparison is off by as much;
    therefore `run_steps` calls this on the raw image, wherever in the list the step stands.
    Applied to an image in electrons (a step run by itself) the level is multiplied by the gain, and so
    pixels within one bias level of saturation go unmarked.
    """
    del context
    mask = image.mask.copy()
    count = 0
    for amplifier in image.amplifiers:
        level = (
            amplifier.saturation * settings.saturation_fraction * (amplifier.gain if image.unit == "electron" else 1)
        )
        full = image.data[amplifier.data] >= np.float32(level)
        found = int(np.count_nonzero(full))
        if found:
            mask[amplifier.data][full] |= np.uint16(DQ.SATURATED)
        count += found
    return image.with_(mask=mask, measured=image.measured | {_MARKED: count / max(image.data.size, 1)})


def mark_bad_pixels(image: Image, context: StepContext, settings: MaskSettings) -> Image:
    """Mark the camera's bad pixels, values that are not finite (set to 0), and saturation if that was not done yet.

    Raises
    ------
    Rejected
        If the bad-pixel file does not have the shape of the image.
    """
    marked = image if _MARKED in image.measured else mark_saturated(image, context, settings)
    mask, data, variance = marked.mask.copy(), marked.data, marked.variance
    bad = context.bad_pixels.get(image.detector)
    if bad is not None:
        if bad.shape != mask.shape:
            message = f"detector {image.detector!r} has shape {mask.shape}, its bad-pixel file {bad.shape}"
            raise Rejected(message, remedy="trim before mask; the file has the shape of the trimmed detector")
        mask[bad] |= np.uint16(DQ.BAD)
    # one sum is far cheaper than a look at each value, and is finite only if all of them are
    if not np.isfinite(np.sum(data, dtype=np.float64) + np.sum(variance, dtype=np.float64)):
        wrong = ~(np.isfinite(data) & np.isfinite(variance))
        mask[wrong] |= np.uint16(DQ.BAD)
        data, variance = np.where(wrong, np.float32(0), data), np.where(wrong, np.float32(0), variance)
    saturated = np.count_nonzero(mask & np.uint16(DQ.SATURATED)) / max(mask.size, 1)
    measured = marked.measured | {_MARKED: saturated, "masked": np.count_nonzero(mask) / max(mask.size, 1)}
    return applied(marked, "mask", VERSION, settings, data=data, variance=variance, mask=mask, measured=measured)


STEP = Step(
    name="mask",
    version=VERSION,
    settings=MaskSettings,
    apply=mark_bad_pixels,
    prepare=mark_saturated,
    doc="Mark bad, saturated and non-finite pixels.",
)
