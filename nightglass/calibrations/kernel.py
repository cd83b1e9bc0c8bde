"""The clipped mean of a stack, pixel by pixel.

One pass, as `ccdproc.combine` with ``sigma_clip=True`` and the functions median and `astropy.stats.mad_std` makes it:
values further from the median than `sigma` robust standard deviations (1.4826 times the median absolute deviation) are
left out, and the rest is averaged.

The median absolute deviation of a few values is often far too small: of three it is the smaller gap, and of values in
whole steps (ADU) it is zero as soon as half of them are equal. So a deviation is never taken to be smaller than
`floor`, which who combines sets from the noise of the frames; with a floor of 0 it is ccdproc's result.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

__all__ = ["Combined", "clipped_mean", "clipped_mean_numpy"]

_MAD_TO_SIGMA = 1.482602218505602

Combined = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint16]]
"""Mean, variance of the mean, and number of values that were kept."""

Floor = float | NDArray[np.float32]


def clipped_mean(stack: NDArray[np.float32], bad: NDArray[np.bool_], *, sigma: float, floor: Floor = 0.0) -> Combined:
    """Combine frames by the clipped mean; compiled where numba is there.

    Parameters
    ----------
    stack : ndarray of float32, (n, rows, nx)
        Values that are not finite do not count.
    bad : ndarray of bool, (n, rows, nx)
        Values that do not count.
    sigma : float
        Clipping limit in robust standard deviations; infinite: nothing is clipped.
    floor : float or ndarray, (rows, nx)
        Smallest standard deviation that is believed, in the unit of the stack.

    Returns
    -------
    mean, variance : ndarray of float32, (rows, nx)
        The variance is that of the mean, from the scatter of the values kept; 0 where fewer than two are. Both are 0
        where no value is good.
    used : ndarray of uint16, (rows, nx)
        How many values were kept; 0 where none was good.
    """
    floors = np.empty(stack.shape[1:], np.float32)
    floors[...] = floor
    return _implementation()(stack, bad, sigma, floors)


def clipped_mean_numpy(
    stack: NDArray[np.float32], bad: NDArray[np.bool_], *, sigma: float, floor: Floor = 0.0
) -> Combined:
    """Do the same with numpy alone: the definition, to which the compiled one is equal bit by bit."""
    hidden = bad | ~np.isfinite(stack)
    values = np.where(hidden, np.float32(0), stack).astype(np.float64)
    counts = (~hidden).sum(axis=0)
    centre = _median(stack, hidden, counts)
    distance = np.abs(values - centre)
    deviation = np.maximum(_median(distance.astype(np.float32), hidden, counts) * _MAD_TO_SIGMA, np.float32(floor))
    kept = ~hidden
    if np.isfinite(sigma):
        kept &= distance <= sigma * deviation
    used = kept.sum(axis=0)
    mean = np.where(kept, values, 0.0).sum(axis=0) / np.maximum(used, 1)
    squares = np.where(kept, (values - mean) ** 2, 0.0).sum(axis=0)
    variance = np.where(used > 1, squares / np.maximum(used - 1, 1) / np.maximum(used, 1), 0.0)
    return mean.astype(np.float32), variance.astype(np.float32), used.astype(np.uint16)


def _median(values: NDArray[np.float32], hidden: NDArray[np.bool_], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the median along the first axis of what is not hidden; 0 where all is."""
    ordered = np.sort(np.where(hidden, np.float32(np.inf), values), axis=0)
    upper = np.take_along_axis(ordered, np.minimum(counts // 2, len(values) - 1)[None], axis=0)[0].astype(np.float64)
    lower = np.take_along_axis(ordered, np.maximum((counts - 1) // 2, 0)[None], axis=0)[0].astype(np.float64)
    with np.errstate(invalid="ignore"):
        middle = np.where(counts % 2 == 1, upper, (lower + upper) / 2)
    return np.where(counts > 0, middle, 0.0)


_Function = Callable[[NDArray[np.float32], NDArray[np.bool_], float, NDArray[np.float32]], Combined]


@functools.cache
def _implementation() -> _Function:
    # compiling, or reading what was compiled before, takes up to a second, which not every process needs to pay
    if find_spec("numba") is None:
        return lambda stack, bad, sigma, floors: clipped_mean_numpy(stack, bad, sigma=sigma, floor=floors)
    from nightglass.calibrations.compiled import clipped_mean_compiled

    return clipped_mean_compiled
