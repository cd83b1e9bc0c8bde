from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from nightglass.config import Camera, Limits, Site, load_camera
from nightglass.dialects import describe, tour
from nightglass.errors import Misconfigured, Rejected
from nightglass.fitsio import scan_headers
from nightglass.model import ExposureRef, Kind, Night

Describe = Callable[..., ExposureRef]
CONTENT = "0123456789abcdef0123456789abcdef"
NOON = datetime(2026, 8, 22, 12, tzinfo=UTC).timestamp()


def camera(dialect: dict[str, Any] | None = None, **values: Any) -> Camera:
    return Camera.model_validate({"name": "test", "steps": {}, "header": dialect or {}} | values)


@pytest.fixture
def described(tmp_path: Path) -> Describe:
    """Write a frame with some cards, and describe it."""

    def run(
        cards: dict[str, Any], this: Camera, *, name: str = "frame_0007.fits", night: Night | None = None, **site: Any
    ) -> ExposureRef:
        path = tmp_path / name
        header = fits.Header([("DATE-OBS", "2026-08-22T03:00:00")])
        header.update({keyword: value for keyword, value in cards.items() if value is not None})
        for keyword, value in cards.items():
            if value is None:
                header.remove(keyword, ignore_missing=True)
        fits.PrimaryHDU(np.ones((4, 5), np.int16), header).writeto(path, overwrite=True)
        headers = scan_headers(path, Limits())
        return describe(
            path,
            headers,
            this,
            site=Site(**site),
            night=night,
            content_id=CONTENT,
            size=path.stat().st_size,
            mtime=NOON,
        )

    return run


def test_the_fields_of_an_exposure(described: Describe) -> None:
    cards = {
        "EXPNUM": 42,
        "OBJECT": "  M  13 ",
        "FILTER": "R",
        "EXPTIME": 30.5,
        "XBINNING": 2,
        "YBINNING": 4,
        "READMODE": "fast",
        "DITHNUM": 2,
        "NUMDITHS": 5,
        "CCDNUM": 3,
    }
    ref = described(cards, camera({"number": ["EXPNUM"]}))
    assert ref.exposure_id == "test/20260821/42"
    assert (ref.target, ref.filter, ref.exposure_time_s, ref.binning, ref.readout) == ("M 13", "R", 30.5, "2x4", "fast")
    assert (ref.group_number, ref.group_count, ref.detector, ref.kind) == (2, 5, "3", Kind.SCIENCE)
    assert ref.started_at == datetime(2026, 8, 22, 3, tzinfo=UTC)
    assert ref.content_id == CONTENT
    assert ExposureRef.from_json(ref.to_json()) == ref


def test_the_night_is_given_or_that_of_the_start_or_that_of_the_file(described: Describe) -> None:
    this = camera()
    assert described({}, this, night=Night("20250101")).exposure_id.startswith("test/20250101/")
    assert described({}, this).night == Night("20260821")
    assert described({"DATE-OBS": "2026-08-22T13:00:00"}, this).night == Night("20260822")
    assert described({"DATE-OBS": "2026-08-22T13:00:00"}, this, timezone="America/Santiago").night == Night("20260821")
    without = described({"DATE-OBS": None}, this)
    assert (without.night, without.started_at.timestamp()) == (Night("20260822"), NOON)


def test_names_of_exposures_without_number(described: Describe) -> None:
    this = camera({"number": ["EXPNUM"]})
    assert described({}, this, name="M 13 (1).FITS").name == "M-13-1-01234567"
    assert described({}, this, name="..etc.fits.fz").name == "etc-01234567"
    assert described({"EXPNUM": -1}, this).name == "frame_0007-01234567"
    assert described({"EXPNUM": "0012"}, this).name == "12"
    assert described({"EXPNUM": 12.0}, this).name == "12"
    assert described({}, camera({"number_from_name": r"_(\d+)"})).name == "7"


def test_detectors_of_one_readout_share_a_number(described: Describe) -> None:
    group = {"name": "mosaic", "members": "detectors", "expected": ["1", "2"]}
    this = camera({"number": ["EXPNUM"]}, groups=[group])
    assert described({"EXPNUM": 5, "CCDNUM": 2}, this).name == "5-2"


@pytest.mark.parametrize(
    ("cards", "factors"),
    [
        ({"CCDSUM": "2 3"}, "2x3"),
        ({"XBINNING": 2}, "2x2"),
        ({"XBINNING": 2.0, "YBINNING": 1.0}, "2x1"),
        ({"CCDSUM": "a b"}, "1x1"),
        ({"XBINNING": 0, "CCDSUM": "4x4"}, "4x4"),
    ],
)
def test_binning(described: Describe, cards: dict[str, Any], factors: str) -> None:
    assert described(cards, camera()).binning == factors


@pytest.mark.parametrize(
    ("number", "count", "group"),
    [(1, 3, (1, 3)), ("None", 3, (0, 0)), (4, 3, (0, 0)), (0, 3, (0, 0)), (2, None, (0, 0)), ("2", "3", (2, 3))],
)
def test_dithers_that_make_no_sense_are_no_group(
    described: Describe, number: Any, count: Any, group: tuple[int, int]
) -> None:
    ref = described({"DITHNUM": number, "NUMDITHS": count}, camera())
    assert (ref.group_number, ref.group_count) == group


def test_exposure_times(described: Describe) -> None:
    this = camera({"exposure_time": ["EXPTIME", "EXPOSURE"], "exposure_time_unit_s": 0.001})
    assert described({"EXPTIME": 1500}, this).exposure_time_s == 1.5
    assert described({"EXPTIME": -1, "EXPOSURE": 2000}, this).exposure_time_s == 2.0
    assert described({"EXPTIME": "500.0"}, this).exposure_time_s == 0.5
    assert described({}, this).exposure_time_s == 0.0
    with pytest.raises(Rejected, match=r"frame_0007.fits: EXPTIME = -1 is no exposure time"):
        described({"EXPTIME": -1}, this)


def test_what_is_required_is_named(described: Describe) -> None:
    with pytest.raises(Rejected, match="the header has no AIRMASS, OBJECT"):
        described({"OBJECT": "  "}, camera({"required": ["AIRMASS", "DATE-OBS", "OBJECT"]}))


def test_kind_rules_are_tried_in_order(described: Describe) -> None:
    kinds = [
        {"kind": "bias", "where": {"IMAGETYP": "dark"}, "max_exposure_s": 0},
        {"kind": "dark", "where": {"IMAGETYP": "dark"}},
        {"kind": "flat", "where": {"@name": "^flat", "IMAGETYP": "^$"}},
        {"kind": "arc", "where": {"LAMP": "^T$"}},
    ]
    this = camera({"kinds": kinds, "default_kind": "focus"})
    assert described({"IMAGETYP": "Dark Frame", "EXPTIME": 0}, this).kind is Kind.BIAS
    assert described({"IMAGETYP": "DARK", "EXPTIME": 1}, this).kind is Kind.DARK
    assert described({}, this, name="Flat1.fits").kind is Kind.FLAT
    assert described({"LAMP": True}, this).kind is Kind.ARC
    assert described({}, this).kind is Kind.FOCUS
    with pytest.raises(Misconfigured, match="no regular expression"):
        described({}, camera({"kinds": [{"kind": "bias", "where": {"A": "("}}]}))


def test_a_frame_that_can_never_be_read_is_rejected_at_once(described: Describe) -> None:
    this = camera(detectors=[{"name": "x", "amplifiers": [{"data": "[1:100,1:100]"}]}])
    with pytest.raises(Rejected, match="does not fit a frame of 5x4"):
        described({}, this)


@pytest.mark.parametrize(
    ("cards", "kind"),
    [
        ({"IMAGETYP": "Bias Frame"}, "bias"),
        ({"IMAGETYP": "zero"}, "bias"),
        ({"OBSTYPE": "DARK", "EXPTIME": 0.0}, "bias"),
        ({"OBSTYPE": "DARK", "EXPTIME": 10.0}, "dark"),
        ({"OBSTYPE": "DARK"}, "dark"),
        ({"IMAGETYP": "Dark Frame", "EXPTIME": 5}, "dark"),
        ({"IMAGETYP": "Flat Field", "EXPTIME": 1}, "flat"),
        ({"IMTYPE": "domeflat"}, "flat"),
        ({"OBSTYPE": "skyflat"}, "flat"),
        ({"OBSTYPE": "Dome Flat"}, "flat"),
        ({"FRAME": "Twilight Flat"}, "flat"),
        ({"IMAGETYP": "COMP"}, "arc"),
        ({"OBSTYP": "arc"}, "arc"),
        ({"OBSTYPE": "STANDARD"}, "standard"),
        ({"OBSTYPE": "FOCUS"}, "focus"),
        ({"IMAGETYP": "Light Frame", "OBJECT": "flat"}, "science"),
        ({"OBSTYPE": "OBJECT", "OBJECT": "Dome Flat"}, "flat"),
        ({"OBJECT": "Bias", "EXPTIME": 0}, "bias"),
        ({"OBJECT": "Dark Doodad nebula"}, "science"),
        ({"OBJECT": "Arcturus"}, "science"),
        ({"OBJECT": "NGC 1"}, "science"),
        ({}, "science"),
    ],
)
def test_the_generic_camera_knows_common_words(described: Describe, cards: dict[str, Any], kind: str) -> None:
    assert described(cards, load_camera("generic")).kind == kind


def test_a_camera_file_can_be_tried(described: Describe, tmp_path: Path) -> None:
    this = camera({"number": ["EXPNUM"], "required": ["AIRMASS"]})
    described({"EXPNUM": 3, "EXPTIME": -1, "AIRMASS": 1.0, "GAIN": 2.0}, camera({"exposure_time": []}))
    rows = {field: (value, source) for field, value, source in tour(tmp_path / "frame_0007.fits", this)}
    assert rows["number"] == ("3", "EXPNUM")
    assert rows["start"] == ("2026-08-22T03:00:00+00:00", "DATE-OBS")
    assert rows["kind"] == ("science", "default_kind")
    assert rows["exposure time"][1] == "Rejected"
    assert rows["detector ccd1"] == ("5x4 pixels", "HDU 0")
    assert rows["amplifier 1"][0] == "data [1:5,1:4]"
    assert "gain 2" in rows["amplifier 1"][1]
    bad = camera(detectors=[{"name": "x", "hdu": "NONE"}])
    assert tour(tmp_path / "frame_0007.fits", bad)[-1][0] == "detectors"


def test_files_of_one_frame_each_are_parts_of_an_exposure(described: Describe) -> None:
    this = camera({"number_from_name": r"-(\d{8})", "frame": ["FRAMENO"], "frame_from_name": r"-(\d{4})\.fits"})
    named = described({}, this, name="guide-00070965-0003.fits.fz")
    assert (named.exposure_id, named.parent, named.frame) == ("test/20260821/70965-f0003", "test/20260821/70965", 3)
    by_card = described({"FRAMENO": 12}, this, name="guide-00070965-0003.fits.fz")
    assert (by_card.name, by_card.frame) == ("70965-f0012", 12)
    whole = described({}, this, name="guide-00070965.fits.fz")
    assert (whole.exposure_id, whole.parent, whole.frame) == ("test/20260821/70965", "", None)
    assert ExposureRef.from_json(named.to_json()) == named


def test_files_of_one_detector_each_are_parts_of_an_exposure(described: Describe) -> None:
    rule = {"name": "mosaic", "members": "detectors", "expected": ["a", "b"]}
    this = camera({"number": ["EXPNUM"], "detector": ["DETECTOR"], "frame": ["FRAMENO"]}, groups=[rule])
    ref = described({"EXPNUM": 7, "DETECTOR": "b"}, this)
    assert (ref.exposure_id, ref.parent) == ("test/20260821/7-b", "test/20260821/7")
    ref = described({"EXPNUM": 7, "DETECTOR": "b", "FRAMENO": 0}, this)
    assert (ref.exposure_id, ref.parent, ref.frame) == ("test/20260821/7-b-f0000", "test/20260821/7", 0)
