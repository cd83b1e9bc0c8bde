from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nightglass.errors import Rejected
from nightglass.monitor import Histogram1d, Histogram2d, RateMeter, RunningStatistics

NUMBERS = st.floats(-1e6, 1e6, width=64)
MANY = arrays(np.float64, st.integers(0, 60), elements=NUMBERS)
EDGES = st.lists(st.integers(-50, 50), min_size=2, max_size=12, unique=True).map(sorted)
NEAR_EDGES = arrays(np.float64, st.integers(0, 60), elements=st.integers(-120, 120).map(lambda n: n / 2))


@given(st.lists(MANY, max_size=6))
def test_moments_of_pieces_are_those_of_the_whole(pieces: list[np.ndarray]) -> None:
    running = RunningStatistics()
    for piece in pieces:
        running.update(piece)
    whole = np.concatenate([np.empty(0), *pieces])
    assert running.count == whole.size
    if whole.size:
        assert running.mean == pytest.approx(whole.mean(), rel=1e-9, abs=1e-6)
        assert (running.minimum, running.maximum) == (whole.min(), whole.max())
    if whole.size > 1:
        assert running.variance == pytest.approx(whole.var(ddof=1), rel=1e-9, abs=1e-6)
        assert running.stdev == pytest.approx(whole.std(ddof=1), rel=1e-6, abs=1e-3)
    else:
        assert math.isnan(running.stdev)
    json.dumps(running.as_json(), allow_nan=False)


def test_moments_of_small_spread_on_a_large_offset_do_not_cancel() -> None:
    values = 1e9 + np.random.default_rng(1).normal(size=100_000)
    running = RunningStatistics()
    for value in np.split(values, 1000):
        running.update(value)
    assert running.stdev == pytest.approx(values.std(ddof=1), rel=1e-6)


def test_numbers_that_are_none_are_skipped_and_counted() -> None:
    running = RunningStatistics.of([[1.0, math.nan], [math.inf, 3.0]])
    assert (running.count, running.skipped, running.mean) == (2, 2, 2.0)


@given(EDGES, NEAR_EDGES, st.data())
def test_a_histogram_is_that_of_numpy(edges: list[int], values: np.ndarray, data: st.DataObject) -> None:
    weights = data.draw(arrays(np.float64, values.size, elements=st.integers(0, 9).map(float)))
    made = Histogram1d(edges)
    half = values.size // 2
    made.fill(values[:half], weights=weights[:half])
    made.fill(values[half:], weights=weights[half:])
    expected, _ = np.histogram(values, np.array(edges, float), weights=weights)
    squares, _ = np.histogram(values, np.array(edges, float), weights=weights**2)
    assert np.array_equal(made.contents, expected)
    assert np.allclose(made.errors, np.sqrt(squares))
    assert made.underflow == weights[values < edges[0]].sum()
    assert made.overflow == weights[values > edges[-1]].sum()
    assert made.total + made.outside == weights.sum()


@given(EDGES, EDGES, NEAR_EDGES, st.randoms())
def test_a_map_is_that_of_numpy(x: list[int], y: list[int], values: np.ndarray, random: object) -> None:
    other = np.roll(values, 1)[::-1]
    made = Histogram2d(x, y)
    made.fill(values, other)
    expected, _, _ = np.histogram2d(values, other, (np.array(x, float), np.array(y, float)))
    assert np.array_equal(made.contents, expected)
    assert made.entries == values.size


@given(EDGES, NEAR_EDGES, NEAR_EDGES)
def test_merging_is_filling_everything_into_one(edges: list[int], first: np.ndarray, second: np.ndarray) -> None:
    one, two, both = (
        Histogram1d(edges, label="t [s]"),
        Histogram1d(edges, label="t [s]"),
        Histogram1d(edges, label="t [s]"),
    )
    one.fill(first)
    two.fill(second)
    both.fill(np.concatenate([first, second]))
    assert one + two == both
    assert np.array_equal((both - two).contents, one.contents)
    assert np.array_equal(both.scale(3).contents, 3 * both.contents)
    assert np.allclose(both.scale(3).errors, 3 * both.errors)
    again = Histogram1d.from_json(json.loads(json.dumps(both.as_json())))
    assert again == both
    assert isinstance(again, Histogram1d)
    both.reset()
    assert both.total == both.outside == both.entries == 0


def test_what_is_no_number_is_in_no_cell() -> None:
    made = Histogram2d([0, 1, 2], [0, 1, 2])
    made.fill([0.5, math.nan, 1.5], [0.5, 0.5, math.nan])
    assert (made.entries, made.invalid, made.total, made.outside) == (1, 2, 1, 0)


@pytest.mark.parametrize("edges", [[], [1], [1, 1], [2, 1], [0, math.nan], [[0, 1]]])
def test_edges_that_do_not_grow_are_refused(edges: list[float]) -> None:
    with pytest.raises(Rejected, match="do not grow"):
        Histogram1d(edges)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(Rejected, match="cells"):
        Histogram2d(np.arange(5000), np.arange(5000))
    with pytest.raises(Rejected, match="axes"):
        Histogram2d([0, 1], [0, 1]).fill([1.0])
    with pytest.raises(Rejected, match="different edges"):
        Histogram1d([0, 1]) + Histogram1d([0, 2])
    with pytest.raises(Rejected, match="no histogram"):
        Histogram1d.from_json({"edges": [[0, 1]], "labels": ["x"], "sums": [1], "squares": [1], "entries": 0})


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 100)), min_size=1, max_size=50))
def test_a_steady_rate_is_found_and_memory_stays(steps: list[tuple[float, int]]) -> None:
    meter, now = RateMeter(slots=20), 0.0
    for pause, count in steps:
        now += pause
        meter.add(count, now=now)
    assert meter.total == sum(count for _, count in steps)
    assert len(meter.history(now=now)) <= 20
    assert meter.rate(now=now + 1000) == 0
    assert {rate for _, rate in meter.history(now=now + 1000)} == {0.0}


def test_the_rate_of_a_steady_stream_is_its_rate() -> None:
    meter = RateMeter()
    for tick in range(1000):
        meter.add(7, now=100 + tick / 10)
    assert meter.rate(now=200) == pytest.approx(70, rel=0.05)
    ages = [age for age, _ in meter.history(now=200)]
    assert ages == sorted(ages)
    assert -120 < ages[0] < ages[-1] < 0
