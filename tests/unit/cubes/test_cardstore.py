from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from nightglass.cubes import bintables
from nightglass.cubes.cardstore import CardStore, cards_table, read_cards
from nightglass.cubes.records import FrameFile, HduText, Stamp, Survey, TablePlan
from nightglass.errors import Rejected, Retryable
from tests.unit.cubes.oracles import assert_sound, survey_of
from tests.unit.cubes.tables import frame, header, written

ODD = header(
    "SIMPLE  =                    T",
    b"OBSERVER= 'Andr\xe9 \xff\x00'",
    "LONG    = 'begins &'",
    "CONTINUE  'ends'",
    "HIERARCH ESO DET X = 1",
    "SAME    = 1",
    "SAME    = 2",
    "COMMENT one",
    "HISTORY two",
    "",
    "END of nothing",
)


def stored(path: Path, table: TablePlan) -> CardStore:
    store = read_cards(written(path, table))
    assert store is not None
    return store


def texts(store: CardStore) -> list[list[bytes]]:
    return [[hdu.text for hdu in store.file(name).hdus] for name in store.names]


def after_end(text: bytes) -> bytes:
    """Put cards behind END, as some cameras do."""
    return text[: len(text) - 160] + b"AFTER   = 1".ljust(80) + b"\0" * 80


def test_every_header_comes_back_byte_for_byte(tmp_path: Path) -> None:
    files = (
        frame(0, ODD, header("XTENSION= 'IMAGE   '")),
        frame(1, after_end(ODD), header(*(f"K{n:<7}= {n}" for n in range(80)))),
        frame(2, ODD[:2880]),
    )
    table = cards_table(Survey(files, ()))
    store = stored(tmp_path / "c.fits", table)
    assert texts(store) == [[hdu.text for hdu in file.hdus] for file in files]
    assert store.names == ("frame0000.fits", "frame0001.fits", "frame0002.fits")
    assert store.file("frame0000.fits").hdus[1].data_size == 200
    assert_sound(tmp_path / "c.fits")


def test_headers_alike_take_the_room_of_their_differences(tmp_path: Path) -> None:
    files = tuple(frame(n, header(*(f"K{k:<7}= {k}" for k in range(60)), f"FRAME   = {n}")) for n in range(500))
    table = cards_table(Survey(files, ()))
    assert len(table.data) < 5760 + 500 * 160
    assert texts(stored(tmp_path / "c.fits", table)) == [[file.hdus[0].text] for file in files]


def test_different_headers_of_one_length_are_stored_whole(tmp_path: Path) -> None:
    files = tuple(frame(n, header(*(f"K{k:<7}= {k * n}" for k in range(30)))) for n in range(40))
    assert texts(stored(tmp_path / "c.fits", cards_table(Survey(files, ())))) == [[file.hdus[0].text] for file in files]


blocks = st.lists(st.tuples(st.integers(0, 35), st.binary(min_size=80, max_size=80)), max_size=30)


@given(st.lists(st.tuples(st.integers(1, 2), blocks), min_size=1, max_size=12))
def test_any_bytes_come_back(tmp_path_factory: Any, headers: list[tuple[int, list[tuple[int, bytes]]]]) -> None:
    files = []
    for number, (length, changes) in enumerate(headers):
        text = bytearray(b" " * 2880 * length)
        for card, data in changes:
            text[card * 80 : card * 80 + 80] = data
        files.append(frame(number, bytes(text)))
    store = stored(tmp_path_factory.mktemp("any") / "c.fits", cards_table(Survey(tuple(files), ())))
    assert texts(store) == [[file.hdus[0].text] for file in files]


@pytest.mark.parametrize("packed", [False, True])
def test_tables_of_frames_are_kept(tmp_path: Path, packed: bool) -> None:
    table = fits.BinTableHDU.from_columns([fits.Column("x", "1J", array=np.arange(50))], name="STARS")
    text = fits.TableHDU.from_columns([fits.Column("y", "F8.3", array=np.arange(5.0))], name="LOG")
    image = fits.ImageHDU(np.zeros((4, 4), np.int16))
    squeezed = fits.CompImageHDU(np.zeros((4, 4), np.int16))
    path = tmp_path / "frame.fits"
    fits.HDUList([fits.PrimaryHDU(), table, image, text, squeezed]).writeto(path)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    (file,) = stored(tmp_path / "c.fits", cards_table(survey_of([path]))).names
    hdus = stored(tmp_path / "c.fits", cards_table(survey_of([path]))).file(file).hdus
    assert [hdu.data is not None for hdu in hdus] == [False, True, False, True, False]
    assert hdus[1].data == np.arange(50, dtype=">i4").tobytes()
    assert [hdu.is_table for hdu in hdus] == [False, True, False, True, False]
    assert [hdu.is_compressed for hdu in hdus] == [False, False, False, False, True]


def test_tables_beyond_the_bound_are_left_out(tmp_path: Path) -> None:
    table = fits.BinTableHDU.from_columns([fits.Column("x", "1J", array=np.arange(50))])
    path = tmp_path / "frame.fits"
    fits.HDUList([fits.PrimaryHDU(np.zeros((4, 4), np.int16)), table]).writeto(path)
    hdus = stored(tmp_path / "c.fits", cards_table(survey_of([path]), max_data=100)).file("frame.fits").hdus
    assert (hdus[1].data, hdus[1].data_size) == (None, 200)


def test_a_file_that_lost_its_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "frame.fits"
    path.write_bytes(b"")
    texts_ = (header("SIMPLE  = T"), header("XTENSION= 'BINTABLE'"))
    file = FrameFile(Stamp(path, 0, 0, 0), tuple(HduText(text, 2880, 200) for text in texts_))
    with pytest.raises(Retryable, match=r"frame\.fits: HDU 1 has 0 of 200 bytes"):
        cards_table(Survey((file,), ()))


def test_a_cube_without_store_has_none(tmp_path: Path) -> None:
    assert read_cards(written(tmp_path / "none.fits")) is None


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    files = tuple(frame(n, header(*(f"K{k:<7}= {k}" for k in range(30)), f"FRAME   = {n}")) for n in range(3))
    table = cards_table(Survey(files, ()))
    path = written(tmp_path / "c.fits", table)
    data = bytearray(path.read_bytes())
    start = data.index(table.data[:100])
    width = int(table.header["NAXIS1"])
    data[start + 2 * width - 12 : start + 2 * width - 8] = (1 << 30).to_bytes(4, "big")
    path.write_bytes(bytes(data))
    store = read_cards(path)
    assert store is not None
    with pytest.raises(Rejected, match="heap"):
        store.file("frame0001.fits")
    with pytest.raises(Rejected, match="has no file"):
        store.file("other.fits")


def test_a_table_of_another_program_is_refused(tmp_path: Path) -> None:
    fits.BinTableHDU.from_columns([fits.Column("x", "1C", array=np.zeros(3, complex))], name="CARDS").writeto(
        tmp_path / "c.fits"
    )
    with pytest.raises(Rejected, match="TFORM"):
        read_cards(tmp_path / "c.fits")


def test_descriptors_are_wide_from_two_gib_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightglass.cubes.cardstore._SMALL_HEAP", 1000)
    files = (frame(0, ODD), frame(1, after_end(ODD)))
    table = cards_table(Survey(files, ()))
    assert table.header["TFORM6"].startswith("1QB")
    assert texts(stored(tmp_path / "c.fits", table)) == [[ODD], [after_end(ODD)]]
    assert_sound(tmp_path / "c.fits")
    assert bintables.MAX_COLUMNS == 999
