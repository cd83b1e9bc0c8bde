"""The compiled kernel against its definition in numpy, and both against ccdproc."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nightglass.calibrations import clipped_mean, clipped_mean_numpy


def _column(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32).reshape(-1, 1, 1)


def _all_good(stack: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.zeros(stack.shape, np.bool_)


@settings(deadline=None, max_examples=60)
@given(
    frames=st.integers(1, 40),
    columns=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
    sigma=st.sampled_from([2.0, 5.0, np.inf]),
    floor=st.sampled_from([0.0, 4.0, "each"]),
    step=st.sampled_from([0.0, 1.5]),
    bad_fraction=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_kernel_is_its_definition(
    frames: int, columns: int, seed: int, sigma: float, floor: float, step: float, bad_fraction: float
) -> None:
    rng = np.random.default_rng(seed)
    stack = rng.normal(1000, 8, (frames, 3, columns)).astype(np.float32)
    stack[rng.random(stack.shape) < 0.03] += 4000
    if step:
        stack = (np.round(stack / step) * step).astype(np.float32)
    stack[rng.random(stack.shape) < 0.01] = np.nan
    stack[rng.random(stack.shape) < 0.01] = -np.inf
    bad = rng.random(stack.shape) < bad_fraction
    floors = rng.uniform(0, 9, stack.shape[1:]).astype(np.float32) if floor == "each" else float(floor)
    got = clipped_mean(stack, bad, sigma=sigma, floor=floors)
    for mine, wanted in zip(got, clipped_mean_numpy(stack, bad, sigma=sigma, floor=floors), strict=True):
        np.testing.assert_array_equal(mine, wanted)
        assert np.isfinite(mine).all()


@pytest.mark.parametrize("frames", [3, 5, 8])
@pytest.mark.parametrize("floor", [0.0, 2.5])
def test_ccdproc_gives_the_same(frames: int, floor: float) -> None:
    from astropy.nddata import CCDData
    from astropy.stats import mad_std
    from ccdproc import Combiner

    def deviation(values: NDArray[np.float64], axis: int | None = None) -> NDArray[np.float64]:
        return np.maximum(mad_std(values, axis=axis), floor)

    rng = np.random.default_rng(frames)
    stack = rng.normal(300, 5, (frames, 40, 50)).astype(np.float32)
    stack[0, :7] += 900
    combiner = Combiner([CCDData(frame, unit="electron") for frame in stack])
    combiner.sigma_clipping(low_thresh=4, high_thresh=4, func=np.ma.median, dev_func=deviation)
    wanted = combiner.average_combine()
    mean, variance, used = clipped_mean(stack, _all_good(stack), sigma=4, floor=floor)
    np.testing.assert_allclose(mean, wanted.data, rtol=1e-6)
    # ccdproc gives the population's deviation over the root of n; ours is the sample's, which is not biased
    several = used > 1
    sample = wanted.uncertainty.array**2 * used / np.maximum(used - 1, 1)
    np.testing.assert_allclose(variance[several], sample[several], rtol=1e-4, atol=1e-6)


def test_values_in_whole_steps_do_not_throw_out_each_other() -> None:
    stack = _column(10, 10, 10, 10, 11.5, 8.5, 10, 500)
    assert clipped_mean(stack, _all_good(stack), sigma=5)[2][0, 0] == 5  # as ccdproc: the deviation is 0
    mean, _, used = clipped_mean(stack, _all_good(stack), sigma=5, floor=0.5)
    assert (used[0, 0], mean[0, 0]) == (7, 10.0)


def test_two_of_three_that_are_near_by_chance_do_not_throw_out_the_third() -> None:
    stack = _column(10.0, 10.01, 12.0)
    assert clipped_mean(stack, _all_good(stack), sigma=5, floor=1.0)[2][0, 0] == 3
    stack = _column(10.0, 10.01, 900.0)
    assert clipped_mean(stack, _all_good(stack), sigma=5, floor=1.0)[2][0, 0] == 2


def test_variance_is_that_of_the_mean() -> None:
    stack = np.random.default_rng(7).normal(0, 3, (20, 60, 60)).astype(np.float32)
    mean, variance, _ = clipped_mean(stack, _all_good(stack), sigma=np.inf)
    assert float(variance.mean()) == pytest.approx(9 / 20, rel=0.02)
    assert float(mean.var()) == pytest.approx(float(variance.mean()), rel=0.05)


def test_one_value_is_its_own_mean_and_none_is_nothing() -> None:
    stack = _column(7.0, 9.0)
    bad = np.array([True, False]).reshape(2, 1, 1)
    assert [array[0, 0] for array in clipped_mean(stack, bad, sigma=5)] == [9.0, 0.0, 1]
    assert [array[0, 0] for array in clipped_mean(stack, ~_all_good(stack), sigma=5)] == [0.0, 0.0, 0]
