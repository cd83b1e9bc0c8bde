"""The clipped mean, compiled; importing this module imports numba."""

from __future__ import annotations

import functools

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nightglass.calibrations.kernel import _MAD_TO_SIGMA, Combined

__all__ = ["clipped_mean_compiled"]

_BLOCK = 256
"""Columns that are sorted together: a block of 50 frames stays in the second-level cache."""


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


@functools.lru_cache(maxsize=128)
def _merging_network(count: int) -> NDArray[np.int64]:
    """Return the comparators of Batcher's bitonic merger, for what falls and then rises; count is a power of two."""
    pairs = []
    step = count // 2
    while step >= 1:
        pairs += [(low, low + step) for low in range(count) if not low & step]
        step //= 2
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
    """Return the median of a sorted column of which so many values are good; 0 if none is."""
    if count == 0:
        return 0.0
    upper = np.float64(block[count // 2, column])
    if count % 2:
        return upper
    return (np.float64(block[count // 2 - 1, column]) + upper) / 2


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _gather(
    stack: NDArray[np.float32],
    bad: NDArray[np.bool_],
    values: NDArray[np.float32],
    work: NDArray[np.float32],
    good: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> None:
    """Copy the values of one frame; bad ones become 0, and infinite where they are to be sorted."""
    for column in range(stack.size):
        value = stack[column]
        fits = (not bad[column]) & np.isfinite(value)
        values[column] = value if fits else np.float32(0)
        work[column] = value if fits else np.float32(np.inf)
        good[column] = np.float64(fits)
        counts[column] += fits


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _clip_and_average(
    values: NDArray[np.float32],
    good: NDArray[np.float64],
    centres: NDArray[np.float64],
    limits: NDArray[np.float64],
    sums: NDArray[np.float64],
) -> None:
    """Fill the rows of `sums` with number, mean and sum of squared deviations of the values within the limits.

    Numbers (1 or 0) instead of branches, and whole rows at a time, so that it runs in vector registers.
    """
    sums[:] = 0.0
    number, mean, squares = sums[0], sums[1], sums[2]
    for frame in range(values.shape[0]):
        row, keep = values[frame], good[frame]
        for column in range(row.size):
            inside = abs(np.float64(row[column]) - centres[column]) <= limits[column]
            keep[column] *= np.float64(inside)
            number[column] += keep[column]
            mean[column] += keep[column] * np.float64(row[column])
    for column in range(mean.size):
        mean[column] /= max(number[column], 1.0)
    for frame in range(values.shape[0]):
        row, keep = values[frame], good[frame]
        for column in range(row.size):
            difference = np.float64(row[column]) - mean[column]
            squares[column] += keep[column] * (difference * difference)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _combine(
    stack: NDArray[np.float32],
    bad: NDArray[np.bool_],
    sigma: float,
    floors: NDArray[np.float32],
    sorting: NDArray[np.int64],
    merging: NDArray[np.int64],
    mean: NDArray[np.float32],
    variance: NDArray[np.float32],
    used: NDArray[np.uint16],
) -> None:
    frames, pixels = stack.shape
    values = np.empty((frames, _BLOCK), np.float32)
    good = np.zeros((frames, _BLOCK), np.float64)
    sums = np.empty((3, _BLOCK), np.float64)
    limits = np.empty(_BLOCK, np.float64)
    # further rows, infinite throughout, fill up to the power of two that the merger needs
    work = np.full((2 * merging[0, 1], _BLOCK), np.float32(np.inf))
    centres = np.empty(_BLOCK, np.float64)
    counts = np.empty(_BLOCK, np.int64)
    for start in range(0, pixels, _BLOCK):
        width = min(_BLOCK, pixels - start)
        counts[:] = 0
        for frame in range(frames):
            _gather(
                stack[frame, start : start + width],
                bad[frame, start : start + width],
                values[frame],
                work[frame],
                good[frame],
                counts,
            )
        _sort_columns(work, sorting)
        for column in range(width):
            centres[column] = _middle(work, column, counts[column])
        # the distances of sorted values from their middle fall and rise again: they only need to be merged
        for frame in range(frames):
            row = work[frame]
            for column in range(row.size):
                row[column] = np.float32(abs(np.float64(row[column]) - centres[column]))
        _sort_columns(work, merging)
        for column in range(width):
            deviation = max(_middle(work, column, counts[column]) * _MAD_TO_SIGMA, floors[start + column])
            limits[column] = sigma * deviation if sigma < np.inf else np.inf
        _clip_and_average(values, good, centres, limits, sums)
        for column in range(width):
            kept = sums[0, column]
            mean[start + column] = sums[1, column]
            variance[start + column] = sums[2, column] / (kept - 1) / kept if kept > 1 else 0.0
            used[start + column] = kept


def clipped_mean_compiled(
    stack: NDArray[np.float32], bad: NDArray[np.bool_], sigma: float, floors: NDArray[np.float32]
) -> Combined:
    """See `nightglass.calibrations.kernel.clipped_mean`."""
    frames, rows, columns = stack.shape
    mean = np.empty((rows, columns), np.float32)
    variance = np.empty_like(mean)
    used = np.empty((rows, columns), np.uint16)
    networks = _sorting_network(frames), _merging_network(max(2, 1 << (frames - 1).bit_length()))
    flat = stack.reshape(frames, -1), bad.reshape(frames, -1)
    _combine(*flat, float(sigma), floors.ravel(), *networks, mean.ravel(), variance.ravel(), used.ravel())
    return mean, variance, used
