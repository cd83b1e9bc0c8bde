"""Masters, stages and late reports: what is started, and what follows from its end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nightglass.errors import Waiting
from nightglass.ledger import Entry, RunRecord
from nightglass.model import Kind, MasterRef, Stage, State
from nightglass.watch.alarms import Alarms
from nightglass.watch.chores import Chores
from nightglass.watch.dispatch import Dispatch
from nightglass.watch.flights import Flights
from nightglass.watch.jobs import Job, JobKind, JobPhase, JobReport
from nightglass.watch.launcher import Launcher
from nightglass.watch.nightkeeper import NightKeeper
from nightglass.watch.owners import Owner
from nightglass.watch.runs import run_record
from nightglass.watch.work import Workbench
from tests.unit.watch.puppet import NIGHT, PuppetExecutor, open_bench, stock


class House:
    def __init__(self, bench: Workbench) -> None:
        self.ledger, self.main = bench.ledger, PuppetExecutor()
        self.told: list[str] = []
        self.again: list[Entry] = []
        alarms = Alarms(lambda subject, text: self.told.append(f"{subject}: {text}"))
        self.launcher = Launcher(
            bench=bench,
            owner=Owner.here("watch"),
            main=self.main,
            dark=PuppetExecutor(visible=False),
            queue=Dispatch(batch_limit=4, slots=1),
            on_over=lambda _: None,
            on_end=lambda job, report: self.chores.ended(job, report, 0.0),
        )
        self.keeper = NightKeeper(
            bench.ledger, bench.observatory, cameras=frozenset({"lynx"}), fallback_s=60, alarms=alarms
        )
        self.chores = Chores(
            bench.ledger,
            self.launcher,
            self.keeper,
            alarms,
            settle_s=5,
            on_again=self.again.extend,
        )

    def end(self, *, error: str = "") -> None:
        self.main.say(self.main.jobs[-1], JobPhase.WORKING)
        self.main.say(self.main.jobs[-1], JobPhase.ENDED, error=error)
        self.launcher.listen(0.0)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_bench(tmp_path) as bench:
        yield House(bench)


def test_waiting_exposures_run_again_only_when_a_master_is_new(house: House) -> None:
    house.keeper.open("lynx", NIGHT, datetime.now(UTC))
    house.ledger.wait(stock(house.ledger, 1), Waiting("no bias"))
    for made in (False, True):
        house.chores.desk.note("lynx", NIGHT, 0)
        house.chores.start_masters(10)
        house.chores.desk.note("lynx", NIGHT, 11)
        house.chores.start_masters(20)
        assert len(house.launcher.flights) == 1, "one at a time"
        if made:
            house.ledger.add_master(
                MasterRef(master_id="m", kind=Kind.BIAS, camera="lynx", night=NIGHT, path=Path("m.fits"))
            )
        house.end()
        assert [entry.state for entry in house.again] == ([State.GROUPED] if made else [])
        house.chores.desk.take("lynx", NIGHT)


def test_masters_that_fail_are_tried_again_a_few_times_and_then_alarmed(house: House) -> None:
    house.chores.desk.note("lynx", NIGHT, 0)
    for now in range(100, 1000, 100):
        house.chores.start_masters(now)
        if len(house.launcher.flights):
            house.end(error="Retryable: the workers are gone")
    assert len(house.main.jobs) == 3
    assert len(house.told) == 1
    assert "workers are gone" in house.told[0]


def test_a_stage_nobody_ran_is_run_once_and_alarmed_and_final_waits_for_its_exposures(house: House) -> None:
    past = datetime.now(UTC) - timedelta(minutes=5)
    house.ledger.open_night(NIGHT, "lynx", midway_due=past - timedelta(1), final_due=past)
    exposure = stock(house.ledger, 1)
    house.launcher.restock(house.ledger.ready(), 0)
    house.keeper.refresh()
    house.chores.start_stages(0)
    house.chores.start_stages(0)
    assert [job.stage for job in house.main.jobs] == [Stage.MIDWAY]
    assert "midway of night 20260821: run by the watch" in house.told[0]
    house.end(error="Retryable: no workers")
    assert "midway failed" in house.told[1]
    assert not house.chores.is_quiet("lynx", NIGHT)
    house.launcher.queue.remove(exposure)
    lease = house.ledger.claim_stage(NIGHT, "lynx", Stage.MIDWAY, owner="x", lease_s=60)
    assert lease is not None
    house.ledger.finish_stage(lease)
    house.chores.start_stages(0)
    assert [job.stage for job in house.main.jobs] == [Stage.MIDWAY, Stage.FINAL]


def test_late_runs_are_reported_by_one_job_at_a_time_and_not_from_the_dark(house: House) -> None:
    house.chores.start_reports(0)
    run = RunRecord(run_id="r", name="n", flow="f", night=NIGHT, camera="lynx", started_at=1, ended_at=2)
    house.ledger.record_run(run)
    house.launcher.breaker.trip("away", 0)
    house.chores.start_reports(0)
    assert house.main.jobs == []
    house.launcher.breaker.observe(healthy=True, now=1)
    house.launcher.breaker.observe(healthy=True, now=3)
    house.chores.start_reports(3)
    house.chores.start_reports(3)
    assert [job.kind for job in house.main.jobs] == [JobKind.REPORT]


def test_runs_are_recorded_under_the_names_of_the_flows_that_would_have_run() -> None:
    flights = Flights()
    terms = PuppetExecutor().terms
    common = {"camera": "lynx", "night": NIGHT, "deadline_s": 1.0}
    stage = Job(job_id="s", kind=JobKind.STAGE, key="20260821-final", stage=Stage.FINAL, **common)
    masters = Job(job_id="m", kind=JobKind.MASTERS, key="20260821-masters", **common)
    for job in (stage, masters):
        flights.launch(job, terms=terms, dark=True, now=0)
    flights.hear(JobReport(job_id="s", phase=JobPhase.WORKING, flow_run_id="id"), 0)
    records = [run_record(flight, error="") for flight in flights]
    assert [(record.flow, record.name, record.flow_run_id) for record in records] == [
        ("final-postprocess", "20260821-final", "id"),
        ("make-masters", "20260821-masters", ""),
    ]
    assert records[0].parameters == {"night": "20260821", "camera": "lynx"}
