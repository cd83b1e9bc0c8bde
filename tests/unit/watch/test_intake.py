"""Taking files in: nothing is lost when the ledger is busy, and one odd file does not stop the others."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nightglass.config import Observatory, load_camera
from nightglass.errors import Retryable
from nightglass.ledger import Entry, Ledger
from nightglass.model import Night, Sighting, State
from nightglass.simulate.hostile import garbage, tiny
from nightglass.watch.intake import Intake
from nightglass.watch.sources import Place

NIGHT = Night("20260821")


class Door:
    def __init__(self, root: Path, ledger: Ledger) -> None:
        self.root, self.ledger = root, ledger
        self.complete: list[Entry] = []
        source = {"camera": "lynx", "directory": str(root), "transfer_timeout_s": 0.5}
        observatory = Observatory.model_validate({"root": root, "sources": [source]})
        self.place = Place(observatory.sources[0], load_camera("lynx"), root, NIGHT)
        self.intake = Intake(ledger, observatory, wake=lambda: None, on_complete=self.complete.append)

    def sight(self, path: Path) -> None:
        status = path.stat()
        sighting = Sighting(
            path=path,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            inode=status.st_ino,
            seen_at=datetime.now(UTC),
        )
        self.intake.sight(self.place, sighting)

    def put(self, name: str, *, number: int) -> Path:
        path = self.root / name
        path.write_bytes(tiny(number=number))
        os.utime(path, (path.stat().st_mtime - 60,) * 2)  # so old that nobody may still be writing it
        self.sight(path)
        return path

    def work(self) -> None:
        end = time.monotonic() + 120
        while len(self.intake):
            assert time.monotonic() < end
            self.intake.work()
            time.sleep(0.01)

    def states(self) -> dict[str, State]:
        return {entry.path.name: entry.state for entry in self.ledger.entries()}


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with Ledger.open(tmp_path / "ledger.sqlite", busy_timeout_s=0.1) as ledger:
        opened = Door(tmp_path, ledger)
        yield opened
        opened.intake.stop()


def test_whole_files_go_on_and_garbage_is_rejected_with_a_reason(door: Door) -> None:
    door.put("a.fits", number=1)
    garbage(door.root / "b.fits")
    door.sight(door.root / "b.fits")
    door.work()
    assert door.states() == {"a.fits": State.COMPLETE, "b.fits": State.REJECTED}
    assert [entry.exposure_id for entry in door.complete] == [f"lynx/{NIGHT}/1"]
    assert "b.fits" in door.ledger.find(str(door.root / "b.fits")).reason
    assert door.intake.touched == {("lynx", NIGHT)}


def test_what_a_locked_ledger_refuses_is_kept_and_recorded_later(door: Door) -> None:
    door.put("a.fits", number=1)
    with contextlib.closing(sqlite3.connect(door.root / "ledger.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Retryable, match="locked"):
            door.intake.work()
        other.execute("ROLLBACK")
        door.intake.work()
        while not door.intake.busy:
            time.sleep(0.01)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Retryable, match="locked"):
            door.intake.work()
    door.work()
    assert door.states() == {"a.fits": State.COMPLETE}


def test_a_burst_goes_on_piece_by_piece(door: Door) -> None:
    for number in range(1, 31):
        door.put(f"{number}.fits", number=number)
    door.intake.work()
    steps = []
    while len(door.intake):
        before = len(door.complete)
        door.intake.work()
        steps.append(len(door.complete) - before)
    assert sum(steps) == 30
    assert max(steps) <= 10


def test_a_file_that_cannot_be_recorded_is_left_out_and_the_others_are_not(door: Door) -> None:
    good = [door.put(f"{number}.fits", number=number) for number in (1, 2)]
    odd = Sighting(path=good[0], size=2**80, mtime_ns=1, inode=1, seen_at=datetime.now(UTC))
    door.intake.sight(door.place, odd.__class__(**{**_fields(odd), "path": door.root / "odd.fits"}))
    door.put("3.fits", number=3)
    faults = 0
    for _ in range(6):
        try:
            door.intake.work()
        except OverflowError:
            faults += 1
    door.work()
    assert faults == 2  # once together with the others, once alone
    assert door.states() == dict.fromkeys(["1.fits", "2.fits", "3.fits"], State.COMPLETE)


def test_an_outcome_that_is_older_than_the_file_is_not_taken(door: Door) -> None:
    path = door.put("a.fits", number=1)
    door.intake.work()
    while not door.intake.busy:
        time.sleep(0.01)
    path.write_bytes(tiny(number=2))
    os.utime(path, (path.stat().st_mtime - 30,) * 2)
    door.intake._record_some()
    door.sight(path)
    door.intake._record_some()  # the new sighting comes before the old outcome
    door.work()
    assert door.ledger.find(str(path)).exposure_id == f"lynx/{NIGHT}/2"


def test_an_entry_that_was_seen_before_is_taken_up_once_and_only_if_its_file_is_there(door: Door) -> None:
    path = door.put("a.fits", number=1)
    door.intake.work()
    other = Door(door.root, door.ledger)
    (entry,) = door.ledger.pending("lynx")
    other.intake.resume(entry, other.place)
    other.intake.resume(entry, other.place)
    assert len(other.intake) == 1
    other.work()
    assert door.states() == {"a.fits": State.COMPLETE}
    path.unlink()
    other.intake.resume(entry, other.place)
    assert len(other.intake) == 0
    other.intake.retire(())
    other.intake.stop()


def _fields(sighting: Sighting) -> dict[str, object]:
    return {name: getattr(sighting, name) for name in ("path", "size", "mtime_ns", "inode", "seen_at")}
