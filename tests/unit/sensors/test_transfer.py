from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nightglass.errors import Misconfigured, NightglassError, Rejected, Retryable
from nightglass.model import Sighting
from nightglass.sensors import TransferBench

WHOLE = 100
PATIENCE_S = 120.0


def check(path: Path) -> int:
    """Stand for the completeness check: a file is whole at 100 bytes, and damaged when it begins with x."""
    content = path.read_bytes()
    if content.startswith(b"x"):
        message = f"{path}: not FITS"
        raise Rejected(message)
    if len(content) < WHOLE:
        message = f"{path}: {len(content)} of {WHOLE} bytes"
        raise Retryable(message)
    return len(content)


class Results:
    def __init__(self) -> None:
        self.complete: list[tuple[str, int, float]] = []
        self.failed: list[tuple[str, NightglassError, float]] = []
        self.refuse = 0

    def on_complete(self, sighting: Sighting, size: int) -> None:
        if self.refuse:
            self.refuse -= 1
            message = "the ledger is locked"
            raise RuntimeError(message)
        assert sighting.size == size
        self.complete.append((sighting.path.name, size, time.monotonic()))

    def on_failed(self, sighting: Sighting, error: NightglassError) -> None:
        self.failed.append((sighting.path.name, error, time.monotonic()))


Make = Callable[..., tuple[TransferBench[int], Results]]


@pytest.fixture
def make() -> Iterator[Make]:
    benches: list[TransferBench[int]] = []

    def start(
        function: Callable[[Path], int] = check, *, timeout_s: float = PATIENCE_S, slots: int = 2
    ) -> tuple[TransferBench[int], Results]:
        results = Results()
        bench = TransferBench(
            function,
            on_complete=results.on_complete,
            on_failed=results.on_failed,
            slots=slots,
            transfer_timeout_s=timeout_s,
        )
        bench.start()
        benches.append(bench)
        return bench, results

    yield start
    for bench in benches:
        bench.stop()
        bench.join(PATIENCE_S)


def sight(path: Path) -> Sighting:
    status = path.stat()
    return Sighting(
        path=path, size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino, seen_at=datetime.now(UTC)
    )


def until(condition: Callable[[], bool], *, seconds: float = PATIENCE_S) -> None:
    ends_at = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends_at:
        time.sleep(0.002)
    assert condition()


@pytest.mark.timed
def test_good_and_bad_files_are_told_at_once(make: Make, tmp_path: Path) -> None:
    bench, results = make()
    (tmp_path / "good").write_bytes(bytes(WHOLE))
    (tmp_path / "bad").write_bytes(b"x")
    for name in ("good", "bad"):
        bench.offer(sight(tmp_path / name))
    until(lambda: bench.pending == 0, seconds=1.0)
    assert [(name, size) for name, size, _ in results.complete] == [("good", WHOLE)]
    assert [(name, str(error)) for name, error, _ in results.failed] == [("bad", f"{tmp_path / 'bad'}: not FITS")]


def test_a_growing_file_is_complete_soon_after_its_last_byte(make: Make, tmp_path: Path) -> None:
    bench, results = make(timeout_s=1.0)
    path = tmp_path / "slow"
    path.write_bytes(bytes(10))
    bench.offer(sight(path))
    for _ in range(9):
        time.sleep(0.15)
        with path.open("ab") as stream:
            stream.write(bytes(10))
    grown_at = time.monotonic()
    bench.offer(sight(path))
    until(lambda: bool(results.complete))
    assert results.complete[0][2] - grown_at < 0.1
    assert not results.failed, "it took longer than the time-out in all, but never paused for so long"


def test_a_file_that_never_ends_fails_once_and_says_how_much_came(make: Make, tmp_path: Path) -> None:
    bench, results = make(timeout_s=0.5)
    path = tmp_path / "cut"
    path.write_bytes(bytes(60))
    begin = time.monotonic()
    bench.offer(sight(path))
    until(lambda: bool(results.failed))
    _, error, at = results.failed[0]
    assert isinstance(error, Rejected)
    assert 0.5 <= at - begin < 0.9
    assert "60 bytes came and nothing more for 0.5 s" in str(error)
    assert "60 of 100 bytes" in str(error)
    assert "transfer it again" in str(error)
    path.write_bytes(bytes(WHOLE))
    bench.offer(sight(path))
    until(lambda: bool(results.complete))
    assert len(results.failed) == 1


@pytest.mark.timed
def test_hundreds_of_slow_files_do_not_hold_up_good_ones(make: Make, tmp_path: Path) -> None:
    checked: list[str] = []

    def costly(path: Path) -> int:
        checked.append(path.name)
        time.sleep(0.01)
        return check(path)

    bench, results = make(costly, timeout_s=600.0)
    for number in range(300):
        path = tmp_path / f"slow{number}"
        path.write_bytes(bytes(5))
        bench.offer(sight(path))
    until(lambda: not bench._schedule._offered, seconds=10.0)
    before, latencies = [], []
    for number in range(20):
        path = tmp_path / f"good{number}"
        path.write_bytes(bytes(WHOLE))
        offered_at = time.monotonic()
        bench.offer(sight(path))
        earlier = len(checked)
        until(lambda number=number: len(results.complete) > number)
        latencies.append(results.complete[-1][2] - offered_at)
        before.append(checked.index(path.name) - earlier)
        time.sleep(0.02)
    assert max(before) <= 2, "it waits for those that are being checked, and for no other"
    assert sorted(latencies)[10] < 0.1
    assert max(latencies) < 0.5
    assert bench.pending == 300


@pytest.mark.timed
def test_a_check_that_hangs_takes_one_slot_only(make: Make, tmp_path: Path) -> None:
    release = threading.Event()

    def hanging(path: Path) -> int:
        if path.name == "hung":
            release.wait(PATIENCE_S)
        return check(path)

    bench, results = make(hanging)
    for name in ("hung", "good"):
        (tmp_path / name).write_bytes(bytes(WHOLE))
        bench.offer(sight(tmp_path / name))
    until(lambda: len(results.complete) == 1, seconds=1.0)
    release.set()
    until(lambda: len(results.complete) == 2)


@pytest.mark.timed
def test_a_file_that_is_removed_or_renamed_fails_soon(make: Make, tmp_path: Path) -> None:
    bench, results = make(timeout_s=3600.0)
    path = tmp_path / "gone"
    path.write_bytes(bytes(WHOLE))
    sighting = sight(path)
    path.unlink()
    bench.offer(sighting)
    until(lambda: bool(results.failed), seconds=5.0)
    assert "removed or renamed" in str(results.failed[0][1])


def test_a_file_that_breaks_its_check_is_one_failure(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(path: Path) -> int:
        if path.name == "strange":
            return 1 // 0
        if path.name == "configured":
            message = "no such dialect"
            raise Misconfigured(message)
        return check(path)

    bench, results = make(broken)
    for name in ("strange", "configured", "good"):
        (tmp_path / name).write_bytes(bytes(WHOLE))
        bench.offer(sight(tmp_path / name))
    until(lambda: bench.pending == 0)
    errors = {name: error for name, error, _ in results.failed}
    assert "ZeroDivisionError" in str(errors["strange"])
    assert isinstance(errors["strange"], Rejected)
    assert isinstance(errors["configured"], Misconfigured)
    assert len(results.complete) == 1


def test_an_unreadable_file_fails_in_its_time(make: Make, tmp_path: Path) -> None:
    def denied(path: Path) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    bench, results = make(denied, timeout_s=0.3)
    (tmp_path / "a").write_bytes(bytes(WHOLE))
    bench.offer(sight(tmp_path / "a"))
    until(lambda: bool(results.failed))
    assert "Permission denied" in str(results.failed[0][1])


def test_a_result_that_nobody_takes_is_offered_until_somebody_does(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench, results = make()
    results.refuse = 2
    (tmp_path / "a").write_bytes(bytes(WHOLE))
    bench.offer(sight(tmp_path / "a"))
    until(lambda: bench.pending == 0)
    assert results.complete
    assert "is checked again" in caplog.text


def test_threads_end(tmp_path: Path) -> None:
    def active() -> int:
        return sum(thread.name.startswith("transfer bench") for thread in threading.enumerate())

    before = active()
    bench = TransferBench(check, on_complete=lambda *_: None, on_failed=lambda *_: None, slots=3)
    bench.stop()
    bench.join(PATIENCE_S)
    bench = TransferBench(check, on_complete=lambda *_: None, on_failed=lambda *_: None, slots=3)
    bench.start()
    assert active() == before + 3
    bench.stop()
    bench.join(PATIENCE_S)
    assert active() == before
