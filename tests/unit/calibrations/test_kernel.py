"""The kernel against its definition in numpy, and both against ccdproc."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightglass.calibrations import clipped_mean, clipped_mean_numpy


@settings(deadline=None, max_examples=40)
@given(
    frames=st.integers(1, 23),
    seed=st.integers(0, 2**32 - 1),
    sigma=st.sampled_from([2.0, 3.0, 5.0]),
    rounding=st.sampled_from([None, 1.5]),
    bad_fraction=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_kernel_is_its_definition(
    frames: int, seed: int, sigma: float, rounding: float | None, bad_fraction: float
) -> None:
    rng = np.random.default_rng(seed)
    stack = rng.normal(1000, 8, (frames, 5, 61)).astype(np.float32)
    stack[rng.random(stack.shape) < 0.03] += 4000
    if rounding is not None:
        stack = (np.round(stack / rounding) * rounding).astype(np.float32)
    bad = rng.random(stack.shape) < bad_fraction
    mean, variance, used = clipped_mean(stack, bad, sigma=sigma)
    wanted_mean, wanted_variance, wanted_used = clipped_mean_numpy(stack, bad, sigma=sigma)
    np.testing.assert_array_equal(used, wanted_used)
    np.testing.assert_allclose(mean, wanted_mean, rtol=2e-6)
    np.testing.assert_allclose(variance, wanted_variance, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frames", [5, 8])
def test_ccdproc_gives_the_same(frames: int) -> None:
    from astropy.nddata import CCDData
    from astropy.stats import mad_std
    from ccdproc import Combiner

    rng = np.random.default_rng(frames)
    stack = rng.normal(300, 5, (frames, 40, 50)).astype(np.float32)
    stack[0, :7] += 900
    combiner = Combiner([CCDData(frame, unit="electron") for frame in stack], dtype="f4")
    combiner.sigma_clipping(low_thresh=4, high_thresh=4, func=np.ma.median, dev_func=mad_std)
    wanted = combiner.average_combine()
    mean, _, _ = clipped_mean(stack, np.zeros(stack.shape, np.bool_), sigma=4)
    np.testing.assert_allclose(mean, wanted.data, rtol=1e-6)


def test_equal_values_do_not_throw_out_the_others() -> None:
    stack = np.array([10, 10, 10, 10, 11.5, 8.5, 10], np.float32).reshape(7, 1, 1)
    mean, _, used = clipped_mean(stack, np.zeros(stack.shape, np.bool_), sigma=5)
    assert used[0, 0] == 7
    assert mean[0, 0] == pytest.approx(10.0)
