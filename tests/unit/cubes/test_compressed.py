"""Compressed cubes as a whole: wide heaps, damaged frames, failures, verification and the way back."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from nightglass.config import Limits
from nightglass.cubes.compressed import write_compressed
from nightglass.cubes.extracting import extract_frames
from nightglass.cubes.joining import WIDE_HEAP
from nightglass.cubes.records import Compression
from nightglass.cubes.verifying import verify_cube
from nightglass.errors import NightglassError, Rejected, Retryable
from nightglass.pool import SerialPool
from tests.unit.cubes.nights import cube_of, night
from tests.unit.cubes.oracles import assert_sound, left_in, pixels_of, plan_of, request_of, survey_of
from tests.unit.cubes.packing import NAME, assert_decoded, by_astropy, compress, pack, table_of

SHAPE = (12, 30)
RICE = {"compression_type": "RICE_1"}


def _packed(directory: Path, count: int = 4, **options: Any) -> list[Path]:
    directory.mkdir()
    return [pack(directory / f"{n}.fits", _plane(n), n, **(RICE | options)) for n in range(count)]


def _plane(number: int) -> Any:
    return np.random.default_rng(number).normal(400, 5, SHAPE).astype("u2")


def _descriptors(path: Path) -> tuple[int, int]:
    """Return where the rows of the table begin, and how many bytes they and the heap take."""
    with fits.open(path, disable_image_compression=True) as hdus:
        header = hdus[1].header
        return int(hdus[1].fileinfo()["datLoc"]), header["NAXIS1"] * header["NAXIS2"] + header["PCOUNT"]


def _patch(path: Path, offset: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)


@pytest.mark.parametrize("packed", [False, True], ids=["made", "joined"])
def test_descriptors_of_64_bits(tmp_path: Path, packed: bool) -> None:
    if packed:
        paths = _packed(tmp_path / "frames")
    else:
        (tmp_path / "frames").mkdir()
        paths = [tmp_path / "frames" / f"{n}.fits" for n in range(4)]
        for number, path in enumerate(paths):
            fits.PrimaryHDU(_plane(number), fits.Header([("FRAME", number)])).writeto(path)
    plan = plan_of(survey_of(paths), request_of(paths, compression=Compression(), durable=False))
    for wide, form in ((0, "1QB"), (WIDE_HEAP, "1PB")):
        part = tmp_path / f"cube{wide}.fits"
        write_compressed(plan, part, pool=SerialPool(), limits=Limits(), wide_heap=wide)
        assert table_of(part)[0]["TFORM1"].startswith(form)
        assert_sound(part)
        assert_decoded(part, np.stack([_plane(number) for number in range(4)]), plan.hdus[0].name)
        other = cube_of(part, compression=Compression(), out=tmp_path / f"again{wide}.fits")
        assert table_of(other)[0]["TFORM1"].startswith("1PB")
        assert table_of(other)[1] == table_of(part)[1]
    assert left_in(tmp_path) == [
        "again0.fits",
        f"again{WIDE_HEAP}.fits",
        "cube0.fits",
        f"cube{WIDE_HEAP}.fits",
        "frames",
    ]


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (0, struct.pack(">ii", 2**31 - 1, 0)),
        (0, struct.pack(">ii", -5, 0)),
        (8, struct.pack(">ii", 4, -9)),
        (8 * 11, struct.pack(">ii", 4, 2**31 - 1)),
        (8 * 11, struct.pack(">ii", 4, 100_000)),
    ],
    ids=["long", "negative length", "before", "far behind", "behind"],
)
def test_frames_with_damaged_descriptors_are_left_out(tmp_path: Path, offset: int, data: bytes) -> None:
    paths = _packed(tmp_path / "frames", checksum=False)
    start, _ = _descriptors(paths[2])
    _patch(paths[2], start + offset, data)
    summary = compress(paths)
    (problem,) = summary.problems
    assert problem.path == paths[2]
    assert "lies outside of its heap" in problem.reason
    assert summary.frames == 3
    assert_decoded(summary.path, np.stack([_plane(number) for number in (0, 1, 3)]))
    assert left_in(tmp_path) == ["cube.fits.fz", "frames"]
    with pytest.raises(NightglassError, match="lies outside of its heap"):
        compress(paths, skip_bad=False, out=tmp_path / "strict.fits")
    assert left_in(tmp_path) == ["cube.fits.fz", "frames"]


def _card(keyword: str, value: int) -> tuple[bytes, bytes]:
    return f"{keyword:8}=".encode(), f"{keyword:8}= {value:20d}".encode()


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("NAXIS1", 16),
        ("NAXIS2", 2**40),
        ("PCOUNT", 2**50),
        ("PCOUNT", 0),
        ("ZNAXIS2", 10**9),
        ("ZTILE2", 10**9),
        ("TFIELDS", 0),
        ("THEAP", 2**60),
    ],
)
def test_headers_that_announce_what_is_not_there(tmp_path: Path, keyword: str, value: int) -> None:
    """Nothing is allocated for what a header says; the frame is named, and the others make a cube."""
    paths = _packed(tmp_path / "frames", checksum=False)
    old, new = _card(keyword, value)
    content = paths[1].read_bytes()
    place = content.find(old, 2880)
    if place < 0:  # instead of a card that is not needed
        place = content.find(b"FRAME   =", 2880)
    paths[1].write_bytes(content[:place] + new + content[place + len(new) :])
    summary = compress(paths)
    assert [problem.path for problem in summary.problems] == [paths[1]]
    assert_decoded(summary.path, np.stack([_plane(number) for number in (0, 2, 3)]))


@pytest.mark.parametrize("left", [1, 50, 96, 97, 150], ids=str)
def test_tables_that_are_cut_short(tmp_path: Path, left: int) -> None:
    paths = _packed(tmp_path / "frames", checksum=False)
    start, _ = _descriptors(paths[0])
    paths[0].write_bytes(paths[0].read_bytes()[: start + left])
    summary = compress(paths)
    assert [problem.path for problem in summary.problems] == [paths[0]]
    assert "still growing" in summary.problems[0].reason
    assert_decoded(summary.path, np.stack([_plane(number) for number in (1, 2, 3)]))


@pytest.mark.parametrize("seed", [0, -1, -(2**40), 10_001, 2**40])
def test_dither_seeds_that_are_none(tmp_path: Path, seed: int) -> None:
    """Decoders take them for a place in a table of random numbers."""
    (tmp_path / "frames").mkdir()
    options = RICE | {"quantize_level": 4.0, "quantize_method": 1, "checksum": False}
    planes = [np.random.default_rng(n).normal(0, 1, SHAPE).astype("f4") for n in range(3)]
    paths = [
        pack(tmp_path / "frames" / f"{n}.fits", plane, n, dither_seed=1 + 12 * n, **options)
        for n, plane in enumerate(planes)
    ]
    content = paths[2].read_bytes()
    old, new = _card("ZDITHER0", seed)
    place = content.index(old)
    paths[2].write_bytes(content[:place] + new + content[place + len(new) :])
    summary = compress(paths)
    (problem,) = summary.problems
    assert f"ZDITHER0 of HDU 1 is {seed}" in problem.reason
    assert_decoded(summary.path, np.stack([by_astropy(path) for path in paths[:2]]))


def test_damaged_tiles_that_are_decompressed_leave_one_frame_out(tmp_path: Path) -> None:
    """Of another layout than the rest, so that all have to be decompressed."""
    paths = _packed(tmp_path / "frames", checksum=False)
    paths[3].unlink()
    pack(paths[3], _plane(3), 3, compression_type="GZIP_1", checksum=False)
    start, size = _descriptors(paths[3])
    _patch(paths[3], start + 96, b"\xff" * (size - 96))
    summary = compress(paths)
    assert [problem.path for problem in summary.problems] == [paths[3]]
    assert "cannot be decompressed" in summary.problems[0].reason
    assert_decoded(summary.path, np.stack([_plane(number) for number in range(3)]))


@pytest.mark.parametrize("packed", [False, True], ids=["made", "joined"])
def test_nothing_is_left_of_a_failure(tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    paths = _packed(tmp_path / "frames") if packed else night(tmp_path / "frames")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(Retryable, match="No space left"):
        compress(paths)
    assert left_in(tmp_path) == ["frames"]


def test_nothing_is_left_when_no_frame_is_good(tmp_path: Path) -> None:
    paths = _packed(tmp_path / "frames", 2, checksum=False)
    for path in paths:
        _patch(path, _descriptors(path)[0], struct.pack(">ii", 2**31 - 1, 0))
    with pytest.raises(Rejected, match="no frame"):
        compress(paths)
    assert left_in(tmp_path) == ["frames"]


def test_a_fragment_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = night(tmp_path / "frames")
    monkeypatch.setattr(os, "pwrite", _refuse)
    with pytest.raises(Retryable, match="cannot be written: No space left"):
        compress(paths)
    assert left_in(tmp_path) == ["frames"]


def _refuse(*_: Any) -> int:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("mode", ["shared", "gather"])
@pytest.mark.parametrize("packed", [False, True], ids=["made", "joined"])
def test_frames_are_verified_and_come_back(tmp_path: Path, packed: bool, mode: Any) -> None:
    paths = _packed(tmp_path / "frames") if packed else night(tmp_path / "frames")
    summary = compress(paths, mode=mode)
    found = verify_cube(summary.path, paths)
    assert found.ok, found.differences
    assert found.planes == len(paths)
    for original, ours in zip(paths, extract_frames(summary.path, tmp_path / "back"), strict=True):
        if packed:
            np.testing.assert_array_equal(by_astropy(ours), by_astropy(original))
        else:
            assert ours.read_bytes() == original.read_bytes()


def test_another_pixel_is_found(tmp_path: Path) -> None:
    paths = _packed(tmp_path / "frames")
    summary = compress(paths)
    paths[1].unlink()
    other = _plane(1)
    other[5, 5] += 1
    pack(paths[1], other, 1, **RICE)
    found = verify_cube(summary.path, paths)
    assert not found.ok
    assert any("1.fits" in text for text in found.differences)


def test_many_sources_and_both_kinds_in_one_cube(tmp_path: Path) -> None:
    """One source is compressed already and is joined, the other one is not."""
    (tmp_path / "frames").mkdir()
    paths = [tmp_path / "frames" / f"{number}.fits" for number in range(3)]
    for number, path in enumerate(paths):
        header = fits.Header([("FRAME", number)])
        packed = fits.CompImageHDU(_plane(number), name="ONE", compression_type="GZIP_1")
        plain = fits.ImageHDU(pixels_of("f4", (9, 9), number), name="TWO")
        fits.HDUList([fits.PrimaryHDU(header=header), packed, plain]).writeto(path)
    for mode in ("shared", "gather"):
        summary = compress(paths, out=tmp_path / f"{mode}.fits", mode=mode)
        assert table_of(summary.path, "ONE")[0]["ZCMPTYPE"] == "GZIP_1"
        assert_decoded(summary.path, np.stack([_plane(number) for number in range(3)]), "ONE")
        assert_decoded(summary.path, np.stack([pixels_of("f4", (9, 9), number) for number in range(3)]), "TWO")
    assert (tmp_path / "shared.fits").read_bytes() == (tmp_path / "gather.fits").read_bytes()


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_a_heap_of_more_than_two_gibibytes(tmp_path: Path) -> None:
    """One frame of noise that does not shrink, 80 times: 2.5 GiB of heap, joined from one set of bytes."""
    pixels = pixels_of("i2", (4096, 4096))
    first = pack(tmp_path / "noise", pixels, compression_type="RICE_1", checksum=False)
    (tmp_path / "frames").mkdir()
    paths = [tmp_path / "frames" / f"{number:03d}.fits" for number in range(80)]
    for path in paths:
        path.hardlink_to(first)
    cube = cube_of(*paths, compression=Compression(), out=tmp_path / "cube.fits", frame_keyword=())
    header = fits.getheader(cube, NAME, disable_image_compression=True)
    assert header["PCOUNT"] > WIDE_HEAP
    assert header["TFORM1"].startswith("1QB")
    assert_sound(cube)
    with fits.open(cube) as hdus:
        for number in (0, 40, 79):
            assert np.array_equal(hdus[NAME].section[number], pixels)
    fitsio = pytest.importorskip("fitsio")
    with fitsio.FITS(str(cube)) as file:
        assert np.array_equal(file[NAME][79:80, :, :].reshape(pixels.shape), pixels)
