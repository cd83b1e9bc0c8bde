"""Which frame an image is, and of which source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from nightglass.config import load_camera
from nightglass.cubes.geometry import Picture
from nightglass.cubes.lookup import plane_starts
from nightglass.cubes.numbering import Found, Unit, frame_number, natural_key, number_frames
from nightglass.cubes.records import PixelFormat
from nightglass.errors import Misconfigured
from tests.unit.cubes.surveying import image, pixels, seen, sources, survey, write


def test_files_are_frames_by_keyword(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.fits", FRAME=number) for name, number in [("a", 7), ("b", 3), ("c", 4)]]
    assert seen(survey(paths)) == [
        ("SCIENCE0", 3, "b", 0, 0),
        ("SCIENCE0", 4, "c", 0, 0),
        ("SCIENCE0", 7, "a", 0, 0),
    ]


def test_else_by_start_and_else_by_name(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"{name}.fits", DATE_OBS=f"2026-11-21T03:00:{second:02d}.5")
        for name, second in [("f10", 1), ("f9", 30), ("f2", 20)]
    ]
    assert [item[2] for item in seen(survey(paths))] == ["f10", "f2", "f9"]
    untimed = write(tmp_path / "f3.fits")
    assert [item[2] for item in seen(survey([*paths, untimed]))] == ["f2", "f3", "f9", "f10"]


@given(st.permutations(range(6)))
def test_the_order_in_which_frames_are_given_is_nothing(order: list[int]) -> None:
    picture = Picture(shape=(1, 1), planes=1, format=PixelFormat(16))
    units = [Unit(file, [Found(0, "A", picture)], number=file * 2) for file in range(6)]
    expected = [(file, file * 2) for file in range(6)]
    found = number_frames([units[place] for place in order])
    assert sorted((unit.file, number) for unit, _, number in found) == expected


def test_the_same_extname_again_is_the_next_frame(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"{name}.fits", fits.PrimaryHDU(), image("SCI"), image("DQ"), image("SCI"), image("sci"))
        for name in "ab"
    ]
    found = survey(paths)
    assert sources(found) == {"SCI": [0, 1, 2, 3, 4, 5], "DQ": [0, 3]}
    assert [item[2:4] for item in seen(found)][:4] == [("a", 1), ("a", 3), ("a", 4), ("b", 1)]


def test_versions_number_frames_and_name_what_is_absent(tmp_path: Path) -> None:
    hdus = [image("SCI", 4), image("SCI", 1), image("SCI", 2), image("DQ", 4), image("DQ", 2)]
    found = survey([write(tmp_path / "a.fits", fits.PrimaryHDU(), *hdus)])
    assert sources(found) == {"SCI": [0, 1, 3], "DQ": [1, 3]}


def test_versions_far_apart_or_repeated_number_nothing(tmp_path: Path) -> None:
    far = write(tmp_path / "a.fits", fits.PrimaryHDU(), image("SCI", 1), image("SCI", 2_000_000_000))
    assert sources(survey([far])) == {"SCI": [0, 1]}
    again = write(tmp_path / "b.fits", fits.PrimaryHDU(), image("SCI", 3), image("SCI", 3))
    assert sources(survey([again])) == {"SCI": [0, 1]}


def test_sources_in_files_of_their_own(tmp_path: Path) -> None:
    """Frames of several detectors stay together, whatever is missing."""
    paths = []
    for frame in range(4):
        for offset, name in enumerate(["blue", "red"]):
            if (frame, name) == (1, "red"):
                continue
            time = f"2026-11-21T03:0{frame}:0{offset}"
            hdu = fits.PrimaryHDU(pixels())
            hdu.header["EXTNAME"] = name
            paths.append(write(tmp_path / f"{name}{frame}.fits", hdu, DATE_OBS=time))
    assert sources(survey(paths)) == {"blue": [0, 1, 2, 3], "red": [0, 2, 3]}


def test_frame_keywords_of_each_image(tmp_path: Path) -> None:
    hdus = [image("SCI", FRAME=5), image("SCI", FRAME=2), image("DQ", FRAME=5)]
    found = survey([write(tmp_path / "a.fits", fits.PrimaryHDU(), *hdus)])
    assert sources(found) == {"SCI": [2, 5], "DQ": [5]}


def test_files_of_several_frames_go_on_in_the_order_of_their_keyword(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"{name}.fits", fits.PrimaryHDU(), image("S"), image("S"), FRAME=number)
        for name, number in [("a", 9), ("b", 2)]
    ]
    assert [item[1:4] for item in seen(survey(paths))] == [(0, "b", 1), (1, "b", 2), (2, "a", 1), (3, "a", 2)]


def test_the_camera_counts_first(tmp_path: Path) -> None:
    generic = load_camera("generic")
    camera = generic.model_copy(
        update={"header": generic.header.model_copy(update={"frame": ("SEQ",), "frame_from_name": r"-f(\d+)"})}
    )
    by_keyword = [write(tmp_path / f"a{number}.fits", SEQ=number, FRAME=9 - number) for number in (3, 5)]
    assert list(sources(survey(by_keyword, camera=camera)).values()) == [[3, 5]]
    by_name = [write(tmp_path / f"x-F{number:03d}.fits") for number in (8, 12)]
    assert list(sources(survey(by_name, camera=camera)).values()) == [[8, 12]]
    wrong = generic.model_copy(update={"header": generic.header.model_copy(update={"frame_from_name": "("})})
    with pytest.raises(Misconfigured, match="frame_from_name"):
        survey(by_name, camera=wrong)


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3), (3.0, 3), ("0012", 12), (-1, None), (2**31, None), (True, None), ("x", None), (float("nan"), None)],
)
def test_frame_numbers(value: Any, number: int | None) -> None:
    assert frame_number(value) == number


def test_names_in_natural_order() -> None:
    assert sorted(["a10", "a9", "a", "10", "9b", ""], key=natural_key) == ["", "9b", "10", "a", "a9", "a10"]


def test_starts(tmp_path: Path) -> None:
    hdus = [image("S"), image("S"), image("S")]
    hdus[0].header["DATE-OBS"], hdus[2].header["DATE-OBS"] = "2026-11-21T03:00:05", "nonsense"
    path = write(tmp_path / "a.fits", fits.PrimaryHDU(), *hdus, DATE_OBS="2026-11-21T03:00:00")
    plain = write(tmp_path / "b.fits", fits.PrimaryHDU(), image("S"), MJD_OBS=62000.25)
    found = survey([path, plain])
    starts = [start and start.isoformat() for start in plane_starts(found)]
    # a primary header speaks for the first image of a source, not for those after it
    assert starts[0] == "2026-11-21T03:00:05+00:00"
    assert starts[1:3] == [None, None]
    assert starts[3] == "2028-08-17T06:00:00+00:00"
