"""Step ``quality``: ok, warning or bad, with reasons."""

from __future__ import annotations

import math

import numpy as np

from nightglass.config.camera import QualityRule
from nightglass.config.section import Section
from nightglass.image import Image
from nightglass.model import DQ, Quality
from nightglass.steps.step import CORRECTED, Step, StepContext, applied, with_cards

__all__ = ["STEP", "QualitySettings", "judge", "worst"]

VERSION = "1"
_ORDER = (Quality.OK, Quality.WARNING, Quality.BAD)
_CARD_TEXT = 60


class QualitySettings(Section):
    """Nothing to set: the rules stand under ``[[quality]]`` of the camera file."""


def worst(*verdicts: Quality) -> Quality:
    """Return the worst of some verdicts; OK of none."""
    return max(verdicts, key=_ORDER.index, default=Quality.OK)


def judge(image: Image, context: StepContext, settings: QualitySettings) -> Image:
    """Compare what was measured with the camera's thresholds; a missing calibration is at least a warning.

    Fractions ``saturated`` and ``masked`` (0 to 1) are of the mask as it is now. The verdict goes to the card
    QUALITY, each reason to QUALn.
    """
    pixels = max(image.mask.size, 1)
    measured = image.measured | {
        "saturated": float(np.count_nonzero(image.mask & np.uint16(DQ.SATURATED))) / pixels,
        "masked": float(np.count_nonzero(image.mask)) / pixels,
    }
    verdicts, reasons = [Quality.OK], []
    for kind, keyword in CORRECTED.items():
        if image.header.get(keyword) is False:
            verdicts.append(Quality.WARNING)
            reasons.append(f"warning: no master {kind.value}")
    for rule in context.camera.quality:
        if rule.quantity not in measured:
            continue  # no step for it in the list, as for calibration frames; one that ran and failed left a NaN
        value = measured[rule.quantity]
        verdict = rule.verdict(value)
        verdicts.append(verdict)
        if verdict is not Quality.OK:
            reasons.append(_reason(rule, value, verdict))
    verdict = worst(*verdicts)
    cards = {"QUALITY": (verdict.value, "verdict: ok, warning or bad")}
    for number, reason in enumerate(reasons, start=1):
        cards[f"QUAL{number}"] = (reason[:_CARD_TEXT], "")
    return applied(
        image,
        "quality",
        VERSION,
        settings,
        note="; ".join(reasons),
        header=with_cards(image.header, cards),
        measured=measured,
    )


def _reason(rule: QualityRule, value: float, verdict: Quality) -> str:
    if math.isnan(value):
        return f"{verdict.value}: {rule.quantity} was not measured"
    below, above = (
        (rule.bad_below, rule.bad_above) if verdict is Quality.BAD else (rule.warning_below, rule.warning_above)
    )
    if above is not None and value > above:
        return f"{verdict.value}: {rule.quantity} {value:.4g} above {above:.4g}"
    return f"{verdict.value}: {rule.quantity} {value:.4g} below {below:.4g}"


STEP = Step(
    name="quality",
    version=VERSION,
    settings=QualitySettings,
    apply=judge,
    doc="Judge the exposure by the camera's thresholds.",
)
