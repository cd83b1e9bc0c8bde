"""A frame whose bytes are not those of its DATASUM is named and left out, however it and the cube are stored."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.cubes import assemble_cube
from nightglass.cubes.records import Compression
from nightglass.fitsio.checksums import sum_bytes
from nightglass.pool import SerialPool
from tests.unit.cubes.oracles import assert_planes, assert_sound, pixels_of, request_of

COMPRESSIONS = {"plain": None, "rice": Compression(), "gzip": Compression(algorithm="gzip")}


def _write(directory: Path, packing: str, number: int) -> Path:
    path = directory / f"{number}.fits"
    pixels = pixels_of("i2", (40, 50), number) // 512
    header = fits.Header([("FRAME", number)])
    if packing == "tiles":
        image = fits.CompImageHDU(pixels, header, name="SCIENCE0", compression_type="RICE_1", tile_shape=(1, 50))
        fits.HDUList([fits.PrimaryHDU(), image]).writeto(path, checksum=True)
    else:
        fits.PrimaryHDU(pixels, header).writeto(path, checksum=True)
    return path


def _spoil(path: Path) -> None:
    """Change one bit of the last pixels."""
    content = bytearray(path.read_bytes())
    place = len(bytes(content).rstrip(b"\0")) - 20
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("packing", ["plain", "gzip", "tiles"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_frame_with_another_sum_is_left_out(tmp_path: Path, packing: str, compression: str) -> None:
    paths = [_write(tmp_path, packing, number) for number in range(4)]
    _spoil(paths[2])
    if packing == "gzip":
        for path in paths:
            path.write_bytes(gzip.compress(path.read_bytes()))
    request = request_of(paths, compression=COMPRESSIONS[compression], durable=False)
    cube = assemble_cube(request, pool=SerialPool())
    (problem,) = cube.problems
    assert problem.path == paths[2]
    assert "DATASUM" in problem.reason
    assert cube.frames == 3
    assert_sound(cube.path)
    assert_planes(cube.path, "SCIENCE0", [pixels_of("i2", (40, 50), number) // 512 for number in (0, 1, 3)])
    with fits.open(cube.path) as hdus:
        assert np.array_equal(hdus["SCIENCE0T"].data["FRAME"], [0, 1, 3])
        assert any("DATASUM" in reason for reason in hdus["GAPS"].data["REASON"])


def _with_more_heap(path: Path) -> int:
    """Let the heap of a compressed frame end with a block that no descriptor points to; return where that begins."""
    with fits.open(path, disable_image_compression=True) as hdus:
        header, place = hdus[1].header, hdus[1].fileinfo()
    whole = path.read_bytes()
    data = whole[place["datLoc"] : place["datLoc"] + header["NAXIS1"] * header["NAXIS2"] + header["PCOUNT"]]
    data += bytes(range(1, 201)) + bytes(-(len(data) + 200) % 2880)
    header["PCOUNT"] = len(data) - header["NAXIS1"] * header["NAXIS2"]
    header["DATASUM"] = str(sum_bytes(data))
    header.remove("CHECKSUM")
    path.write_bytes(whole[: place["hdrLoc"]] + header.tostring().encode() + data)
    return path.read_bytes().index(bytes(range(1, 201)))


@pytest.mark.parametrize("spoilt", ["nothing", "what is not moved", "the table", "the heap"])
def test_a_heap_that_is_not_moved_whole_is_checked_nevertheless(tmp_path: Path, spoilt: str) -> None:
    paths = [_write(tmp_path, "tiles", number) for number in range(3)]
    places = [_with_more_heap(path) for path in paths]
    if spoilt == "what is not moved":
        content = bytearray(paths[1].read_bytes())
        content[places[1] + 100] ^= 1
        paths[1].write_bytes(content)
    elif spoilt == "the heap":
        content = bytearray(paths[1].read_bytes())
        content[places[1] - 20] ^= 1
        paths[1].write_bytes(content)
    elif spoilt == "the table":
        _shorten_last_cell(paths[1])
    cube = assemble_cube(request_of(paths, compression=Compression(), durable=False), pool=SerialPool())
    assert [problem.path for problem in cube.problems] == ([] if spoilt == "nothing" else [paths[1]])
    assert all("DATASUM" in problem.reason for problem in cube.problems)


def test_a_damaged_table_is_found_while_its_heap_is_moved(tmp_path: Path) -> None:
    """The descriptors of the first tiles share their bytes, so that all the heap is moved as before."""
    paths = [_write(tmp_path, "tiles", number) for number in range(3)]
    with fits.open(paths[1], disable_image_compression=True) as hdus:
        start = hdus[1].fileinfo()["datLoc"]
    content = bytearray(paths[1].read_bytes())
    content[start + 3] += 1  # the first tile takes a byte of the second one with it
    paths[1].write_bytes(content)
    cube = assemble_cube(request_of(paths, compression=Compression(), durable=False), pool=SerialPool())
    (problem,) = cube.problems
    assert problem.path == paths[1]
    assert "DATASUM of HDU 1" in problem.reason


def _shorten_last_cell(path: Path) -> None:
    with fits.open(path, disable_image_compression=True) as hdus:
        header, start = hdus[1].header, hdus[1].fileinfo()["datLoc"]
    last = start + header["NAXIS1"] * (header["NAXIS2"] - 1)
    content = bytearray(path.read_bytes())
    content[last + 3] -= 1
    path.write_bytes(content)
