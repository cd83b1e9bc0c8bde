"""Every camera file that comes with Nightglass; a new one is tested unasked."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.config import Camera, Limits, Site, load_camera, packaged_cameras
from nightglass.dialects import describe
from nightglass.errors import Rejected
from nightglass.fitsio import inspect, read_raw, write_product
from nightglass.fitsio.detectors import parse_section
from nightglass.model import CALIBRATION_KINDS, ExposureRef, Kind, Night
from nightglass.steps import StepContext, run_steps

LISTS = {"realtime", "default", "postprocess"}


@pytest.fixture(params=packaged_cameras())
def camera(request: pytest.FixtureRequest) -> Camera:
    return load_camera(str(request.param))


def test_the_file_is_named_like_the_camera(camera: Camera) -> None:
    assert camera.name in packaged_cameras()
    assert camera.description


def test_it_has_the_step_lists_that_a_night_runs(camera: Camera) -> None:
    assert set(camera.steps) >= LISTS
    for name in LISTS:
        for kind in Kind:
            assert camera.step_list(name, kind), f"{name} of {kind}"


def test_calibration_frames_never_wait_for_others(camera: Camera) -> None:
    for name in LISTS:
        for kind in CALIBRATION_KINDS & set(camera.calibrations):
            steps = {entry.step for entry in camera.step_list(name, kind)}
            if steps != {entry.step for entry in camera.step_list(name, Kind.SCIENCE)}:
                assert not steps & {"bias", "dark", "flat", "cosmics"}
                assert {"trim", "gain"} <= steps


def test_steps_stand_in_an_order_that_works(camera: Camera) -> None:
    order = ["overscan", "trim", "gain", "bias", "noise", "dark", "flat", "cosmics", "background", "sources", "seeing"]
    for name in LISTS:
        steps = [entry.step for entry in camera.step_list(name, Kind.SCIENCE)]
        known = [order.index(step) for step in steps if step in order]
        assert known == sorted(known)
        assert steps[-1] == "quality"


def reference(path: Path, camera: Camera, site: Site | None = None) -> ExposureRef:
    found = inspect(path, camera, Limits())
    return describe(
        path,
        found.headers,
        camera,
        site=site or Site(),
        night=None,
        content_id=found.content_id,
        size=found.size,
        mtime=path.stat().st_mtime,
    )


@pytest.mark.real
def test_kast_by_rule(real_data: Path) -> None:
    kast = load_camera("kast")
    expected = {"b1": "arc", "b11": "flat", "b12": "flat", "b13": "flat", "b21": "bias", "b22": "bias", "b23": "bias"}
    expected |= {"b24": "standard", "b27": "science"}
    site = Site(timezone="America/Los_Angeles")
    for stem, kind in expected.items():
        ref = reference(real_data / "kast_blue_2015" / f"{stem}.fits.gz", kast, site)
        assert (ref.name, ref.kind, ref.night) == (stem[1:], kind, Night("20150519"))
    with pytest.raises(Rejected, match="the header has no OBSTYPE"):
        reference(real_data / "kast_blue_2015" / "2017may28_d0528_0088.fits", kast)


@pytest.mark.real
def test_kast_overscan_knows_the_level_of_its_amplifier(real_data: Path) -> None:
    """In a bias frame data and overscan of one amplifier agree, and the two amplifiers differ by 20 ADU."""
    (image,) = read_raw(real_data / "kast_blue_2015" / "b21.fits.gz", load_camera("kast"), Limits())
    assert image.detector == "blue"
    assert [view.gain for view in image.amplifiers] == [1.2, 1.2]  # not the header's index
    levels = []
    for view in image.amplifiers:
        assert view.overscan is not None
        levels.append((image.data[view.data].mean(), image.data[view.overscan].mean()))
        assert image.data[view.overscan].std(axis=0).max() < 5
    assert all(abs(data - overscan) < 2 for data, overscan in levels)
    assert 15 < levels[1][1] - levels[0][1] < 25


@pytest.mark.real
def test_exotic_is_one_night_in_local_time(real_data: Path) -> None:
    exotic = load_camera("exotic")
    site = Site(latitude=31.68, longitude=-110.88, timezone="America/Phoenix")
    refs = [reference(path, exotic, site) for path in sorted((real_data / "exotic_hatp32_2017").glob("*.FITS"))]
    assert len({ref.exposure_id for ref in refs}) == 40
    assert {(ref.night, ref.kind, ref.target, ref.exposure_time_s) for ref in refs} == {
        (Night("20171219"), Kind.SCIENCE, "HATP-32", 60.0)
    }
    header = fits.getheader(refs[0].path)
    assert refs[0].started_at.isoformat() == header["UT-OBS"].replace("-0000", "000+00:00")
    assert sorted(refs, key=lambda ref: ref.started_at) == refs


@pytest.mark.real
def test_feder_by_rule(real_data: Path) -> None:
    """The flat says IMAGETYP BIAS and EXPTIME 0, like the bias frames; its name alone is true."""
    feder = load_camera("feder")
    kinds: dict[str, set[str]] = {}
    for path in (real_data / "msumastro_feder").glob("*test*.fit"):
        kinds.setdefault(path.stem.rstrip("12345"), set()).add(reference(path, feder).kind)
    assert kinds == {"biastest": {"bias"}, "darktest": {"dark"}, "flattest": {"flat"}}
    assert reference(real_data / "msumastro_feder" / "aspen_trimmed.fit", feder).kind is Kind.FLAT
    light = reference(real_data / "msumastro_feder" / "maximdl_6_18_header.fit", feder)
    assert (light.kind, light.filter, light.target, light.exposure_time_s) == (Kind.SCIENCE, "r", "kelt-16-b", 90.0)


def test_lynx_reads_its_constants_from_the_header(tmp_path: Path) -> None:
    cards = [
        ("EXPNUM", 17),
        ("IMAGETYP", "science"),
        ("OBJECT", "field 1"),
        ("FILTER", "r"),
        ("EXPTIME", 3.0),
        ("DATE-OBS", "2026-08-22T03:00:00.500"),
        ("GAIN", 1.5),
        ("RDNOISE", 5.0),
        ("SATURATE", 60000.0),
        ("DATASEC", "[1:64,1:48]"),
        ("BIASSEC", "[65:96,1:48]"),
        ("DITHNUM", 1),
        ("NUMDITHS", 3),
    ]
    path = tmp_path / "lynx_17.fits"
    fits.PrimaryHDU(np.full((48, 96), 1000, np.uint16), fits.Header(cards)).writeto(path)
    lynx = load_camera("lynx")
    ref = reference(path, lynx)
    assert (ref.exposure_id, ref.kind, ref.group_number, ref.group_count) == ("lynx/20260821/17", "science", 1, 3)
    (image,) = read_raw(path, lynx, Limits())
    (view,) = image.amplifiers
    assert (view.data[1], view.overscan) == (slice(0, 64), (slice(0, 48), slice(64, 96)))
    assert (view.gain, view.read_noise, view.saturation) == (1.5, 5.0, 60000.0)


@pytest.mark.parametrize("name", ["generic", "lynx"])
def test_packed_frames_are_the_same_exposure(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    cards = [("EXPNUM", 3), ("IMAGETYP", "dark"), ("EXPTIME", 3.0), ("DATE-OBS", "2026-08-22T03:00:00")]
    fits.PrimaryHDU(np.ones((8, 9), np.uint16), fits.Header(cards)).writeto(path)
    packed = tmp_path / "b.fits.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    refs = [reference(item, load_camera(name)) for item in (path, packed)]
    assert len({(ref.exposure_id, ref.kind, ref.started_at, ref.detector) for ref in refs}) == 1


def frame_shape(camera: Camera) -> tuple[int, int]:
    """Return rows and columns that hold all sections of the camera file."""
    sections = [
        section
        for detector in camera.detectors
        for amplifier in detector.amplifiers
        for text in (amplifier.data, amplifier.overscan)
        if text and (section := parse_section(text))
    ]
    return max([100, *(rows.stop for rows, _ in sections)]), max([120, *(columns.stop for _, columns in sections)])


@pytest.mark.parametrize("kind", [Kind.BIAS, Kind.SCIENCE])
def test_it_reduces_a_synthetic_exposure(camera: Camera, kind: Kind, tmp_path: Path) -> None:
    shape = frame_shape(camera)
    cards = [(keyword, 1) for keyword in camera.header.required]
    cards += [("EXPTIME", 2.0), ("DATE-OBS", "2026-08-22T03:00:00"), ("DATE-BEG", "2026-08-22T03:00:00")]
    path = tmp_path / "a.fits"
    pixels = np.random.default_rng(9).normal(1000, 5, shape).astype(np.uint16)
    fits.PrimaryHDU(pixels, fits.Header(dict(cards))).writeto(path)
    ref = reference(path, camera)
    for image in read_raw(path, camera, Limits()):
        context = StepContext(camera=camera, ref=ref)
        reduced = run_steps(image, camera.step_list("realtime", kind), context)
        assert reduced.unit == "electron"
        assert np.isfinite(reduced.data).all()
        assert all(view.overscan is None for view in reduced.amplifiers)
        write_product(tmp_path / "product.fits", [reduced], cards={})
