from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.config import Limits
from nightglass.errors import Rejected, Retryable
from nightglass.fitsio import check_complete, scan_headers


@pytest.fixture
def multi(tmp_path: Path) -> Path:
    """Primary without data, int image, compressed image, table, cube."""
    path = tmp_path / "multi.fits"
    table = fits.BinTableHDU.from_columns([fits.Column("X", "1J", array=np.arange(5))], name="TAB")
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(np.arange(6, dtype=np.int16).reshape(2, 3), name="A", ver=3),
            fits.CompImageHDU(np.arange(400, dtype=np.int32).reshape(20, 20), name="B"),
            table,
            fits.ImageHDU(np.zeros((2, 3, 4), np.float32), name="CUBE"),
        ]
    ).writeto(path)
    return path


def test_places_are_those_that_astropy_finds(multi: Path, limits: Limits) -> None:
    found = scan_headers(multi, limits)
    with fits.open(multi, disable_image_compression=True) as hdus:
        places = [hdu.fileinfo() for hdu in hdus]
    assert [info.header_offset for info in found] == [place["hdrLoc"] for place in places]
    assert [info.data_offset for info in found] == [place["datLoc"] for place in places]
    assert [info.padded_size for info in found] == [place["datSpan"] for place in places]
    assert found[-1].end == multi.stat().st_size


def test_hdus_are_described(multi: Path, limits: Limits) -> None:
    found = scan_headers(multi, limits)
    assert [info.name for info in found] == ["", "A", "B", "TAB", "CUBE"]
    assert [info.is_image for info in found] == [False, True, True, False, True]
    assert [info.is_compressed_image for info in found] == [False, False, True, False, False]
    assert [info.shape for info in found] == [(), (2, 3), (20, 20), (), (2, 3, 4)]
    assert (found[1].ver, found[1].bitpix, found[2].bitpix) == (3, 16, 32)


def test_gzip_is_known_by_its_first_bytes(multi: Path, limits: Limits, tmp_path: Path) -> None:
    disguised = tmp_path / "disguised.fits"
    disguised.write_bytes(gzip.compress(multi.read_bytes()))
    plain, packed = scan_headers(multi, limits), scan_headers(disguised, limits)
    assert [info.data_offset for info in plain] == [info.data_offset for info in packed]


def write_cards(path: Path, *cards: str, data: int = 0) -> Path:
    text = "".join(card.ljust(80) for card in (*cards, "END"))
    path.write_bytes(text.ljust(-(-len(text) // 2880) * 2880).encode("latin-1") + bytes(data))
    return path


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        (("BITPIX  = 17", "NAXIS   = 0"), "BITPIX of HDU 0 is 17"),
        (("BITPIX  = 'no'", "NAXIS   = 0"), "BITPIX of HDU 0 is 'no'"),
        (("BITPIX  = 8",), "NAXIS of HDU 0 is None"),
        (("BITPIX  = 8", "NAXIS   = 1000"), "NAXIS of HDU 0 is 1000"),
        (("BITPIX  = 8", "NAXIS   = 1"), "NAXIS1 of HDU 0 is None"),
        (("BITPIX  = 8", "NAXIS   = 1", "NAXIS1  = -5"), "negative length"),
        (("BITPIX  = 8", "NAXIS   = 0", "PCOUNT  = -1"), "negative"),
        (("BITPIX  = T", "NAXIS   = 0"), "BITPIX of HDU 0 is True"),
    ],
)
def test_malformed_headers_are_rejected_by_name_and_value(
    tmp_path: Path, limits: Limits, cards: tuple[str, ...], said: str
) -> None:
    path = write_cards(tmp_path / "a.fits", "SIMPLE  = T", *cards)
    with pytest.raises(Rejected, match=said) as caught:
        scan_headers(path, limits)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("counts", [("PCOUNT  = 4", "GCOUNT  = 1"), ("PCOUNT  = 0", "GCOUNT  = 0")])
def test_images_have_neither_parameters_nor_groups(tmp_path: Path, limits: Limits, counts: tuple[str, str]) -> None:
    path = write_cards(tmp_path / "a.fits", "SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0")
    cards = ("XTENSION= 'IMAGE'", "BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 3", "NAXIS2  = 4", *counts)
    path.write_bytes(path.read_bytes() + write_cards(tmp_path / "b", *cards, data=2880).read_bytes())
    with pytest.raises(Rejected, match="image HDU 1 has PCOUNT"):
        scan_headers(path, limits)


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (b"", Retryable, "is empty"),
        (b"SIM", Retryable, "still growing"),
        (bytes(5000), Retryable, "begins with zeros"),
        (b"SIMPLE  =".ljust(2880) + bytes(2880), Retryable, "goes on with zeros"),
        (b"just some text that is long enough", Rejected, "is not FITS"),
        (b"\x1f\x9d\x90", Rejected, r"compress \(\.Z\)"),
        (b"BZh91AY", Rejected, "bzip2"),
        (b"PK\x03\x04", Rejected, "zip"),
        (b"\x1f\x8b\x08\x00garbage that is no deflate", Rejected, "damaged"),
        (b"\x1f\x8b\x08", Retryable, "still growing"),
        (gzip.compress(b"hello", mtime=0), Rejected, "is not FITS"),
    ],
)
def test_what_is_no_fits(tmp_path: Path, limits: Limits, content: bytes, error: type[Exception], said: str) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(content)
    with pytest.raises(error, match=said):
        scan_headers(path, limits)


def test_a_directory_is_no_file(tmp_path: Path, limits: Limits) -> None:
    (tmp_path / "x.fits").mkdir()
    with pytest.raises(Rejected, match="is a directory"):
        scan_headers(tmp_path / "x.fits", limits)
    with pytest.raises(Retryable, match="cannot be read"):
        scan_headers(tmp_path / "gone.fits", limits)
    os.mkfifo(tmp_path / "pipe.fits")
    with pytest.raises(Rejected, match="no regular file"):
        scan_headers(tmp_path / "pipe.fits", limits)


def test_headers_without_end_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(b"SIMPLE  =                    T".ljust(80) + b"COMMENT ".ljust(80) * 36 * 20)
    with pytest.raises(Rejected, match="no END within 5 blocks"):
        scan_headers(path, Limits(header_blocks=5))
    with pytest.raises(Retryable, match="in the header of HDU 0"):
        scan_headers(path, Limits())


def test_hdus_are_bounded(multi: Path) -> None:
    with pytest.raises(Rejected, match="more than 3 HDUs"):
        scan_headers(multi, Limits(hdus=3))


def test_gzip_cannot_expand_without_end(tmp_path: Path) -> None:
    """Zeros expand a thousand-fold; what follows the last HDU is not expanded by the walk at all."""
    small = write_cards(tmp_path / "a.fits", "SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0")
    large = write_cards(tmp_path / "b.fits", "SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 1", f"NAXIS1  = {70 << 20}")
    zeros = bytes(70 << 20)
    for path in (small, large):
        path.write_bytes(gzip.compress(path.read_bytes() + zeros, 1))
        assert path.stat().st_size < 1 << 20
    assert len(scan_headers(small, Limits(image_mib=1))) == 1
    with pytest.raises(Rejected, match="expand to more than 65 MiB"):
        scan_headers(large, Limits(image_mib=1))
    with pytest.raises(Rejected, match="expand to more than 65 MiB"):
        check_complete(small, Limits(image_mib=1))


def test_every_cut_is_noticed(multi: Path, limits: Limits, tmp_path: Path) -> None:
    """Cuts at an HDU edge are left to the completeness check."""
    whole = multi.read_bytes()
    edges = {info.header_offset for info in scan_headers(multi, limits)}
    cut = tmp_path / "cut.fits"
    for length in (*range(0, len(whole), 719), *(edge + 1 for edge in edges), *(edge - 1 for edge in edges if edge)):
        if length in edges and length:
            continue
        cut.write_bytes(whole[:length])
        try:
            found = scan_headers(cut, limits)
        except Retryable:
            continue
        else:  # only the fill of the last block is missing
            assert found[-1].data_offset + found[-1].data_size <= length


def test_repairs_are_counted(tmp_path: Path, limits: Limits, settled: Callable[[Path], Path]) -> None:
    path = write_cards(tmp_path / "a.fits", "SIMPLE  =T", "BITPIX  =8", "NAXIS   =0", "object  = 'x'")
    info = scan_headers(path, limits)[0]
    assert info.repaired == 4
    assert info.header["OBJECT"] == "x"
