"""Which images are noisier, or quieter, than those before them: such an image says nothing about its sources.

After TraP's check of the rms against its history (tkp, parameters rms_est_history and rms_rej_sigma): the noise of an
image is compared with that of the last ones of its band. TraP fits a normal distribution to them; here median and
median absolute deviation stand for its parameters, so that outliers among them do not make room for others, and a
level that lasts becomes the usual one after half the history.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nightglass.config import LightCurveRule

__all__ = ["NoiseHistory"]

_NORMAL = 1.4826
"""Standard deviation of a normal distribution by its median absolute deviation."""
_LEAST = 1e-3
"""Of the median: what no scatter is needed to explain."""


class NoiseHistory:
    """The noise of the last images of each band, in the order in which they were noted."""

    def __init__(self, rule: LightCurveRule) -> None:
        self._length = rule.rms_history
        self._sigma = rule.rms_sigma
        self._last: dict[str, deque[float]] = {}

    def judge(self, band: str, noise: float) -> str:
        """Return why an image is an outlier; empty: it is none, or there are too few to compare it with."""
        last = self._last.get(band, ())
        if len(last) < self._length or not math.isfinite(noise):
            return ""
        values = np.array(last)
        centre = float(np.median(values))
        sigma = max(_NORMAL * float(np.median(np.abs(values - centre))), _LEAST * abs(centre))
        away = (noise - centre) / sigma if sigma else 0.0
        if abs(away) <= self._sigma:
            return ""
        return f"noise {noise:.4g} is {away:+.1f} sigma from {centre:.4g}, the last {len(last)} images"

    def note(self, band: str, noise: float) -> None:
        """Let an image count for those after it, outlier or not; without a finite noise it does not."""
        if math.isfinite(noise):
            self._last.setdefault(band, deque(maxlen=self._length)).append(noise)
