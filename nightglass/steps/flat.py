"""Step ``flat``: divide by the master flat."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from nightglass.config.section import Section
from nightglass.image import Image
from nightglass.model import DQ, Kind
from nightglass.steps.step import Step, StepContext, applied, corrected, not_corrected

__all__ = ["STEP", "FlatSettings", "divide_by_flat"]

VERSION = "1"
_LOWEST_RESPONSE = 1e-3
"""Division by less is refused whatever is set: it would only spread noise over the range of float32."""


class FlatSettings(Section):
    """Which response is too low."""

    min_response: float | None = Field(None, ge=0)
    """Pixels below are marked LOW_FLAT and not divided; None: as the camera's calibration rule for flats says."""


def divide_by_flat(image: Image, context: StepContext, settings: FlatSettings) -> Image:
    """Divide by the master flat, whose mean is 1; errors are those of a quotient of independent values.

    Where the response is too low or not a finite number the pixel keeps its value and is marked LOW_FLAT.

    Raises
    ------
    Rejected
        If the master does not fit the image in detector or shape.
    """
    loaded = context.masters.get(Kind.FLAT)
    if loaded is None:
        return not_corrected(image, Kind.FLAT, VERSION, settings)
    master = loaded.matching(image)
    limit = settings.min_response
    if limit is None:
        limit = context.camera.calibrations[Kind.FLAT].min_response
    usable = master.data >= np.float32(max(limit, _LOWEST_RESPONSE))  # False for NaN
    usable &= master.data < np.float32(np.inf)
    mask = image.mask | master.mask
    low = np.flatnonzero(~usable)  # few: by index they cost nothing, by mask as much as all the rest
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.reciprocal(master.data)
    inverse.flat[low] = 1
    mask.flat[low] |= np.uint16(DQ.LOW_FLAT)
    data = image.data * inverse
    variance = data * data
    with np.errstate(invalid="ignore"):
        variance *= master.variance
    variance.flat[low] = 0
    variance += image.variance
    inverse *= inverse
    variance *= inverse
    return applied(
        image,
        "flat",
        VERSION,
        settings,
        calibrations=(loaded.ref.master_id,),
        data=data,
        variance=variance,
        mask=mask,
        header=corrected(image.header, Kind.FLAT, loaded),
    )


STEP = Step(
    name="flat",
    version=VERSION,
    settings=FlatSettings,
    apply=divide_by_flat,
    doc="Divide by the master flat and mark pixels of low response.",
)
