"""Conversion without loss against exact integers and against what astropy shows; planes of every encoding."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from nightglass.config import Limits
from nightglass.cubes.converting import PlaneReader, convert_pixels, is_moved, read_plane, stored_dtype
from nightglass.cubes.records import CubeRequest, Encoding, PixelFormat
from nightglass.cubes.scanning import scan_file
from nightglass.cubes.survey import survey_frames
from nightglass.errors import Rejected, Retryable

INTEGERS = {bitpix: np.iinfo(stored_dtype(bitpix)) for bitpix in (8, 16, 32, 64)}
OFFSETS = (0, 1, -128, 1 << 15, 1 << 31, 1 << 63)


@st.composite
def integer_pixels(draw):
    bitpix = draw(st.sampled_from(sorted(INTEGERS)))
    bounds = INTEGERS[bitpix]
    edges = st.sampled_from([int(bounds.min), int(bounds.max), 0, 1])
    values = draw(st.lists(st.integers(int(bounds.min), int(bounds.max)) | edges, min_size=1, max_size=9))
    blank = draw(st.none() | st.sampled_from(values) | edges)
    return PixelFormat(bitpix, 1.0, float(draw(st.sampled_from(OFFSETS))), blank), values


@given(integer_pixels(), st.sampled_from(sorted(INTEGERS)), st.sampled_from(OFFSETS), st.none() | st.integers(-3, 3))
def test_integers_stay_the_same_or_are_refused(stored, bitpix, zero, blank):
    source, values = stored
    if blank is not None and not INTEGERS[bitpix].min <= blank <= INTEGERS[bitpix].max:
        blank = None
    target = PixelFormat(bitpix, 1.0, float(zero), blank)
    wanted = [blank if value == source.blank else value + int(source.bzero) - int(target.bzero) for value in values]
    clash = any(
        number == blank is not None and value != source.blank for number, value in zip(wanted, values, strict=True)
    )
    fits_in = all(number is not None and INTEGERS[bitpix].min <= number <= INTEGERS[bitpix].max for number in wanted)
    pixels = np.array(values, stored_dtype(source.bitpix))
    if clash or not fits_in:
        with pytest.raises(Rejected, match="without loss"):
            convert_pixels(pixels, source, target)
    else:
        converted = convert_pixels(pixels, source, target)
        assert converted.dtype == stored_dtype(bitpix)
        assert [int(value) for value in converted] == wanted


@given(integer_pixels(), st.sampled_from([-32, -64]))
def test_integers_become_exact_floats_or_are_refused(stored, bitpix):
    source, values = stored
    target = PixelFormat(bitpix)
    kind = np.dtype(f"f{target.itemsize}").type
    wanted = [None if value == source.blank else value + int(source.bzero) for value in values]
    exact = all(number is None or int(kind(number)) == number for number in wanted)
    pixels = np.array(values, stored_dtype(source.bitpix))
    if not exact:
        with pytest.raises(Rejected, match="without loss"):
            convert_pixels(pixels, source, target)
        return
    converted = convert_pixels(pixels, source, target)
    assert converted.dtype == stored_dtype(bitpix)
    for got, number in zip(converted, wanted, strict=True):
        assert np.isnan(got) if number is None else int(got) == number


def test_floats_are_widened_with_their_nan_and_infinities():
    pixels = np.array([1.5, np.nan, np.inf, -np.inf, -0.0, 1e-45], ">f4")
    wide = convert_pixels(pixels, PixelFormat(-32), PixelFormat(-64))
    assert np.array_equal(wide, pixels.astype(">f8"), equal_nan=True)
    assert np.signbit(wide[4])


def test_floats_are_narrowed_only_without_loss():
    narrow = convert_pixels(np.array([0.5, np.nan], ">f8"), PixelFormat(-64), PixelFormat(-32))
    assert np.array_equal(narrow, np.array([0.5, np.nan], ">f4"), equal_nan=True)
    with pytest.raises(Rejected, match="more digits"):
        convert_pixels(np.array([0.1], ">f8"), PixelFormat(-64), PixelFormat(-32))


def test_floats_never_become_integers():
    with pytest.raises(Rejected, match="fractions"):
        convert_pixels(np.array([1.0], ">f4"), PixelFormat(-32), PixelFormat(32))


def test_scaled_integers_become_their_physical_values():
    pixels = np.array([[1, -5], [7, 300]], ">i2")
    source = PixelFormat(16, bscale=0.1, bzero=3.0, blank=7)
    converted = convert_pixels(pixels, source, PixelFormat(-64))
    assert np.array_equal(converted, [[0.1 * 1 + 3, 0.1 * -5 + 3], [np.nan, 0.1 * 300 + 3]], equal_nan=True)
    with pytest.raises(Rejected, match="scaling"):
        convert_pixels(pixels, source, PixelFormat(32))


def test_equal_scaling_is_kept():
    source, target = PixelFormat(16, 0.5, 3.25), PixelFormat(32, 0.5, 3.25)
    assert convert_pixels(np.array([-9], ">i2"), source, target).tolist() == [-9]


def test_what_is_moved():
    plain = PixelFormat(16, 1.0, 32768.0)
    assert is_moved(plain, plain)
    assert not is_moved(plain, PixelFormat(16))
    assert not is_moved(plain, PixelFormat(16, 1.0, 32768.0, blank=-32768))
    assert not is_moved(PixelFormat(16, 1.0, 32768.0, blank=0), plain)
    assert is_moved(PixelFormat(-32, blank=3), PixelFormat(-32))


def test_more_pixels_than_are_converted_at_a_time():
    pixels = np.arange(200_000, dtype=">i4").reshape(400, 500)
    assert np.array_equal(convert_pixels(pixels, PixelFormat(32), PixelFormat(64)), pixels)


def survey_of(path: Path):
    return survey_frames(CubeRequest(paths=(path,), out=path.with_name("cube.fits")), Limits())


CUBE = np.random.default_rng(1).integers(-3000, 3000, (5, 13, 17)).astype(np.int16)


@pytest.mark.parametrize("packing", ["plain", "gzip", "rice", "gzip_2", "plio", "hcompress", "across"])
def test_planes_of_every_encoding(tmp_path, packing):
    path = tmp_path / "frame.fits"
    cube = np.abs(CUBE) if packing == "plio" else CUBE
    options = {
        "rice": {"compression_type": "RICE_1"},
        "gzip_2": {"compression_type": "GZIP_2", "tile_shape": (1, 5, 17)},
        "plio": {"compression_type": "PLIO_1"},
        "hcompress": {"compression_type": "HCOMPRESS_1", "tile_shape": (1, 13, 17)},
        "across": {"compression_type": "GZIP_1", "tile_shape": (2, 4, 17)},
    }
    hdu = fits.CompImageHDU(cube, **options[packing]) if packing in options else fits.ImageHDU(cube)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    if packing == "gzip":
        with path.open("rb") as stream, gzip.open(tmp_path / "frame.fits.gz", "wb") as out:
            shutil.copyfileobj(stream, out)
        path = tmp_path / "frame.fits.gz"
    survey = survey_of(path)
    assert {plane.encoding for plane in survey.planes} == {
        {"plain": Encoding.PLAIN, "gzip": Encoding.GZIP}.get(packing, Encoding.TILES)
    }
    with PlaneReader(Limits()) as reader:
        for number in (0, 1, 4, 2):  # a gzip stream has to go back for the last
            pixels = reader.read(survey.files[0], survey.planes[number])
            assert pixels.dtype == ">i2"
            assert np.array_equal(pixels, cube[number])
    assert np.array_equal(read_plane(survey.files[0], survey.planes[3]), cube[3])


def test_unsigned_pixels_stay_as_they_are_stored(tmp_path):
    pixels = np.array([[0, 65535], [32768, 7]], np.uint16)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels)]).writeto(tmp_path / "a.fits")
    survey = survey_of(tmp_path / "a.fits")
    assert survey.planes[0].format.bzero == 32768
    assert np.array_equal(read_plane(survey.files[0], survey.planes[0]), (pixels.astype(int) - 32768).astype(">i2"))


def test_quantised_floats_are_what_astropy_reads(tmp_path):
    pixels = np.random.default_rng(2).normal(100, 5, (20, 30)).astype(np.float32)
    pixels[3, 4] = np.nan
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels, quantize_method=2, dither_seed=7)]).writeto(
        tmp_path / "a.fits"
    )
    survey = survey_of(tmp_path / "a.fits")
    wanted = fits.getdata(tmp_path / "a.fits", 1)
    assert np.array_equal(read_plane(survey.files[0], survey.planes[0]), wanted, equal_nan=True)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_was_cut_is_named(tmp_path, packed):
    path = tmp_path / "cut.fits"
    fits.writeto(path, CUBE)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    survey = survey_of(path)
    path.write_bytes(path.read_bytes()[: 400 if packed else 2880 + 100])
    with pytest.raises(Retryable, match=r"cut\.fits"):
        read_plane(survey.files[0], survey.planes[-1])


def test_a_damaged_heap_is_named(tmp_path):
    path = tmp_path / "damaged.fits"
    noise = np.random.default_rng(5).integers(0, 60000, (64, 64)).astype(np.uint16)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(noise, compression_type="GZIP_1")]).writeto(path)
    plane = survey_of(path).planes[0]
    data = bytearray(path.read_bytes())
    data[plane.tiles.heap_offset : plane.tiles.heap_offset + 600] = bytes(600)
    path.write_bytes(data)
    with pytest.raises(Rejected, match=r"damaged\.fits.*cannot be decompressed"):
        read_plane(scan_file(path, Limits()), plane)


def test_a_file_that_is_gone_is_named(tmp_path):
    path = tmp_path / "gone.fits"
    fits.writeto(path, CUBE)
    survey = survey_of(path)
    path.unlink()
    with pytest.raises(Retryable, match=r"gone\.fits"):
        read_plane(survey.files[0], survey.planes[0])
