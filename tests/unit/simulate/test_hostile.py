"""Hostile writers do what their names say: the good ones leave every byte, the others exactly their fault."""

from __future__ import annotations

import gzip
import io
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from astropy.io import fits

from nightglass.simulate import NightPlan, hostile, write_night


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    directory = tmp_path / "raw"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("write", hostile.GOOD_WRITERS, ids=lambda write: write.__name__)
def test_good_writers_leave_the_whole_file(write: Callable[[Path, bytes], None], raw: Path) -> None:
    content = hostile.multi_extension()
    write(raw / "a.fits", content)
    assert (raw / "a.fits").read_bytes() == content
    assert [path.name for path in raw.iterdir()] == ["a.fits"]


def test_edges_are_those_of_the_hdus() -> None:
    content = hostile.multi_extension(extensions=3)
    edges = hostile.hdu_edges(content)
    assert len(edges) == 4
    assert edges[-1] == len(content)
    with fits.open(io.BytesIO(content[: edges[1]])) as hdus:
        assert len(hdus) == 2, "a file cut at an edge is valid in itself"


def test_cut_and_zero_tail_have_the_right_sizes(raw: Path) -> None:
    content = hostile.tiny()
    hostile.truncated(raw / "t.fits", content)
    hostile.zero_tail(raw / "z.fits", content)
    assert 0 < (raw / "t.fits").stat().st_size < len(content)
    zeros = (raw / "z.fits").read_bytes()
    assert len(zeros) == len(content)
    assert zeros != content
    assert not any(zeros[-2000:])


@pytest.mark.parametrize("announced", [None, 1])
def test_gzip_bomb_is_valid_gzip_and_small(raw: Path, announced: int | None) -> None:
    path = raw / "bomb.fits.gz"
    hostile.gzip_bomb(path, expanded_mib=20, announced_mib=announced)
    assert path.stat().st_size < 40_000
    with gzip.open(path) as stream:
        content = stream.read()
    assert len(content) == hostile.BLOCK + (20 << 20)
    assert fits.Header.fromstring(content[: hostile.BLOCK])["NAXIS2"] == (announced or 20)


def test_burst_gives_each_file_its_number(raw: Path) -> None:
    paths = hostile.burst(raw, count=300, first_number=7)
    assert [fits.getheader(path)["EXPNUM"] for path in paths[:2]] == [7, 8]
    assert len({path.read_bytes() for path in paths}) == 300


def test_half_written_is_half_there_inside_and_whole_afterwards(raw: Path) -> None:
    content = hostile.tiny()
    with hostile.half_written(raw / "h.fits", content):
        assert (raw / "h.fits").stat().st_size == len(content) // 2
    assert (raw / "h.fits").read_bytes() == content


def test_directories_come_with_their_file(raw: Path) -> None:
    content = hostile.tiny()
    for make in (hostile.new_nested_directory, hostile.move_directory_from_outside):
        assert make(raw / "d.fits", content).read_bytes() == content
    hostile.symlink_loop(raw / "loop.fits")
    assert not (raw / "loop.fits").exists()
    assert (raw / "loop-nest" / "again" / "loop-nest" / "again").is_dir()


def test_a_night_can_be_written_in_a_roundabout_way(raw: Path) -> None:
    plan = NightPlan(shape=(16, 16), biases=3, darks=0, flats=0, science=0)
    names: set[str] = set()
    thread = threading.Thread(target=lambda: write_night(raw, plan, seed=1, write=hostile.renamed_later))
    thread.start()
    while thread.is_alive():
        names |= {path.name for path in raw.iterdir()}
    assert {path.suffix for path in raw.iterdir()} == {".fits"}
    assert any(name.endswith(".part") for name in names)
