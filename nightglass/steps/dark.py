"""Step ``dark``: subtract the master dark, scaled to the exposure time."""

from __future__ import annotations

from typing import Literal

import numpy as np

from nightglass.config.section import Section
from nightglass.errors import Rejected
from nightglass.image import Image
from nightglass.model import Kind
from nightglass.steps.step import LoadedMaster, Step, StepContext, applied, corrected, not_corrected, same_unit

__all__ = ["STEP", "DarkSettings", "subtract_dark"]

VERSION = "1"


class DarkSettings(Section):
    """How the dark current grows."""

    scale: Literal["exposure", "none"] = "exposure"
    """``exposure``: in proportion to exposure time; ``none``: as it is, where the charge does not grow evenly."""


def subtract_dark(image: Image, context: StepContext, settings: DarkSettings) -> Image:
    """Subtract the master dark times the ratio of exposure times; its variance times the ratio squared is added.

    Raises
    ------
    Rejected
        If the master does not fit, or has no exposure time by which it could be scaled.
    """
    loaded = context.masters.get(Kind.DARK)
    if loaded is None:
        return not_corrected(image, Kind.DARK, VERSION, settings)
    master = same_unit(loaded.matching(image), image, loaded)
    factor = np.float32(_factor(image, master, loaded, settings))
    data = master.data * factor
    np.subtract(image.data, data, out=data)
    variance = master.variance * (factor * factor)
    variance += image.variance
    return applied(
        image,
        "dark",
        VERSION,
        settings,
        calibrations=(loaded.ref.master_id,),
        note="" if factor == 1 else f"scaled by {factor:.6g}",
        data=data,
        variance=variance,
        mask=image.mask | master.mask,
        header=corrected(image.header, Kind.DARK, loaded),
    )


def _factor(image: Image, master: Image, loaded: LoadedMaster, settings: DarkSettings) -> float:
    if settings.scale == "none":
        return 1.0
    time = loaded.ref.exposure_time_s or master.exposure_time_s
    if time <= 0:
        message = f"master dark {loaded.ref.master_id} ({loaded.ref.path}) has exposure time {time:g} s"
        raise Rejected(message, remedy="set scale = 'none' for the step dark, or make darks of a known exposure time")
    return image.exposure_time_s / time


STEP = Step(
    name="dark",
    version=VERSION,
    settings=DarkSettings,
    apply=subtract_dark,
    doc="Subtract the master dark, scaled by exposure time.",
)
