"""Frames as files: judged by astropy, fitsio, fitsverify and funpack."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from shutil import which

import fitsio
import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from nightglass.builder.cards import HeaderRules
from nightglass.builder.writing import write_arrays, write_frame
from nightglass.errors import Rejected, Retryable
from tests.unit.builder.making import extension, noise, record_of, verified

PRIMARY = fits.Header([("EXTNAME", "PRIMARY"), ("EXPID", 70965, "exposure number"), ("FRAME", 3)])
KINDS = ("u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8")


@pytest.mark.parametrize("compress", [False, True])
def test_every_type_of_pixel_comes_back(tmp_path: Path, *, compress: bool) -> None:
    pixels = {f"E_{kind.upper()}": noise((70, 33), 1, kind=kind) for kind in KINDS}
    records = [extension(tmp_path / "spool", name, data, {"GAIN": 1.5}) for name, data in pixels.items()]
    path = write_frame(records, PRIMARY, tmp_path / "out" / "frame.fits", compress=compress)
    verified(path)
    with fits.open(path) as hdus, fitsio.FITS(str(path)) as others:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", *pixels]
        assert (hdus[0].header["EXPID"], hdus[0].header["FRAME"]) == (70965, 3)
        for name, data in pixels.items():
            assert np.array_equal(hdus[name].data, data), name
            assert hdus[name].header["GAIN"] == 1.5
            assert isinstance(hdus[name], fits.CompImageHDU) is (compress and name != "E_I8")
            assert np.array_equal(others[name].read(), data), name
    assert [item.name for item in path.parent.iterdir()] == ["frame.fits"]


@pytest.mark.skipif(which("funpack") is None, reason="needs funpack")
def test_funpack_gives_the_frame_back(tmp_path: Path) -> None:
    data = {name: noise((300, 257), seed) for seed, name in enumerate(("GUIDE0", "GUIDE2"))}
    records = [extension(tmp_path, name, pixels) for name, pixels in data.items()]
    packed = write_frame(records, PRIMARY, tmp_path / "frame.fits.fz", compress=True)
    subprocess.run(["funpack", "-O", str(tmp_path / "back.fits"), str(packed)], check=True)
    with fits.open(tmp_path / "back.fits", checksum=True) as hdus:
        for name, pixels in data.items():
            assert np.array_equal(hdus[name].data, pixels)


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 80)),
    planes=st.sampled_from([0, 1, 3]),
    kind=st.sampled_from(KINDS),
    compress=st.booleans(),
    seed=st.integers(0, 5),
)
def test_whatever_is_pushed_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int],
    planes: int,
    kind: str,
    compress: bool,
    seed: int,
) -> None:
    place = tmp_path_factory.mktemp("any")
    data = noise((planes, *shape) if planes else shape, seed, kind=kind)
    path = write_frame([extension(place, "A", data)], PRIMARY, place / "frame.fits", compress=compress)
    with fits.open(path, checksum=True) as hdus:
        assert np.array_equal(hdus["A"].data, data)


def test_tiles_that_come_compressed_are_copied(tmp_path: Path) -> None:
    data = noise((64, 50), kind="i4")
    record = extension(tmp_path, "GUIDE0", data, {"STMPTIME": 0.25}, compressed="RICE_1")
    for compress in (False, True):
        path = write_frame([record], PRIMARY, tmp_path / f"{compress}.fits", compress=compress)
        verified(path)
        came = record.path.read_bytes()[record.data_offset : record.data_offset + record.data_size]
        assert came in path.read_bytes()
        with fits.open(path) as hdus:
            assert np.array_equal(hdus["GUIDE0"].data, data)
            assert hdus["GUIDE0"].header["STMPTIME"] == 0.25


def test_integers_of_64_bits_stay_as_they_are_for_nobody_else_unpacks_them(tmp_path: Path) -> None:
    data = noise((64, 50), kind="i8")
    records = [extension(tmp_path, "WIDE", data), extension(tmp_path, "GUIDE0", noise((64, 50), kind="f8"))]
    path = write_frame(records, PRIMARY, tmp_path / "frame.fits.fz", compress=True)
    verified(path)
    with fits.open(path, disable_image_compression=True) as hdus:
        assert [hdu.header.get("ZCMPTYPE") for hdu in hdus[1:]] == [None, "GZIP_2"]
    if which("funpack") is None:
        pytest.skip("needs funpack")
    subprocess.run(["funpack", "-O", str(tmp_path / "ours.fits"), str(path)], check=True)
    assert np.array_equal(fits.getdata(tmp_path / "ours.fits", "WIDE"), data)


def test_tables_and_headers_without_data_are_extensions_too(tmp_path: Path) -> None:
    columns = [fits.Column("ROI", "J", array=[1, 2]), fits.Column("NAME", "8A", array=["a", "b"], unit="none")]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(tmp_path / "PMGSTARS.fits")
    records = [
        record_of(tmp_path / "PMGSTARS.fits", "PMGSTARS"),
        extension(tmp_path, "TEMPS", None, {"TRUSTEMP": 12.4}),
    ]
    path = write_frame(records, PRIMARY, tmp_path / "frame.fits", compress=True)
    verified(path)
    with fits.open(path) as hdus:
        assert hdus["PMGSTARS"].data["ROI"].tolist() == [1, 2]
        assert hdus["PMGSTARS"].data["NAME"].tolist() == ["a", "b"]
        assert hdus["TEMPS"].header["TRUSTEMP"] == 12.4


def test_cards_that_came_beside_the_body_go_over_it_and_control_words_are_left_out(tmp_path: Path) -> None:
    header = {"GAIN": 1.5, "SEND_TO": "somebody", "SEND_ARGS": 1, "FRAME": 7, "SECRET": 1, "SECRET2": 2}
    later = "\n".join(["GAIN    =                  2.5", "NAXIS1  =                    1"])
    record = extension(tmp_path, "A", noise((4, 4)), header, cards=later)
    rules = HeaderRules(exclude=("SECRET*",))
    path = write_frame([record], PRIMARY, tmp_path / "frame.fits", rules=rules)
    verified(path)
    with fits.open(path) as hdus:
        made = hdus["A"].header
        assert (made["GAIN"], made["NAXIS1"]) == (2.5, 4)
        assert not {"SEND_TO", "SEND_ARGS", "FRAME", "SECRET", "SECRET2"} & set(made)


def test_another_file_is_not_replaced_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "frame.fits"
    first = [extension(tmp_path / "1", "A", noise((8, 8), 1))]
    other = [extension(tmp_path / "2", "A", noise((8, 8), 2))]
    write_frame(first, PRIMARY, path)
    before = path.read_bytes()
    write_frame(first, PRIMARY, path)  # the same again is no harm
    with pytest.raises(Rejected, match="is there already"):
        write_frame(other, PRIMARY, path)
    assert path.read_bytes() == before
    write_frame(other, PRIMARY, path, replace=(path,))
    assert path.read_bytes() != before
    write_frame(first, PRIMARY, path, overwrite=True)
    assert path.read_bytes() == before


def test_the_same_frame_gives_the_same_bytes(tmp_path: Path) -> None:
    records = [extension(tmp_path, name, noise((40, 40), kind=kind)) for name, kind in (("A", "u2"), ("B", "f4"))]
    one, two = (
        write_frame(records, PRIMARY, tmp_path / name, compress=True, threads=n) for n, name in ((1, "1"), (3, "2"))
    )
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("compress", [False, True])
def test_a_damaged_or_lost_extension_leaves_no_file(tmp_path: Path, *, compress: bool) -> None:
    record = extension(tmp_path, "A", noise((64, 64)))
    with record.path.open("r+b") as stream:
        stream.truncate(record.data_offset + 100)
    with pytest.raises((Rejected, Retryable), match=r"A\.fits"):
        write_frame([record], PRIMARY, tmp_path / "out" / "frame.fits", compress=compress)
    gone = dataclasses.replace(record, path=tmp_path / "gone.fits")
    with pytest.raises(Retryable, match=r"gone\.fits"):
        write_frame([gone], PRIMARY, tmp_path / "out" / "frame.fits", compress=compress)
    assert list((tmp_path / "out").iterdir()) == []


def test_arrays_are_written_like_frames(tmp_path: Path) -> None:
    stored = (noise((5, 6), kind="u2").astype("i4") - 32768).astype(">i2")
    images = [
        ("A", stored, fits.Header([("BZERO", 32768), ("GAIN", 2.0)])),
        ("B", noise((3, 3), kind="f4"), fits.Header()),
    ]
    path = write_arrays(images, PRIMARY, tmp_path / "arrays.fits")
    verified(path)
    with fits.open(path) as hdus:
        assert np.array_equal(hdus["A"].data, noise((5, 6), kind="u2"))
        assert hdus["A"].header["GAIN"] == 2.0
