"""A frame whose bytes are not those of its DATASUM is named and left out, however it and the cube are stored."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.cubes import assemble_cube
from nightglass.cubes.records import Compression
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
