"""Cubes of image builders in the ledger: one writer at a time, fenced, recorded, and no reason to delete raw frames."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nightglass.archive import BuiltCubes
from nightglass.config import Archive
from nightglass.cubes import CubeSummary, SourceSummary
from nightglass.errors import Rejected, Retryable
from nightglass.ledger import ArchiveRecord, ArchiveState, Ledger
from nightglass.model import Content, Night
from nightglass.watch.owners import Owner
from tests.unit.ledger.material import Clock

NIGHT = Night("20260821")
NAME = "gfa/20260821/guider-00000017"
FILES = {Path("/raw/guide-00000017-0000.fits"): "one", Path("/raw/guide-00000017-0001.fits"): "two"}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite", clock=Clock()) as opened:
        yield opened


def cubes(ledger: Ledger, owner: str = "") -> BuiltCubes:
    return BuiltCubes("guider", "gfa", ledger=ledger, rules=Archive(), owner=owner)


def make(path: Path) -> CubeSummary:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a cube")
    sources = (SourceSummary(name="A", frames=2, shape=(3, 4), bitpix=16, stored_bytes=48),)
    return CubeSummary(path=path, size=6, pixel_bytes=48, sources=sources, frames=2)


def keep(kept: BuiltCubes, path: Path, making: object = make) -> CubeSummary:
    return kept.keep(path, making, night=NIGHT, expid=17, files=FILES)  # type: ignore[arg-type]


def record(ledger: Ledger) -> ArchiveRecord:
    found = ledger.find_archive(NAME, Content.BUILT)
    assert found is not None
    return found


def test_a_cube_is_published_and_recorded_in_one(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "00000017" / "guide-00000017.fits"
    summary = keep(cubes(ledger), path)
    assert (summary.path, path.read_bytes()) == (path, b"a cube")
    found = record(ledger)
    assert found.is_safe
    assert (found.path, found.size, found.checksum) == (path, 6, summary.checksum)
    assert {item.path: item.content for item in found.files} == FILES
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    # those of the night are counted apart: nobody takes one for the other
    assert ledger.archive_counts(NIGHT, "gfa", built=True)[ArchiveState.ARCHIVED] == 1
    assert not any(ledger.archive_counts(NIGHT, "gfa").values())
    assert ledger.archives(NIGHT, "gfa", content=Content.RAW) == ()
    keep(cubes(ledger), path)  # a person may ask again
    assert record(ledger).state is ArchiveState.ARCHIVED


def test_two_at_once_are_excluded(ledger: Ledger, tmp_path: Path) -> None:
    path, inside, go_on = tmp_path / "guide-00000017.fits", threading.Event(), threading.Event()

    def slowly(part: Path) -> CubeSummary:
        inside.set()
        assert go_on.wait(60)
        return make(part)

    first = threading.Thread(target=keep, args=(cubes(ledger, "here"), path, slowly))
    first.start()
    assert inside.wait(60)
    try:
        with pytest.raises(Retryable, match="being written by here"):
            keep(cubes(ledger, "there"), path)
        assert not path.exists()
    finally:
        go_on.set()
        first.join()
    assert path.exists()


def test_what_a_dead_holder_held_is_free_at_once_and_its_parts_go(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "guide-00000017.fits"
    with subprocess.Popen(["true"]) as gone:
        dead = str(replace(Owner.here("builder"), pid=gone.pid))
    for owner, left in ((dead, "dead"), ("somebody on another host", "")):
        ledger.request_archive(NAME, Content.BUILT, night=NIGHT, camera="gfa", wanted=["x"], again=True)
        lease = ledger.claim_archive(NAME, Content.BUILT, owner=owner, lease_s=60)
        assert lease is not None
        (tmp_path / f"{path.name}.{lease.token}.part").write_bytes(b"half")
        if left:
            keep(cubes(ledger), path)
            assert [item.name for item in tmp_path.glob("guide*")] == [path.name]
        else:
            with pytest.raises(Retryable, match="another host"):
                keep(cubes(ledger), path)


def test_one_that_was_overtaken_publishes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "guide-00000017.fits"

    def overtaken(part: Path) -> CubeSummary:
        ledger.revoke_archives(owners=["me"])
        return make(part)

    with pytest.raises(Retryable, match="was taken from this holder"):
        keep(cubes(ledger, "me"), path, overtaken)
    assert list(tmp_path.glob("guide*")) == []


@pytest.mark.parametrize(
    ("error", "state"),
    [(Rejected("no frame"), ArchiveState.FAILED), (Retryable("no space"), ArchiveState.PENDING)],
)
def test_the_ledger_keeps_why_there_is_none_and_what_was_there(
    ledger: Ledger, tmp_path: Path, error: Exception, state: ArchiveState
) -> None:
    path = tmp_path / "guide-00000017.fits"
    keep(cubes(ledger), path)

    def failing(part: Path) -> CubeSummary:
        part.write_bytes(b"half")
        raise error

    with pytest.raises(type(error)):
        keep(cubes(ledger), path, failing)
    assert (record(ledger).state, record(ledger).reason) == (state, str(error))
    assert [item.name for item in tmp_path.glob("guide*")] == [path.name]
    keep(cubes(ledger), path)
    assert record(ledger).state is ArchiveState.ARCHIVED


def test_what_is_given_up_is_not_waited_for(ledger: Ledger, tmp_path: Path) -> None:
    def failing(_: Path) -> CubeSummary:
        raise Retryable("no space")

    kept, path = cubes(ledger), tmp_path / "guide-00000017.fits"
    kept.give_up(NIGHT, 17, "it was cleared")  # nothing was asked for
    assert ledger.find_archive(NAME, Content.BUILT) is None
    with pytest.raises(Retryable):
        keep(kept, path, failing)
    assert record(ledger).state is ArchiveState.PENDING
    kept.give_up(NIGHT, 17, "it was cleared")
    assert record(ledger).state is ArchiveState.FAILED
    assert "it was cleared" in record(ledger).reason
    keep(kept, path)
    kept.give_up(NIGHT, 17, "it was cleared")  # it is made
    assert record(ledger).is_safe
