"""Step ``noise``: the variance that photons and read-out give."""

from __future__ import annotations

import numpy as np

from nightglass.config.section import Section
from nightglass.image import Image
from nightglass.steps.step import Step, StepContext, applied

__all__ = ["STEP", "NoiseSettings", "add_noise"]

VERSION = "1"


class NoiseSettings(Section):
    """Nothing to set: read noises come from amplifier, header, camera, or the step overscan."""


def add_noise(image: Image, context: StepContext, settings: NoiseSettings) -> Image:
    """Add photon noise and read noise to the variance: max(data, 0) + read_noise^2, in electrons^2.

    To be run when the bias is gone and the dark current is not, for the charge of the dark current is as
    noisy as that of light. In ADU the same is divided by the gain (squared, for the read noise).
    """
    del context
    variance = np.maximum(image.data, np.float32(0))
    constants = {(amplifier.gain, amplifier.read_noise) for amplifier in image.amplifiers}
    sections = [item.data for item in image.amplifiers] if len(constants) > 1 else [(slice(None), slice(None))]
    for section, amplifier in zip(sections, image.amplifiers, strict=False):
        part = variance[section]
        gain = 1.0 if image.unit == "electron" else amplifier.gain
        if gain != 1.0:
            part /= np.float32(gain)
        part += np.float32((amplifier.read_noise / gain) ** 2)
    variance += image.variance
    unknown = image.amplifiers and not any(amplifier.read_noise > 0 for amplifier in image.amplifiers)
    note = "no read noise known: photon noise only" if unknown else ""
    return applied(image, "noise", VERSION, settings, note=note, variance=variance)


STEP = Step(
    name="noise",
    version=VERSION,
    settings=NoiseSettings,
    apply=add_noise,
    doc="Add photon noise and read noise to the variance.",
)
