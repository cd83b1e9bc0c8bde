"""Light curves of a sky whose sources are known: steady ones, one that varies, one that goes out."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nightglass.config import Camera, LightCurveRule, load_camera
from nightglass.fitsio import read_product, write_product
from nightglass.image import Image
from nightglass.lightcurves import LightCurves, RunningFlux, SourceList
from nightglass.lightcurves.files import write_light_curves
from nightglass.model import ExposureRef, Kind, Night
from nightglass.steps import StepContext, run_steps

START = datetime(2026, 11, 21, 1, tzinfo=UTC)
SHAPE = (160, 200)
PLACES = [(40.0, 30.0), (60.0, 120.0), (110.0, 70.0), (150.0, 130.0)]
FLUXES = [400.0, 600.0, 500.0, 800.0]
NOISE = 0.5


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3)), min_size=2, max_size=30))
def test_running_figures_are_those_of_the_definition(measured: list[tuple[float, float]]) -> None:
    """Swinbank et al. 2015, equations of V and eta, computed with all fluxes at hand."""
    running = RunningFlux()
    for flux, error in measured:
        running = running.adding(flux, error)
    flux, error = np.array(measured).T
    weighted = np.average(flux, weights=error**-2)
    eta = ((flux - weighted) ** 2 / error**2).sum() / (len(flux) - 1)
    scale = np.abs(flux).max() + 1e-9
    assert running.mean == pytest.approx(flux.mean(), abs=1e-9 * scale)
    assert running.weighted_mean == pytest.approx(weighted, abs=1e-6 * scale)
    floor = 1e-9 * ((flux - flux[0]) ** 2 / error**2).sum() + 1e-12
    assert running.significance == pytest.approx(eta, rel=1e-6, abs=floor)
    if abs(flux.mean()) > 1e-6 * scale:
        deviation = abs(running.variation * running.mean)
        assert deviation == pytest.approx(flux.std(ddof=1), rel=1e-6, abs=1e-6 * scale)


def test_what_cannot_be_a_measurement_changes_nothing() -> None:
    one = RunningFlux().adding(3.0, 0.1)
    for flux, error in ((math.nan, 1.0), (1.0, math.nan), (1.0, 0.0), (math.inf, 1.0)):
        assert one.adding(flux, error) == one
    assert (one.variation, one.significance, RunningFlux().variation) == (0.0, 0.0, 0.0)
    assert math.isnan(RunningFlux().mean)


@given(st.permutations(range(12)), st.integers(0, 1000))
def test_sources_are_found_again_in_any_order_and_across_the_zero_of_longitude(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = np.column_stack([(np.arange(12) * 0.5 - 3.0) % 360.0, np.full(12, 70.0)])
    errors = np.full(12, 0.01)
    sources = SourceList()
    first = sources.take(true, errors)
    chosen = np.array(order)
    moved = true[chosen] + rng.normal(0, 0.005, (12, 2))
    again = sources.take(moved, errors)
    np.testing.assert_array_equal(again, first[chosen])
    assert len(sources) == 12
    assert np.all(sources.errors_deg < 0.0072)


def test_what_is_far_in_errors_is_another_source_and_each_is_used_once() -> None:
    sources = SourceList(de_ruiter=5.0)
    sources.take(np.array([[10.0, 0.0]]), np.array([0.01]))
    numbers = sources.take(np.array([[10.2, 0.0], [10.02, 0.0], [10.01, 0.0]]), np.full(3, 0.01))
    assert numbers.tolist() == [1, 2, 0]
    assert sources.take(np.zeros((0, 2)), np.zeros(0)).tolist() == []


def sky(fluxes: list[float], seed: int, *, shift: float = 0.0) -> Image:
    """Return an image with Gaussian sources of these fluxes; `shift` moves the pointing, not the sources."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    data = np.random.default_rng(seed).normal(0, NOISE, SHAPE)
    for (column, row), flux in zip(PLACES, fluxes, strict=True):
        square = (x - column - shift) ** 2 + (y - row) ** 2
        data += flux / (2 * np.pi * 2.0**2) * np.exp(-square / (2 * 2.0**2))
    header = fits.Header({"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "RESTFRQ": 60e6})
    header.update(
        {
            "CRVAL1": 0.001,
            "CRVAL2": 52.0,
            "CRPIX1": 100.0 + shift,
            "CRPIX2": 80.0,
            "CDELT1": -0.05,
            "CDELT2": 0.05,
        }
    )
    blank = np.zeros(SHAPE, np.float32)
    image = Image(
        data=data.astype(np.float32),
        variance=blank,
        mask=blank.astype(np.uint16),
        header=header,
        detector="SB0",
        amplifiers=(),
    )
    camera = load_camera("aartfaac")
    steps = tuple(
        entry for entry in camera.step_list("realtime", Kind.SCIENCE) if entry.step in ("background", "sources")
    )
    return run_steps(image, steps, StepContext(camera=camera, ref=reference(camera)))


def reference(camera: Camera) -> ExposureRef:
    return ExposureRef(
        exposure_id="aartfaac/20261120/1",
        night=Night("20261120"),
        camera=camera.name,
        kind=Kind.SCIENCE,
        path=Path("a.fits"),
        size=1,
        content_id="",
        started_at=START,
    )


def followed(steps: list[list[float]]) -> LightCurves:
    curves = LightCurves(LightCurveRule.model_validate({}))
    for number, fluxes in enumerate(steps):
        image = sky(fluxes, number, shift=3.0 * number)
        curves.add(f"e{number}", START + timedelta(seconds=number), [image])
        curves.add(f"e{number}", START + timedelta(seconds=number), [image])  # twice is once
    return curves


def of_place(curves: LightCurves, place: int) -> NDArray[np.void]:
    order = np.argsort(-curves.curves["flux"][curves.curves["step"] == 0])
    brightness = np.argsort(-np.array(FLUXES))
    number = curves.curves["source"][curves.curves["step"] == 0][order[list(brightness).index(place)]]
    rows: NDArray[np.void] = curves.curves[curves.curves["source"] == number]
    return rows


def test_steady_sources_are_steady_and_one_that_varies_stands_out() -> None:
    changes = [1.0, 1.5, 0.6, 1.2, 0.8]
    curves = followed([[*FLUXES[:1], FLUXES[1] * change, *FLUXES[2:]] for change in changes])
    assert len(curves.curves) == 4 * len(changes)
    varying = of_place(curves, 1)
    enclosed = 1 - math.exp(-(5.0**2) / (2 * 2.0**2))
    np.testing.assert_allclose(varying["flux"], FLUXES[1] * np.array(changes) * enclosed, rtol=0.05)
    assert varying["v"][-1] == pytest.approx(np.std(changes, ddof=1) / np.mean(changes), rel=0.1)
    assert varying["eta"][-1] > 100
    for place in (0, 2, 3):
        steady = of_place(curves, place)
        assert steady["eta"][-1] < 6
        assert steady["v"][-1] < 0.03
        assert steady["detected"].all()


def test_one_that_goes_out_is_measured_where_it_was() -> None:
    curves = followed([FLUXES, [*FLUXES[:3], 0.0], FLUXES])
    gone = of_place(curves, 3)
    assert gone["detected"].tolist() == [True, False, True]
    assert abs(gone["flux"][1]) < 5 * gone["flux_error"][1]
    assert gone["flux"][2] == pytest.approx(gone["flux"][0], rel=0.05)
    summary = curves.summary
    assert sorted(summary["detections"]) == [2, 3, 3, 3]
    assert set(summary["measurements"]) == {3}


def test_images_without_coordinates_are_counted_and_masked_ones_give_no_rows() -> None:
    curves = LightCurves(LightCurveRule.model_validate({}))
    image = sky(FLUXES, 1)
    assert image.catalogue is not None
    bare = replace(image, header=fits.Header({"RESTFRQ": 1.0}))
    dark = replace(image, mask=np.ones(SHAPE, np.uint16), catalogue=image.catalogue[:0])
    for number, item in enumerate((image, bare, dark)):
        curves.add(f"e{number}", START, [item])
    assert (curves.skipped, len(curves.curves), curves.steps) == (1, 4, ("e0", "e1", "e2"))


def test_the_file_is_legal_and_the_same_for_the_same_exposures(tmp_path: Path) -> None:
    paths = [tmp_path / "a.fits", tmp_path / "b.fits"]
    for path in paths:
        write_light_curves(path, followed([FLUXES, FLUXES[::-1]]), camera="aartfaac", night=Night("20261120"))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with fits.open(paths[0], checksum=True) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SOURCES", "CURVES", "STEPS"]
        assert len(hdus["CURVES"].data) == 8
        assert list(hdus["STEPS"].data["exposure"]) == ["e0", "e1"]


def test_products_hold_what_light_curves_need(tmp_path: Path) -> None:
    image = sky(FLUXES, 1)
    write_product(tmp_path / "p.fits", [image], cards={})
    read = LightCurves(LightCurveRule.model_validate({}))
    read.add("e0", START, read_product(tmp_path / "p.fits"))
    direct = LightCurves(LightCurveRule.model_validate({}))
    direct.add("e0", START, [image])
    for name in ("flux", "frequency", "detected"):
        np.testing.assert_array_equal(read.curves[name], direct.curves[name])
