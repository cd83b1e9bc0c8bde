"""The simulated sky and chip are what they say they are."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
import sep
from astropy.io import fits
from astropy.wcs import WCS
from numpy.testing import assert_allclose

from nightglass.model import Kind
from nightglass.simulate import NightPlan, Pointing, Studio, make_chip, make_field, plan_exposures, render

SHAPE = (384, 512)


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio(NightPlan(shape=SHAPE, filters=("r",), biases=8, darks=8, flats=8, science=2, dithers=2), seed=11)


def frames(studio: Studio, kind: Kind) -> np.ndarray:
    return np.stack([studio.expose(item).raw_adu for item in plan_exposures(studio.plan) if item.kind is kind]).astype(
        float
    )


def test_sources_are_where_the_header_and_the_truth_say(studio: Studio) -> None:
    planned = next(item for item in plan_exposures(studio.plan) if item.kind is Kind.SCIENCE)
    exposure = studio.expose(planned)
    scene = exposure.scene
    assert scene is not None
    with fits.open(io.BytesIO(exposure.to_bytes())) as hdus:
        hdus.verify("exception")
        header, raw = hdus[0].header, hdus[0].data.astype(np.float32)
    light = (raw[:, : SHAPE[1]] - np.median(raw[:, SHAPE[1] :])) * header["GAIN"] / studio.chip.response
    background = sep.Background(np.ascontiguousarray(light), mask=studio.chip.bad)
    assert background.globalback == pytest.approx(scene.background_e, rel=0.02)
    found = sep.extract(
        np.ascontiguousarray(light - background.back()), 5.0, err=background.globalrms, mask=studio.chip.bad
    )
    bright = (scene.flux_e > 300 * background.globalrms) & (scene.flux_e < 8e5)
    distance = np.hypot(found["x"][:, None] - scene.x[bright], found["y"][:, None] - scene.y[bright])
    assert bright.sum() > 20
    assert np.median(distance.min(axis=0)) < 0.1
    x, y = WCS(header).wcs_world2pix(scene.ra_deg, scene.dec_deg, 0)
    assert_allclose(np.stack([x, y]), np.stack([scene.x, scene.y]), atol=1e-6)


def test_flux_of_a_star_is_all_in_its_profile() -> None:
    field = make_field("many", ra_deg=10, dec_deg=40, radius_deg=0.02, seed=3, stars_per_sq_arcmin=30)
    scene = render(field, Pointing(shape=SHAPE, filter="r"), 60.0)
    stars = scene.flux_e.sum()
    galaxies = 60 * (10 ** (0.4 * (25 - field.galaxies[:, 2]))).sum()
    total = float((scene.light_e - scene.background_e).sum(dtype=float))
    assert total == pytest.approx(stars + galaxies, rel=0.05)


def test_noise_offset_and_overscan_follow_the_chip(studio: Studio) -> None:
    biases = frames(studio, Kind.BIAS)
    chip = studio.chip
    assert np.std(biases[:, :, SHAPE[1] :], axis=(1, 2)) == pytest.approx(chip.read_noise / chip.gain, rel=0.05)
    level = np.median(biases[:, :, SHAPE[1] :], axis=(1, 2))
    assert np.ptp(level) > 0.5, "the offset drifts, and the overscan knows"
    mean = (biases[:, :, : SHAPE[1]] - level[:, None, None]).mean(axis=0)
    assert np.corrcoef(mean.ravel(), chip.bias_adu.ravel())[0, 1] > 0.5


def test_darks_show_hot_pixels_and_flats_the_response(studio: Studio) -> None:
    chip = studio.chip
    darks = np.median(frames(studio, Kind.DARK)[:, :, : SHAPE[1]], axis=0)
    hot = chip.dark_e_per_s > 2
    assert hot.sum() > 10
    assert darks[hot & ~chip.bad].min() > np.median(darks) + 40
    flats = frames(studio, Kind.FLAT)[:, :, : SHAPE[1]] - 1000
    mean = (flats / np.median(flats, axis=(1, 2))[:, None, None]).mean(axis=0)
    ratio = mean / chip.response
    assert np.std(ratio[~chip.bad]) < 0.005
    assert mean[chip.bad].max() < 0.2


def test_shot_noise_follows_the_gain(studio: Studio) -> None:
    flats = [studio.expose(item) for item in plan_exposures(studio.plan) if item.kind is Kind.FLAT][:2]
    first, second = (frame.raw_adu[:, : SHAPE[1]].astype(float) - 1000 for frame in flats)
    first, second = first / first.mean(), second / second.mean()
    electrons = 2 / np.var((first - second)[~studio.chip.bad])
    assert electrons == pytest.approx(36000, rel=0.2)


def test_the_same_seed_gives_the_same_bytes_in_any_order(studio: Studio) -> None:
    planned = plan_exposures(studio.plan)
    again = Studio(studio.plan, seed=11)
    assert again.expose(planned[-1]).to_bytes() == studio.expose(planned[-1]).to_bytes()
    assert Studio(studio.plan, seed=12).expose(planned[-1]).to_bytes() != studio.expose(planned[-1]).to_bytes()


def test_a_tiny_chip_works() -> None:
    raw, _ = make_chip((16, 16), seed=1).read_out(0.0, 60.0, np.random.default_rng(1))
    assert raw.shape == (16, 48)
    assert raw.dtype == np.uint16


@pytest.mark.timed
def test_exposures_are_made_quickly() -> None:
    studio = Studio(NightPlan(), seed=1)
    planned = plan_exposures(studio.plan)[-3:]
    times = []
    for item in planned:
        begin = time.process_time()
        studio.expose(item).to_bytes()
        times.append(time.process_time() - begin)
    assert min(times) < 0.15
