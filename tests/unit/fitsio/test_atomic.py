from __future__ import annotations

import os
from pathlib import Path

import pytest

from nightglass.errors import Retryable
from nightglass.fitsio import part_path, publish, remove_stale_parts, write_atomic


def test_a_file_appears_whole(tmp_path: Path) -> None:
    final = tmp_path / "new" / "a.fits"
    with write_atomic(final) as part:
        part.write_text("whole")
        assert part.parent == final.parent
        assert not final.exists()
    assert final.read_text() == "whole"
    assert [path.name for path in final.parent.iterdir()] == ["a.fits"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    final = tmp_path / "a.txt"
    final.write_text("old")
    with pytest.raises(KeyError), write_atomic(final) as part:  # noqa: PT012 - the block is what is tested
        part.write_text("half")
        raise KeyError
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Retryable, match="cannot be written"), write_atomic(tmp_path / "a"):
        pass


def test_publishing_needs_a_part(tmp_path: Path) -> None:
    with pytest.raises(Retryable, match="cannot be published"):
        publish(tmp_path / "a.part", tmp_path / "a")


def test_parts_carry_the_token_of_their_holder(tmp_path: Path) -> None:
    final = tmp_path / "12.fits"
    assert part_path(final, "token-1").name == "12.fits.token-1.part"
    assert part_path(final, "../../etc").parent == tmp_path


def test_stale_parts_are_removed(tmp_path: Path) -> None:
    night = tmp_path / "lynx" / "20260821" / "reduced"
    night.mkdir(parents=True)
    alive, stale = part_path(night / "1.fits", "alive"), part_path(night / "1.fits", "stale")
    own = part_path(night / "report.txt", f"w{os.getpid()}x01234567")
    gone = part_path(night / "report.txt", "w999999999x01234567")
    for path in (alive, stale, own, gone, night / "1.fits"):
        path.touch()
    (night / "directory.x.part").mkdir()
    assert remove_stale_parts(tmp_path, {"alive"}) == (stale, gone)
    assert remove_stale_parts(tmp_path, {"alive"}) == ()
    assert remove_stale_parts(tmp_path / "nowhere", set()) == ()
    assert alive.exists()
    assert own.exists()
