"""Sky, sources, seeing, WCS and verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.wcs import WCS
from photutils.psf import fit_fwhm

from nightglass.catalogues import COLUMNS, source_table
from nightglass.config import Camera, StepEntry
from nightglass.image import Image
from nightglass.model import DQ, Quality
from nightglass.profiles import fit_profiles, stamps
from nightglass.steps import run_steps
from nightglass.steps.background import BackgroundSettings, measure_background
from nightglass.steps.quality import QualitySettings, judge, worst
from nightglass.steps.seeing import SeeingSettings, measure_seeing
from nightglass.steps.sources import SourcesSettings, find_sources
from nightglass.steps.wcs import WcsSettings, check_wcs
from tests.unit.steps.scene import CAMERA, FWHM, SKY_E, Scene, plain, run

SIGNATURE = ("overscan", "trim", "gain", "bias", "noise", "dark", "flat", "mask")


@pytest.fixture(scope="module")
def measured(scene: Scene) -> Image:
    return run(scene, *SIGNATURE, "background", "sources", "seeing", "wcs", "quality")


def test_the_sky_is_measured_and_kept(scene: Scene, measured: Image) -> None:
    assert measured.measured["background"] == pytest.approx(SKY_E, rel=0.03)
    assert measured.measured["noise"] == pytest.approx(np.sqrt(SKY_E + 15 + 26), rel=0.1)
    assert measured.header["SKYSUB"] is False
    assert np.median(measured.data) == pytest.approx(SKY_E, rel=0.03)
    subtracted = measure_background(run(scene, *SIGNATURE), scene.context, BackgroundSettings(sky="subtract"))
    assert subtracted.sky is None
    assert abs(np.median(subtracted.data)) < 3
    found = find_sources(subtracted, scene.context, SourcesSettings())
    assert len(found.catalogue) == pytest.approx(len(measured.catalogue), abs=2)


def test_every_star_is_found_at_its_place_with_its_flux(scene: Scene, measured: Image) -> None:
    table = measured.catalogue
    distance = np.hypot(table["X"] - 1 - scene.x[:, None], table["Y"] - 1 - scene.y[:, None])
    nearest = distance.argmin(axis=1)
    good = (np.asarray(table["DQ"])[nearest] == 0) & (np.asarray(table["FLAGS"])[nearest] == 0)
    assert good.sum() > 0.8 * len(scene.x)
    assert distance.min(axis=1)[good].max() < 0.3
    flux, error = np.asarray(table["FLUX"])[nearest], np.asarray(table["FLUXERR"])[nearest]
    assert np.median(flux[good] / scene.flux[good]) == pytest.approx(1, abs=0.05)  # Kron misses a few per cent
    aperture = np.asarray(table["FLUX_APER"])[nearest]
    pull = (aperture - scene.flux * 0.997)[good] / error[good]
    assert 0.4 < pull.std() < 2.5
    assert list(table["NUMBER"]) == list(range(1, len(table) + 1))
    assert np.median(np.asarray(table["FWHM"])[nearest][good]) == pytest.approx(FWHM, rel=0.1)


def test_positions_count_from_one_as_fits_does(scene: Scene, measured: Image) -> None:
    table = measured.catalogue
    sky = WCS(measured.header).wcs_pix2world(table["X"], table["Y"], 1)
    np.testing.assert_allclose(np.asarray(table["RA"]), sky[0], atol=1e-9)
    np.testing.assert_allclose(np.asarray(table["DEC"]), sky[1], atol=1e-9)
    magnitude = -2.5 * np.log10(np.asarray(table["FLUX"], float) / scene.raw.exposure_time_s)
    np.testing.assert_allclose(np.asarray(table["MAG_INST"]), magnitude, atol=1e-4)


def test_masked_and_saturated_sources_say_so(scene: Scene) -> None:
    image = run(scene, *SIGNATURE)
    star = int(scene.flux.argmax())
    row, column = round(scene.y[star]), round(scene.x[star])
    mask = image.mask.copy()
    mask[row - 1 : row + 2, column - 1 : column + 2] |= np.uint16(DQ.SATURATED)
    image = measure_background(image.with_(mask=mask), scene.context, BackgroundSettings())
    flagged = find_sources(image, scene.context, SourcesSettings()).catalogue
    near = np.hypot(flagged["X"] - 1 - scene.x[star], flagged["Y"] - 1 - scene.y[star]) < 2
    assert near.sum() == 1
    assert flagged["DQ"][near][0] & DQ.SATURATED
    masked = find_sources(image, scene.context, SourcesSettings(saturated="mask")).catalogue
    near = np.hypot(masked["X"] - 1 - scene.x[star], masked["Y"] - 1 - scene.y[star]) < 2
    assert not near.any() or float(masked["FLUX"][near][0]) < 0.8 * float(scene.flux[star])


def test_errors_follow_the_sky_where_the_variance_does_not(scene: Scene) -> None:
    image = measure_background(run(scene, *SIGNATURE), scene.context, BackgroundSettings())
    right = find_sources(image, scene.context, SourcesSettings())
    wrong = find_sources(image.with_(variance=image.variance * 100), scene.context, SourcesSettings())
    assert "errors scaled by" in wrong.history[-1].note
    assert len(wrong.catalogue) == pytest.approx(len(right.catalogue), abs=1)
    none = find_sources(image.with_(variance=np.zeros_like(image.variance)), scene.context, SourcesSettings())
    assert len(none.catalogue) == pytest.approx(len(right.catalogue), abs=3)


def test_without_a_background_step_the_sky_is_measured_on_the_way(scene: Scene) -> None:
    result = run(scene, *SIGNATURE, "sources")
    assert "no step background" in result.history[-1].note
    assert len(result.catalogue) >= len(scene.x) - 3


def test_a_field_too_crowded_is_tried_with_higher_thresholds(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightglass.steps.sources._SUB_OBJECTS", 200)
    noise = plain(np.random.default_rng(0).normal(0, 1, (120, 120)).repeat(2, 0).repeat(2, 1))
    image = noise.with_(measured={"noise": 1.0}, variance=np.ones_like(noise.data))
    result = find_sources(image, scene.context, SourcesSettings(threshold=0.01, deblend_contrast=0.0))
    assert "threshold 0.01" in result.history[-1].note
    assert result.header["DETTHRES"] > 0.01


def test_a_crowded_field_gets_more_room_first(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = run(scene, *SIGNATURE, "sources")
    monkeypatch.setattr("nightglass.steps.sources._PIXEL_STACK", 50)
    cramped = run(scene, *SIGNATURE, "sources")
    assert cramped.history[-1].note == usual.history[-1].note
    assert np.array_equal(np.asarray(cramped.catalogue["FLUX"]), np.asarray(usual.catalogue["FLUX"]))


def test_an_empty_field_has_an_empty_table(scene: Scene) -> None:
    empty = plain(np.random.default_rng(1).normal(100, 5, (128, 128)))
    result = run_steps(empty, [StepEntry(step=name) for name in ("background", "sources", "seeing")], scene.context)
    assert len(result.catalogue) <= 1
    assert set(result.catalogue.colnames) == set(COLUMNS) - {"RA", "DEC"}
    assert np.isnan(result.measured["seeing"])
    assert "too few stars" in result.history[-1].note


def test_tables_refuse_unknown_columns_and_carry_units() -> None:
    with pytest.raises(KeyError, match="COLOUR"):
        source_table({"COLOUR": np.zeros(1)}, unit="electron")
    table = source_table({"X": np.ones(2), "FLUX": np.ones(2)}, unit="electron")
    assert (str(table["FLUX"].unit), table["X"].meta["ucd"]) == ("electron", "pos.cartesian.x")


@pytest.mark.parametrize(
    ("beta", "fwhm", "ratio"), [(None, 3.0, 1.0), (2.5, 4.0, 1.3), (4.0, 2.2, 1.0), (None, 6.0, 1.6)]
)
def test_profiles_recover_width_and_elongation(beta: float | None, fwhm: float, ratio: float) -> None:
    rng = np.random.default_rng(4)
    count, radius = 40, max(4, round(2 * fwhm))
    offsets = rng.uniform(-0.5, 0.5, (2, count))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    major, minor = fwhm * np.sqrt(ratio), fwhm / np.sqrt(ratio)
    dx, dy = x - offsets[0][:, None, None], y - offsets[1][:, None, None]
    along, across = dx * np.cos(0.6) + dy * np.sin(0.6), dy * np.cos(0.6) - dx * np.sin(0.6)
    radii = (2 * along / major) ** 2 + (2 * across / minor) ** 2
    shape = 2.0**-radii if beta is None else (1 + (2 ** (1 / beta) - 1) * radii) ** -beta
    cut = 5000 * shape + 300 + rng.normal(0, 20, shape.shape)
    found = fit_profiles(cut, *np.zeros((2, count)), fwhm=1.4 * fwhm)
    assert np.isfinite(found.fwhm).sum() >= 0.95 * count
    assert np.nanmedian(found.fwhm) == pytest.approx(fwhm, rel=0.02)
    assert np.nanmedian(found.elongation) == pytest.approx(ratio, rel=0.03)


def test_profiles_that_make_no_sense_fail_quietly() -> None:
    flat, spike = np.full((1, 11, 11), 5.0), np.zeros((1, 11, 11))
    spike[0, 0, 0] = 1e6
    found = fit_profiles(np.concatenate([flat, spike]), np.zeros(2), np.zeros(2), fwhm=3.0)
    assert np.isnan(found.fwhm).all()
    assert len(fit_profiles(np.empty((0, 5, 5)), np.empty(0), np.empty(0), fwhm=3.0).fwhm) == 0


def test_seeing_agrees_with_photutils(scene: Scene, measured: Image) -> None:
    assert measured.measured["fwhm_pixels"] == pytest.approx(FWHM, rel=0.03)
    assert measured.measured["seeing"] == pytest.approx(FWHM * 0.5, rel=0.03)
    assert "[arcsec]" in measured.header.comments["SEEING"]
    brightest = np.argsort(-scene.flux)[:20]
    positions = list(zip(scene.x[brightest], scene.y[brightest], strict=True))
    theirs = np.median(fit_fwhm(measured.data - measured.sky, xypos=positions, fit_shape=(11, 11)))
    assert measured.measured["fwhm_pixels"] == pytest.approx(theirs, rel=0.02)


def test_seeing_is_in_pixels_where_nothing_gives_a_scale(scene: Scene) -> None:
    image = run(scene, *SIGNATURE, "background", "sources")
    image = image.with_(header=type(image.header)())
    bare = replace(scene.context, camera=Camera.model_validate({"name": "bare", "steps": {}}))
    result = measure_seeing(image, bare, SeeingSettings())
    assert result.measured["seeing"] == result.measured["fwhm_pixels"]
    assert "[pixel]" in result.header.comments["SEEING"]
    assert "in pixels" in result.history[-1].note


def test_seeing_is_not_that_of_cosmic_rays_or_trails(scene: Scene) -> None:
    image = run(scene, *SIGNATURE)
    data = image.data.copy()
    rows, columns = np.random.default_rng(8).integers(5, 190, (2, 80))
    data[rows, columns] += 50_000
    steps = [StepEntry(step=name) for name in ("background", "sources", "seeing")]
    result = run_steps(image.with_(data=data, history=()), steps, replace(scene.context, bad_pixels={}))
    assert result.measured["fwhm_pixels"] == pytest.approx(FWHM, rel=0.05)


def test_stamps_stay_inside() -> None:
    cut, dx, _ = stamps(np.zeros((20, 20), np.float32), np.array([1.0, 10.3, 19.0]), np.array([10.0, 10, 10]), radius=4)
    assert cut.shape == (1, 9, 9)
    assert dx[0] == pytest.approx(0.3)


def test_a_sound_wcs_is_confirmed(measured: Image) -> None:
    assert measured.header["WCSOK"] is True
    assert measured.header["PIXSCALE"] == pytest.approx(0.5, rel=1e-4)
    assert measured.header["CENRA"] == pytest.approx(150, abs=0.01)


@pytest.mark.parametrize(
    ("cards", "problem"),
    [
        ({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, "no celestial WCS"),
        ({"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"}, "no celestial WCS"),
        ({"CDELT1": 0.0}, "no celestial WCS"),
        ({"CDELT1": 1.0 / 3600}, "scales of the axes differ"),
        ({"CDELT1": 1.0 / 3600, "CDELT2": 1.0 / 3600}, "camera says 0.5"),
        ({"CRVAL2": 190.0}, "no celestial WCS"),
    ],
)
def test_a_strange_wcs_is_doubted_and_not_fatal(scene: Scene, cards: dict[str, object], problem: str) -> None:
    header = scene.raw.header.copy()
    header.update(cards)
    result = check_wcs(scene.raw.with_(header=header), scene.context, WcsSettings())
    assert result.header["WCSOK"] is False
    assert problem in result.history[-1].note


def test_verdicts_are_the_worst_of_all_rules(scene: Scene, measured: Image) -> None:
    assert measured.header["QUALITY"] == "ok"
    for seeing, sources, verdict, reason in (
        (3.0, 50.0, "warning", "warning: seeing 3 above 2"),
        (5.0, 50.0, "bad", "bad: seeing 5 above 4"),
        (1.0, 2.0, "bad", "bad: sources 2 below 5"),
        (float("nan"), 50.0, "warning", "warning: seeing was not measured"),
    ):
        image = measured.with_(measured={"seeing": seeing, "sources": sources})
        result = judge(image, scene.context, QualitySettings())
        assert (result.header["QUALITY"], result.header["QUAL1"]) == (verdict, reason)
    unasked = judge(measured.with_(measured={}), scene.context, QualitySettings())
    assert unasked.header["QUALITY"] == "ok", "what no step looked at is not judged"
    assert worst() is Quality.OK
    assert worst(Quality.BAD, Quality.WARNING) is Quality.BAD
    assert CAMERA.quality
