"""The sensor on a real file system: each test writes as somebody would, and counts what is sighted."""

from __future__ import annotations

import os
import resource
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from nightglass.sensors import SensorState
from nightglass.sensors.events import Change, Happening, Inbox, Listener
from nightglass.simulate import hostile
from tests.unit.sensors.watched import CONTENT, PATIENCE_S, Watch, Watched


@pytest.mark.timed
def test_a_closed_file_is_sighted_within_50_ms_with_its_data(watch: Watch, raw: Path) -> None:
    watched = watch(settle_s=600.0)
    latencies = []
    for number in range(10):
        (raw / f"{number}.fits").write_bytes(CONTENT)
        closed_at = time.monotonic()
        watched.until(lambda number=number: len(watched.sightings) > number)
        latencies.append(watched.times[-1] - closed_at)
    assert sorted(latencies)[5] < 0.05
    status = (raw / "9.fits").stat()
    last = watched.sightings[-1]
    assert (last.path, last.size, last.mtime_ns, last.inode) == (
        raw / "9.fits",
        len(CONTENT),
        status.st_mtime_ns,
        status.st_ino,
    )
    assert last.seen_at.utcoffset() is not None


@pytest.mark.parametrize("polling", [False, True], ids=["events", "polling"])
def test_every_good_writer_ends_in_a_sighting_of_the_whole(watch: Watch, raw: Path, polling: bool) -> None:
    watched = watch(polling=polling, settle_s=0.3)
    content = hostile.multi_extension()
    names = {f"{write.__name__}.fits": write for write in hostile.GOOD_WRITERS}
    threads = [threading.Thread(target=write, args=(raw / name, content)) for name, write in names.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def last(name: str) -> int:
        return max((item.size for item in watched.sightings if item.path.name == name), default=0)

    watched.until(lambda: all(last(name) == len(content) for name in names))
    watched.rest()
    assert set(watched.names) == set(names)
    states = [(item.path, item.size, item.mtime_ns, item.inode) for item in watched.sightings]
    assert len(set(states)) == len(states), "no state of a file is sighted twice"
    if not polling:
        early = {"reopened.fits", "extension_by_extension.fits"}
        assert {name for name in names if watched.names.count(name) > 1} <= early


def test_a_slow_writer_with_the_file_open_is_sighted_once(watch: Watch, raw: Path) -> None:
    watched = watch(settle_s=0.05)
    watched.rest()
    hostile.slow(raw / "slow.fits", CONTENT, chunks=4, pause_s=0.2)
    watched.rest()
    assert watched.names == ["slow.fits"]


@pytest.mark.parametrize("polling", [False, True], ids=["events", "polling"])
def test_files_that_were_there_are_found_oldest_first(watch: Watch, raw: Path, polling: bool) -> None:
    (raw / "deep").mkdir(parents=True)
    for age, name in enumerate(["c.FITS", "a.fit", "deep/b.fits.gz"]):
        (raw / name).write_bytes(CONTENT)
        os.utime(raw / name, (1e9 - age, 1e9 - age))
    watched = watch(polling=polling)
    watched.until(lambda: watched.sensor.status.caught_up)
    assert watched.names == ["deep/b.fits.gz", "a.fit", "c.FITS"]
    assert watched.sensor.status.sighted == watched.sensor.status.known == 3


def test_what_is_no_exposure_is_passed_over(watch: Watch, raw: Path, tmp_path: Path) -> None:
    watched = watch(rescan_s=0.3)
    hostile.named_like_a_file(raw / "directory.fits")
    hostile.symlink_loop(raw / "loop.fits")
    (raw / "dangling.fits").symlink_to(tmp_path / "nowhere")
    os.mkfifo(raw / "pipe.fits")
    (raw / "notes.txt").write_text("seeing was bad")
    (raw / ".hidden").mkdir()
    (raw / ".hidden" / "a.fits").write_bytes(CONTENT)
    (raw / "directory.fits" / "inside.fits").write_bytes(CONTENT)
    time.sleep(0.8)
    watched.rest()
    assert watched.names == ["directory.fits/inside.fits"]
    assert not watched.alarms


@pytest.mark.timed
@pytest.mark.parametrize("make", [hostile.new_nested_directory, hostile.move_directory_from_outside])
def test_files_in_directories_that_are_new_are_found_and_later_ones_at_once(
    watch: Watch, raw: Path, make: Callable[[Path, bytes], Path]
) -> None:
    watched = watch()
    watched.rest()
    inside = make(raw / "a.fits", CONTENT)
    watched.until(lambda: str(inside.relative_to(raw)) in watched.names, seconds=2.0)
    watched.rest()
    inside.with_name("later.fits").write_bytes(CONTENT)
    watched.until(lambda: len(watched.names) == 2, seconds=1.0)
    assert watched.sightings[-1].path == inside.with_name("later.fits")


def test_without_recursion_only_the_top_counts(watch: Watch, raw: Path) -> None:
    watched = watch(recursive=False, rescan_s=0.2)
    hostile.new_nested_directory(raw / "a.fits", CONTENT)
    (raw / "top.fits").write_bytes(CONTENT)
    time.sleep(0.5)
    watched.rest()
    assert watched.names == ["top.fits"]


@pytest.mark.parametrize("replace", [hostile.replace_in_place, hostile.replace_by_rename])
@pytest.mark.parametrize("polling", [False, True], ids=["events", "polling"])
def test_a_file_that_changes_is_sighted_again(
    watch: Watch, raw: Path, replace: Callable[[Path, bytes], None], polling: bool
) -> None:
    watched = watch(polling=polling)
    (raw / "a.fits").write_bytes(CONTENT)
    watched.until(lambda: len(watched.names) == 1)
    replace(raw / "a.fits", CONTENT + CONTENT)
    watched.until(lambda: len(watched.names) == 2)
    watched.rest()
    assert [item.size for item in watched.sightings] == [len(CONTENT), 2 * len(CONTENT)]


def test_reading_a_file_causes_no_sighting(watch: Watch, raw: Path) -> None:
    watched = watch(rescan_s=0.2)
    (raw / "a.fits").write_bytes(CONTENT)
    for _ in range(5):
        (raw / "a.fits").read_bytes()
        time.sleep(0.1)
    watched.rest()
    assert watched.names == ["a.fits"]


@pytest.mark.timed
def test_the_rescan_finds_what_events_missed_and_has_them_come_again(watch: Watch, raw: Path) -> None:
    watched = watch(rescan_s=0.5)
    watched.rest()
    deaf = watched.sensor._attachment._listener
    assert deaf is not None
    deaf._observer.unschedule_all()  # as on a network file system, or after the kernel's queue overflowed
    deaf.__class__ = _SeemsAlive
    (raw / "missed.fits").write_bytes(CONTENT)
    watched.until(lambda: watched.names == ["missed.fits"], seconds=4.0)
    watched.until(lambda: bool(watched.alarms), seconds=8.0)
    assert "polling = true" in watched.alarms[0]
    watched.until(lambda: watched.sensor._attachment._listener not in (None, deaf))
    watched.sensor._tracker._settle_s = 600.0  # for what scans find: the next one has to be heard of
    (raw / "heard.fits").write_bytes(CONTENT)
    closed_at = time.monotonic()
    watched.until(lambda: len(watched.names) == 2, seconds=2.0)
    assert watched.times[-1] - closed_at < 0.15
    assert len(watched.alarms) == 1


class _SeemsAlive(Listener):
    alive = True


def test_a_copy_that_sets_the_time_afterwards_is_sighted_once(
    watch: Watch, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nightglass.sensors.files._GRACE_S", 1.0)  # a busy machine may pause between close and utime
    watched = watch(settle_s=2.0)
    (tmp_path / "original.fits").write_bytes(CONTENT)
    os.utime(tmp_path / "original.fits", (1e9, 1e9))
    for number in range(20):
        shutil.copy2(tmp_path / "original.fits", raw / f"{number}.fits")
    watched.rest()
    assert sorted(watched.names) == sorted(f"{number}.fits" for number in range(20))


@pytest.mark.timed
def test_permissions_and_times_that_change_are_noticed(watch: Watch, raw: Path) -> None:
    watched = watch()
    (raw / "a.fits").write_bytes(CONTENT)
    watched.until(lambda: len(watched.names) == 1)
    (raw / "a.fits").chmod(0o600)
    watched.until(lambda: len(watched.names) == 2, seconds=2.0)
    os.utime(raw / "a.fits", (1e9, 1e9))
    watched.until(lambda: len(watched.names) == 3, seconds=2.0)
    assert watched.sightings[-1].mtime_ns == 10**18


@pytest.mark.timed
def test_a_burst_of_thousands_is_sighted_to_the_last(watch: Watch, raw: Path) -> None:
    watched = watch()
    paths = hostile.burst(raw, count=3000)
    watched.until(lambda: len(watched.sightings) >= len(paths), seconds=20.0)
    watched.rest()
    assert sorted(item.path for item in watched.sightings) == paths


def test_what_nobody_took_is_offered_again(watch: Watch, raw: Path, caplog: pytest.LogCaptureFixture) -> None:
    watched = watch(rescan_s=0.3)
    watched.rest()
    watched.refuse.add("a.fits")
    (raw / "a.fits").write_bytes(CONTENT)
    (raw / "b.fits").write_bytes(CONTENT)
    watched.until(lambda: sorted(watched.names) == ["a.fits", "b.fits"])
    assert "the ledger is locked" in watched.alarms[0]


def test_a_name_that_is_not_utf8_is_told_once(watch: Watch, raw: Path) -> None:
    watched = watch(rescan_s=0.2)
    (Path(os.fsdecode(os.fsencode(raw) + b"/bad-\xff.fits"))).write_bytes(CONTENT)
    watched.until(lambda: bool(watched.alarms))
    time.sleep(0.6)
    watched.rest()
    assert watched.names == []
    assert len(watched.alarms) == 1
    assert "rename" in watched.alarms[0]


def test_what_is_gone_leaves_the_memory(watch: Watch, raw: Path) -> None:
    watched = watch(rescan_s=0.3)
    paths = hostile.burst(raw, count=50)
    watched.until(lambda: watched.sensor.status.known == 50)
    for path in paths[:30]:
        path.unlink()
    watched.until(lambda: watched.sensor.status.known == 20)


def test_a_file_in_the_way_of_the_directory_is_an_error(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("")
    with pytest.raises(OSError, match="raw"):
        watch(tmp_path / "raw")


@pytest.mark.timed
def test_without_more_inotify_instances_it_polls(watch: Watch, raw: Path) -> None:
    raw.mkdir(parents=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        watched = watch()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert watched.sensor.status.state is SensorState.POLLING
    assert "max_user_watches" in watched.sensor.status.trouble
    (raw / "a.fits").write_bytes(CONTENT)
    watched.until(lambda: watched.names == ["a.fits"], seconds=5.0)


def test_neither_threads_nor_descriptors_leak(watch: Watch, raw: Path) -> None:
    def resources() -> tuple[int, int]:
        return threading.active_count(), psutil.Process().num_fds()

    warm = watch()
    warm.sensor.stop()
    warm.sensor.join(PATIENCE_S)
    before, since = resources(), time.monotonic()
    while time.monotonic() - since < 0.5:  # something of an earlier test may just be ending
        now, time_s = resources(), time.monotonic()
        before, since = (before, since) if now == before else (now, time_s)
        time.sleep(0.02)
    for number in range(4):
        watched = watch()
        (raw / "a.fits").write_bytes(CONTENT)
        watched.until(lambda watched=watched: watched.names == ["a.fits"])
        if number % 2:
            shutil.rmtree(raw)
            watched.until(lambda watched=watched: watched.sensor.status.state is SensorState.LOST)
            raw.mkdir()
        watched.sensor.stop()
        watched.sensor.join(PATIENCE_S)
        assert watched.sensor.status.state is SensorState.IDLE
    assert resources() == before


def test_a_sensor_stops_before_it_was_started_and_starts_only_once(raw: Path) -> None:
    watched = Watched(raw)
    watched.sensor.stop()
    watched.sensor.join(1.0)
    watched.sensor.start()
    watched.sensor.join(PATIENCE_S)
    with pytest.raises(RuntimeError, match="started already"):
        watched.sensor.start()


def test_a_full_inbox_asks_for_a_scan() -> None:
    inbox = Inbox(limit=2)
    for number in range(3):
        inbox.put(Happening(Change.FILE_CLOSED, str(number)))
    assert inbox.overflowed()
    assert not inbox.overflowed()
    assert [item.path for item in inbox.take(wait_s=0.0, most=10)] == ["0", "1"]
