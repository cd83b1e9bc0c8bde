from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from nightglass.config import Limits
from nightglass.cubes.axes import time_axis
from nightglass.cubes.planning import plan_cube
from nightglass.cubes.promoting import common_format, type_name
from nightglass.cubes.records import CubePlan, CubeRequest, ImagePlan, Keywords, PixelFormat, TablePlan
from nightglass.cubes.survey import survey_frames
from nightglass.errors import Misconfigured

LIMITS = Limits.model_validate({})
START = datetime(2026, 11, 21, 3, tzinfo=UTC)

UINT8, INT8 = PixelFormat(8), PixelFormat(8, 1.0, -128.0)
INT16, UINT16 = PixelFormat(16), PixelFormat(16, 1.0, 32768.0)
INT32, UINT32 = PixelFormat(32), PixelFormat(32, 1.0, float(2**31))
INT64, UINT64 = PixelFormat(64), PixelFormat(64, 1.0, float(2**63))
FLOAT32, FLOAT64 = PixelFormat(-32), PixelFormat(-64)


@pytest.mark.parametrize(
    ("formats", "expected"),
    [
        ([INT16], INT16),
        ([UINT8, INT16], INT16),
        ([UINT8, INT8], INT16),
        ([INT16, UINT16], INT32),
        ([UINT8, UINT16], UINT16),
        ([UINT16, INT32], INT32),
        ([INT32, UINT32], INT64),
        ([INT64, UINT64], None),
        ([INT16, PixelFormat(16, 1.0, 100.0)], INT32),
        ([FLOAT32, FLOAT64], FLOAT64),
        ([UINT16, FLOAT32], FLOAT32),
        ([INT32, FLOAT32], FLOAT64),
        ([INT64, FLOAT64], None),
        ([FLOAT32, PixelFormat(-32, 1.0, 32768.0)], None),
        ([PixelFormat(16, 0.5, 10.0), PixelFormat(32, 0.5, 10.0)], PixelFormat(32, 0.5, 10.0)),
        ([PixelFormat(16, 0.5, 10.0), PixelFormat(16, 0.25, 0.0)], FLOAT64),
        ([PixelFormat(16, 1e-9, 1e12), PixelFormat(16, 0.25, 0.0)], None),
        ([PixelFormat(16, 0.0, 1.0), INT16], None),
        ([PixelFormat(16, blank=-32768), UINT8], PixelFormat(16, blank=-32768)),
        ([PixelFormat(16, blank=-32768), INT16], PixelFormat(32, blank=-(2**31))),
        ([PixelFormat(16, blank=-1), PixelFormat(16, blank=-2)], PixelFormat(32, blank=-(2**31))),
        ([PixelFormat(64, blank=-1), INT64], None),
        ([PixelFormat(16, blank=-1), FLOAT32], FLOAT32),
    ],
)
def test_common_formats(formats: list[PixelFormat], expected: PixelFormat | None) -> None:
    for order in itertools.permutations(formats):
        assert common_format(order) == expected


PIXELS = st.builds(
    PixelFormat,
    st.sampled_from([8, 16, 32]),
    st.sampled_from([1.0, 0.5, -2.0]),
    st.sampled_from([0.0, 32768.0, -128.0, 2.5]),
    st.one_of(st.none(), st.integers(0, 127)),
)


@given(st.lists(PIXELS, min_size=1, max_size=4))
def test_every_value_of_every_format_stays_what_it_is(formats: list[PixelFormat]) -> None:
    common = common_format(formats)
    if common is None:
        return
    for pixels in formats:
        info = np.iinfo(np.uint8 if pixels.bitpix == 8 else f"i{pixels.itemsize}")
        for stored in (info.min, info.max, 0, 1):
            if stored == pixels.blank:
                continue
            value = pixels.bzero + pixels.bscale * stored
            if common.bitpix < 0:
                assert float(np.dtype(f"f{common.itemsize}").type(value)) == value
                continue
            there = (value - common.bzero) / common.bscale
            span = np.iinfo(np.uint8 if common.bitpix == 8 else f"i{common.itemsize}")
            assert there.is_integer()
            assert span.min <= there <= span.max
            assert there != common.blank
        assert common.bitpix < 0 or pixels.blank is None or common.blank is not None


@pytest.mark.parametrize(
    ("pixels", "name"),
    [
        (UINT8, "uint8"),
        (INT8, "int8"),
        (INT16, "int16"),
        (UINT16, "uint16"),
        (UINT64, "uint64"),
        (FLOAT32, "float32"),
        (PixelFormat(16, 0.5, 100.0), "int16 x 0.5 + 100"),
        (PixelFormat(-32, 1.0, -3.0), "float32 - 3"),
    ],
)
def test_type_names(pixels: PixelFormat, name: str) -> None:
    assert type_name(pixels) == name


def test_time_along_the_third_axis() -> None:
    starts = [START + timedelta(seconds=2.5 * number) for number in range(4)]
    axis = time_axis(starts, matrix=False)
    assert axis["CTYPE3"][0] == "TIME"
    assert axis["CDELT3"][0] == 2.5
    assert axis["MJDREFI"][0] + axis["MJDREFF"][0] == 61365.125
    assert "CD3_3" in time_axis(starts, matrix=True)
    jittered = [starts[0], starts[1] + timedelta(seconds=0.02), *starts[2:]]
    assert time_axis(jittered, matrix=False)["CDELT3"][0] == 2.5
    for irregular in (starts[:1], [*starts, None], [starts[0]] * 3, [starts[0], *starts[2:]], starts[::-1]):
        assert time_axis(irregular, matrix=False) == {}


def frame(path: Path, data: Any, number: int = 0, **cards: Any) -> Path:
    header = fits.Header(
        [
            ("DATE-OBS", (START + timedelta(seconds=number)).replace(tzinfo=None).isoformat()),
            ("OBJECT", "M 13", "what was seen"),
            ("EXPTIME", 0.5, "[s]"),
            ("TEMP", 10.0 + number),
        ]
    )
    header.update(cards)
    fits.PrimaryHDU(data, header).writeto(path)
    return path


def plan(paths: list[Path], **changes: Any) -> CubePlan:
    request = CubeRequest(paths=tuple(paths), out=Path("o.fits"), **changes)
    return plan_cube(survey_frames(request, LIMITS), request)


def images(cube: CubePlan) -> dict[str, ImagePlan]:
    return {hdu.name: hdu for hdu in cube.hdus if isinstance(hdu, ImagePlan)}


def test_the_shape_of_a_cube(tmp_path: Path) -> None:
    data = np.zeros((4, 6), np.uint16)
    paths = [frame(tmp_path / f"{number}.fits", data, number) for number in range(3)]
    cube = plan(paths, role="guide", exposure="00000042", night="20261121", camera="lynx", extra={"PROGRAM": "dark"})
    assert [hdu.name for hdu in cube.hdus] == ["GUIDE0", "GUIDE0T", "CARDS"]
    image = images(cube)["GUIDE0"]
    assert (image.format, image.shape, image.planes, image.note) == (UINT16, (4, 6), (0, 1, 2), "")
    primary = cube.primary
    expected = {
        "EXTNAME": "GUIDE",
        "EXPID": 42,
        "NIGHT": "20261121",
        "CAMERA": "lynx",
        "FRAMES": 3,
        "TIMESYS": "UTC",
        "DATE-BEG": "2026-11-21T03:00:00",
        "MJD-BEG": 61365.125,
        "PROGRAM": "dark",
    }
    assert dict(primary) == expected
    assert [hdu.name for hdu in plan(paths, keep_cards=False).hdus] == ["SCIENCE0", "SCIENCE0T"]


def test_keywords_go_where_they_are_asked(tmp_path: Path) -> None:
    data = np.zeros((4, 6), np.uint16)
    paths = [
        frame(tmp_path / f"{number}.fits", data, number, **({"ONLY": "late"} if number else {})) for number in (0, 1)
    ]
    cube = plan(paths, keywords=Keywords(primary=("OBJ*", "NOT-THERE"), secondary=("ONLY", "TEMP", "NAXIS1", "CTYPE*")))
    assert cube.primary["OBJECT"] == "M 13"
    assert cube.primary.comments["OBJECT"] == "what was seen"
    header = images(cube)["SCIENCE0"].header
    assert (header["TEMP"], header["ONLY"]) == (10.0, "late")
    assert "NAXIS1" not in header
    assert "EXPTIME" not in header


def test_coordinates_of_the_first_frame_and_time(tmp_path: Path) -> None:
    data = np.zeros((1, 1, 4, 6), np.float32)
    cards: dict[str, Any] = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": 10.0,
        "CRVAL2": 20.0,
        "CRPIX1": 3.0,
        "CRPIX2": 2.0,
        "CD1_1": -1e-4,
        "CD1_2": 1e-6,
        "CD2_1": 1e-6,
        "CD2_2": 1e-4,
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CTYPE3": "FREQ",
        "CRVAL3": 1e9,
        "CTYPE4": "STOKES",
        "BUNIT": "JY/BEAM",
        "EQUINOX": 2000.0,
    }
    paths = [frame(tmp_path / f"{number}.fits", data, 3 * number, **cards) for number in range(3)]
    header = images(plan(paths, keywords=Keywords(secondary=("C*", "TEMP"))))["SCIENCE0"].header
    assert header["BUNIT"] == "JY/BEAM"
    assert "CTYPE4" not in header
    assert header.index("WCSAXES") < header.index("CTYPE1")
    full = fits.Header([("NAXIS", 3), ("NAXIS1", 6), ("NAXIS2", 4), ("NAXIS3", 3), *header.cards])
    coordinates = WCS(full)  # a warning would be an error
    assert coordinates.celestial.wcs.crval.tolist() == [10.0, 20.0]
    assert coordinates.pixel_to_world_values(2, 1, 2)[2] == pytest.approx(6.0)
    assert coordinates.pixel_to_world(2, 1, 2)[1].utc.isot == "2026-11-21T03:00:06.000"


def test_another_shape_gets_an_image_of_its_own(tmp_path: Path) -> None:
    shapes = [(4, 6), (5, 6), (4, 6), (6, 5)]
    paths = [frame(tmp_path / f"{number}.fits", np.zeros(shape, ">i2"), number) for number, shape in enumerate(shapes)]
    cube = plan(paths)
    assert [hdu.name for hdu in cube.hdus if isinstance(hdu, ImagePlan)] == ["SCIENCE0", "SCIENCE0_2", "SCIENCE0_3"]
    assert [image.planes for image in images(cube).values()] == [(0, 2), (1,), (3,)]
    assert "shape" in images(cube)["SCIENCE0_2"].note
    assert cube.primary["FRAMES"] == 4


def test_types_that_join_and_types_that_do_not(tmp_path: Path) -> None:
    kinds = [np.int16, np.uint16, np.int16]
    paths = [frame(tmp_path / f"a{number}.fits", np.zeros((4, 6), kind), number) for number, kind in enumerate(kinds)]
    image = images(plan(paths))["SCIENCE0"]
    assert (image.format, image.planes) == (INT32, (0, 1, 2))
    assert image.note == "stored as int32, which holds all of int16 (2), uint16 (1)"
    assert image.note in str(image.header["HISTORY"]).replace("\n", "")
    paths = [
        frame(tmp_path / f"b{number}.fits", np.zeros((4, 6), kind), number) for number, kind in enumerate(("i8", "f4"))
    ]
    made = images(plan(paths))
    assert [(image.format, image.planes) for image in made.values()] == [(INT64, (0,)), (FLOAT32, (1,))]
    assert "without loss" in made["SCIENCE0_2"].note


def test_no_two_hdus_have_one_name(tmp_path: Path) -> None:
    names = ["SCIENCE", "GAPS", "A", "AT", "CARDS", "B_2", "B"]
    hdus = [fits.ImageHDU(np.zeros((4, 6), np.int16), name=name) for name in names]
    hdus.append(fits.ImageHDU(np.zeros((5, 6), np.int16), name="B"))
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    cube = plan([path])
    made = [cube.primary["EXTNAME"], *(hdu.name for hdu in cube.hdus)]
    assert len({name.upper() for name in made}) == len(made)
    for hdu in cube.hdus:
        if isinstance(hdu, TablePlan):
            assert hdu.header["EXTNAME"] == hdu.name


@pytest.mark.parametrize("keyword", ["NAXIS", "lower", "TOO-LONG-IT-IS", "FRAMES", "EXTNAME", "", "COMMENT"])
def test_extra_cards_that_cannot_be(tmp_path: Path, keyword: str) -> None:
    path = frame(tmp_path / "a.fits", np.zeros((4, 6), np.int16))
    with pytest.raises(Misconfigured, match="cannot be set"):
        plan([path], extra={keyword: 1})


def test_an_extra_card_replaces_ours(tmp_path: Path) -> None:
    path = frame(tmp_path / "a.fits", np.zeros((4, 6), np.int16))
    primary = plan([path], night="20261121", extra={"NIGHT": "20261120"}).primary
    assert primary["NIGHT"] == "20261120"
    assert primary.count("NIGHT") == 1


def test_the_same_frames_give_the_same_plan(tmp_path: Path) -> None:
    paths = [frame(tmp_path / f"{number}.fits", np.zeros((4, 6), np.int16), number) for number in range(4)]
    one, other = plan(paths), plan(paths[::-1])
    assert one.primary.tostring() == other.primary.tostring()
    assert [hdu.header.tostring() for hdu in one.hdus] == [hdu.header.tostring() for hdu in other.hdus]


@pytest.mark.real
@pytest.mark.parametrize(
    "name", ["lsst_guider", "exotic_hatp32_2017", "ghost_slitcam", "legacypipe_ccds", "astropy_io_fits", "radio_tkp"]
)
def test_real_frames_are_all_in_the_plan(real_data: Path, name: str) -> None:
    paths = sorted(path for path in (real_data / name).iterdir() if path.is_file())
    request = CubeRequest(paths=tuple(paths), out=Path("o.fits"), keywords=Keywords(("*",), ("*",)))
    found = survey_frames(request, LIMITS)
    cube = plan_cube(found, request)
    planned = sorted(index for image in images(cube).values() for index in image.planes)
    assert planned == list(range(len(found.planes)))
    for image in images(cube).values():
        assert {found.planes[index].shape for index in image.planes} == {image.shape}
        assert image.name in {hdu.name.removesuffix("T") for hdu in cube.hdus if isinstance(hdu, TablePlan)}
