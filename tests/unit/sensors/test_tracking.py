from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightglass.sensors.tracking import Fingerprint, Tracker

PATH = "/raw/a.fits"


def print_of(size: int = 100, mtime: int = 1, inode: int = 7, mode: int = 0o100644) -> Fingerprint:
    return Fingerprint(size, mtime, inode, mode)


@pytest.fixture
def tracker() -> Tracker:
    return Tracker(settle_s=1.0, patience_s=5.0, grace_s=0.1, late_s=2.0)


def closes(tracker: Tracker, fingerprint: Fingerprint, now: float) -> bool:
    """Close the file, wait for the grace, and say whether it is sighted."""
    tracker.closed(PATH, fingerprint, now)
    sighted = [path for path in tracker.due(now + 0.1, most=10) if tracker.rested(path, fingerprint, now + 0.1)]
    for path in sighted:
        tracker.sighted(path, fingerprint)
    return bool(sighted)


def test_a_closed_file_is_sighted_after_the_grace_and_once(tracker: Tracker) -> None:
    assert closes(tracker, print_of(), 0.0)
    assert not closes(tracker, print_of(), 1.0)
    assert closes(tracker, print_of(mtime=2), 2.0)
    assert closes(tracker, print_of(inode=8), 3.0), "another file in its place"
    assert closes(tracker, print_of(mode=0o100000), 4.0), "it may have become readable"
    assert not closes(tracker, print_of(size=0), 5.0), "an empty file gets patience"


def test_a_time_that_is_set_after_the_close_is_no_change(tracker: Tracker) -> None:
    tracker.closed(PATH, print_of(), 0.0)
    tracker.appeared(PATH, print_of(mtime=7), 0.05)
    assert tracker.due(0.1, most=10) == []
    assert tracker.due(0.16, most=10) == [PATH]
    assert tracker.rested(PATH, print_of(mtime=7), 0.16)


def test_scans_alone_are_told_from_events(tracker: Tracker) -> None:
    for path, also in (("/raw/a", None), ("/raw/b", tracker.appeared), ("/raw/c", tracker.closed)):
        tracker.found(path, print_of(), 0.0)
        if also:
            also(path, print_of(), 0.0)
    tracker.written("/raw/d", 0.0)
    tracker.found("/raw/d", print_of(), 0.0)
    now = 0.0
    while tracker.waiting:
        now += 0.5
        for path in tracker.due(now, most=10):
            if tracker.rested(path, print_of(), now):
                tracker.sighted(path, print_of())
    assert tracker.take_unheard(2.9) == 0
    assert tracker.take_unheard(3.0) == 1
    assert tracker.take_unheard(9.0) == 0
    assert tracker.known == 4


def test_an_event_may_come_after_the_scan_that_found_its_file(tracker: Tracker) -> None:
    """The thread that hears of events may be the slower one on a busy machine."""
    events = (tracker.closed, tracker.appeared, lambda path, _, now: tracker.written(path, now))
    for number, event in enumerate(events):
        path = f"/raw/{number}"
        tracker.found(path, print_of(), 0.0)
        assert tracker.due(1.0, most=1) == [path]
        assert tracker.rested(path, print_of(), 1.0)
        tracker.sighted(path, print_of())
        event(path, print_of(), 2.5)
    assert tracker.take_unheard(100.0) == 0


def test_a_file_that_appeared_must_rest(tracker: Tracker) -> None:
    tracker.appeared(PATH, print_of(), 0.0)
    assert tracker.due(0.9, most=10) == []
    assert tracker.due(1.0, most=10) == [PATH]
    assert not tracker.rested(PATH, print_of(size=200), 1.0)
    assert tracker.due(1.5, most=10) == []
    assert tracker.due(2.0, most=10) == [PATH]
    assert tracker.rested(PATH, print_of(size=200), 2.0)
    assert tracker.waiting == 0


def test_a_file_being_written_waits_for_its_close(tracker: Tracker) -> None:
    tracker.appeared(PATH, print_of(size=0), 0.0)
    for step in range(20):
        tracker.written(PATH, 0.3 * step)
        assert tracker.due(0.3 * step, most=10) == []
    assert tracker.waiting == 1
    assert len(tracker._agenda) == 1, "a busy writer does not fill the agenda"
    assert closes(tracker, print_of(), 6.0)
    assert tracker.waiting == 0
    assert tracker.due(100.0, most=10) == []


def test_a_writer_that_hangs_is_not_waited_for_for_ever(tracker: Tracker) -> None:
    tracker.written(PATH, 0.0)
    assert tracker.due(5.0, most=10) == [PATH]
    assert not tracker.rested(PATH, print_of(), 5.0)
    assert tracker.due(6.0, most=10) == [PATH]
    assert tracker.rested(PATH, print_of(), 6.0)


def test_an_empty_file_gets_patience(tracker: Tracker) -> None:
    tracker.appeared(PATH, print_of(size=0), 0.0)
    assert tracker.due(4.9, most=10) == []
    assert tracker.due(5.0, most=10) == [PATH]


def test_older_files_come_first_when_due_together(tracker: Tracker) -> None:
    for name, mtime in (("c", 3), ("a", 2), ("b", 1)):
        tracker.appeared(f"/raw/{name}.fits", print_of(mtime=mtime), 0.0)
    assert tracker.due(1.0, most=2) == ["/raw/b.fits", "/raw/a.fits"]
    assert tracker.due(1.0, most=2) == ["/raw/c.fits"]


def test_what_is_gone_is_forgotten(tracker: Tracker) -> None:
    for path in ("/raw/a.fits", "/raw/n/b.fits", "/raw/n/m/c.fits", "/raw/nn/d.fits"):
        tracker.sighted(path, print_of())
    assert tracker.unlisted("/raw", {"other.fits"}) == ["/raw/a.fits"]
    assert tracker.unlisted("/raw", {"a.fits"}) == []
    tracker.appeared("/raw/n/e.fits", print_of(), 0.0)
    tracker.forget_directory("/raw/n")
    assert sorted(tracker.directories) == ["/raw", "/raw/nn"]
    assert tracker.waiting == 0
    tracker.forget("/raw/a.fits")
    assert tracker.known == 1
    assert tracker.is_new("/raw/a.fits", print_of())


def test_memory_of_many_files_is_bounded(tracker: Tracker) -> None:
    names = [f"/raw/20260821/lynx-{number:08d}.fits" for number in range(20_000)]
    tracemalloc.start()
    for number, name in enumerate(names):
        tracker.sighted(name, print_of(mtime=number))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / len(names) < 300


def test_fingerprints_are_of_regular_files_only(tmp_path: Path) -> None:
    (tmp_path / "x.fits").mkdir()
    os.mkfifo(tmp_path / "pipe.fits")
    (tmp_path / "a.fits").write_bytes(b"1234")
    assert Fingerprint.of((tmp_path / "x.fits").stat()) is None
    assert Fingerprint.of((tmp_path / "pipe.fits").stat()) is None
    found = Fingerprint.of((tmp_path / "a.fits").stat())
    assert found is not None
    assert found.size == 4


class Desk:
    """A tracker, the files it is told about, and what it sighted."""

    def __init__(self) -> None:
        self.tracker = Tracker(settle_s=1.0, patience_s=5.0, grace_s=0.1, late_s=2.0)
        self.sizes = {f"/raw/{index}.fits": 0 for index in range(3)}
        self.sightings: dict[str, list[int]] = {path: [] for path in self.sizes}
        self.now = 0.0

    def happen(self, kind: str, path: str) -> None:
        fingerprint = print_of(size=self.sizes[path])
        if kind == "written":
            self.sizes[path] += 10
            self.tracker.written(path, self.now)
        elif kind == "appeared":
            self.tracker.appeared(path, fingerprint, self.now)
        elif kind == "closed":
            self.tracker.closed(path, fingerprint, self.now)
        else:
            self.tracker.found(path, fingerprint, self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for path in self.tracker.due(self.now, most=100):
            if self.tracker.rested(path, print_of(size=self.sizes[path]), self.now):
                self.sight(path)

    def sight(self, path: str) -> None:
        self.sightings[path].append(self.sizes[path])
        self.tracker.sighted(path, print_of(size=self.sizes[path]))


@given(
    st.lists(
        st.tuples(st.sampled_from(["appeared", "found", "written", "closed", "wait"]), st.integers(0, 2)), max_size=60
    )
)
@settings(max_examples=150, deadline=None)
def test_every_last_state_is_sighted_exactly_once(events: list[tuple[str, int]]) -> None:
    """Whatever order events come in, after a quiet time the last state of each file was sighted, and none twice."""
    desk = Desk()
    touched = {f"/raw/{index}.fits" for kind, index in events if kind != "wait"}
    for kind, index in events:
        if kind == "wait":
            desk.wait(0.7)
        else:
            desk.happen(kind, f"/raw/{index}.fits")
    for _ in range(20):
        desk.wait(1.0)
    for path in touched:
        assert desk.sightings[path][-1] == desk.sizes[path]
        assert len(set(desk.sightings[path])) == len(desk.sightings[path])
    assert desk.tracker.waiting == 0
