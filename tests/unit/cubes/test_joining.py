"""Planes that are compressed alike are joined as bytes, and decode to what they decoded to before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from nightglass.cubes.joining import DamagedTiles, JoinedTiles, PlaneTiles, difference_of_columns, join_tiles
from nightglass.cubes.records import FrameFile, Stamp
from nightglass.errors import Rejected

FILE = FrameFile(Stamp(Path("frame.fits"), 0, 0, 0), ())
P, Q = ">i4", ">i8"


def _table(cells: dict[str, list[tuple[int, int]]], kind: str = P, element: str = "B", heap: int = 1000) -> PlaneTiles:
    """Make rows of descriptors: (count, place) of each tile."""
    count = len(next(iter(cells.values())))
    rows = np.zeros(count, [(name, kind, (2,)) for name in cells])
    for name, values in cells.items():
        rows[name] = values
    form = f"1{'P' if kind == P else 'Q'}{element}(9)"
    return PlaneTiles(FILE, tuple((name, form) for name in cells), count, rows.tobytes(), 0, heap)


def _descriptors(joined: JoinedTiles, name: str = "DATA") -> list[list[int]]:
    wide = P if dict(joined.columns)[name].startswith("1P") else Q
    dtype = np.dtype([(column, wide, (2,)) for column, _ in joined.columns])
    return np.frombuffer(joined.rows, dtype)[name].tolist()


def test_heaps_follow_one_another() -> None:
    joined = join_tiles([_table({"DATA": [(10, 0), (5, 10)]}), _table({"DATA": [(7, 0)]})])
    assert _descriptors(joined) == [[10, 0], [5, 10], [7, 15]]
    assert joined.heap_size == 22
    assert [(part.plane, part.offset, part.size) for part in joined.segments] == [(0, 0, 15), (1, 0, 7)]
    assert joined.columns == (("DATA", "1PB(10)"),)


def test_gaps_are_left_behind_and_shared_bytes_stay_shared() -> None:
    joined = join_tiles([_table({"DATA": [(10, 50), (10, 55), (0, 999_999), (4, 200), (10, 50)]})])
    assert _descriptors(joined) == [[10, 0], [10, 5], [0, 0], [4, 15], [10, 0]]
    assert [(part.offset, part.size) for part in joined.segments] == [(50, 15), (200, 4)]


def test_arrays_that_a_plane_lacks_are_empty() -> None:
    joined = join_tiles([_table({"DATA": [(3, 0)]}), _table({"DATA": [(0, 0)], "GZIP": [(6, 2)]})])
    assert [name for name, _ in joined.columns] == ["DATA", "GZIP"]
    assert _descriptors(joined) == [[3, 0], [0, 0]]
    assert _descriptors(joined, "GZIP") == [[0, 0], [6, 3]]


def test_descriptors_become_wide_with_the_heap() -> None:
    planes = [_table({"DATA": [(600, 0)]}), _table({"DATA": [(400, 600)]}, Q)]
    assert join_tiles(planes, wide_heap=1001).columns == (("DATA", "1PB(600)"),)
    wide = join_tiles(planes, wide_heap=1000)
    assert wide.columns == (("DATA", "1QB(600)"),)
    assert _descriptors(wide) == [[600, 0], [400, 600]]


@pytest.mark.parametrize(
    "cell",
    [(11, 0), (1, 10), (-1, 0), (3, -1), (2**31 - 1, 0), (2**31 - 1, 2**31 - 1)],
)
@pytest.mark.parametrize("kind", [P, Q])
def test_tiles_outside_of_their_heap(kind: str, cell: tuple[int, int]) -> None:
    good = _table({"DATA": [(10, 0)]}, kind, heap=10)
    with pytest.raises(DamagedTiles, match=r"frame\.fits.*outside of its heap of 10 bytes") as caught:
        join_tiles([good, _table({"DATA": [(1, 0), cell]}, kind, heap=10), good])
    assert list(caught.value.reasons) == [1]


@pytest.mark.parametrize("element", ["B", "I", "J", "D"])
@pytest.mark.parametrize("cell", [(2**61, 0), (2**62, 0), (2**63 - 1, 1), (2, 2**63 - 1), (2**61, 2**62)])
def test_descriptors_that_overflow_64_bits(element: str, cell: tuple[int, int]) -> None:
    with pytest.raises(DamagedTiles):
        join_tiles([_table({"DATA": [cell]}, Q, element)])


def test_rows_that_are_cut_short() -> None:
    whole = _table({"DATA": [(1, 0), (1, 1)]})
    for rows in (b"", whole.rows[:8], whole.rows[:-1], whole.rows * 2):
        with pytest.raises(DamagedTiles, match="2 tiles take 8 bytes each"):
            join_tiles([PlaneTiles(FILE, whole.columns, 2, rows, 0, 1000)])


@pytest.mark.parametrize("names", [("DATA", "DATA"), ()])
def test_columns_that_no_image_has(names: tuple[str, ...]) -> None:
    columns = tuple((name, "1PB(1)") for name in names)
    with pytest.raises(DamagedTiles, match="the columns of a compressed image are"):
        join_tiles([PlaneTiles(FILE, columns, 1, bytes(8 * len(names)), 0, 0)])


def test_columns_that_cannot_be_joined() -> None:
    arrays, numbers = (("DATA", "1PB(5)"),), (("DATA", "1PB(7)"), ("ZBLANK", "1J"))
    assert difference_of_columns([arrays, arrays]) == ""
    assert difference_of_columns([arrays, (("DATA", "QB(9)"), ("MORE", "1PI(2)"))]) == ""
    assert difference_of_columns([numbers, arrays]) == "some have a column ZBLANK, others have not"
    assert "not of one type" in difference_of_columns([arrays, (("DATA", "1PI(5)"),)])
    assert "none of a compressed image" in difference_of_columns([(("DATA", "8A"),)])
    assert "none of a compressed image" in difference_of_columns([(("", "1PB"),)])
    with pytest.raises(Rejected, match="not of one type"):
        join_tiles([_table({"DATA": [(1, 0)]}), _table({"DATA": [(1, 0)]}, element="I")])


_HEAP = bytes(np.random.default_rng(0).integers(0, 256, 64, np.uint8))


@given(
    st.lists(
        st.lists(st.integers(0, 64).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, 64 - n))), min_size=1),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([P, Q]),
    st.integers(0, 200),
)
def test_every_cell_keeps_its_bytes(cells: list[list[tuple[int, int]]], kind: str, wide_heap: int) -> None:
    joined = join_tiles([_table({"DATA": one}, kind, heap=64) for one in cells], wide_heap=wide_heap)
    heap = b"".join(_HEAP[part.offset : part.offset + part.size] for part in joined.segments)
    assert len(heap) == joined.heap_size <= 64 * len(cells)
    found = [heap[place : place + count] for count, place in _descriptors(joined)]
    assert found == [_HEAP[place : place + count] for one in cells for count, place in one]


@given(st.binary(max_size=200), st.integers(0, 12), st.integers(0, 2**40), st.sampled_from(["1PB", "1QJ(7)", "1D"]))
def test_any_bytes_are_rows_or_damage(rows: bytes, tiles: int, heap: int, form: str) -> None:
    plane = PlaneTiles(FILE, (("DATA", form), ("ZZERO", "1E")), tiles, rows, 0, heap)
    try:
        joined = join_tiles([plane])
    except DamagedTiles:
        return
    assert all(0 <= part.offset <= part.offset + part.size <= heap for part in joined.segments)


def test_what_astropy_reads_of_joined_rows(tmp_path: Path) -> None:
    """A real table, its heap moved by the segments."""
    pixels: Any = np.random.default_rng(3).integers(0, 500, (20, 30), np.int16)
    path = tmp_path / "frame.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels)]).writeto(path)
    with fits.open(path, disable_image_compression=True) as hdus:
        start, header = int(hdus[1].fileinfo()["datLoc"]), hdus[1].header
        columns = ((header["TTYPE1"], header["TFORM1"]),)
        cells = [bytes(cell) for cell in hdus[1].data["COMPRESSED_DATA"]]
    whole, table = path.read_bytes(), header["NAXIS1"] * header["NAXIS2"]
    rows = whole[start : start + table]
    plane = PlaneTiles(FILE, columns, 20, rows, start + table, header["PCOUNT"])
    joined = join_tiles([plane, plane])
    heap = b"".join(whole[part.offset : part.offset + part.size] for part in joined.segments)
    name = columns[0][0]
    assert [heap[place : place + count] for count, place in _descriptors(joined, name)] == cells * 2
