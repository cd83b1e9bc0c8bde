from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nightglass.config import Camera, Limits
from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.fitsio import read_raw
from nightglass.model import DQ

TYPES = ["u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"]


def camera(detectors: Sequence[dict[str, Any]] = (), **values: Any) -> Camera:
    return Camera.model_validate({"name": "test", "steps": {}, "detectors": list(detectors)} | values)


def pixels_of(kind: str, shape: tuple[int, int] = (31, 47)) -> NDArray[Any]:
    rng = np.random.default_rng(5)
    if kind[0] == "f":
        return rng.normal(100, 20, shape).astype(kind)
    limit = np.iinfo(kind)
    return rng.integers(limit.min, limit.max, shape, dtype=kind, endpoint=True)


@pytest.mark.parametrize("kind", TYPES)
def test_every_pixel_type(tmp_path: Path, limits: Limits, kind: str) -> None:
    expected = pixels_of(kind)
    fits.PrimaryHDU(expected).writeto(tmp_path / "a.fits")
    (image,) = read_raw(tmp_path / "a.fits", camera(), limits)
    assert image.data.dtype == np.dtype("=f4")
    assert image.data.flags.c_contiguous
    np.testing.assert_array_equal(image.data, expected.astype(np.float32))
    assert not image.mask.any()
    assert not image.variance.any()


@pytest.mark.parametrize("algorithm", ["rice", "gzip", "gzip_2", "hcompress", "plio"])
@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4"])
def test_pixels_that_cfitsio_compressed(tmp_path: Path, limits: Limits, algorithm: str, kind: str) -> None:
    path = tmp_path / "a.fits.fz"
    pixels = np.zeros((64, 80), kind)  # patches: PLIO is for masks, and noise crashes cfitsio
    pixels[10:30, 5:40] = np.iinfo(kind).max if kind[0] == "u" else 30000
    pixels[40:50, 20:70] = 123
    fitsio.write(path, pixels, compress=algorithm)
    (image,) = read_raw(path, camera(), limits)
    np.testing.assert_array_equal(image.data, pixels.astype(np.float32))


def test_quantised_floats_are_those_that_cfitsio_reads(tmp_path: Path, limits: Limits) -> None:
    path = tmp_path / "a.fits.fz"
    pixels = pixels_of("f4", (64, 80))
    pixels[3, 4] = np.nan
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels, quantize_method=1)]).writeto(path)
    (image,) = read_raw(path, camera(), limits)
    expected = fitsio.read(path, ext=1)
    assert np.isnan(expected[3, 4])
    assert (image.data[3, 4], image.mask[3, 4]) == (0, DQ.BAD)
    expected[3, 4] = 0
    np.testing.assert_array_equal(image.data, expected)


@pytest.mark.skipif(shutil.which("fpack") is None, reason="fpack is not installed")
def test_fpacked_frames_read_as_the_plain_ones(tmp_path: Path, limits: Limits) -> None:
    plain = tmp_path / "a.fits"
    header = fits.Header([("EXPTIME", 12.5), ("DATASEC", "[1:40,1:31]"), ("BIASSEC", "[41:47,1:31]")])
    fits.PrimaryHDU(pixels_of("u2"), header).writeto(plain)
    subprocess.run(["fpack", str(plain)], check=True)
    for this in (camera(), camera([{"name": "ccd1", "hdu": 0}])):
        (one,), (other,) = (read_raw(path, this, limits) for path in (plain, tmp_path / "a.fits.fz"))
        np.testing.assert_array_equal(one.data, other.data)
        assert (one.detector, one.amplifiers, one.exposure_time_s) == (
            other.detector,
            other.amplifiers,
            other.exposure_time_s,
        )
        other.header.remove("COMMENT", ignore_missing=True, remove_all=True)  # fpack adds some
        assert one.header.tostring() == other.header.tostring()


def test_scaled_blank_and_not_finite_pixels(tmp_path: Path, limits: Limits) -> None:
    stored = np.array([[1, 2, -99], [4, 5, 6]], np.int16)
    hdu = fits.PrimaryHDU(stored)
    hdu.header["BLANK"] = -99
    hdu.header["BSCALE"] = 0.5
    hdu.header["BZERO"] = 10.0
    path = tmp_path / "a.fits"
    path.write_bytes((hdu.header.tostring()).encode() + stored.astype(">i2").tobytes().ljust(2880, b"\0"))
    (image,) = read_raw(path, camera(), limits)
    np.testing.assert_array_equal(image.data, [[10.5, 11, 0], [12, 12.5, 13]])
    np.testing.assert_array_equal(image.mask, [[0, 0, DQ.BAD], [0, 0, 0]])
    fits.PrimaryHDU(np.array([[np.inf, 1e300], [np.nan, 3]])).writeto(tmp_path / "b.fits")
    (image,) = read_raw(tmp_path / "b.fits", camera(), limits)
    np.testing.assert_array_equal(image.data, [[0, 0], [0, 3]])
    np.testing.assert_array_equal(image.mask, [[DQ.BAD, DQ.BAD], [DQ.BAD, 0]])


def test_gzip_is_read_like_the_plain_file(tmp_path: Path, limits: Limits) -> None:
    path = tmp_path / "a.fits"
    fits.HDUList(
        [fits.PrimaryHDU(), fits.ImageHDU(pixels_of("u2"), name="A"), fits.CompImageHDU(pixels_of("i4"), name="B")]
    ).writeto(path)
    packed = tmp_path / "b.fits"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for one, other in zip(read_raw(path, camera(), limits), read_raw(packed, camera(), limits), strict=True):
        np.testing.assert_array_equal(one.data, other.data)
        assert one.detector == other.detector


def test_sections_and_constants_come_from_the_header(tmp_path: Path, limits: Limits) -> None:
    header = fits.Header(
        [("DATASEC", "[3:40,1:31]"), ("BIASSEC", "[41:47,1:31]"), ("GAIN", 2.5), ("RDNOISE", 7), ("SATURATE", 5e4)]
    )
    fits.PrimaryHDU(pixels_of("u2"), header).writeto(tmp_path / "a.fits")
    (image,) = read_raw(tmp_path / "a.fits", camera(), limits)
    (view,) = image.amplifiers
    assert (view.data, view.overscan) == ((slice(0, 31), slice(2, 40)), (slice(0, 31), slice(40, 47)))
    assert view.place == (slice(0, 31), slice(0, 38))
    assert (view.gain, view.read_noise, view.saturation) == (2.5, 7, 5e4)
    amplifier = {"data": "[1:10,1:31]", "gain": 3.0, "read_noise": 0.0, "saturation": 100.0}
    (image,) = read_raw(tmp_path / "a.fits", camera([{"name": "x", "amplifiers": [amplifier]}]), limits)
    (view,) = image.amplifiers
    assert (view.data[1], view.overscan, view.gain, view.read_noise, view.saturation) == (slice(0, 10), None, 3, 0, 100)


def test_sections_of_another_frame_are_not_used(tmp_path: Path, limits: Limits) -> None:
    """Crops keep the sections of the frame that they were cut from."""
    fits.PrimaryHDU(pixels_of("u2"), fits.Header([("DATASEC", "[1:4096,1:4096]")])).writeto(tmp_path / "a.fits")
    (image,) = read_raw(tmp_path / "a.fits", camera(), limits)
    assert image.amplifiers[0].data == (slice(0, 31), slice(0, 47))
    assert "DATASEC" in image.history[0].note
    stated = camera([{"name": "x", "amplifiers": [{"data": "[1:4096,1:4096]"}]}])
    with pytest.raises(Rejected, match="does not fit a frame of 47x31"):
        read_raw(tmp_path / "a.fits", stated, limits)


def test_amplifiers_of_one_hdu_close_up(tmp_path: Path, limits: Limits) -> None:
    """Columns: 10 data, 2 overscan, 10 data, 2 overscan; the lower half has amplifiers of its own."""
    fits.PrimaryHDU(pixels_of("u2", (20, 24))).writeto(tmp_path / "a.fits")
    sections = [
        ("[1:10,1:10]", "[11:12,1:10]"),
        ("[13:22,1:10]", "[23:24,1:10]"),
        ("[1:10,11:20]", None),
        ("[13:22,11:20]", None),
    ]
    amplifiers = [{"data": data, "overscan": overscan} for data, overscan in sections]
    (image,) = read_raw(tmp_path / "a.fits", camera([{"name": "x", "amplifiers": amplifiers}]), limits)
    assert [view.place for view in image.amplifiers] == [
        (slice(rows, rows + 10), slice(columns, columns + 10)) for rows in (0, 10) for columns in (0, 10)
    ]


def write_amplifiers(path: Path, quarters: Sequence[NDArray[Any]], **cards: Sequence[str]) -> None:
    hdus: list[Any] = [fits.PrimaryHDU()]
    for number, quarter in enumerate(quarters):
        header = fits.Header([(keyword, values[number]) for keyword, values in cards.items()])
        hdus.append(fits.ImageHDU(quarter, header, name=f"AMP{number}"))
    fits.HDUList(hdus).writeto(path)


def test_amplifiers_in_hdus_of_their_own_are_put_together(tmp_path: Path, limits: Limits) -> None:
    """As in LSST files: read-out directions differ, DETSEC runs backwards where the HDU is mirrored."""
    whole = np.arange(200, dtype=np.float32).reshape(10, 20)
    halves = [whole[:, :10], whole[::-1, :9:-1]]
    write_amplifiers(tmp_path / "a.fits", halves, DETSEC=["[101:110,1:10]", "[120:111,10:1]"])
    this = camera([{"name": "x", "amplifiers": [{"hdu": "AMP0"}, {"hdu": "AMP1"}]}])
    (image,) = read_raw(tmp_path / "a.fits", this, limits)
    np.testing.assert_array_equal(image.data, whole)
    assert [view.place[1] for view in image.amplifiers] == [slice(0, 10), slice(10, 20)]
    assert not image.mask.any()


def test_amplifiers_with_overscan_stand_below_one_another_until_they_are_trimmed(
    tmp_path: Path, limits: Limits
) -> None:
    whole = np.arange(200, dtype=np.float32).reshape(10, 20)
    overscan = np.full((10, 3), 7, np.float32)
    parts = [np.hstack([whole[:, :10], overscan]), np.hstack([whole[:, 10:], overscan])[:, ::-1]]
    write_amplifiers(tmp_path / "a.fits", parts)
    amplifiers = [
        {"hdu": 1, "data": "[1:10,1:10]", "overscan": "[11:13,1:10]", "place": "[1:10,1:10]"},
        {"hdu": 2, "data": "[4:13,1:10]", "overscan": "[1:3,1:10]", "place": "[20:11,1:10]"},
    ]
    (image,) = read_raw(tmp_path / "a.fits", camera([{"name": "x", "amplifiers": amplifiers}]), limits)
    trimmed = np.zeros((10, 20), np.float32)
    for view in image.amplifiers:
        trimmed[view.place] = image.data[view.data]
        assert view.overscan is not None
        assert (image.data[view.overscan] == 7).all()
    np.testing.assert_array_equal(trimmed, whole)


def test_several_detectors_and_their_names(tmp_path: Path, limits: Limits) -> None:
    path = tmp_path / "a.fits"
    primary = fits.PrimaryHDU(header=fits.Header([("OBJECT", "M 1"), ("EXPTIME", 4.0), ("NOTE", "primary")]))
    extensions = [
        fits.ImageHDU(pixels_of("u2"), fits.Header([("NOTE", "own")]), name=name, ver=ver)
        for name, ver in (("A", 1), ("SCI", 1), ("SCI", 2))
    ]
    fits.HDUList([primary, *extensions]).writeto(path)
    images = read_raw(path, camera(), limits)
    assert [image.detector for image in images] == ["A", "SCI-1", "SCI-2"]
    assert [image.header["OBJECT"] for image in images] == ["M 1"] * 3
    assert [image.header["NOTE"] for image in images] == ["own"] * 3
    assert {image.exposure_time_s for image in images} == {4.0}
    assert not {"BITPIX", "NAXIS", "BZERO", "EXTNAME"} & set(images[0].header)
    (image,) = read_raw(path, camera([{"name": "second", "hdu": "SCI"}]), limits)
    assert image.detector == "second"
    with pytest.raises(Rejected, match="'B', which is not there; HDUs: 0, A, SCI, SCI"):
        read_raw(path, camera([{"name": "x", "hdu": "B"}]), limits)
    with pytest.raises(Rejected, match="should be in HDU 0, which is empty"):
        read_raw(path, camera([{"name": "x", "hdu": 0}]), limits)


def test_one_plane_of_many_axes_is_squeezed(tmp_path: Path, limits: Limits) -> None:
    fits.PrimaryHDU(np.ones((1, 1, 5, 6), np.int16)).writeto(tmp_path / "a.fits")
    assert read_raw(tmp_path / "a.fits", camera(), limits)[0].data.shape == (5, 6)
    fits.PrimaryHDU(np.ones((2, 5, 6), np.int16)).writeto(tmp_path / "b.fits")
    with pytest.raises(Rejected, match=r"HDU 0 is an image of 3 axes \(6x5x2\)"):
        read_raw(tmp_path / "b.fits", camera(), limits)


def test_size_is_judged_before_pixels_are_read(tmp_path: Path) -> None:
    """A sparse file of 8 GiB, and a compressed image that only claims to be large."""
    path = tmp_path / "a.fits"
    header = fits.PrimaryHDU(np.zeros((2, 2), np.int16)).header
    header["NAXIS1"] = header["NAXIS2"] = 1 << 16
    with path.open("wb") as stream:
        stream.write(header.tostring().encode())
        stream.truncate(2880 + (1 << 33))
    with pytest.raises(Rejected, match="take 16384 MiB, more than 100 MiB"):
        read_raw(path, camera(), Limits(image_mib=100))
    hdu = fits.CompImageHDU(np.zeros((20, 20), np.int32))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "b.fits")
    content = (tmp_path / "b.fits").read_bytes()
    for old, new in ((b"ZNAXIS1 =                   20", b"ZNAXIS1 =               200000"),):
        assert old in content
        content = content.replace(old, new)
    (tmp_path / "b.fits").write_bytes(content)
    with pytest.raises(Rejected, match="rows for"):
        read_raw(tmp_path / "b.fits", camera(), Limits(image_mib=100))


@pytest.mark.parametrize(("keyword", "value"), [("BSCALE", "0"), ("BSCALE", "'x'"), ("BZERO", "1E999")])
def test_scales_that_make_no_sense(tmp_path: Path, limits: Limits, keyword: str, value: str) -> None:
    text = fits.PrimaryHDU(np.zeros((2, 2), np.int16)).header.tostring(padding=False)[:-80]
    text += f"{keyword:<8}= {value}".ljust(80) + "END".ljust(80)
    (tmp_path / "a.fits").write_bytes(text.ljust(2880).encode() + bytes(2880))
    with pytest.raises(Rejected, match=f"{keyword} of HDU 0"):
        read_raw(tmp_path / "a.fits", camera(), limits)


def test_a_section_that_is_none_is_a_fault_of_the_camera_file(tmp_path: Path, limits: Limits) -> None:
    fits.PrimaryHDU(pixels_of("u2")).writeto(tmp_path / "a.fits")
    this = camera([{"name": "x", "amplifiers": [{"data": "[0:4,1:4]"}]}])
    with pytest.raises(Misconfigured, match="counted from 1"):
        read_raw(tmp_path / "a.fits", this, limits)


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    directory = tmp_path_factory.mktemp("victims")
    fits.PrimaryHDU(pixels_of("u2", (8, 9)), fits.Header([("EXPTIME", 1.0), ("LONG", "x" * 100)])).writeto(
        directory / "a"
    )
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(pixels_of("f4", (8, 9)), name="A")]).writeto(directory / "b")
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels_of("i2", (16, 16)), compression_type="GZIP_1")]).writeto(
        directory / "c"
    )
    plain = [(directory / name).read_bytes() for name in "abc"]
    return [*plain, gzip.compress(plain[0])]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_damage_ends_in_pixels_or_in_one_error_of_ours(
    data: st.DataObject, victims: list[bytes], tmp_path: Path
) -> None:
    content = bytearray(data.draw(st.sampled_from(victims)))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        patch = data.draw(
            st.binary(min_size=1, max_size=12) | st.sampled_from([b"= -1", b"'", b"99999999", b"END     "])
        )
        content[place : place + len(patch)] = patch
    path = tmp_path / "damaged.fits"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        images = read_raw(path, camera(), Limits(image_mib=8))
    except (Rejected, Retryable) as error:
        said = error.message
    else:
        said = str(path) if all(np.isfinite(image.data).all() for image in images) else "not finite"
    assert str(path) in said
