"""Step ``gain``: from ADU to electrons."""

from __future__ import annotations

import numpy as np

from nightglass.config.section import Section
from nightglass.image import Image
from nightglass.steps.step import Step, StepContext, applied, with_cards

__all__ = ["STEP", "GainSettings", "apply_gain"]

VERSION = "1"


class GainSettings(Section):
    """Nothing to set: gains come from amplifier, header or camera."""


def apply_gain(image: Image, context: StepContext, settings: GainSettings) -> Image:
    """Multiply each amplifier by its gain (electrons per ADU), and the variance by its square."""
    del context
    if image.unit == "electron":
        return applied(image, "gain", VERSION, settings, note="in electrons already")
    gains = {amplifier.gain for amplifier in image.amplifiers}
    if len(gains) == 1:
        gain = np.float32(gains.pop())
        data, variance = image.data * gain, image.variance * (gain * gain)
    else:
        data, variance = image.data.copy(), image.variance.copy()
        for amplifier in image.amplifiers:
            data[amplifier.data] *= np.float32(amplifier.gain)
            variance[amplifier.data] *= np.float32(amplifier.gain**2)
    cards: dict[str, tuple[str | float, str]] = {"BUNIT": ("electron", "unit of the pixels")}
    for number, amplifier in enumerate(image.amplifiers, start=1):
        cards[f"NGGAIN{number}"] = (amplifier.gain, f"[electron/adu] applied, amplifier {number}")
    return applied(
        image,
        "gain",
        VERSION,
        settings,
        data=data,
        variance=variance,
        unit="electron",
        header=with_cards(image.header, cards),
    )


STEP = Step(
    name="gain",
    version=VERSION,
    settings=GainSettings,
    apply=apply_gain,
    doc="Multiply by the gain: ADU become electrons.",
)
