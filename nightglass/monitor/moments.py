"""Mean, spread and range of numbers that are not kept: running moments that can be merged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["RunningStatistics"]


@dataclass(slots=True)
class RunningStatistics:
    """Moments of all numbers seen so far, in constant memory.

    Batches are added, and two of these merged, by the pairwise update of Chan, Golub & LeVeque (1979), which for single
    numbers is Welford's (1962): sums of squares, which cancel, are never subtracted.

    Attributes
    ----------
    count : int
        Finite numbers.
    mean : float
        0 while there are none.
    squares : float
        Sum of squared differences from the mean.
    minimum, maximum : float
        NaN while there are none.
    skipped : int
        Numbers that were NaN or infinite; they are in nothing else.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    minimum: float = math.nan
    maximum: float = math.nan
    skipped: int = 0

    @classmethod
    def of(cls, values: ArrayLike) -> RunningStatistics:
        """Return the moments of some numbers, of any shape."""
        flat = np.asarray(values, np.float64).ravel()
        finite = flat[np.isfinite(flat)]
        if not finite.size:
            return cls(skipped=flat.size)
        mean = float(finite.mean())
        return cls(
            count=finite.size,
            mean=mean,
            squares=float(np.square(finite - mean).sum()),
            minimum=float(finite.min()),
            maximum=float(finite.max()),
            skipped=flat.size - finite.size,
        )

    @property
    def variance(self) -> float:
        """Variance of the sample, with n - 1; NaN for fewer than two numbers."""
        return self.squares / (self.count - 1) if self.count > 1 else math.nan

    @property
    def stdev(self) -> float:
        """Standard deviation of the sample; NaN for fewer than two numbers."""
        return math.sqrt(self.variance) if self.count > 1 else math.nan

    def update(self, values: ArrayLike) -> None:
        """Add one number, or an array of them."""
        self.merge(self.of(values))

    def merge(self, other: RunningStatistics) -> None:
        """Add the numbers that another one has seen."""
        self.skipped += other.skipped
        if not other.count:
            return
        if not self.count:
            self.mean, self.squares = other.mean, other.squares
        else:
            total = self.count + other.count
            difference = other.mean - self.mean
            self.mean += difference * (other.count / total)
            self.squares += other.squares + difference * difference * (self.count * (other.count / total))
        self.count += other.count
        self.minimum = min(other.minimum, self.minimum) if self.minimum == self.minimum else other.minimum
        self.maximum = max(other.maximum, self.maximum) if self.maximum == self.maximum else other.maximum

    def as_json(self) -> dict[str, Any]:
        """Return plain values; what is not a number is None."""
        values = {"mean": self.mean, "stdev": self.stdev, "minimum": self.minimum, "maximum": self.maximum}
        plain = {name: value if self.count and math.isfinite(value) else None for name, value in values.items()}
        return {"count": self.count, "skipped": self.skipped, **plain}
