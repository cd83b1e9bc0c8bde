"""Sources found again, and how much they vary: against the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nightglass.lightcurves import RunningFluxes, SourceList


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3)), min_size=2, max_size=30))
def test_running_figures_are_those_of_the_definition(measured: list[tuple[float, float]]) -> None:
    """Swinbank et al. 2015, equations of V and eta, computed with all fluxes at hand."""
    running, one, both = RunningFluxes(), np.array([1]), np.array([True, True])
    for flux, error in measured:
        running.add(np.array([0, 1]), np.array([7.0, flux]), np.array([1.0, error]), detected=both)
    flux, error = np.array(measured).T
    weighted = np.average(flux, weights=error**-2)
    eta = ((flux - weighted) ** 2 / error**2).sum() / (len(flux) - 1)
    scale = np.abs(flux).max() + 1e-9
    (mean,) = running.mean(one)
    assert mean == pytest.approx(flux.mean(), abs=1e-9 * scale)
    assert running.weighted_mean(one)[0] == pytest.approx(weighted, abs=1e-6 * scale)
    floor = 1e-9 * ((flux - flux[0]) ** 2 / error**2).sum() + 1e-12
    assert running.significance(one)[0] == pytest.approx(eta, rel=1e-6, abs=floor)
    if abs(flux.mean()) > 1e-6 * scale:
        deviation = abs(running.variation(one)[0] * mean)
        assert deviation == pytest.approx(flux.std(ddof=1), rel=1e-6, abs=1e-6 * scale)
    assert running.count.tolist() == running.detections.tolist() == [len(measured)] * 2
    assert (running.variation(one - 1)[0], running.significance(one - 1)[0]) == (0.0, 0.0)


def test_what_cannot_be_a_measurement_changes_nothing() -> None:
    running, one, seen = RunningFluxes(), np.array([0]), np.array([True])
    running.add(one, np.array([3.0]), np.array([0.1]), detected=seen)
    for flux, error in ((math.nan, 1.0), (1.0, math.nan), (1.0, 0.0), (math.inf, 1.0)):
        running.add(one, np.array([flux]), np.array([error]), detected=~seen)
    assert (running.count[0], running.detections[0], running.mean(one)[0]) == (1, 1, 3.0)
    assert (running.variation(one)[0], running.significance(one)[0]) == (0.0, 0.0)
    empty = RunningFluxes()
    empty.add(one, np.array([math.nan]), np.array([1.0]), detected=seen)
    assert np.isnan([empty.mean(one)[0], empty.weighted_mean(one)[0]]).all()


def take(sources: SourceList, positions: NDArray[np.float64], errors_deg: NDArray[np.float64]) -> NDArray[np.intp]:
    """Take in the sources of one image as light curves do: known ones, and new ones with the next numbers."""
    numbers = sources.find(positions, errors_deg)
    new = np.flatnonzero(numbers < 0)
    numbers[new] = len(sources) + np.arange(len(new))
    sources.put(numbers, positions, errors_deg)
    return numbers


@given(st.permutations(range(12)), st.integers(0, 1000))
def test_sources_are_found_again_in_any_order_and_across_the_zero_of_longitude(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = np.column_stack([(np.arange(12) * 0.5 - 3.0) % 360.0, np.full(12, 70.0)])
    errors = np.full(12, 0.01)
    sources = SourceList()
    first = take(sources, true, errors)
    chosen = np.array(order)
    moved = true[chosen] + rng.normal(0, 0.005, (12, 2))
    again = take(sources, moved, errors)
    np.testing.assert_array_equal(again, first[chosen])
    assert len(sources) == 12
    assert np.all(sources.errors_deg < 0.0072)


def test_what_is_far_in_errors_is_another_source_and_each_is_used_once() -> None:
    sources = SourceList(de_ruiter=5.0)
    take(sources, np.array([[10.0, 0.0]]), np.array([0.01]))
    numbers = take(sources, np.array([[10.2, 0.0], [10.02, 0.0], [10.01, 0.0]]), np.full(3, 0.01))
    assert numbers.tolist() == [1, 2, 0]
    assert take(sources, np.zeros((0, 2)), np.zeros(0)).tolist() == []
