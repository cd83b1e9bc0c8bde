"""Step ``bias``: subtract the master bias."""

from __future__ import annotations

from nightglass.config.section import Section
from nightglass.image import Image
from nightglass.model import Kind
from nightglass.steps.step import Step, StepContext, applied, corrected, not_corrected, same_unit

__all__ = ["STEP", "BiasSettings", "subtract_bias"]

VERSION = "1"


class BiasSettings(Section):
    """Nothing to set: the calibration rule of the camera chooses the master."""


def subtract_bias(image: Image, context: StepContext, settings: BiasSettings) -> Image:
    """Subtract the master bias; variances add up, masks are joined.

    Raises
    ------
    Rejected
        If the master does not fit the image in detector, shape or unit.
    """
    loaded = context.masters.get(Kind.BIAS)
    if loaded is None:
        return not_corrected(image, Kind.BIAS, VERSION, settings)
    master = same_unit(loaded.matching(image), image, loaded)
    return applied(
        image,
        "bias",
        VERSION,
        settings,
        calibrations=(loaded.ref.master_id,),
        data=image.data - master.data,
        variance=image.variance + master.variance,
        mask=image.mask | master.mask,
        header=corrected(image.header, Kind.BIAS, loaded),
    )


STEP = Step(
    name="bias",
    version=VERSION,
    settings=BiasSettings,
    apply=subtract_bias,
    doc="Subtract the master bias.",
)
