"""A simulated night through a real watch: sensors, ledger, groups, plain library calls; no Prefect, no cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits

from nightglass.config import MissingCalibration, Observatory, load_camera
from nightglass.errors import Misconfigured, Retryable
from nightglass.layout import Layout
from nightglass.ledger import Ledger, StageState
from nightglass.model import Kind, Night, Stage, State
from nightglass.pool import SerialPool
from nightglass.simulate import NightPlan, write_night
from nightglass.simulate.hostile import burst, garbage, rsync_like, truncated
from nightglass.watch import Watch
from nightglass.watch.executor import Executor
from nightglass.watch.heartbeat import Heartbeat, read_heartbeats
from tests.unit.watch.puppet import PuppetExecutor

pytestmark = pytest.mark.slow
NIGHT = Night("20260821")
PLAN = NightPlan(night=NIGHT, biases=3, darks=3, flats=3, science=4, dithers=2, filters=("g",), shape=(128, 128))
LIVE_S = 120.0


class Site:
    """A root, a raw directory and a ledger; starts watches in threads of this process."""

    def __init__(self, root: Path, ledger: Ledger) -> None:
        self.root, self.raw, self.ledger = root, root / "raw", ledger
        self.layout = Layout(root / "out")
        self.told: list[str] = []
        self.camera = load_camera("lynx")
        self.pool = SerialPool()
        self.executor: Executor | None = None

    def observatory(self, **changes: object) -> Observatory:
        source = {"camera": "lynx", "directory": str(self.raw), "rescan_s": 1.0, "settle_s": 0.1}
        source |= dict(changes.pop("source", {}))  # type: ignore[call-overload]
        values: dict[str, object] = {
            "root": self.layout.root,
            "sources": [source],
            "reduction": {"calibration_settle_s": 0.5, "retry_s": 0.2},
            "limits": {"free_disk_gib": 0},
        }
        return Observatory.model_validate(values | changes)

    def watch(self, *, once: bool = False, nights: tuple[Night, ...] = (), **changes: object) -> Watch:
        return Watch(
            self.observatory(**changes),
            {"lynx": self.camera},
            self.ledger,
            self.pool,
            self.executor,
            once=once,
            nights=nights,
            alarm=lambda subject, text: self.told.append(f"{subject}: {text}"),
            grace_s=10.0,
        )

    @contextlib.contextmanager
    def live(self, **arguments: object) -> Iterator[Watch]:
        watch = self.watch(**arguments)  # type: ignore[arg-type]
        thread = threading.Thread(target=watch.run, name="watch under test")
        started = time.time()
        thread.start()
        try:
            self.wait(lambda: any(beat.at > started for beat in read_heartbeats(self.layout.run)), what="heartbeat")
            yield watch
        finally:
            watch.stop()
            thread.join(LIVE_S)
        assert not thread.is_alive()

    def wait(self, condition: Callable[[], bool], *, what: str) -> None:
        end = time.monotonic() + LIVE_S
        while not condition():
            assert time.monotonic() < end, f"{what}: {self.states()}"
            time.sleep(0.02)

    def states(self) -> dict[str, State]:
        return {entry.path.name: entry.state for entry in self.ledger.entries()}

    def reduced(self, count: int) -> Callable[[], bool]:
        return lambda: self.ledger.counts()[State.REDUCED] == count

    def beat(self) -> Heartbeat:
        return read_heartbeats(self.layout.run)[0]

    def no_parts(self) -> bool:
        return not list(self.layout.root.rglob("*.part"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Ledger.open(tmp_path / "out" / "ledger.sqlite") as ledger:
        yield Site(tmp_path, ledger)


def test_once_reduces_what_is_there_makes_masters_first_and_closes_the_night(site: Site) -> None:
    night = write_night(site.raw, replace(PLAN, shape=(320, 320)), seed=1)  # stars enough to align by
    garbage(site.raw / "garbage.fits")
    truncated(site.raw / "cut.fits", night.paths[-1].read_bytes())
    result = site.watch(once=True, source={"transfer_timeout_s": 0.5}).run()
    assert result.failed == 0
    assert result.stages_failed == ()
    assert result.counts[f"lynx/{NIGHT}"] == {"reduced": 13}
    states = site.states()
    assert (states["garbage.fits"], states["cut.fits"]) == (State.REJECTED, State.REJECTED)
    science = list(site.ledger.entries(kinds=[Kind.SCIENCE]))
    assert all(len(entry.masters) == 3 for entry in science)
    assert all(site.layout.reduced(entry.ref).exists() for entry in site.ledger.entries(NIGHT) if entry.ref)
    record = site.ledger.find_night(NIGHT, "lynx")
    assert record is not None
    assert not record.is_open
    assert list(site.layout.night("lynx", NIGHT).glob("stacks/*.fits"))
    assert site.no_parts()
    assert site.beat().phase == "stopped"
    claims = [event.after for entry in science for event in site.ledger.history(entry.key)].count(State.RUNNING)
    again = site.watch(once=True, source={"transfer_timeout_s": 0.5}).run()
    assert again.failed == 0
    after = [event.after for entry in science for event in site.ledger.history(entry.key)].count(State.RUNNING)
    assert after == claims, "a second run found everything done"


def test_a_live_night_reduces_at_once_and_survives_a_restart_in_the_middle(site: Site) -> None:
    plan = replace(PLAN, science=8, dithers=4)
    elsewhere = write_night(site.root / "elsewhere", plan, seed=2)
    first, second = elsewhere.paths[:11], elsewhere.paths[11:]
    with site.live():
        for path in first:
            rsync_like(site.raw / path.name, path.read_bytes())
        site.wait(lambda: site.states().get(first[-1].name) is State.COMPLETE, what="first half of a dither set")
        site.wait(site.reduced(9), what="calibrations")
        site.wait(lambda: len(site.ledger.masters("lynx")) == 3, what="masters")
    assert set(site.states().values()) == {State.REDUCED, State.COMPLETE}
    with site.live():
        for path in second:
            rsync_like(site.raw / path.name, path.read_bytes())
        site.wait(site.reduced(17), what="everything")
        site.wait(lambda: site.beat().counts == {f"lynx/{NIGHT}": {"reduced": 17}}, what="heartbeat of that")
    groups = site.ledger.groups(NIGHT, "lynx", rule="dither")
    assert [(len(group.members), group.complete) for group in groups] == [(4, True), (4, True)]
    for entry in site.ledger.entries():
        products = [event for event in site.ledger.history(entry.key) if event.after is State.REDUCED]
        assert len(products) == 1, f"{entry.exposure_id} was reduced {len(products)} times"
    assert site.told == []
    assert site.no_parts()


def test_a_replaced_file_is_reduced_again_and_a_retried_one_too(site: Site) -> None:
    paths = write_night(site.root / "elsewhere", replace(PLAN, biases=2, darks=0, flats=0, science=0), seed=3).paths
    with site.live():
        target = site.raw / "frame.fits"
        rsync_like(target, paths[0].read_bytes())
        site.wait(site.reduced(1), what="first content")
        with fits.open(paths[0]) as hdus:
            hdus[0].data = hdus[0].data + 7
            hdus.writeto(site.root / "changed.fits")
        rsync_like(target, (site.root / "changed.fits").read_bytes())
        site.wait(lambda: site.ledger.find(str(target)).revision == 2 and site.reduced(1)(), what="second content")
        entry = site.ledger.find(str(target))
        changed_at = entry.times["reduced"]
        site.ledger.retry([entry.key], owner="a person")
        site.wait(lambda: site.ledger.find(str(target)).times.get("reduced", 0) > changed_at, what="a person's retry")
        broken = site.raw / "garbage.fits"
        garbage(broken)
        twice = [State.SEEN, State.REJECTED] * 2
        site.wait(lambda: site.states().get(broken.name) is State.REJECTED, what="the rejection")
        site.ledger.retry([str(broken)])
        site.wait(lambda: [event.after for event in site.ledger.history(str(broken))] == twice, what="a retry")


def test_a_late_member_joins_its_closed_group(site: Site) -> None:
    plan = replace(PLAN, biases=0, darks=0, flats=0, science=4, dithers=4)
    *most, late = write_night(site.root / "elsewhere", plan, seed=4).paths
    with site.live() as watch:
        for path in most:
            rsync_like(site.raw / path.name, path.read_bytes())
        site.wait(lambda: list(site.states().values()) == [State.COMPLETE] * 3, what="three of four")
        site.wait(lambda: len(watch._parts.collector) == 3, what="three that wait for the fourth")
        watch._parts.collector.flush()  # instead of waiting for the time-out of minutes
        site.wait(site.reduced(3), what="an incomplete group")
    with site.live():  # another watch knows the closed group from the ledger
        rsync_like(site.raw / late.name, late.read_bytes())
        site.wait(site.reduced(4), what="the late member")
    (group,) = site.ledger.groups(NIGHT, "lynx", rule="dither")
    assert (len(group.members), group.revision) == (4, 2)
    for entry in site.ledger.entries():
        reductions = [event for event in site.ledger.history(entry.key) if event.after is State.REDUCED]
        assert len(reductions) == 1


def test_science_that_waits_for_a_master_runs_when_it_is_made(site: Site) -> None:
    rules = site.camera.calibrations.items()
    waiting = {kind: rule.model_copy(update={"missing": MissingCalibration.WAIT}) for kind, rule in rules}
    site.camera = site.camera.model_copy(update={"calibrations": waiting})
    paths = write_night(site.root / "elsewhere", replace(PLAN, darks=3, science=2, dithers=1), seed=5).paths
    with site.live():
        for path in paths[-2:]:
            rsync_like(site.raw / path.name, path.read_bytes())
        site.wait(lambda: site.ledger.counts()[State.WAITING] == 2, what="science without masters")
        for path in paths[:-2]:
            rsync_like(site.raw / path.name, path.read_bytes())
        site.wait(site.reduced(len(paths)), what="science after its masters")
    assert all(len(entry.masters) == 3 for entry in site.ledger.entries(kinds=[Kind.SCIENCE]))


def test_stages_that_are_due_are_run_and_the_watch_of_a_named_night_ends(site: Site) -> None:
    write_night(site.raw, replace(PLAN, darks=0, flats=0, science=1, dithers=1), seed=6)
    watch = site.watch(nights=(NIGHT,), night={"midway": "0.0005h", "final": "0.0015h"})
    thread = threading.Thread(target=watch.run)
    thread.start()
    thread.join(LIVE_S)
    assert not thread.is_alive()
    record = site.ledger.find_night(NIGHT, "lynx")
    assert record is not None
    assert not record.is_open
    assert {stage.stage: stage.state for stage in record.stages} == dict.fromkeys(Stage, StageState.DONE)
    assert record.stage(Stage.MIDWAY).attempts == 1
    assert set(site.states().values()) == {State.REDUCED}
    assert site.layout.report("lynx", NIGHT, Stage.FINAL, ".html").exists()


def test_an_exposure_that_comes_after_the_night_was_closed_opens_it_again(site: Site) -> None:
    first, second = write_night(
        site.root / "elsewhere", replace(PLAN, biases=2, darks=0, flats=0, science=0), seed=7
    ).paths
    site.raw.mkdir()
    (site.raw / first.name).write_bytes(first.read_bytes())
    site.watch(once=True).run()
    with site.live():
        rsync_like(site.raw / second.name, second.read_bytes())
        site.wait(site.reduced(2), what="the late exposure")
        record = site.ledger.find_night(NIGHT, "lynx")
        assert record is not None
        assert record.is_open
        assert record.stage(Stage.FINAL).due > datetime.now(UTC)


def test_a_slow_file_holds_up_nobody(site: Site) -> None:
    slow, *quick = write_night(
        site.root / "elsewhere", replace(PLAN, biases=4, darks=0, flats=0, science=0), seed=8
    ).paths
    with site.live():
        content = slow.read_bytes()
        with (site.raw / slow.name).open("wb") as stream:
            stream.write(content[: len(content) // 2])
            stream.flush()
            for path in quick:
                rsync_like(site.raw / path.name, path.read_bytes())
            site.wait(site.reduced(3), what="the others")
            stream.write(content[len(content) // 2 :])
        site.wait(site.reduced(4), what="the slow one")


def test_a_burst_is_taken_in_without_loss(site: Site) -> None:
    with site.live():
        paths = burst(site.raw, count=60)
        final = (State.REDUCED, State.REJECTED)
        site.wait(lambda: sum(site.ledger.counts()[state] for state in final) == len(paths), what="the burst")
    assert len(site.states()) == len(paths)


def test_a_second_watch_of_the_same_camera_is_refused(site: Site) -> None:
    with site.live(), pytest.raises(Misconfigured, match=rf"lynx is watched .* by process {os.getpid()}"):
        site.watch().run()


WATCH_ALONE = """
import sys
from pathlib import Path
from nightglass.config import Observatory, load_camera
from nightglass.ledger import Ledger
from nightglass.pool import SerialPool
from nightglass.watch import Watch
root, raw = Path(sys.argv[1]), sys.argv[2]
observatory = Observatory.model_validate({"root": root, "sources": [{"camera": "lynx", "directory": raw}]})
with Ledger.open(root / "ledger.sqlite") as ledger:
    Watch(observatory, {"lynx": load_camera("lynx")}, ledger, SerialPool()).run()
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_a_signal_ends_it_and_nothing_is_lost(site: Site, number: signal.Signals, status: int) -> None:
    paths = write_night(site.root / "elsewhere", replace(PLAN, biases=12, darks=0, flats=0, science=0), seed=9).paths
    command = [sys.executable, "-c", WATCH_ALONE, str(site.layout.root), str(site.raw)]
    with subprocess.Popen(command) as process:
        site.wait(lambda: bool(read_heartbeats(site.layout.run)), what="heartbeat")
        for path in paths:
            rsync_like(site.raw / path.name, path.read_bytes())
        site.wait(lambda: site.ledger.counts()[State.REDUCED] >= 2, what="a few reduced")
        process.send_signal(number)
        assert process.wait(30) == status
    if status == 0:
        assert State.RUNNING not in site.states().values()
    with site.live():
        site.wait(site.reduced(12), what="the rest")
    for entry in site.ledger.entries():
        reductions = [event for event in site.ledger.history(entry.key) if event.after is State.REDUCED]
        assert len(reductions) == 1
    assert site.no_parts()


def test_the_directory_of_each_night_is_made_and_watched(site: Site) -> None:
    pattern = {"directory": str(site.root / "{camera}" / "{night}" / "raw")}
    bias = write_night(site.root / "elsewhere", replace(PLAN, biases=1, darks=0, flats=0, science=0), seed=10).paths[0]

    def tonight() -> Path:  # another one after noon
        return site.root / "lynx" / (datetime.now(UTC) - timedelta(hours=12)).strftime("%Y%m%d") / "raw"

    named = site.root / "lynx" / str(NIGHT) / "raw"
    with site.live(source=pattern):
        site.wait(lambda: tonight().is_dir(), what="the directory of tonight")
        site.ledger.open_night(
            NIGHT, "lynx", midway_due=datetime.now(UTC) + timedelta(1), final_due=datetime.now(UTC) + timedelta(2)
        )
        site.wait(named.is_dir, what="the directory of a night that somebody else opened")
        rsync_like(named / bias.name, bias.read_bytes())
        site.wait(site.reduced(1), what="its exposure")


class FragilePool(SerialPool):
    """A cluster whose workers die of one exposure."""

    def __init__(self, poison: str) -> None:
        self.poison, self.deaths = poison, 0

    def submit(self, function: Any, *args: Any, key: str | None = None, priority: int = 0) -> Future[Any]:
        if key != self.poison:
            return super().submit(function, *args, key=key, priority=priority)
        self.deaths += 1
        future: Future[Any] = Future()
        future.set_exception(Retryable(f"{key}: 2 workers died while they ran it"))
        return future


def test_an_exposure_that_kills_workers_is_given_up_and_the_night_goes_on(site: Site) -> None:
    write_night(site.raw, replace(PLAN, biases=4, darks=0, flats=0, science=0), seed=11)
    site.pool = pool = FragilePool(f"lynx/{NIGHT}/2")
    result = site.watch(once=True).run()
    assert result.counts[f"lynx/{NIGHT}"] == {"reduced": 3, "failed": 1}
    assert result.failed == 1
    assert pool.deaths == 3
    assert "2 workers died" in site.ledger.find(f"lynx/{NIGHT}/2").reason
    record = site.ledger.find_night(NIGHT, "lynx")
    assert record is not None
    assert not record.is_open


def test_an_executor_that_hangs_costs_a_moment_and_no_exposure(site: Site) -> None:
    paths = write_night(site.root / "elsewhere", replace(PLAN, biases=6, darks=0, flats=0, science=0), seed=12).paths
    site.executor = hanging = PuppetExecutor(start_s=0.3, silence_s=1.0)
    with site.live():
        for path in paths:
            rsync_like(site.raw / path.name, path.read_bytes())
            time.sleep(0.1)
        site.wait(site.reduced(6), what="everything, in the dark")
        site.wait(lambda: len(site.ledger.unreported()) >= 1, what="runs that are to be reported late")
        hanging.healthy = False
    assert hanging.restarts >= 1
    assert {entry.attempts for entry in site.ledger.entries()} == {1}
    assert {run.flow for run in site.ledger.unreported()} <= {"reduce-exposure", "make-masters"}


def test_a_ledger_that_is_locked_for_a_while_is_waited_for(site: Site) -> None:
    paths = write_night(site.root / "elsewhere", replace(PLAN, biases=3, darks=0, flats=0, science=0), seed=13).paths
    database = site.layout.root / "ledger.sqlite"
    with Ledger.open(database, busy_timeout_s=0.2) as impatient:
        site.ledger = impatient
        with site.live(), contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for path in paths:
                rsync_like(site.raw / path.name, path.read_bytes())
            site.wait(lambda: any("held up" in text for text in site.told), what="an alarm")
            other.execute("ROLLBACK")
            site.wait(site.reduced(3), what="everything")
            site.wait(lambda: site.beat().alarms == [], what="the end of the alarm")
