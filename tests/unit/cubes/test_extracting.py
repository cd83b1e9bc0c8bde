from __future__ import annotations

import gzip
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from nightglass.cubes.extracting import extract_frames
from nightglass.errors import Misconfigured, Rejected
from tests.unit.cubes.nights import START, cube_of, night
from tests.unit.cubes.oracles import BITPIX, assert_sound, pixels_of, write_frame


def names(paths: tuple[Path, ...]) -> list[str]:
    return [path.name for path in paths]


def splice(path: Path, *cards: bytes, after: bytes = b"EXTEND") -> None:
    """Put cards into the header of a file, behind another one, byte for byte."""
    data = path.read_bytes()
    at = data.index(after) // 80 * 80 + 80
    end = data.index(b"END".ljust(80)) // 80 * 80
    header = data[:at] + b"".join(card.ljust(80) for card in cards) + data[at:end] + b"END".ljust(80)
    path.write_bytes(header.ljust(-(-len(header) // 2880) * 2880) + data[-(-end // 2880) * 2880 :])


@pytest.mark.parametrize("kind", sorted(BITPIX))
def test_frames_of_any_type_come_back_byte_for_byte(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    paths = [
        write_frame(tmp_path / "in" / f"{n}.fits", [pixels_of(kind, (5, 3), n), pixels_of(kind, (4, 7), n)])
        for n in range(3)
    ]
    out = extract_frames(cube_of(*paths), tmp_path / "out")
    assert out == tuple(tmp_path / "out" / path.name for path in paths)
    assert [path.read_bytes() for path in out] == [path.read_bytes() for path in paths]
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix == ".part"]


def test_every_card_comes_back_however_odd(tmp_path: Path) -> None:
    paths = night(tmp_path / "in", 3)
    for number, path in enumerate(paths):
        splice(
            path,
            b"OBSERVER= 'Andr\xe9'",
            b"LONG    = 'begins &'",
            b"CONTINUE  'goes on'",
            b"HIERARCH ESO DET X = %d / hierarch" % number,
            b"SAME    = 1",
            b"SAME    = 2",
            b"COMMENT",
            b"",
            b"lower   = 1",
            b"NOVALUE =",
            after=b"EXTEND" if number else b"NAXIS2",
        )
    data = paths[2].read_bytes()
    end = data.index(b"END".ljust(80)) + 80
    paths[2].write_bytes(data[:end] + b"AFTER   = 'end'".ljust(80) + data[end + 80 :])
    out = extract_frames(cube_of(*paths), tmp_path / "out")
    assert [path.read_bytes() for path in out] == [path.read_bytes() for path in paths]


def test_mixed_types_come_back_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    kinds = ["u1", "i2", "u2", "i4"]
    paths = [write_frame(tmp_path / "in" / f"{n}.fits", pixels_of(kind, (4, 5), n)) for n, kind in enumerate(kinds)]
    paths.append(write_frame(tmp_path / "in" / "9.fits", pixels_of("f4", (4, 5))))
    out = extract_frames(cube_of(*paths), tmp_path / "out")
    assert [path.read_bytes() for path in out] == [path.read_bytes() for path in paths]


def test_scaled_frames_come_back_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    paths = []
    for number in range(3):
        hdu = fits.PrimaryHDU(pixels_of("i2", (4, 5), number))
        hdu.header["BSCALE"], hdu.header["BZERO"] = 0.25 * (number + 1), 100.0 * number
        hdu.header["BLANK"] = -32768
        paths.append(tmp_path / "in" / f"{number}.fits")
        data = hdu.header.tostring().encode() + hdu.data.astype(">i2").tobytes()
        paths[-1].write_bytes(data + b"\0" * (-len(data) % 2880))
    out = extract_frames(cube_of(*paths), tmp_path / "out")
    assert [path.read_bytes() for path in out] == [path.read_bytes() for path in paths]


@pytest.mark.parametrize(
    ("frames", "wanted"),
    [
        (slice(1, 3), [1, 2]),
        (slice(3, None), [3, 4]),
        (slice(None, 1), [0]),
        (slice(0, 9, 2), [0, 2, 4]),
        (slice(4, 100), [4]),
    ],
)
def test_frames_are_chosen_by_number(tmp_path: Path, frames: slice, wanted: list[int]) -> None:
    out = extract_frames(cube_of(*night(tmp_path / "in")), tmp_path / "out", frames=frames)
    assert names(out) == [f"frame{number}.fits" for number in wanted]


def test_frames_are_chosen_by_number_and_not_by_place(tmp_path: Path) -> None:
    paths = night(tmp_path / "in")
    out = extract_frames(cube_of(paths[0], paths[3], paths[4]), tmp_path / "out", frames=slice(1, 4))
    assert names(out) == ["frame3.fits"]


def test_frames_are_chosen_by_their_start(tmp_path: Path) -> None:
    cube = cube_of(*night(tmp_path / "in"))
    minute = timedelta(minutes=1)
    assert names(extract_frames(cube, tmp_path / "1", times=(START + minute, START + 3 * minute))) == [
        "frame1.fits",
        "frame2.fits",
    ]
    assert names(extract_frames(cube, tmp_path / "2", times=(START + 4 * minute, None))) == ["frame4.fits"]
    with pytest.raises(Misconfigured, match="no frame of 0 to 4"):
        extract_frames(cube, tmp_path / "3", times=(None, START))


def test_a_source_alone_leaves_the_other_images_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    paths = [
        write_frame(tmp_path / "in" / f"{n}.fits", [pixels_of("u2", (4, 5), n), pixels_of("i4", (6, 5), n)])
        for n in range(2)
    ]
    cube = cube_of(*paths)
    out = extract_frames(cube, tmp_path / "out", sources=("SCI1",))
    for path, original in zip(out, paths, strict=True):
        with fits.open(path, checksum=True) as ours, fits.open(original) as theirs:
            assert [hdu.name for hdu in ours] == ["PRIMARY", "SCI1"]
            np.testing.assert_array_equal(ours[1].data, theirs["SCI1"].data)
            assert ours[1].header.tostring() == theirs["SCI1"].header.tostring()
    assert len(extract_frames(cube, tmp_path / "all", sources=("SCI*",))) == 2
    with pytest.raises(Misconfigured, match=r"no source 'SKY'.*SCI0, SCI1"):
        extract_frames(cube, tmp_path / "none", sources=("SKY",))


def test_a_primary_image_that_is_not_wanted_leaves_an_empty_primary(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.fits"
    fits.HDUList([fits.PrimaryHDU(pixels_of("u2", (3, 4))), fits.ImageHDU(pixels_of("u2", (3, 4)), name="B")]).writeto(
        path, checksum=True
    )
    (out,) = extract_frames(cube_of(path), tmp_path / "out", sources=("B",))
    with fits.open(out, checksum=True) as hdus:
        assert hdus[0].data is None
        assert "BZERO" not in hdus[0].header
        np.testing.assert_array_equal(hdus[1].data, pixels_of("u2", (3, 4)))


def test_some_planes_of_one_image_keep_their_coordinates(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    hdu = fits.PrimaryHDU(pixels_of("i2", (6, 3, 5)))
    for axis, kind in enumerate(("LINEAR", "LINEAR", "TIME"), start=1):
        hdu.header[f"CTYPE{axis}"], hdu.header[f"CRVAL{axis}"], hdu.header[f"CRPIX{axis}"] = kind, 100.0, 1.0
    path = tmp_path / "in" / "many.fits"
    hdu.writeto(path, checksum=True)
    cube = cube_of(path)
    (whole,) = extract_frames(cube, tmp_path / "whole")
    assert whole.read_bytes() == path.read_bytes()
    (part,) = extract_frames(cube, tmp_path / "part", frames=slice(2, 4))
    assert_sound(part)
    with fits.open(part) as hdus:
        np.testing.assert_array_equal(hdus[0].data, pixels_of("i2", (6, 3, 5))[2:4])
        assert hdus[0].header["CRPIX3"] == -1.0


@pytest.mark.parametrize("algorithm", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])
def test_compressed_frames_come_back_uncompressed_with_all_their_cards(tmp_path: Path, algorithm: str) -> None:
    (tmp_path / "in").mkdir()
    paths = []
    for number in range(2):
        image = fits.CompImageHDU(
            np.random.default_rng(number).integers(0, 3000, (20, 30)).astype(np.uint16),
            compression_type=algorithm,
            name="SCI",
            tile_shape=(20, 30) if algorithm == "HCOMPRESS_1" else (1, 30),
        )
        image.header["FRAME"] = number
        image.header["OBJECT"] = ("M 31", "what it is")
        image.header["HISTORY"] = "one"
        image.header["HISTORY"] = "two"
        paths.append(tmp_path / "in" / f"{number}.fits.fz")
        fits.HDUList([fits.PrimaryHDU(), image]).writeto(paths[-1], checksum=True)
    out = extract_frames(cube_of(*paths), tmp_path / "out")
    assert names(out) == ["0.fits", "1.fits"]
    for ours, theirs in zip(out, paths, strict=True):
        with fits.open(ours, checksum=True) as plain, fits.open(theirs) as packed:
            np.testing.assert_array_equal(plain["SCI"].data, packed["SCI"].data)
            kept = [card.image for card in plain["SCI"].header.cards if card.keyword not in ("CHECKSUM", "DATASUM")]
            for card in packed["SCI"].header.cards:
                if card.keyword in ("FRAME", "OBJECT", "HISTORY", "EXTNAME", "BZERO", "BSCALE"):
                    assert card.image in kept
        assert_sound(ours)


def test_gzip_files_come_back_unpacked_and_do_not_collide(tmp_path: Path) -> None:
    (plain,) = night(tmp_path / "in", 1)
    packed = plain.with_name("frame0.fits.gz")
    hdu = fits.PrimaryHDU(pixels_of("u2", (7, 5), 3))
    hdu.header["FRAME"] = 1
    hdu.writeto(packed)
    out = extract_frames(cube_of(plain, packed), tmp_path / "out")
    assert names(out) == ["frame0.fits", "frame0_2.fits"]
    assert out[0].read_bytes() == plain.read_bytes()
    assert out[1].read_bytes() == gzip.decompress(packed.read_bytes())


def test_tables_and_empty_hdus_come_back(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.fits"
    binary = fits.BinTableHDU.from_columns([fits.Column("x", "1J", array=np.arange(50))], name="STARS")
    text = fits.TableHDU.from_columns([fits.Column("y", "F8.3", array=np.arange(5.0))], name="LOG")
    image = fits.ImageHDU(pixels_of("u2", (3, 4)), name="SCI")
    fits.HDUList([fits.PrimaryHDU(), binary, image, fits.ImageHDU(name="EMPTY"), text]).writeto(path, checksum=True)
    (out,) = extract_frames(cube_of(path), tmp_path / "out")
    assert out.read_bytes() == path.read_bytes()


def test_files_of_one_name_come_back_in_their_directories(tmp_path: Path) -> None:
    first, second = night(tmp_path / "in", 1)[0], tmp_path / "in" / "more"
    second.mkdir()
    other = night(second, 1)[0]
    hdu = fits.PrimaryHDU(pixels_of("u2", (7, 5), 9))
    hdu.header["FRAME"] = 1
    hdu.writeto(other, overwrite=True)
    out = extract_frames(cube_of(first, other), tmp_path / "out")
    assert out == (tmp_path / "out" / "frame0.fits", tmp_path / "out" / "more" / "frame0.fits")
    assert out[1].read_bytes() == other.read_bytes()


def test_without_card_store_headers_are_made_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    paths = []
    for number in range(2):
        hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(pixels_of("u2", (4, 5), number), name=f"S{k}") for k in range(2))]
        hdus[0].header["OBSERVER"] = "Ada"
        hdus[1].header["GAIN"], hdus[1].header["FRAME"] = 1.5, number
        hdus[2].header["FRAME"] = number
        hdus[1].header["HIERARCH ESO DET X"] = number
        paths.append(tmp_path / "in" / f"{number}.fits")
        fits.HDUList(hdus).writeto(paths[-1])
    out = extract_frames(cube_of(*paths, keep_cards=False), tmp_path / "out")
    assert names(out) == ["0.fits", "1.fits"]
    for number, path in enumerate(out):
        assert_sound(path)
        with fits.open(path) as hdus:
            assert [hdu.name for hdu in hdus] == ["PRIMARY", "S0", "S1"]
            np.testing.assert_array_equal(hdus["S1"].data, pixels_of("u2", (4, 5), number))
            header = hdus["S0"].header
            assert (header["GAIN"], header["ESO DET X"], header["OBSERVER"]) == (1.5, number, "Ada")
            assert "GAIN" not in hdus["S1"].header


def test_without_card_store_several_planes_make_one_image(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = write_frame(tmp_path / "in" / "a.fits", pixels_of("f4", (3, 4, 5)))
    (out,) = extract_frames(cube_of(path, keep_cards=False), tmp_path / "out")
    with fits.open(out) as hdus:
        np.testing.assert_array_equal(hdus[0].data, pixels_of("f4", (3, 4, 5)))
        assert hdus[0].header["FRAME"] == 0


def test_existing_files_are_kept_unless_told(tmp_path: Path) -> None:
    paths = night(tmp_path / "in", 2)
    cube = cube_of(*paths)
    out = tmp_path / "out"
    out.mkdir()
    (out / "frame1.fits").write_text("mine")
    with pytest.raises(Misconfigured, match=r"frame1\.fits exists"):
        extract_frames(cube, out)
    assert [path.name for path in out.iterdir()] == ["frame1.fits"]
    extract_frames(cube, out, overwrite=True)
    assert (out / "frame1.fits").read_bytes() == paths[1].read_bytes()


def test_nothing_selected_is_an_error_that_says_what_there_is(tmp_path: Path) -> None:
    cube = cube_of(*night(tmp_path / "in", 2))
    with pytest.raises(Misconfigured, match="no frame of 0 to 1 is selected"):
        extract_frames(cube, tmp_path / "out", frames=slice(7, 9))
    with pytest.raises(Misconfigured, match="counted by -1"):
        extract_frames(cube, tmp_path / "out", frames=slice(None, None, -1))


def test_a_file_that_is_no_cube_is_refused(tmp_path: Path) -> None:
    (path,) = night(tmp_path / "in", 1)
    with pytest.raises(Rejected, match="has no table"):
        extract_frames(path, tmp_path / "out")


def test_progress_ends_at_all_pixels(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    extract_frames(cube_of(*night(tmp_path / "in", 3)), tmp_path / "out", progress=lambda *at: told.append(at))
    assert told[-1] == (3 * 70, 3 * 70)


@settings(max_examples=25)
@given(data=st.data())
def test_whatever_goes_in_comes_out(tmp_path_factory: Any, data: st.DataObject) -> None:
    directory = tmp_path_factory.mktemp("any") / "in"
    directory.mkdir()
    images = st.tuples(st.sampled_from(sorted(BITPIX)), st.integers(1, 5), st.integers(1, 9))
    paths = []
    for number in range(data.draw(st.integers(1, 4))):
        drawn = data.draw(st.lists(images, min_size=1, max_size=3))
        arrays = [pixels_of(kind, shape, number) for kind, *shape in drawn]  # type: ignore[arg-type]
        paths.append(write_frame(directory / f"{number}.fits", arrays))
    try:
        cube = cube_of(*paths)
    except Rejected:
        return
    out = extract_frames(cube, directory.with_name("out"))
    assert [path.read_bytes() for path in sorted(out)] == [path.read_bytes() for path in paths]
