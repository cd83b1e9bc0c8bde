"""How much a source varies, from sums that grow with each measurement.

The figures are those of TraP: Swinbank et al. 2015, Astronomy and Computing 11, 25.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["RunningFlux"]


@dataclass(frozen=True, slots=True)
class RunningFlux:
    """The measurements of one source in one band, as far as variability needs them.

    Deviations from the first flux are summed, not fluxes: their squares would cancel for a bright, steady source.

    Attributes
    ----------
    count : int
        Measurements with an error greater than zero.
    first : float
        The first flux.
    """

    count: int = 0
    first: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    weights: float = 0.0
    weighted: float = 0.0
    weighted_squares: float = 0.0

    def adding(self, flux: float, error: float) -> RunningFlux:
        """Return the sums with one more measurement; one that is not finite, or without an error, changes nothing."""
        if not (math.isfinite(flux) and math.isfinite(error) and error > 0):
            return self
        first = self.first if self.count else flux
        away, weight = flux - first, error**-2
        return RunningFlux(
            self.count + 1,
            first,
            self.total + away,
            self.squares + away**2,
            self.weights + weight,
            self.weighted + weight * away,
            self.weighted_squares + weight * away**2,
        )

    @property
    def mean(self) -> float:
        """The mean flux; NaN of none."""
        return self.first + self.total / self.count if self.count else math.nan

    @property
    def weighted_mean(self) -> float:
        """The mean flux, weighted by the inverse squares of the errors; NaN of none."""
        return self.first + self.weighted / self.weights if self.count else math.nan

    @property
    def variation(self) -> float:
        """V, the coefficient of variation: standard deviation by mean; 0 of less than two, NaN where the mean is 0."""
        if self.count < 2:
            return 0.0
        variance = max(self.squares - self.total**2 / self.count, 0.0) / (self.count - 1)
        return math.sqrt(variance) / self.mean if self.mean else math.nan

    @property
    def significance(self) -> float:
        """Eta, the reduced chi square of a constant flux: about 1 if errors explain the scatter; 0 of less than two."""
        if self.count < 2:
            return 0.0
        return max(self.weighted_squares - self.weighted**2 / self.weights, 0.0) / (self.count - 1)
