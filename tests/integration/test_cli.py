"""Nights run by the command line, as an engineer would: started, looked at, stopped; and the demonstration."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from nightglass.errors import Retryable
from nightglass.ledger import Ledger
from nightglass.model import Night, Sighting, State
from nightglass.simulate import NightPlan, write_night

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

NIGHT = Night("20260821")
PLAN = NightPlan(night=NIGHT, biases=3, darks=0, flats=0, science=2, dithers=1, filters=("r",), shape=(256, 256))


def environment(root: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NIGHTGLASS_", "PREFECT_"))}
    return kept | {"NIGHTGLASS_ROOT": str(root), "COLUMNS": "140", "NO_COLOR": "1"}


def nightglass(root: Path, *arguments: str, timeout_s: float = 250) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deployments.cli", *arguments],
        env=environment(root),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def left_behind(mark: Path) -> list[str]:
    """Return the processes that have the mark in their command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if process.pid != os.getpid() and any(str(mark) in word for word in words):
            found.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
    return found


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    place = tmp_path / "raw"
    write_night(place, PLAN, seed=1)
    return place


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "root"
    end = time.monotonic() + 10  # multiprocessing's tracker of resources ends when it sees that its parent is gone
    while (left := left_behind(tmp_path / "root")) and time.monotonic() < end:
        time.sleep(0.1)
    assert left == []


def test_once_runs_what_is_there_to_the_end(raw: Path, root: Path) -> None:
    (raw / "garbage.fits").write_bytes(b"no camera wrote this" * 300)
    later = replace(PLAN, night=Night("20260822"), biases=1, science=0)
    write_night(raw / "later", later, seed=2)
    options = ["--camera", "lynx", "--once", "--no-prefect", "--workers", "1"]
    done = nightglass(root, "run", str(raw), *options)
    assert done.returncode == 0, done.stderr
    assert "median latency" in done.stdout
    assert done.stdout.index(f"Night {NIGHT}") < done.stdout.index("Night 20260822"), "each night has its table"
    status = json.loads(nightglass(root, "status", "--night", NIGHT.label, "--json").stdout)
    assert status["counts"]["reduced"] == 5
    assert status["latency_s"]["p50"] > 0
    assert {stage["stage"]: stage["state"] for stage in status["stages"]}["final"] == "done"
    night = root / "lynx" / NIGHT.label
    assert len(list((night / "reduced").glob("*.fits"))) == 5
    assert (night / "reports" / f"{NIGHT}-final.html").is_file()
    assert "watching" in (night / "logs" / f"{NIGHT}.log").read_text()
    table = nightglass(root, "calibrations", "--night", NIGHT.label).stdout
    assert "bias-ccd1" in table
    assert "tonight" in table
    assert "required" in table  # there are no flats
    reconciled = nightglass(root, "ledger", "reconcile", "--night", NIGHT.label)
    assert reconciled.returncode == 0, reconciled.stdout

    # a second time nothing is left to do, and nothing is done again
    products = {path: path.stat().st_mtime_ns for path in (night / "reduced").iterdir()}
    assert nightglass(root, "run", str(raw), *options).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (night / "reduced").iterdir()} == products


def test_once_ends_with_1_if_an_exposure_failed(raw: Path, root: Path) -> None:
    options = ["--camera", "lynx", "--once", "--no-prefect", "--workers", "1"]
    assert nightglass(root, "run", str(raw), *options).returncode == 0
    with Ledger.open(root / "ledger.sqlite") as ledger:
        (entry, *_) = ledger.entries(NIGHT, "lynx", [State.REDUCED])
        entry.path.write_bytes(entry.path.read_bytes()[:-2880] + bytes(2880))
        lost = Retryable(f"{entry.exposure_id}: 2 workers died while they ran it")
        stat = entry.path.stat()
        sighting = Sighting(
            path=entry.path,
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            inode=stat.st_ino,
            seen_at=datetime.now(UTC),
        )
        ledger.fail(ledger.see(sighting, camera="lynx", night=NIGHT).key, lost)
    done = nightglass(root, "run", str(raw), *options)
    assert done.returncode == 1, done.stderr
    assert "2 workers died" in done.stdout


def test_a_watch_reduces_what_comes_and_ends_in_order_on_sigterm(raw: Path, root: Path) -> None:
    command = [sys.executable, "-m", "deployments.cli", "run", str(raw), "--camera", "lynx", "--no-prefect"]
    log = root.with_name("watch.log")
    with log.open("w") as stream:
        watch = subprocess.Popen(
            [*command, "--workers", "1"], env=environment(root), stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        wait_for(lambda: reduced(root) == 5, watch, log)
        second = nightglass(root, "run", str(raw), "--camera", "lynx", "--no-prefect")
        assert second.returncode == 2
        assert f"process {watch.pid}" in second.stderr
        screen = nightglass(root, "status").stdout
        assert "5 of 5 exposures reduced" in screen
        assert "watching" in screen
        write_night(raw, NightPlan(night=NIGHT, biases=1, darks=0, flats=0, science=0, first_number=50), seed=2)
        wait_for(lambda: reduced(root) == 6, watch, log)
        os.killpg(watch.pid, signal.SIGTERM)
        assert watch.wait(30) == 0, log.read_text()
    finally:
        watch.kill()
        watch.wait()
    assert "Traceback" not in log.read_text()


def reduced(root: Path) -> int:
    if not (root / "ledger.sqlite").exists():
        return 0
    with Ledger.open(root / "ledger.sqlite") as ledger:
        return ledger.counts(NIGHT, "lynx")[State.REDUCED]


def wait_for(condition: object, watch: subprocess.Popen[bytes], log: Path, *, timeout_s: float = 120) -> None:
    assert callable(condition)
    end = time.monotonic() + timeout_s
    while not condition():
        assert watch.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)


@pytest.mark.server
@pytest.mark.timeout(700)
def test_the_demonstration_runs_a_whole_night_and_leaves_nothing_behind(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    started = time.monotonic()
    done = nightglass(tmp_path / "unused", "demo", "--directory", str(place), timeout_s=600)
    taken_s = time.monotonic() - started
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("bias, dark and flat", "midway", "final", "night is closed", "http://127.0.0.1:", "median latency"):
        assert words in done.stdout
    for words in ("products", "quick looks", "masters", "stacks", "report", "rejected"):
        assert words in done.stdout
    assert left_behind(place) == []
    assert not (tmp_path / "unused").exists()
    assert taken_s < 180 * max(1.0, os.getloadavg()[1] / 2)  # three minutes on two cores that are its own
    root = place / "root"
    with Ledger.open(root / "ledger.sqlite") as ledger:
        (record,) = ledger.nights("lynx")
        counts = ledger.counts(record.night, "lynx")
        assert {stage.state.value for stage in record.stages} == {"done"}
    assert counts[State.FAILED] == counts[State.WAITING] == 0
    assert counts[State.REDUCED] == 5 + 3 + 6 + 12
    assert counts[State.REJECTED] >= 4
    assert not list(root.rglob("*.part"))
