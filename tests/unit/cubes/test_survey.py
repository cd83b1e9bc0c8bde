"""Which images frames have, how they are stored, and what is wrong with them."""

from __future__ import annotations

import gzip
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from nightglass.config import Limits, load_camera
from nightglass.config.camera import Detector
from nightglass.cubes.lookup import plane_starts
from nightglass.cubes.records import CubeRequest, Encoding, PixelFormat
from nightglass.cubes.survey import survey_frames
from nightglass.errors import Rejected, Retryable
from nightglass.pool import SerialPool
from tests.unit.cubes.surveying import LIMITS, image, pixels, seen, sources, survey, write


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
