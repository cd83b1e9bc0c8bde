"""The clipped mean of a stack, pixel by pixel.

One pass, as `ccdproc.combine` with ``sigma_clip=True`` and the functions median and `astropy.stats.mad_std` makes it:
values further from the median than `sigma` robust standard deviations (1.4826 times the median absolute deviation) are
left out, and the rest is averaged. Where more than half of the values are equal the median absolute deviation is zero
and would throw out every other value; the mean absolute deviation times 1.2533 then takes its place.
"""

from __future__ import annotations

import functools

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["clipped_mean", "clipped_mean_numpy"]

_MAD_TO_SIGMA = 1.482602218505602
_MEAN_AD_TO_SIGMA = 1.2533141373155001
_BLOCK = 256
"""Columns that are sorted together: a block of 50 frames stays in the second-level cache."""

Combined = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint16]]


@functools.lru_cache(maxsize=128)
def _sorting_network(count: int) -> NDArray[np.int64]:
    """Return the comparators of Batcher's odd-even merge sort (Knuth, TAOCP 3, 5.3.4) for so many values."""
    pairs = []
    size = 1
    while size < count:
        step = size
        while step >= 1:
            for start in range(step % size, count - step, 2 * step):
                for offset in range(min(step, count - start - step)):
                    low, high = start + offset, start + offset + step
                    if low // (2 * size) == high // (2 * size):
                        pairs.append((low, high))
            step //= 2
        size *= 2
    return np.array(pairs, np.int64).reshape(-1, 2)


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def _sort_columns(block: NDArray[np.float32], network: NDArray[np.int64]) -> None:
    """Sort each column of a block; one comparator serves all columns at once, in vector registers."""
    for pair in range(network.shape[0]):
        low = block[network[pair, 0]]
        high = block[network[pair, 1]]
        for column in range(block.shape[1]):
            first, second = low[column], high[column]
            low[column] = first if first < second else second
            high[column] = second if first < second else first


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _middle(block: NDArray[np.float32], column: int, count: int) -> float:
    """Return the median of a sorted column of which so many values are finite."""
    upper = block[count // 2, column]
    if count % 2:
        return np.float64(upper)
    return np.float64(np.float32((block[count // 2 - 1, column] + upper) / np.float32(2)))


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _combine(  # noqa: C901 - one pass over a block in the cache; calls would not be inlined together
    stack: NDArray[np.float32],
    bad: NDArray[np.bool_],
    sigma: float,
    network: NDArray[np.int64],
    mean: NDArray[np.float32],
    variance: NDArray[np.float32],
    used: NDArray[np.uint16],
) -> None:
    frames, pixels = stack.shape
    values = np.empty((frames, _BLOCK), np.float32)
    work = np.empty((frames, _BLOCK), np.float32)
    counts = np.empty(_BLOCK, np.int64)
    centres = np.empty(_BLOCK, np.float64)
    totals = np.empty(_BLOCK, np.float64)
    for start in range(0, pixels, _BLOCK):
        width = min(_BLOCK, pixels - start)
        counts[:] = 0
        work[:] = np.inf
        for frame in range(frames):
            for column in range(width):
                values[frame, column] = stack[frame, start + column]
                if not bad[frame, start + column]:
                    work[frame, column] = values[frame, column]
                    counts[column] += 1
        _sort_columns(work, network)
        for column in range(width):
            centres[column] = _middle(work, column, counts[column]) if counts[column] else 0.0
        totals[:] = 0.0
        for frame in range(frames):
            for column in range(width):
                distance = np.float32(abs(np.float64(values[frame, column]) - centres[column]))
                if bad[frame, start + column]:
                    work[frame, column] = np.inf
                else:
                    work[frame, column] = distance
                    totals[column] += distance
        _sort_columns(work, network)
        for column in range(width):
            count = counts[column]
            deviation = _middle(work, column, count) * _MAD_TO_SIGMA if count else 0.0
            if deviation == 0.0 and count:
                deviation = totals[column] / count * _MEAN_AD_TO_SIGMA
            limit = sigma * deviation
            total = 0.0
            kept = 0
            for frame in range(frames):
                value = np.float64(values[frame, column])
                if not bad[frame, start + column] and abs(value - centres[column]) <= limit:
                    total += value
                    kept += 1
            average = total / kept if kept else 0.0
            squares = 0.0
            for frame in range(frames):
                value = np.float64(values[frame, column])
                if not bad[frame, start + column] and abs(value - centres[column]) <= limit:
                    squares += (value - average) ** 2
            mean[start + column] = average
            variance[start + column] = squares / (kept - 1) / kept if kept > 1 else 0.0
            used[start + column] = kept


def clipped_mean(stack: NDArray[np.float32], bad: NDArray[np.bool_], *, sigma: float) -> Combined:
    """Combine frames by the clipped mean.

    Parameters
    ----------
    stack : ndarray of float32, (n, rows, nx)
    bad : ndarray of bool, (n, rows, nx)
        Values that do not count.
    sigma : float
        Clipping limit in robust standard deviations.

    Returns
    -------
    mean, variance : ndarray of float32, (rows, nx)
        The variance is that of the mean, from the scatter of the values kept; 0 where fewer than two are.
    used : ndarray of uint16, (rows, nx)
        How many values were kept; 0 where none was good.
    """
    frames, rows, columns = stack.shape
    network = _sorting_network(frames)
    mean = np.empty(rows * columns, np.float32)
    variance = np.empty_like(mean)
    used = np.empty(rows * columns, np.uint16)
    _combine(stack.reshape(frames, -1), bad.reshape(frames, -1), sigma, network, mean, variance, used)
    shape = (rows, columns)
    return mean.reshape(shape), variance.reshape(shape), used.reshape(shape)


def clipped_mean_numpy(stack: NDArray[np.float32], bad: NDArray[np.bool_], *, sigma: float) -> Combined:
    """Do the same with numpy alone: the definition that the kernel is tested against."""
    values = np.ma.MaskedArray(stack.astype(np.float64), bad)
    centre = np.ma.median(values, axis=0)  # type: ignore[no-untyped-call]
    distance = np.ma.abs(values - centre)
    deviation = np.ma.filled(np.ma.median(distance, axis=0), 0.0) * _MAD_TO_SIGMA  # type: ignore[no-untyped-call]
    fallback = np.ma.filled(distance.mean(axis=0), 0.0) * _MEAN_AD_TO_SIGMA
    limit = sigma * np.where(deviation == 0.0, fallback, deviation)
    kept = np.ma.MaskedArray(values.data, values.mask | np.ma.filled(distance > limit, fill_value=True))
    used = kept.count(axis=0).astype(np.uint16)
    mean = np.ma.filled(kept.mean(axis=0), 0.0).astype(np.float32)
    scatter = np.ma.filled(kept.var(axis=0, ddof=1), 0.0)
    variance = np.where(used > 1, scatter / np.maximum(used, 1), 0.0).astype(np.float32)
    return mean, variance, used
