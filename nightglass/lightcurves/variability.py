"""How much sources vary, from sums that grow with each measurement.

The figures are those of TraP: Swinbank et al. 2015, Astronomy and Computing 11, 25.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["RunningFluxes"]

Floats = NDArray[np.float64]
Numbers = NDArray[np.intp]


class RunningFluxes:
    """The measurements of sources in one band, as far as variability needs them; sources are numbered from 0.

    Deviations from the first flux are summed, not fluxes: their squares would cancel for a bright, steady source.

    Attributes
    ----------
    count, detections : ndarray of int, (sources,)
        Measurements with an error greater than zero; and how many times a source was found rather than looked for.
    """

    def __init__(self) -> None:
        self.count = np.zeros(0, np.int64)
        self.detections = np.zeros(0, np.int64)
        self._first, self._total, self._squares, self._weights, self._weighted, self._weighted_squares = np.zeros(
            (6, 0)
        )

    def add(self, numbers: Numbers, flux: Floats, error: Floats, *, detected: NDArray[np.bool_]) -> None:
        """Add one measurement of each of some sources; one that is not finite, or without an error, is none."""
        self._grow(int(numbers.max(initial=-1)) + 1)
        self.detections[numbers] += detected
        with np.errstate(invalid="ignore"):
            good = np.isfinite(flux) & np.isfinite(error) & (error > 0)
        numbers, flux, error = numbers[good], flux[good], error[good]
        first = self._first[numbers] = np.where(self.count[numbers] > 0, self._first[numbers], flux)
        away, weight = flux - first, error**-2.0
        self.count[numbers] += 1
        self._total[numbers] += away
        self._squares[numbers] += away**2
        self._weights[numbers] += weight
        self._weighted[numbers] += weight * away
        self._weighted_squares[numbers] += weight * away**2

    def mean(self, numbers: Numbers) -> Floats:
        """Return mean fluxes; NaN of none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: Floats = self._first[numbers] + self._total[numbers] / self.count[numbers]
        return mean

    def weighted_mean(self, numbers: Numbers) -> Floats:
        """Return mean fluxes, weighted by the inverse squares of the errors; NaN of none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: Floats = self._first[numbers] + self._weighted[numbers] / self._weights[numbers]
        return mean

    def variation(self, numbers: Numbers) -> Floats:
        """Return V, standard deviation by mean; 0 of less than two measurements, NaN where the mean is 0."""
        count = self.count[numbers]
        several = np.maximum(count, 2)
        variance = np.maximum(self._squares[numbers] - self._total[numbers] ** 2 / several, 0.0) / (several - 1)
        mean = self.mean(numbers)
        with np.errstate(invalid="ignore", divide="ignore"):
            variation = np.where(mean != 0, np.sqrt(variance) / mean, np.nan)
        return np.where(count < 2, 0.0, variation)

    def significance(self, numbers: Numbers) -> Floats:
        """Return eta, the reduced chi square of a constant flux: about 1 if errors explain the scatter."""
        count = self.count[numbers]
        weights = np.where(count > 0, self._weights[numbers], 1.0)
        square = np.maximum(self._weighted_squares[numbers] - self._weighted[numbers] ** 2 / weights, 0.0)
        return np.where(count < 2, 0.0, square / np.maximum(count - 1, 1))

    def _grow(self, sources: int) -> None:
        more = sources - len(self.count)
        if more <= 0:
            return
        for name in (
            "count",
            "detections",
            "_first",
            "_total",
            "_squares",
            "_weights",
            "_weighted",
            "_weighted_squares",
        ):
            values = getattr(self, name)
            setattr(self, name, np.concatenate([values, np.zeros(more, values.dtype)]))
