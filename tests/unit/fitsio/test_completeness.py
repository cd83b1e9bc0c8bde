from __future__ import annotations

import gzip
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.config import Camera, Limits
from nightglass.errors import Rejected, Retryable
from nightglass.fitsio import check_complete, inspect

Settle = Callable[[Path], Path]


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    path = tmp_path / "frame.fits"
    pixels = np.random.default_rng(1).integers(1, 60000, (40, 50)).astype(np.uint16)
    header = fits.Header([("EXPTIME", 3.0)])
    fits.PrimaryHDU(pixels, header).writeto(path)
    return path


@pytest.fixture
def extensions(tmp_path: Path) -> Path:
    """Four extensions, as NEXTEND says."""
    path = tmp_path / "mef.fits"
    pixels = np.random.default_rng(2).integers(1, 60000, (30, 30)).astype(np.uint16)
    hdus = [fits.PrimaryHDU(header=fits.Header([("NEXTEND", 4)]))]
    hdus += [fits.ImageHDU(pixels, name=f"AMP{number}") for number in range(4)]
    fits.HDUList(hdus).writeto(path)
    return path


def test_a_whole_file_passes(frame: Path, generic: Camera, limits: Limits) -> None:
    found = inspect(frame, generic, limits)
    assert found.size == frame.stat().st_size
    assert found.content_id == hashlib.blake2b(frame.read_bytes(), digest_size=16).hexdigest()
    assert found.headers[0].shape == (40, 50)
    assert found.notes == ()


def test_no_cut_passes(extensions: Path, limits: Limits, tmp_path: Path, settled: Settle) -> None:
    """Also not at the edge of an HDU, where mirar's test was deceived, nor when the file has long been quiet."""
    whole = extensions.read_bytes()
    cut = tmp_path / "cut.fits"
    for length in range(0, len(whole), 720):
        cut.write_bytes(whole[:length])
        settled(cut)
        if len(whole) - length < 1080:  # only fill is missing
            assert check_complete(cut, limits).notes
            continue
        with pytest.raises(Retryable, match=r"still growing|is empty"):
            check_complete(cut, limits)


def test_how_far_it_has_come_is_said(frame: Path, limits: Limits, tmp_path: Path) -> None:
    cut = tmp_path / "cut.fits"
    cut.write_bytes(frame.read_bytes()[:5760])
    with pytest.raises(Retryable, match="still growing, 5760 of 8640 bytes"):
        check_complete(cut, limits)


@pytest.mark.parametrize("expected", [("AMP3", "AMP9"), (0, 7)])
def test_expected_hdus_must_be_there(extensions: Path, limits: Limits, expected: tuple[str | int, ...]) -> None:
    with pytest.raises(Retryable, match=str(expected[1])):
        check_complete(extensions, limits, expected=expected)
    assert check_complete(extensions, limits, expected=("amp3", 4)).size


def test_what_the_camera_file_expects_goes_before_nextend(
    tmp_path: Path, limits: Limits, generic: Camera, settled: Settle
) -> None:
    path = tmp_path / "cutout.fits"
    fits.PrimaryHDU(np.ones((9, 9), np.int16), fits.Header([("NEXTEND", 60)])).writeto(path)
    settled(path)
    with pytest.raises(Retryable, match="0 of 60 extensions"):
        inspect(path, generic, limits)
    values = generic.model_dump(mode="json") | {"detectors": [{"name": "ccd1", "hdu": 0}]}
    assert inspect(path, Camera.model_validate(values), limits).size


def test_a_preallocated_file_is_doubted_while_it_is_young(frame: Path, limits: Limits) -> None:
    whole = frame.read_bytes()
    frame.write_bytes(whole[:4000].ljust(len(whole), b"\0"))
    with pytest.raises(Retryable, match="perhaps still growing, the last 512 bytes of its data are zeros"):
        check_complete(frame, limits)
    later = check_complete(frame, limits, now=time.time() + 60)
    assert later.notes == ("the last 512 bytes of its data are zeros",)


def test_a_checksum_dispels_doubt(tmp_path: Path, limits: Limits) -> None:
    path = tmp_path / "zeros.fits"
    fits.PrimaryHDU(np.zeros((40, 50), np.int16)).writeto(path, checksum=True)
    assert check_complete(path, limits).checksums == 1


@pytest.mark.parametrize("place", [2880 + 7, -3000])
def test_a_flipped_bit_is_found(tmp_path: Path, limits: Limits, settled: Settle, place: int) -> None:
    path = tmp_path / "flipped.fits"
    fits.PrimaryHDU(np.ones((40, 50), np.int16)).writeto(path, checksum=True)
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    with pytest.raises(Retryable, match="DATASUM"):
        check_complete(path, limits)
    with pytest.raises(Rejected, match="DATASUM of HDU 0"):
        check_complete(settled(path), limits)


def test_a_header_that_was_edited_is_noted(tmp_path: Path, limits: Limits, settled: Settle) -> None:
    path = tmp_path / "edited.fits"
    fits.PrimaryHDU(np.ones((40, 50), np.int16), fits.Header([("OBJECT", "M 13")])).writeto(path, checksum=True)
    path.write_bytes(path.read_bytes().replace(b"'M 13", b"'M 31"))
    assert "the header was edited" in check_complete(path, limits).notes[0]
    path.write_bytes(path.read_bytes().replace(b"DATASUM ", b"DATASUX "))
    with pytest.raises(Rejected, match="CHECKSUM of HDU 0"):
        check_complete(settled(path), limits)


def test_what_follows_the_last_hdu(frame: Path, limits: Limits, settled: Settle) -> None:
    whole = frame.read_bytes()
    frame.write_bytes(whole + b"notes of the observer")
    assert check_complete(frame, limits).notes == ("21 bytes after the last HDU are ignored",)
    frame.write_bytes(whole + bytes(28800))
    with pytest.raises(Retryable, match="28800 bytes of zeros follow"):
        check_complete(frame, limits)
    assert check_complete(settled(frame), limits).notes == ("28800 bytes of zeros follow the last HDU",)
    frame.write_bytes(whole + b"XTENSION= 'IMAGE   '")
    with pytest.raises(Retryable, match="in the header of HDU 1"):
        check_complete(frame, limits)


def test_gzip_is_read_to_its_end(frame: Path, generic: Camera, limits: Limits, tmp_path: Path) -> None:
    packed = tmp_path / "frame.fits.gz"
    content = gzip.compress(frame.read_bytes())
    packed.write_bytes(content)
    assert inspect(packed, generic, limits).content_id == hashlib.blake2b(content, digest_size=16).hexdigest()
    for length in (len(content) - 1, len(content) - 8, len(content) // 2, 5):
        packed.write_bytes(content[:length])
        with pytest.raises(Retryable, match="still growing"):
            inspect(packed, generic, limits)
    packed.write_bytes(content[:-8] + bytes(8))
    with pytest.raises(Rejected, match="damaged"):
        inspect(packed, generic, limits)


def test_a_clock_that_is_off_keeps_no_file_waiting(frame: Path, limits: Limits) -> None:
    whole = frame.read_bytes()
    frame.write_bytes(whole[:4000].ljust(len(whole), b"\0"))
    assert check_complete(frame, limits, now=time.time() - 3600).notes
