from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from nightglass.cubes.extracting import extract_frames
from nightglass.cubes.records import Survey
from nightglass.cubes.verifying import Verification, verify_cube
from nightglass.errors import Rejected, Retryable
from tests.unit.cubes.nights import cube_of, night
from tests.unit.cubes.oracles import BITPIX, pixels_of, survey_of, write_frame


@pytest.fixture
def frames(tmp_path: Path) -> list[Path]:
    return night(tmp_path / "in", 4)


def spoil(path: Path, find: bytes, change: bytes, *, skip: int = 0) -> None:
    """Overwrite bytes where others are found."""
    data = bytearray(path.read_bytes())
    place = data.index(find) + skip
    data[place : place + len(change)] = change
    path.write_bytes(bytes(data))


def pack(cube: Path, **options: Any) -> Path:
    """Compress the images of a cube with astropy."""
    out = cube.with_name("packed.fits")
    with fits.open(cube) as hdus:
        made: list[Any] = [hdus[0]]
        for hdu in hdus[1:]:
            if not isinstance(hdu, fits.ImageHDU):
                made.append(hdu)
                continue
            tile = (1, 1, hdu.data.shape[2])
            made.append(fits.CompImageHDU(hdu.data, header=hdu.header, tile_shape=tile, **options))
        fits.HDUList(made).writeto(out, checksum=True)
    return out


def only(found: Verification) -> str:
    assert not found.ok
    assert len(found.differences) == 1, found.differences
    return found.differences[0]


def test_a_cube_agrees_with_its_frames(tmp_path: Path, frames: list[Path]) -> None:
    told: list[tuple[int, int]] = []
    found = verify_cube(cube_of(*frames), frames, progress=lambda *at: told.append(at))
    assert (found.ok, found.differences, found.planes, found.left_out) == (True, (), 4, ())
    assert told[-1][0] == told[-1][1] > 0
    assert all(before[0] <= after[0] for before, after in pairwise(told))


def test_a_survey_serves_as_well_as_paths(frames: list[Path]) -> None:
    assert verify_cube(cube_of(*frames), survey_of(frames)).ok
    assert not verify_cube(cube_of(*frames, out=frames[0].with_name("o.fits")), Survey((), ())).ok


@pytest.mark.parametrize("kind", sorted(BITPIX))
def test_every_type_is_compared(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    paths = [write_frame(tmp_path / "in" / f"{n}.fits", [pixels_of(kind, (3, 5), n)] * 2) for n in range(3)]
    cube = cube_of(*paths)
    assert verify_cube(cube, paths).ok
    if kind not in ("i1",):
        assert verify_cube(pack(cube, compression_type="GZIP_1", quantize_level=0), paths).ok


def test_a_changed_pixel_is_named(frames: list[Path]) -> None:
    cube = cube_of(*frames)
    with fits.open(cube) as hdus:
        offset = hdus[1].fileinfo()["datLoc"] + 2 * 70 + 2 * 12
    data = bytearray(cube.read_bytes())
    data[offset] ^= 1
    cube.write_bytes(bytes(data))
    found = verify_cube(cube, frames)
    assert len(found.differences) == 2
    assert "(frame 2)" in found.differences[0]
    assert "frame2.fits" in found.differences[0]
    assert "first at pixel (3, 3)" in found.differences[0]
    assert "DATASUM" in found.differences[1]


def test_a_changed_pixel_of_a_compressed_cube_is_named(frames: list[Path]) -> None:
    cube = pack(cube_of(*frames), compression_type="RICE_1")
    assert verify_cube(cube, frames).ok
    with fits.open(frames[1], mode="update") as hdus:
        hdus[0].data[4, 2] += 1
    found = verify_cube(cube, frames)
    assert any("1 pixels differ, first (3, 5)" in line for line in found.differences)


def test_a_changed_row_is_named(frames: list[Path]) -> None:
    cube = cube_of(*frames)
    with fits.open(cube, mode="update", checksum=True) as hdus:
        name = next(hdu.name for hdu in hdus[1:] if hdu.name.endswith("T"))
        hdus[name].data["EXPTIME"][2] = 9.0
    found = verify_cube(cube, frames)
    assert any("row 3 of column EXPTIME is 9.0, EXPTIME was 1.5" in line for line in found.differences)


def test_a_changed_card_is_named(frames: list[Path]) -> None:
    cube = cube_of(*frames)
    with fits.open(frames[1], mode="update") as hdus:
        hdus[0].header["HISTORY"] = "touched"
    assert "cards of frame1.fits" in only(verify_cube(cube, frames))


def test_a_wrong_checksum_is_named(frames: list[Path]) -> None:
    cube = cube_of(*frames)
    spoil(cube, b"EXTNAME = 'SCIENCE", b"EXTNAME = 'SCIENCX")
    assert "HDU 0 (SCIENCX): CHECKSUM does not fit its header" in only(verify_cube(cube, frames))


def test_a_cube_without_checksums_is_told(frames: list[Path]) -> None:
    cube = cube_of(*frames)
    spoil(cube, b"DATASUM =", b"DATASUN =")
    assert "has no CHECKSUM and DATASUM" in only(verify_cube(cube, frames))


def test_frames_that_are_missing_on_either_side_are_named(frames: list[Path]) -> None:
    cube = cube_of(*frames[:3])
    assert "has nothing of" in only(verify_cube(cube, frames))
    assert "frame2.fits, which is not among the frames" in only(verify_cube(cube, frames[:2]))


def test_a_frame_that_the_cube_says_it_left_out_is_no_difference(frames: list[Path]) -> None:
    frames[1].write_bytes(frames[1].read_bytes()[:2900])
    cube = cube_of(*frames)
    found = verify_cube(cube, frames)
    assert found.ok
    assert found.left_out == (frames[1],)


def test_a_frame_that_was_cut_off_later_is_a_difference(frames: list[Path]) -> None:
    cube = cube_of(*frames)
    frames[1].write_bytes(frames[1].read_bytes()[:2900])
    found = verify_cube(cube, frames)
    assert not found.ok
    assert any("still growing" in line for line in found.differences)


def test_an_image_that_is_not_in_the_cube_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.fits"
    write_frame(path, [pixels_of("u2", (3, 4))])
    cube = cube_of(path)
    with fits.open(path, mode="append") as hdus:
        hdus.append(fits.ImageHDU(pixels_of("u2", (3, 4)), name="MORE"))
    found = verify_cube(cube, [path])
    assert any("no plane of HDU 2 (image 0) of a.fits" in line for line in found.differences)


def test_frames_in_other_directories_are_found_by_name(tmp_path: Path, frames: list[Path]) -> None:
    cube = cube_of(*frames)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    paths = [path.rename(moved / path.name) for path in frames]
    assert verify_cube(cube, paths).ok


def test_what_was_extracted_verifies(tmp_path: Path, frames: list[Path]) -> None:
    cube = cube_of(*frames)
    assert verify_cube(cube, extract_frames(cube, tmp_path / "out")).ok


def test_gzip_and_compressed_frames_are_compared(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = write_frame(tmp_path / "in" / "a.fits", [pixels_of("i2", (5, 7), n) for n in range(3)])
    packed = path.with_name("b.fits.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    tiles = path.with_name("c.fits.fz")
    images = [fits.CompImageHDU(pixels_of("i2", (5, 7), n), name=f"SCI{n}") for n in range(3)]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tiles)
    cube = cube_of(path, packed, tiles)
    found = verify_cube(cube, [path, packed, tiles])
    assert found.ok, found.differences
    assert found.planes == 9


def test_quantised_floats_may_differ_by_half_a_step(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(1)
    paths = [
        write_frame(tmp_path / "in" / f"{n}.fits", rng.normal(0, 10, (30, 50)).astype(np.float32)) for n in range(2)
    ]
    cube = pack(cube_of(*paths), compression_type="RICE_1", quantize_level=4, quantize_method=1, dither_seed=3)
    assert verify_cube(cube, paths).ok
    with fits.open(paths[0], mode="update") as hdus:
        hdus[0].data[3, 4] += 20
    assert any("1 pixels differ, first (5, 4)" in line for line in verify_cube(cube, paths).differences)


def test_a_table_too_large_for_the_store_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.fits"
    table = fits.BinTableHDU.from_columns([fits.Column("x", "1J", array=np.arange(50))])
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(pixels_of("u2", (3, 4)), name="SCI"), table]).writeto(path)
    assert verify_cube(cube_of(path), [path]).ok
    monkeypatch.setattr("nightglass.cubes.cardstore.cards_table.__kwdefaults__", {"limits": None, "max_data": 100})
    cube = cube_of(path, out=tmp_path / "small.fits")
    assert "table in HDU 2 is too large" in only(verify_cube(cube, [path]))


def test_what_is_no_cube_is_refused(tmp_path: Path, frames: list[Path]) -> None:
    with pytest.raises(Rejected, match="has no table"):
        verify_cube(frames[0], frames)
    with pytest.raises(Retryable, match="cannot be read"):
        verify_cube(tmp_path / "none.fits", frames)
    cube = cube_of(*frames)
    (tmp_path / "c.fits.gz").write_bytes(gzip.compress(cube.read_bytes()))
    with pytest.raises(Rejected, match="gzip as a whole"):
        verify_cube(tmp_path / "c.fits.gz", frames)
