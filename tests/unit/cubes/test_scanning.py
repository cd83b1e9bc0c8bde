from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightglass.config import Limits
from nightglass.cubes.records import FrameFile, Problem
from nightglass.cubes.scanning import scan_file, scan_files
from nightglass.errors import Rejected, Retryable
from nightglass.fitsio import scan_headers

LIMITS = Limits.model_validate({})


def several(path: Path) -> Path:
    header = fits.Header([(f"KEY{number}", number) for number in range(90)])
    table = fits.BinTableHDU.from_columns([fits.Column("a", "PE()", array=[np.zeros(5), np.zeros(900)])])
    pixels = np.arange(77 * 11, dtype=np.int16).reshape(11, 77)
    fits.HDUList(
        [
            fits.PrimaryHDU(pixels, header),
            table,
            fits.ImageHDU(),
            fits.CompImageHDU(pixels.astype(np.int32), name="C"),
            fits.ImageHDU(np.zeros((2, 3, 4), np.float64), header, name="D"),
        ]
    ).writeto(path)
    return path


def check_like_slow_scan(path: Path, found: FrameFile) -> None:
    expected = scan_headers(path, LIMITS)
    assert [(hdu.data_offset, hdu.data_size) for hdu in found.hdus] == [
        (info.data_offset, info.data_size) for info in expected
    ]
    assert [len(hdu.text) for hdu in found.hdus] == [info.data_offset - info.header_offset for info in expected]


def test_hdus_of_every_kind(tmp_path: Path) -> None:
    path = several(tmp_path / "a.fits")
    found = scan_file(path, LIMITS)
    check_like_slow_scan(path, found)
    raw = path.read_bytes()
    for hdu in found.hdus:
        assert raw[hdu.data_offset - len(hdu.text) : hdu.data_offset] == hdu.text
    assert found.stamp.size == len(raw)
    assert not found.gzip


def test_gzip_whatever_its_name(tmp_path: Path) -> None:
    plain = several(tmp_path / "a.fits")
    packed = tmp_path / "b.fits"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    found = scan_file(packed, LIMITS)
    assert found.gzip
    assert found.hdus == scan_file(plain, LIMITS).hdus
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.parametrize("packed", [False, True])
def test_cut_anywhere_it_is_told(tmp_path: Path, *, packed: bool) -> None:
    whole = several(tmp_path / "a.fits").read_bytes()
    end = scan_file(tmp_path / "a.fits", LIMITS).hdus[-1]
    path = tmp_path / "b.fits"
    for size in [0, 3, 100, 2880, 5000, 8640, 12000, end.data_offset - 1, end.data_offset + end.data_size - 1]:
        path.write_bytes(gzip.compress(whole[:size]) if packed else whole[:size])
        with pytest.raises(Retryable, match=r"b\.fits") as told:
            scan_file(path, LIMITS)
        assert told.value.remedy
    path.write_bytes(whole[: end.data_offset + end.data_size])
    assert len(scan_file(path, LIMITS).hdus) == 5  # only fill is missing


def test_cut_between_extensions_is_a_file_of_fewer(tmp_path: Path) -> None:
    path = several(tmp_path / "a.fits")
    end = scan_file(path, LIMITS).hdus[0]
    path.write_bytes(path.read_bytes()[: end.data_offset + -(-end.data_size // 2880) * 2880])
    assert len(scan_file(path, LIMITS).hdus) == 1


@pytest.mark.parametrize("junk", [b"\0" * 2880, b"junk" * 1000, b"XTENSIO!"])
def test_what_follows_the_last_hdu_is_no_hdu(tmp_path: Path, junk: bytes) -> None:
    path = several(tmp_path / "a.fits")
    path.write_bytes(path.read_bytes() + junk)
    assert len(scan_file(path, LIMITS).hdus) == 5


def card_block(*cards: str) -> bytes:
    text = "".join(card.ljust(80) for card in cards)
    return text.encode("latin-1").ljust(-(-len(text) // 2880) * 2880)


BEGIN = ("SIMPLE  =                    T", "BITPIX  =                   16")


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"", Retryable, "empty"),
        (b"\0" * 5760, Retryable, "zeros"),
        (b"hello, world", Rejected, "not FITS"),
        (b"\x1f\x9d1234", Rejected, "compress"),
        (card_block(*BEGIN, "NAXIS   =                   -1", "END"), Rejected, "NAXIS"),
        (card_block(*BEGIN, "NAXIS   =                 1000", "END"), Rejected, "NAXIS"),
        (card_block(*BEGIN, "NAXIS   =                    T", "END"), Rejected, "not an integer"),
        (card_block(*BEGIN, "NAXIS   =                    1", "NAXIS1  =  -5", "END"), Rejected, "negative"),
        (card_block(*BEGIN, "NAXIS   =                    2", "NAXIS1  = 10", "END"), Rejected, "NAXIS2"),
        (card_block(*BEGIN, "NAXIS   = 1", "NAXIS1  = 99999999999999999999", "END"), Retryable, "growing"),
        (card_block("SIMPLE  = T", "BITPIX  = 17", "NAXIS   = 0", "END"), Rejected, "BITPIX"),
        (card_block(*BEGIN, "NAXIS   =                    0") + b" " * 2880 * 30, Rejected, "no END"),
        (card_block(*BEGIN) + b"\0" * 2880 * 30, Retryable, "goes on with zeros"),
    ],
)
def test_hostile_files_have_a_reason(tmp_path: Path, content: bytes, kind: type[Exception], said: str) -> None:
    path = tmp_path / "bad.fits"
    path.write_bytes(content)
    limits = Limits.model_validate({"header_blocks": 20})
    with pytest.raises(kind, match=said):
        scan_file(path, limits)
    (problem,) = scan_files([path], limits)
    assert isinstance(problem, Problem)
    assert "bad.fits" in problem.reason


def test_limits_are_kept(tmp_path: Path) -> None:
    path = several(tmp_path / "a.fits")
    with pytest.raises(Rejected, match="more than 3 HDUs"):
        scan_file(path, Limits.model_validate({"hdus": 3}))
    with pytest.raises(Rejected, match="no END within 2 blocks"):
        scan_file(path, Limits.model_validate({"header_blocks": 2}))
    packed = tmp_path / "bomb.fits.gz"
    image = fits.PrimaryHDU(np.zeros((6000, 6000), np.int16))
    image.header["NAXIS2"] = 6000
    packed.write_bytes(gzip.compress(image.header.tostring().encode() + bytes(140 << 20), 1))
    with pytest.raises(Rejected, match="expand to more than"):
        scan_file(packed, Limits.model_validate({"image_mib": 1}))


def test_what_is_no_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.fits"
    os.mkfifo(pipe)  # nobody will ever write to it
    good = several(tmp_path / "z.fits")
    found = scan_files([pipe, tmp_path, tmp_path / "gone.fits", good], LIMITS)
    told = [item.reason for item in found if isinstance(item, Problem)]
    assert ["no regular file" in told[0], "is a directory" in told[1], "gone.fits cannot be read" in told[2]] == [
        True
    ] * 3
    assert isinstance(found[3], FrameFile)


def test_headers_that_begin_alike_but_are_out_of_order(tmp_path: Path) -> None:
    """What is remembered of one file must not be told of another."""
    paths = []
    for number, cards in enumerate(
        [
            ("NAXIS   =                    1", "NAXIS1  =                   10"),
            ("NAXIS   =                    1", "COMMENT   in between", "NAXIS1  =                   20"),
            ("NAXIS   =                    1", "NAXIS1  =                   10"),
            ("NAXIS   =                    1", "NAXIS1  =                   30"),
        ]
    ):
        path = tmp_path / f"{number}.fits"
        path.write_bytes(card_block(*BEGIN, *cards, "END") + bytes(2880))
        paths.append(path)
    sizes = [item.hdus[0].data_size for item in scan_files(paths, LIMITS) if isinstance(item, FrameFile)]
    assert sizes == [20, 40, 20, 60]


def test_random_groups(tmp_path: Path) -> None:
    path = tmp_path / "g.fits"
    groups = fits.GroupData(np.zeros((7, 1, 3, 2), np.float32), bitpix=-32, parnames=["U"], pardata=[np.zeros(7)])
    fits.GroupsHDU(groups).writeto(path)
    check_like_slow_scan(path, scan_file(path, LIMITS))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150)
@given(st.data())
def test_damaged_headers_are_scanned_as_the_slow_way_does(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.fits"
    if not path.exists():
        several(path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, 10 * 80))
        raw[place] = data.draw(st.sampled_from(list(b" =0123456789T'/ENDX\0\xff")))
    other = tmp_path / "b.fits"
    other.write_bytes(raw)
    try:
        expected = [(info.data_offset, info.data_size) for info in scan_headers(other, LIMITS)]
    except (Rejected, Retryable) as error:
        with pytest.raises(type(error)):
            scan_file(other, LIMITS)
    else:
        assert [(hdu.data_offset, hdu.data_size) for hdu in scan_file(other, LIMITS).hdus] == expected


@pytest.mark.real
@pytest.mark.parametrize("name", ["astropy_io_fits", "lsst_guider", "panoptes", "radio_tkp", "msumastro_feder"])
def test_real_files_as_the_slow_way_does(real_data: Path, name: str) -> None:
    for path in sorted((real_data / name).iterdir()):
        (found,) = scan_files([path], LIMITS)
        if isinstance(found, Problem):
            with pytest.raises((Rejected, Retryable)):
                scan_headers(path, LIMITS)
        else:
            check_like_slow_scan(path, found)
