"""Removing the detector's signature: trim, gain, noise, bias, dark, flat, against ccdproc and by hand."""

from __future__ import annotations

from dataclasses import replace

import ccdproc
import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData, StdDevUncertainty

from nightglass.errors import Rejected
from nightglass.image import Image
from nightglass.model import DQ, Kind
from nightglass.steps import LoadedMaster, StepContext
from nightglass.steps.bias import BiasSettings, subtract_bias
from nightglass.steps.dark import DarkSettings, subtract_dark
from nightglass.steps.flat import FlatSettings, divide_by_flat
from nightglass.steps.gain import GainSettings, apply_gain
from nightglass.steps.noise import NoiseSettings, add_noise
from nightglass.steps.trim import TrimSettings, trim
from tests.unit.steps.scene import DARK_S, EXPOSURE_S, GAINS, NOISES, NX, NY, Scene, master, plain, run


def as_ccd(image: Image) -> CCDData:
    error = StdDevUncertainty(np.sqrt(image.variance.astype(float)))
    return CCDData(image.data.astype(float), unit=image.unit, uncertainty=error, mask=image.mask != 0)


def same(ours: Image, theirs: CCDData) -> None:
    np.testing.assert_allclose(ours.data, theirs.data, rtol=2e-6, atol=1e-3)
    np.testing.assert_allclose(np.sqrt(ours.variance), theirs.uncertainty.array, rtol=2e-5)


def only(scene: Scene, kind: Kind, loaded: LoadedMaster) -> StepContext:
    return replace(scene.context, masters={kind: loaded})


def test_trim_puts_amplifiers_in_their_places(scene: Scene) -> None:
    result = trim(scene.raw, scene.context, TrimSettings())
    assert result.data.shape == (NY, NX)
    for view in scene.raw.amplifiers:
        assert np.array_equal(result.data[view.place], scene.raw.data[view.data])
    assert all(view.data == view.place and view.overscan is None for view in result.amplifiers)
    assert "differently" in result.history[-1].note
    assert result.header["CRPIX1"] == scene.raw.header["CRPIX1"]


def test_trim_moves_the_wcs_as_ccdproc_does(scene: Scene) -> None:
    data = np.arange(600.0).reshape(20, 30)
    view = replace(plain(data).amplifiers[0], data=(slice(2, 18), slice(5, 29)), place=(slice(0, 16), slice(0, 24)))
    header = scene.raw.header.copy()
    header["DATASEC"] = "[6:29,3:18]"
    image = plain(data, amplifiers=(view,), header=header)
    ours = trim(image, scene.context, TrimSettings())
    theirs = ccdproc.trim_image(CCDData(data, unit="adu", header=header.copy()), fits_section="[6:29,3:18]")
    assert np.array_equal(ours.data, theirs.data)
    assert (ours.header["CRPIX1"], ours.header["CRPIX2"]) == (115.0, 98.0)
    assert "DATASEC" not in ours.header


def test_trim_marks_what_no_amplifier_delivers(scene: Scene) -> None:
    first, second = scene.raw.amplifiers
    moved = replace(second, place=(second.place[0], slice(NX // 2 + 3, NX + 3)))
    result = trim(scene.raw.with_(amplifiers=(first, moved)), scene.context, TrimSettings())
    assert result.data.shape == (NY, NX + 3)
    gap = result.mask[:, NX // 2 : NX // 2 + 3]
    assert np.all(gap == DQ.NO_DATA)
    assert np.count_nonzero(result.mask) == gap.size


def test_trim_refuses_sections_that_do_not_fit(scene: Scene) -> None:
    first = scene.raw.amplifiers[0]
    wrong = replace(first, place=(slice(0, NY), slice(0, 7)))
    with pytest.raises(Rejected, match="does not fit its place"):
        trim(scene.raw.with_(amplifiers=(wrong,)), scene.context, TrimSettings())


def test_gain_and_noise_agree_with_ccdproc(scene: Scene) -> None:
    image = run(scene, "overscan", "trim")
    ours = add_noise(apply_gain(image, scene.context, GainSettings()), scene.context, NoiseSettings())
    assert ours.unit == ours.header["BUNIT"] == "electron"
    for view, gain, noise in zip(image.amplifiers, GAINS, NOISES, strict=True):
        ccd = CCDData(image.data[view.data].astype(float), unit="adu")
        deviation = ccdproc.create_deviation(ccd, gain=gain * u.electron / u.adu, readnoise=noise * u.electron)
        theirs = ccdproc.gain_correct(deviation, gain * u.electron / u.adu)
        np.testing.assert_allclose(ours.data[view.data], theirs.data, rtol=1e-6)
        np.testing.assert_allclose(np.sqrt(ours.variance[view.data]), theirs.uncertainty.array, rtol=1e-5)


def test_noise_is_the_same_before_and_after_gain(scene: Scene) -> None:
    image = run(scene, "overscan", "trim")
    first = apply_gain(add_noise(image, scene.context, NoiseSettings()), scene.context, GainSettings())
    second = add_noise(apply_gain(image, scene.context, GainSettings()), scene.context, NoiseSettings())
    np.testing.assert_allclose(first.variance, second.variance, rtol=1e-5)


def test_negative_pixels_have_read_noise_only(scene: Scene) -> None:
    noisy = add_noise(plain(np.full((4, 4), -50.0)), scene.context, NoiseSettings())
    assert np.all(noisy.variance == 25)
    silent = replace(plain(np.ones((4, 4))).amplifiers[0], read_noise=0.0)
    unknown = add_noise(plain(np.ones((4, 4)), amplifiers=(silent,)), scene.context, NoiseSettings())
    assert "no read noise" in unknown.history[-1].note


def test_gain_is_not_applied_twice(scene: Scene) -> None:
    once = run(scene, "trim", "gain")
    assert apply_gain(once, scene.context, GainSettings()).data is once.data


def test_bias_dark_and_flat_agree_with_ccdproc(scene: Scene) -> None:
    ours = run(scene, "overscan", "trim", "gain", "noise")
    theirs = as_ccd(ours)
    bias, dark, flat = (as_ccd(scene.context.masters[kind].images[0]) for kind in (Kind.BIAS, Kind.DARK, Kind.FLAT))
    ours = subtract_bias(ours, scene.context, BiasSettings())
    theirs = ccdproc.subtract_bias(theirs, bias)
    same(ours, theirs)
    ours = subtract_dark(ours, scene.context, DarkSettings())
    times = {"data_exposure": EXPOSURE_S * u.s, "dark_exposure": DARK_S * u.s}
    theirs = ccdproc.subtract_dark(theirs, dark, scale=True, **times)
    same(ours, theirs)
    ours = divide_by_flat(ours, scene.context, FlatSettings())
    theirs = ccdproc.flat_correct(theirs, flat, norm_value=1.0)
    same(ours, theirs)
    assert [record.calibrations for record in ours.history[-3:]] == [
        (scene.context.masters[kind].ref.master_id,) for kind in (Kind.BIAS, Kind.DARK, Kind.FLAT)
    ]
    assert all(ours.header[keyword] is True for keyword in ("BIASCOR", "DARKCOR", "FLATCOR"))


def test_the_dark_can_be_left_unscaled(scene: Scene) -> None:
    image = plain(np.full((8, 8), 100.0))
    dark = master(Kind.DARK, np.full((8, 8), 40.0), variance=4.0, exposure_time_s=DARK_S)
    scaled = subtract_dark(image, only(scene, Kind.DARK, dark), DarkSettings())
    assert (scaled.data[0, 0], scaled.variance[0, 0]) == (90, 0.25)
    whole = subtract_dark(image, only(scene, Kind.DARK, dark), DarkSettings(scale="none"))
    assert (whole.data[0, 0], whole.variance[0, 0]) == (60, 4)
    timeless = master(Kind.DARK, np.ones((8, 8)), variance=0.0)
    with pytest.raises(Rejected, match="exposure time 0 s"):
        subtract_dark(image, only(scene, Kind.DARK, timeless), DarkSettings())


@pytest.mark.parametrize("response", [0.0, -0.5, 0.1, np.nan, np.inf])
def test_low_response_is_marked_and_never_divided_by(scene: Scene, response: float) -> None:
    field = np.ones((8, 8))
    field[3, 4] = response
    image = plain(np.full((8, 8), 500.0), variance=np.full((8, 8), 9.0, np.float32))
    result = divide_by_flat(image, only(scene, Kind.FLAT, master(Kind.FLAT, field, variance=0.01)), FlatSettings())
    assert result.mask[3, 4] == DQ.LOW_FLAT
    assert np.count_nonzero(result.mask) == 1
    assert (result.data[3, 4], result.variance[3, 4]) == (500, 9)
    low = divide_by_flat(
        image, only(scene, Kind.FLAT, master(Kind.FLAT, field, variance=0.01)), FlatSettings(min_response=0.05)
    )
    assert np.isfinite(low.data).all()
    assert low.data[3, 4] == pytest.approx(5000 if response == 0.1 else 500)


@pytest.mark.parametrize("kind", [Kind.BIAS, Kind.DARK, Kind.FLAT])
def test_a_missing_master_is_said_in_the_product(scene: Scene, kind: Kind) -> None:
    masters = {other: loaded for other, loaded in scene.context.masters.items() if other is not kind}
    bare = replace(scene, context=replace(scene.context, masters=masters))
    result = run(bare, "trim", "gain", kind.value, "quality")
    keyword = f"{kind.value.upper()}COR"
    assert result.header[keyword] is False
    assert kind.value in result.header.comments[keyword]
    assert result.history[-2].note == f"no master {kind.value}: not applied"
    assert result.header["QUALITY"] == "warning" or result.header["QUALITY"] == "bad"
    assert any(f"no master {kind.value}" in str(result.header[f"QUAL{number}"]) for number in (1, 2))


def test_masters_that_do_not_fit_are_refused(scene: Scene) -> None:
    image = plain(np.ones((8, 8)))
    small = master(Kind.BIAS, np.ones((4, 4)), variance=0.0)
    with pytest.raises(Rejected, match=r"shape \(4, 4\)"):
        subtract_bias(image, only(scene, Kind.BIAS, small), BiasSettings())
    other = master(Kind.BIAS, np.ones((8, 8)), variance=0.0)
    pair = replace(other, images=tuple(item.with_(detector=name) for item in other.images for name in "BC"))
    with pytest.raises(Rejected, match="has no detector 'A', only B, C"):
        subtract_bias(image, only(scene, Kind.BIAS, pair), BiasSettings())
    with pytest.raises(Rejected, match="is in electron, the image in adu"):
        subtract_bias(image.with_(unit="adu"), only(scene, Kind.BIAS, other), BiasSettings())
