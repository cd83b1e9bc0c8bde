from __future__ import annotations

import gzip
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from nightglass.config import Camera, Limits, load_camera
from nightglass.config.camera import Detector
from nightglass.cubes.geometry import Picture
from nightglass.cubes.lookup import plane_starts
from nightglass.cubes.numbering import Found, Unit, frame_number, natural_key, number_frames
from nightglass.cubes.records import CubeRequest, Encoding, PixelFormat, Survey
from nightglass.cubes.survey import survey_frames
from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.pool import SerialPool

LIMITS = Limits.model_validate({})


def pixels(rows: int = 4, columns: int = 6, kind: Any = np.int16, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 100, (rows, columns)).astype(kind)


def write(path: Path, *hdus: Any, **cards: Any) -> Path:
    """Write HDUs, or one primary image with some cards."""
    made = fits.HDUList([*hdus]) if hdus else fits.HDUList([fits.PrimaryHDU(pixels())])
    for keyword, value in cards.items():
        made[0].header[keyword.replace("_", "-")] = value
    made.writeto(path)
    return path


def image(name: str = "", version: Any = None, data: Any = None, **cards: Any) -> fits.ImageHDU:
    hdu = fits.ImageHDU(pixels() if data is None else data)
    if name:
        hdu.header["EXTNAME"] = name
    if version is not None:
        hdu.header["EXTVER"] = version
    hdu.header.update(cards)
    return hdu


def survey(paths: Sequence[Path], *, camera: Camera | None = None, **changes: Any) -> Survey:
    return survey_frames(CubeRequest(paths=tuple(paths), out=Path("o.fits"), **changes), LIMITS, camera=camera)


def seen(found: Survey) -> list[tuple[str, int, str, int, int]]:
    return [
        (plane.source, plane.frame, found.files[plane.file].stamp.path.stem, plane.hdu, plane.number)
        for plane in found.planes
    ]


def sources(found: Survey) -> dict[str, list[int]]:
    result: dict[str, list[int]] = {}
    for plane in found.planes:
        result.setdefault(plane.source, []).append(plane.frame)
    return result


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


def test_images_of_more_axes_are_several_frames(tmp_path: Path) -> None:
    three = write(tmp_path / "a.fits", fits.PrimaryHDU(np.zeros((3, 4, 5), np.int32)))
    four = write(tmp_path / "b.fits", fits.PrimaryHDU(np.zeros((1, 1, 4, 5), np.int32)))
    found = survey([three, four])
    assert sources(found) == {"SCIENCE0": [0, 1, 2, 3]}
    first = found.planes[0]
    assert [plane.offset - first.offset for plane in found.planes[:3]] == [0, 80, 160]
    assert {plane.shape for plane in found.planes} == {(4, 5)}


def test_a_row_of_pixels_is_an_image(tmp_path: Path) -> None:
    found = survey([write(tmp_path / "a.fits", fits.PrimaryHDU(np.zeros(9, np.float32)))])
    assert found.planes[0].shape == (1, 9)


def test_names(tmp_path: Path) -> None:
    unnamed = write(tmp_path / "a.fits", fits.PrimaryHDU(pixels()), image(), image("B"))
    assert list(sources(survey([unnamed], role="guide"))) == ["GUIDE0", "GUIDE1", "B"]
    empty = write(tmp_path / "b.fits", fits.PrimaryHDU(), image(), image())
    assert list(sources(survey([empty]))) == ["SCIENCE0", "SCIENCE1"]
    names = {"": "MAIN", "b": "BLUE"}
    assert list(sources(survey([unnamed], source_names=names))) == ["MAIN", "BLUE"]
    odd = write(tmp_path / "c.fits", fits.PrimaryHDU(), image("a/b'c  d"), image("x" * 68))
    first, second = sources(survey([odd]))
    assert first == "a/b-c d"
    assert len(second) == 56


def test_fpack_does_not_change_a_name(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.fits")
    packed = write(tmp_path / "b.fits", fits.PrimaryHDU(), fits.CompImageHDU(pixels()))
    found = survey([plain, packed])
    assert sources(found) == {"SCIENCE0": [0, 1]}
    tiles = found.planes[1].tiles
    assert found.planes[1].encoding is Encoding.TILES
    assert tiles is not None
    assert (tiles.algorithm, tiles.tile, tiles.rows) == ("RICE_1", (1, 6), 4)
    assert tiles.options == (("BLOCKSIZE", 32), ("BYTEPIX", 2))
    raw = packed.read_bytes()
    header = fits.getheader(packed, 1, disable_image_compression=True)
    assert tiles.table_offset == found.planes[1].offset
    assert tiles.heap_offset == tiles.table_offset + header["NAXIS1"] * header["NAXIS2"]
    assert tiles.heap_size == header["PCOUNT"]
    assert len(raw) >= tiles.heap_offset + tiles.heap_size


def test_tiles_of_several_planes(tmp_path: Path) -> None:
    data = np.zeros((3, 40, 50), np.int32)
    apart = write(tmp_path / "a.fits", fits.PrimaryHDU(), fits.CompImageHDU(data, tile_shape=(1, 20, 30)))
    whole = write(tmp_path / "b.fits", fits.PrimaryHDU(), fits.CompImageHDU(data, tile_shape=(2, 20, 30)))
    found = [plane.tiles for plane in survey([apart]).planes]
    assert [tiles and (tiles.first_row, tiles.rows, tiles.tile) for tiles in found] == [
        (0, 4, (20, 30)),
        (4, 4, (20, 30)),
        (8, 4, (20, 30)),
    ]
    assert [plane.tiles for plane in survey([whole]).planes] == [None, None, None]


@pytest.mark.parametrize(
    ("keyword", "value", "said"),
    [
        ("ZNAXIS2", "5", "has 4 rows of 8 bytes, but its image has 5 tiles"),
        ("ZNAXIS2", "2000000000", "more than 1024 MiB"),
        ("ZTILE1", "0", "tiles of HDU 1"),
        ("ZBITPIX", "7", "ZBITPIX of HDU 1 is 7"),
        ("ZNAXIS", "1000", "ZNAXIS"),
        ("THEAP", "3", "heap"),
        ("THEAP", "99999999", "heap"),
        ("TFIELDS", "-1", "TFIELDS"),
        ("ZBLANK", "1", ""),
        ("ZVAL1", "'x'", ""),
        ("BZERO", "NaN", "not a number"),
        ("ZNAXIS1", "0", "no image"),
    ],
)
def test_hostile_tiles_have_a_reason(tmp_path: Path, keyword: str, value: str, said: str) -> None:
    path = write(tmp_path / "a.fits", fits.PrimaryHDU(), fits.CompImageHDU(pixels()))
    raw = path.read_bytes()
    begin = raw.index(b"XTENSION")
    place = raw.find(f"{keyword:<8}= ".encode(), begin)
    if place < 0:  # into a card that nobody needs
        place = raw.index(b"EXTNAME = ", begin)
    card = f"{keyword:<8}= {value:>20}".ljust(80).encode()
    path.write_bytes(raw[:place] + card + raw[place + 80 :])
    good = write(tmp_path / "b.fits")
    found = survey([path, good])
    assert len(found.planes) == (1 if said else 2)
    assert all(said in problem.reason for problem in found.problems)
    assert bool(found.problems) == bool(said)


def test_tiles_in_gzip_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fits", fits.PrimaryHDU(), fits.CompImageHDU(pixels()))
    packed = tmp_path / "b.fits.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    found = survey([path, packed])
    assert [problem.path for problem in found.problems] == [packed]
    assert "gunzip" in found.problems[0].reason


def test_very_many_structural_keywords(tmp_path: Path) -> None:
    table = fits.BinTableHDU.from_columns([fits.Column(f"c{number}", "J", array=[1]) for number in range(200)])
    paths = [write(tmp_path / f"{name}.fits", fits.PrimaryHDU(pixels()), table) for name in "ab"]
    assert sources(survey(paths)) == {"SCIENCE0": [0, 1]}


def test_detectors_of_the_camera(tmp_path: Path) -> None:
    generic = load_camera("generic")
    one, two = (Detector(name=name, hdu=0) for name in ("Blue", "Red"))
    paths = [write(tmp_path / f"{number}.fits", DETECTOR=name) for number, name in enumerate(["RED", "blue", "X"])]
    both = generic.model_copy(update={"detectors": (one, two)})
    assert list(sources(survey(paths, camera=both))) == ["Red", "Blue", "X"]
    alone = generic.model_copy(update={"detectors": (one,)})
    assert sources(survey(paths, camera=alone)) == {"Blue": [0, 1, 2]}
    assert list(sources(survey(paths, camera=generic))) == ["RED", "blue", "X"]


def test_formats(tmp_path: Path) -> None:
    unsigned = write(tmp_path / "a.fits", fits.PrimaryHDU(pixels(kind=np.uint16)))
    scaled = tmp_path / "b.fits"
    hdu = fits.PrimaryHDU(pixels(kind=np.int32))
    hdu.header["BLANK"] = -1
    hdu.writeto(scaled)
    with fits.open(scaled, "update", do_not_scale_image_data=True) as hdus:
        hdus[0].header["BSCALE"], hdus[0].header["BZERO"] = 0.5, 10.0
    found = survey([unsigned, scaled])
    assert [plane.format for plane in found.planes] == [
        PixelFormat(16, 1.0, 32768.0),
        PixelFormat(32, 0.5, 10.0, -1),
    ]


def test_a_sum_speaks_for_all_of_the_data_only(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    one, three = fits.PrimaryHDU(pixels()), image("B", data=np.ones((3, 4, 5), np.int16))
    fits.HDUList([one, three]).writeto(path, checksum=True)
    found = survey([path])
    stated = fits.getheader(path)["DATASUM"]
    assert [plane.datasum for plane in found.planes] == [int(stated), None, None, None]


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    good = write(tmp_path / "a.fits", FRAME=1)
    again = write(tmp_path / "b.fits", FRAME=1)
    table = write(tmp_path / "c.fits", fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("a", "J")]))
    cut = tmp_path / "d.fits"
    cut.write_bytes(good.read_bytes()[:2900])
    found = survey([good, again, table, cut, tmp_path / "e.fits", good])
    assert seen(found) == [("SCIENCE0", 1, "a", 0, 0)]
    told = {problem.path.name: problem.reason for problem in found.problems}
    assert sorted(told) == ["b.fits", "c.fits", "d.fits", "e.fits"]
    assert "frame 1 of SCIENCE0" in told["b.fits"]
    assert "a.fits" in told["b.fits"]
    assert "no image" in told["c.fits"]
    assert "growing" in told["d.fits"]


def test_or_is_an_error(tmp_path: Path) -> None:
    good, again = write(tmp_path / "a.fits", FRAME=1), write(tmp_path / "b.fits", FRAME=1)
    with pytest.raises(Rejected, match="frame 1 of SCIENCE0"):
        survey([good, again], skip_bad=False)
    with pytest.raises(Retryable, match=r"gone\.fits"):
        survey([good, tmp_path / "gone.fits"], skip_bad=False)
    with pytest.raises(Rejected, match="no frame"):
        survey([])
    with pytest.raises(Rejected, match="gone"):
        survey([tmp_path / "gone.fits"])


def test_one_bad_image_does_not_lose_the_others(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fits", fits.PrimaryHDU(), image("A"), image("B"))
    raw = path.read_bytes().replace(b"EXTNAME = 'A       '", b"BSCALE  = 'A       '")
    path.write_bytes(raw)
    found = survey([path])
    assert list(sources(found)) == ["B"]
    assert ["BSCALE of HDU 1" in problem.reason for problem in found.problems] == [True]


def test_axes_do_not_become_millions_of_planes(tmp_path: Path) -> None:
    many, one = np.zeros((60_000, 1, 1), np.uint8), write(tmp_path / "a.fits")
    two = write(tmp_path / "b.fits", fits.PrimaryHDU(many), fits.ImageHDU(many))
    three = write(tmp_path / "c.fits", fits.PrimaryHDU(np.zeros((100_001, 1, 1), np.uint8)))
    found = survey([one, two, three])
    assert sources(found) == {"SCIENCE0": [0]}
    assert ["planes" in problem.reason for problem in found.problems] == [True, True]


def test_large_planes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fits", fits.PrimaryHDU(np.zeros((1100, 1000), np.uint8)))
    request = CubeRequest(paths=(path,), out=Path("o.fits"))
    with pytest.raises(Rejected, match="1 MiB"):
        survey_frames(request, Limits.model_validate({"image_mib": 1}))


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


class CountingPool(SerialPool):
    def __init__(self, failures: int = 0) -> None:
        self.calls = 0
        self.failures = failures

    def submit(self, function: Any, *args: Any, key: str | None = None, priority: int = 0) -> Future[Any]:
        self.calls += 1
        if self.calls <= self.failures:
            future: Future[Any] = Future()
            future.set_exception(Retryable("a worker died"))
            return future
        return super().submit(function, *args)


def test_the_pool_reads_headers_where_only_it_sees_the_frames(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{number}.fits") for number in range(20)]
    here = survey(paths)
    request = CubeRequest(paths=tuple(paths), out=Path("o.fits"), mode="gather")
    pool = CountingPool(failures=2)
    assert survey_frames(request, LIMITS, pool=pool) == here
    assert pool.calls > 2
    with pytest.raises(Retryable, match="died"):
        survey_frames(request, LIMITS, pool=CountingPool(failures=1000))


@pytest.mark.real
def test_real_sequences(real_data: Path) -> None:
    guider = survey(sorted((real_data / "lsst_guider").glob("*.fits")))
    assert sources(guider) == {"SCIENCE0": list(range(92))}
    night = survey(sorted((real_data / "exotic_hatp32_2017").glob("*.FITS")))
    assert sources(night) == {"SCIENCE0": list(range(40))}
    starts = plane_starts(night)
    assert all(first < second for first, second in pairwise(starts))  # type: ignore[operator]
    slit = survey(sorted((real_data / "ghost_slitcam").glob("*.fits.gz")))
    assert list(sources(slit)) == ["SCI"]
    assert {plane.encoding for plane in slit.planes} == {Encoding.GZIP}


@pytest.mark.real
@pytest.mark.parametrize("name", ["astropy_io_fits", "legacypipe_ccds", "panoptes", "radio_tkp", "msumastro_feder"])
def test_every_real_file_has_planes_or_a_reason(real_data: Path, name: str) -> None:
    paths = sorted(path for path in (real_data / name).iterdir() if path.is_file())
    found = survey(paths)
    used = {found.files[plane.file].stamp.path for plane in found.planes}
    assert used | {problem.path for problem in found.problems} == set(paths)
