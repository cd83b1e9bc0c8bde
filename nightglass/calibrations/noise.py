"""The noise of a frame from its pixels alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["pixel_noise", "sampled_rows"]

_ONE_SIGMA = (15.865525393145708, 84.13447460685429)
"""Percentiles of a normal distribution one standard deviation from its middle."""
_MOST = (1.0, 99.0)


def pixel_noise(values: NDArray[np.floating], good: NDArray[np.bool_]) -> float:
    """Return the standard deviation of one pixel, from the differences of neighbours in a row; 0 if there are none.

    Half the range of the middle 68 % of the differences, over the root of 2: neither structure of the detector nor a
    few stars or cosmic rays count. Where that is zero, as in whole numbers with little noise, the root mean square of
    all but the outermost 2 %.

    Parameters
    ----------
    values : ndarray, (rows, nx)
    good : ndarray of bool, (rows, nx)
    """
    pairs = good[:, 1:] & good[:, :-1]
    differences = np.diff(values, axis=1)[pairs].astype(np.float64)
    if not differences.size:
        return 0.0
    low, high = np.percentile(differences, _ONE_SIGMA)
    if high > low:
        return float(high - low) / 2 / math.sqrt(2)
    low, high = np.percentile(differences, _MOST)
    middle = differences[(differences >= low) & (differences <= high)]
    return float(np.sqrt(np.mean(np.square(middle)))) / math.sqrt(2)


def sampled_rows(height: int, count: int) -> tuple[int, ...]:
    """Return so many rows spread over a detector, all of them in a small one.

    Their distances differ, so that they are not all of one parity where rows alternate.
    """
    if height <= count:
        return tuple(range(height))
    return tuple(int(row) for row in np.linspace(0, height - 1, count))
