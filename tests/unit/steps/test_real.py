"""The real Kast night: our values against those of ccdproc, from the raw file on."""

from __future__ import annotations

from pathlib import Path

import ccdproc
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData

from nightglass.config import Camera, Limits, StepEntry, load_camera
from nightglass.fitsio import read_raw
from nightglass.image import Image
from nightglass.model import Kind
from nightglass.steps import StepContext, run_steps
from tests.unit.steps.scene import REF, master

pytestmark = pytest.mark.real
OVERSCAN = StepEntry(step="overscan", parameters={"method": "median", "fit": "line"})
RIGHT = {"b21": Kind.BIAS, "b22": Kind.BIAS, "b23": Kind.BIAS, "b11": Kind.FLAT, "b12": Kind.FLAT, "b13": Kind.FLAT}


@pytest.fixture(scope="module")
def camera() -> Camera:
    return load_camera("kast")


def ours(path: Path, camera: Camera, *names: str, context: StepContext | None = None) -> Image:
    (image,) = read_raw(path, camera, Limits())
    entries = [OVERSCAN, *(StepEntry(step=name) for name in names)]
    return run_steps(image, entries, context or StepContext(camera=camera, ref=REF))


def theirs(path: Path, camera: Camera) -> CCDData:
    """Overscan, trim and gain, amplifier by amplifier, as the camera file describes them."""
    raw = CCDData(fits.getdata(path).astype(float), unit="adu")
    halves = []
    for amplifier in camera.detectors[0].amplifiers:
        level = ccdproc.subtract_overscan(raw, fits_section=amplifier.overscan, overscan_axis=1, median=True)
        halves.append(ccdproc.trim_image(level, fits_section=amplifier.data).data * amplifier.gain)
    return CCDData(np.hstack(halves), unit="electron")


def test_a_science_frame_agrees_with_ccdproc(real_data: Path, camera: Camera) -> None:
    place = real_data / "kast_blue_2015"
    sets: dict[Kind, list[CCDData]] = {Kind.BIAS: [], Kind.FLAT: []}
    for name, kind in RIGHT.items():
        path = place / f"{name}.fits.gz"
        sets[kind].append(theirs(path, camera))
        np.testing.assert_allclose(ours(path, camera, "trim", "gain").data, sets[kind][-1].data, atol=0.02)
    bias = ccdproc.combine(sets[Kind.BIAS], method="average")
    flat = ccdproc.combine([ccdproc.subtract_bias(item, bias) for item in sets[Kind.FLAT]], method="average")
    flat.data /= flat.data.mean()
    flat = CCDData(flat.data, unit="")
    limit = camera.calibrations[Kind.FLAT].min_response
    expected = ccdproc.flat_correct(
        ccdproc.subtract_bias(theirs(place / "b27.fits.gz", camera), bias), flat, norm_value=1.0
    )
    masters = {
        Kind.BIAS: master(Kind.BIAS, bias.data, variance=0.0),
        Kind.FLAT: master(Kind.FLAT, flat.data, variance=0.0),
    }
    context = StepContext(camera=camera, ref=REF, masters=masters)
    found = ours(place / "b27.fits.gz", camera, "trim", "mask", "gain", "bias", "noise", "flat", context=context)
    usable = flat.data > limit * 1.001
    assert usable.mean() > 0.5
    np.testing.assert_allclose(found.data[usable], expected.data[usable], rtol=1e-5, atol=0.5)
    assert np.all(found.mask[flat.data < limit * 0.999] & 4)
