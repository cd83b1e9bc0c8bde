"""Every way in which planes are compressed: three decoders get back what they ought to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.config import Limits
from nightglass.cubes.records import Compression, PixelFormat
from nightglass.cubes.squeezing import SqueezeTask, choose_method, fetch_squeezed, keep_fragment, squeeze_planes
from tests.unit.cubes.oracles import BITPIX, pixels_of, survey_of
from tests.unit.cubes.packing import (
    DECODERS,
    NAME,
    assert_decoded,
    by_astropy,
    compress,
    pack,
    table_of,
)

RICE, GZIP = Compression(), Compression(algorithm="gzip")
DITHERS = {"none": "NO_DITHER", "subtractive_1": "SUBTRACTIVE_DITHER_1", "subtractive_2": "SUBTRACTIVE_DITHER_2"}
SHAPE = (60, 67)
NULL = -(1 << 31)


def _write(directory: Path, planes: list[NDArray[Any]]) -> list[Path]:
    directory.mkdir()
    paths = [directory / f"{number}.fits" for number in range(len(planes))]
    for number, (path, plane) in enumerate(zip(paths, planes, strict=True)):
        fits.PrimaryHDU(plane, fits.Header([("FRAME", number)])).writeto(path)
    return paths


def _noise(kind: str, count: int = 3) -> list[NDArray[Any]]:
    """Skies with a star each, and pixels that are undefined or exactly zero."""
    rng = np.random.default_rng(8)
    planes = [rng.normal(50, 8, SHAPE).astype(kind) for _ in range(count)]
    for number, plane in enumerate(planes):
        plane[10 + number, 20] = 40_000.0
        plane[3, 5 * number : 5 * number + 9] = np.nan
        plane[30:33] = 0.0
    return planes


@pytest.mark.parametrize("compression", [RICE, GZIP], ids=["rice", "gzip"])
@pytest.mark.parametrize("kind", BITPIX)
def test_integers_and_floats_without_loss(tmp_path: Path, kind: str, compression: Compression) -> None:
    planes = [pixels_of(kind, (21, 37), seed) for seed in range(3)]
    summary = compress(_write(tmp_path / "frames", planes), compression)
    header, _ = table_of(summary.path)
    bitpix, _ = BITPIX[kind]
    assert header["ZBITPIX"] == bitpix
    assert header["ZCMPTYPE"] == ("RICE_1" if compression is RICE and bitpix in (8, 16, 32) else "GZIP_2")
    assert header.get("ZQUANTIZ") == ("NONE" if bitpix < 0 else None)
    wanted = np.stack(planes)
    if bitpix == 64:  # cfitsio compresses no integers of 64 bits
        assert np.array_equal(by_astropy(summary.path), wanted)
    else:
        assert_decoded(summary.path, wanted)


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "u4"])
def test_tiles_of_integers_are_those_of_astropy(tmp_path: Path, kind: str) -> None:
    planes = [pixels_of(kind, (21, 37), seed) for seed in range(2)]
    _, ours = table_of(compress(_write(tmp_path / "frames", planes)).path)
    pack(tmp_path / "theirs.fits", np.stack(planes), compression_type="RICE_1", tile_shape=(1, 21, 37))
    _, theirs = table_of(tmp_path / "theirs.fits")
    assert ours["COMPRESSED_DATA"] == theirs["COMPRESSED_DATA"]


@pytest.mark.parametrize("algorithm", ["rice", "gzip"])
@pytest.mark.parametrize("dither", DITHERS)
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_quantised_floats(tmp_path: Path, kind: str, dither: Any, algorithm: Any) -> None:
    planes = _noise(kind)
    planes[1][40, 40] = np.nan
    summary = compress(_write(tmp_path / "frames", planes), Compression(algorithm, 16.0, dither))
    header, cells = table_of(summary.path)
    assert header["ZQUANTIZ"] == DITHERS[dither]
    assert header["ZBLANK"] == NULL
    assert header.get("ZDITHER0") == (None if dither == "none" else 1)
    assert all(cells["COMPRESSED_DATA"])  # really quantised
    read = {name: decode(summary.path).reshape(3, *SHAPE) for name, decode in DECODERS.items()}
    wanted = np.stack(planes)
    step = max(float(np.frombuffer(cell, ">f8")[0]) if len(cell) == 8 else np.inf for cell in cells["ZSCALE"])
    for name, pixels in read.items():
        assert pixels.dtype.newbyteorder("=") == wanted.dtype, name
        assert np.array_equal(np.isnan(pixels), np.isnan(wanted)), name
        np.testing.assert_array_equal(pixels, read["astropy"], err_msg=name)
    if dither == "subtractive_2":
        assert (read["funpack"][wanted == 0] == 0).all()
    assert np.isfinite(step)


@pytest.mark.parametrize("dither", ["subtractive_1", "subtractive_2"])
def test_a_cube_is_quantised_as_astropy_does_it_at_once(tmp_path: Path, dither: Any) -> None:
    """Planes compressed one by one, and dithered one after the other, give the tiles of one three-dimensional image."""
    planes = _noise("f4", 4)
    summary = compress(_write(tmp_path / "frames", planes), Compression("rice", 4.0, dither))
    theirs = pack(
        tmp_path / "theirs.fits",
        np.stack(planes),
        compression_type="RICE_1",
        quantize_level=4.0,
        quantize_method=1 if dither == "subtractive_1" else 2,
        dither_seed=1,
        tile_shape=(1, *SHAPE),
    )
    (mine, our_cells), (other, their_cells) = table_of(summary.path), table_of(theirs)
    assert mine["ZDITHER0"] == other["ZDITHER0"] == 1
    assert our_cells == their_cells
    assert_decoded(summary.path, by_astropy(theirs))


def test_planes_that_cannot_be_quantised_are_kept_without_loss(tmp_path: Path) -> None:
    planes = _noise("f4")
    planes[0][:] = 7.5
    planes[1][:] = np.nan
    planes[2][5, 5] = np.inf
    summary = compress(_write(tmp_path / "frames", planes), Compression("rice", 4.0))
    assert not any(table_of(summary.path)[1]["COMPRESSED_DATA"])
    assert np.array_equal(by_astropy(summary.path), np.stack(planes), equal_nan=True)
    for name in ("fitsio", "funpack"):  # cfitsio takes infinities for NaN where an image has ZBLANK
        read = DECODERS[name](summary.path).reshape(3, *SHAPE)
        wanted = np.where(np.isinf(planes), np.nan, planes)
        np.testing.assert_array_equal(read, wanted, err_msg=name)


@pytest.mark.parametrize("compression", [GZIP, Compression("gzip", 4.0), Compression("rice", 4.0)], ids=str)
def test_the_clock_is_not_in_the_bytes(tmp_path: Path, compression: Compression) -> None:
    """The header of gzip has room for a time, in which the same frames would give other cubes later."""
    planes = _noise("f4", 2)
    planes[1][:] = 1e30  # cannot be quantised
    summary = compress(_write(tmp_path / "frames", planes), compression)
    cells = [cell for name, column in table_of(summary.path)[1].items() if "COMPRESSED" in name for cell in column]
    packed = [cell for cell in cells if cell.startswith(b"\x1f\x8b")]
    assert packed
    assert {cell[4:8] for cell in packed} == {bytes(4)}
    assert np.array_equal(by_astropy(summary.path)[1], planes[1])


def test_tall_planes_have_several_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightglass.cubes.squeezing._TILE_PIXELS", 7 * 67)
    planes = _noise("f4", 3)
    paths = _write(tmp_path / "frames", planes)
    summary = compress(paths, Compression("gzip", 4.0, "subtractive_1"))
    header, cells = table_of(summary.path)
    assert (header["ZTILE1"], header["ZTILE2"], header["NAXIS2"]) == (67, 7, 3 * 9)
    assert len(set(cells["ZZERO"])) > 1
    read = by_astropy(summary.path)
    for name, decode in DECODERS.items():
        np.testing.assert_array_equal(decode(summary.path).reshape(read.shape), read, err_msg=name)
    whole = compress([paths[0]], out=tmp_path / "lossless.fits.fz")
    assert_decoded(whole.path, np.stack(planes[:1]))


def test_fetched_is_as_written(tmp_path: Path) -> None:
    survey = survey_of(_write(tmp_path / "frames", [pixels_of("i2", (9, 8), seed) for seed in range(3)]))
    pixels = PixelFormat(16)
    members = tuple((index, survey.files[plane.file], plane) for index, plane in enumerate(survey.planes))
    (tmp_path / "one").touch()
    task = SqueezeTask(tmp_path / "one", members, pixels, choose_method(pixels, RICE), 0, Limits())
    written = keep_fragment(task, squeeze_planes(task))
    other = replace(task, fragment=tmp_path / "other")
    fetched = fetch_squeezed(other)
    assert not other.fragment.exists()
    kept = keep_fragment(other, fetched)
    assert other.fragment.read_bytes() == task.fragment.read_bytes() == fetched.heap
    assert [replace(item, file=None) for item in kept] == [replace(item, file=None) for item in written]


def test_a_frame_that_is_cut_is_a_fault_and_the_others_are_not(tmp_path: Path) -> None:
    paths = _write(tmp_path / "frames", [pixels_of("i2", (90, 80), seed) for seed in range(3)])
    survey = survey_of(paths)
    members = tuple((index, survey.files[plane.file], plane) for index, plane in enumerate(survey.planes))
    paths[1].write_bytes(paths[1].read_bytes()[:5760])
    (tmp_path / "one").touch()
    pixels = PixelFormat(16)
    task = SqueezeTask(tmp_path / "one", members, pixels, choose_method(pixels, RICE), 0, Limits())
    first, bad, last = squeeze_planes(task).results
    assert bad.path == paths[1]
    assert "changed" in bad.reason
    assert last.heap_offset == first.heap_size
    assert survey.planes[0].source == NAME
