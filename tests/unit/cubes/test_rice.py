"""Our RICE_1 gives the bytes that astropy and fpack give, and they get the pixels back."""

from __future__ import annotations

import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.fits.hdu.compressed._codecs import Rice1
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from nightglass.cubes.rice import BLOCK_PIXELS, rice_encode
from tests.unit.cubes.oracles import BITPIX, pixels_of

KINDS = ("u1", "i2", "i4")


def _theirs(tile: NDArray[Any]) -> bytes:
    """Compress by astropy's codec, which is the code of cfitsio."""
    return bytes(Rice1(blocksize=BLOCK_PIXELS, bytepix=tile.itemsize, tilesize=tile.size).encode(tile.reshape(-1)))


def _decoded(data: bytes, kind: str, size: int) -> NDArray[Any]:
    codec = Rice1(blocksize=BLOCK_PIXELS, bytepix=np.dtype(kind).itemsize, tilesize=size)
    return np.asarray(codec.decode(np.frombuffer(data, np.uint8)))[:size].astype(kind)


def _assert_same(tile: NDArray[Any]) -> None:
    ours = rice_encode(tile).tobytes()
    native = tile.astype(tile.dtype.newbyteorder("="))
    assert ours == _theirs(native)
    assert np.array_equal(_decoded(ours, native.dtype.str[1:], tile.size), native.reshape(-1))


def _kinds_of_pixels(kind: str) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(5)
    bounds = np.iinfo(kind)
    noise = rng.normal(100, 5, (30, 61))
    steps = rng.integers(0, 8, 4000) == 0
    return {
        "zeros": np.zeros((9, 33), kind),
        "lowest": np.full((9, 33), bounds.min, kind),
        "highest": np.full((9, 33), bounds.max, kind),
        "extremes in turn": np.where(np.arange(999) % 2, bounds.max, bounds.min).astype(kind),
        "random": pixels_of(kind, (50, 47)),
        "ramp": np.arange(3000).astype(kind),
        "noise": noise.astype(kind),
        "a star": np.where(rng.random((40, 40)) > 0.999, bounds.max, 90).astype(kind),
        "rare steps": np.cumsum(steps).astype(kind),
        "a cosmic ray in silence": np.eye(1, 320, 200, dtype=kind) * kind_max(kind),
    }


def kind_max(kind: str) -> Any:
    return np.dtype(kind).type(np.iinfo(kind).max)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_are_those_of_cfitsio(kind: str) -> None:
    for tile in _kinds_of_pixels(kind).values():
        _assert_same(tile)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 31, 32, 33, 63, 64, 65, 1023])
def test_widths_that_do_not_fill_blocks(kind: str, size: int) -> None:
    _assert_same(pixels_of(kind, (size,), size))
    _assert_same(np.full(size, 7, kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", range(0, 32, 3))
def test_noise_of_every_height(kind: str, bits: int) -> None:
    if bits >= 8 * np.dtype(kind).itemsize:
        pytest.skip("wider than a pixel")
    rng = np.random.default_rng(bits)
    _assert_same(rng.integers(0, 1 << bits, 2000, endpoint=True).astype(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_byte_order_and_layout_of_the_tile_do_not_matter(kind: str) -> None:
    tile = pixels_of(kind, (20, 30))
    wanted = rice_encode(tile).tobytes()
    assert rice_encode(tile.astype(tile.dtype.newbyteorder(">"))).tobytes() == wanted
    assert rice_encode(np.asfortranarray(tile)).tobytes() == wanted
    assert rice_encode(np.repeat(tile, 2, axis=1)[:, ::2]).tobytes() == wanted


@given(
    st.sampled_from(KINDS).flatmap(
        lambda kind: npst.arrays(kind, st.integers(1, 200), elements=npst.from_dtype(np.dtype(kind)))
    )
)
def test_any_pixels(tile: NDArray[Any]) -> None:
    _assert_same(tile)


@given(st.sampled_from(KINDS), st.integers(0, 2**31), st.integers(1, 400), st.floats(0, 40))
def test_any_noise(kind: str, seed: int, size: int, height: float) -> None:
    rng = np.random.default_rng(seed)
    bounds = np.iinfo(kind)
    values = rng.standard_cauchy(size) * 2.0**height
    _assert_same(np.clip(values, bounds.min, bounds.max).astype(np.int64).clip(bounds.min, bounds.max).astype(kind))


@pytest.mark.skipif(which("fpack") is None, reason="needs fpack")
@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4"])
def test_the_bytes_are_those_of_fpack(tmp_path: Path, kind: str) -> None:
    pixels = pixels_of(kind, (19, 53))
    pixels[4:12] = np.random.default_rng(1).normal(100, 6, (8, 53)).astype(kind)
    fits.PrimaryHDU(pixels).writeto(tmp_path / "frame.fits")
    subprocess.run(["fpack", "-r", "frame.fits"], cwd=tmp_path, check=True, capture_output=True)
    stored = np.empty(pixels.shape, f"{'u' if BITPIX[kind][0] == 8 else 'i'}{pixels.itemsize}")
    stored[...] = pixels.astype(np.int64) - int(BITPIX[kind][1])
    with fits.open(tmp_path / "frame.fits.fz", disable_image_compression=True) as hdus:
        assert hdus[1].header["ZCMPTYPE"] == "RICE_1"
        tiles = [bytes(cell) for cell in hdus[1].data["COMPRESSED_DATA"]]
    assert [rice_encode(row).tobytes() for row in stored] == tiles
