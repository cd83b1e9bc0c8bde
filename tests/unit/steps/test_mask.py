from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nightglass.config import StepEntry
from nightglass.errors import Rejected
from nightglass.model import DQ
from nightglass.steps import run_steps
from nightglass.steps.cosmics import CosmicsSettings, find_cosmics
from nightglass.steps.mask import MaskSettings, mark_bad_pixels
from tests.unit.steps.scene import SATURATION, SKY_E, Scene, plain, run, stars


@pytest.mark.parametrize("place", [0, 3, 6])
def test_saturation_is_that_of_raw_values_wherever_the_step_stands(scene: Scene, place: int) -> None:
    """One bias level below saturation a pixel is full in raw ADU only."""
    names = ["overscan", "trim", "gain", "bias", "dark", "flat"]
    if place == 0:
        bare = replace(scene, context=replace(scene.context, bad_pixels={}))
        names = ["mask", *names]
    else:
        bare, names = scene, [*names[:place], "mask", *names[place:]]
    result = run(bare, *names)
    assert np.argwhere(result.mask & DQ.SATURATED).tolist() == [[100, 50]]


def test_saturation_without_raw_values_is_scaled_by_gain(scene: Scene) -> None:
    image = plain(np.array([[SATURATION * 2, SATURATION * 0.95], [1.0, 2.0]]))
    context = replace(scene.context, bad_pixels={})
    assert mark_bad_pixels(image, context, MaskSettings()).mask.tolist() == [[2, 0], [0, 0]]
    bent = mark_bad_pixels(image, context, MaskSettings(saturation_fraction=0.9))
    assert bent.mask.tolist() == [[2, 2], [0, 0]]
    assert bent.measured["saturated"] == 0.5


def test_bad_pixels_come_from_the_camera(scene: Scene) -> None:
    result = run(scene, "trim", "mask")
    assert np.array_equal((result.mask & DQ.BAD) != 0, scene.bad)
    assert result.measured["masked"] == pytest.approx((scene.bad.sum() + 1) / scene.bad.size)
    with pytest.raises(Rejected, match="trim before mask"):
        run(scene, "mask")


def test_values_that_are_not_finite_become_bad_and_zero(scene: Scene) -> None:
    data = np.ones((5, 5))
    data[1, 1], data[2, 2] = np.nan, np.inf
    image = plain(data)
    variance = image.variance.copy()
    variance[3, 3] = np.nan
    result = mark_bad_pixels(image.with_(variance=variance), replace(scene.context, bad_pixels={}), MaskSettings())
    assert np.argwhere(result.mask & DQ.BAD).tolist() == [[1, 1], [2, 2], [3, 3]]
    assert np.isfinite(result.data).all()
    assert np.isfinite(result.variance).all()


@pytest.mark.parametrize("with_variance", [True, False])
def test_cosmic_rays_are_found_and_stars_are_not(scene: Scene, with_variance: bool) -> None:
    rng = np.random.default_rng(2)
    shape = (160, 160)
    x, y = rng.uniform(20, 140, (2, 15))
    clean = rng.poisson(SKY_E + stars(shape, x, y, np.full(15, 30_000.0))) + rng.normal(0, 5, shape)
    rows, columns = rng.integers(5, 155, (2, 30))
    data = clean.copy()
    data[rows, columns] += 3000
    image = plain(data)
    if with_variance:
        image = image.with_(variance=(np.maximum(image.data, 0) + 25).astype(np.float32))
    image.mask[rows[0], columns[0]] = DQ.BAD
    result = find_cosmics(image, scene.context, CosmicsSettings())
    hits = (result.mask & DQ.COSMIC) != 0
    assert hits[rows[1:], columns[1:]].mean() > 0.9
    assert not hits[rows[0], columns[0]], "what is masked already takes no part"
    assert np.count_nonzero(hits) < 60
    assert result.data is image.data
    cleaned = find_cosmics(image, scene.context, CosmicsSettings(clean="replace"))
    replaced = (cleaned.mask & DQ.COSMIC) != 0
    assert np.median(np.abs(cleaned.data[replaced] - clean[replaced])) < 100
    assert np.array_equal(cleaned.data[~replaced], image.data[~replaced])


def test_cosmics_in_adu_find_the_same(scene: Scene) -> None:
    image = run_steps(scene.raw, [StepEntry(step="overscan"), StepEntry(step="trim")], scene.context)
    data = image.data.copy()
    data[30:34, 60] += 4000
    result = find_cosmics(image.with_(data=data), scene.context, CosmicsSettings())
    assert np.all(result.mask[30:34, 60] & DQ.COSMIC)
