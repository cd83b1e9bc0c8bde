"""Exposures are archived as soon as they are finalised, if the site says so; what fails is alarmed and tried again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import nightglass.archive
from nightglass.archive import NightArchive
from nightglass.config import Archive
from nightglass.errors import Rejected, Retryable
from nightglass.model import Content
from nightglass.watch.alarms import Alarms
from nightglass.watch.archiving import ArchiveDesk
from nightglass.watch.dark import DarkExecutor
from nightglass.watch.dispatch import Dispatch
from nightglass.watch.flights import Flights
from nightglass.watch.jobs import Job, JobKind, JobPhase, JobReport
from nightglass.watch.launcher import Launcher
from nightglass.watch.nightkeeper import NightKeeper
from nightglass.watch.owners import Owner
from nightglass.watch.runs import run_record
from nightglass.watch.work import Workbench, perform
from tests.unit.watch.puppet import NIGHT, PuppetExecutor, open_bench, stock


class House:
    """A desk, and the executor that it gives its jobs to."""

    def __init__(self, bench: Workbench, **rules: Any) -> None:
        self.ledger, self.main = bench.ledger, PuppetExecutor()
        self.told: list[str] = []
        alarms = Alarms(lambda subject, text: self.told.append(f"{subject}: {text}"))
        self.launcher = Launcher(
            bench=bench,
            owner=Owner.here("watch"),
            main=self.main,
            dark=PuppetExecutor(visible=False),
            queue=Dispatch(batch_limit=4, slots=1),
            on_over=lambda _: None,
            on_end=lambda job, report: self.desk.ended(job, report, self.now),
        )
        keeper = NightKeeper(bench.ledger, bench.observatory, cameras=frozenset({"lynx"}), fallback_s=60, alarms=alarms)
        keeper.open("lynx", NIGHT, datetime.now(UTC))
        values = {"when": "exposure", "settle_s": 0, "retry_s": 30, **rules}
        self.desk = ArchiveDesk(bench.ledger, self.launcher, keeper, alarms, rules=Archive.model_validate(values))
        self.now = 0.0

    def look(self, now: float) -> list[tuple[str, ...]]:
        """Look, and return the exposures of the jobs that this launched."""
        self.now = now
        before = len(self.main.jobs)
        self.desk.look(now)
        return [tuple(name[-4:] for name in job.exposures) for job in self.main.jobs[before:]]

    def end(self, *, error: str = "") -> None:
        job = self.main.jobs[-1]
        if not error:
            for exposure in job.exposures:
                self.archived(exposure)
        self.main.say(job, JobPhase.WORKING)
        self.main.say(job, JobPhase.ENDED, error=error)
        self.launcher.listen(self.now)

    def archived(self, exposure: str) -> None:
        (entry,) = self.ledger.members(exposure)
        wanted = [entry.content_id]
        self.ledger.request_archive(exposure, Content.RAW, night=NIGHT, camera="lynx", wanted=wanted)
        lease = self.ledger.claim_archive(exposure, Content.RAW, owner="me", lease_s=60)
        assert lease is not None
        self.ledger.commit_archive(
            lease,
            path=Path("/cube.fits"),
            checksum="",
            size=1,
            sources=1,
            frames=1,
            files=(),
            verified=True,
            publish=lambda: None,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    with open_bench(tmp_path) as opened:
        yield opened


def finalised(bench: Workbench, *numbers: int) -> None:
    for number in numbers:
        bench.ledger.reject(stock(bench.ledger, number), Rejected("no"))


@pytest.mark.parametrize("when", ["final", "never"])
def test_by_default_nothing_is_archived_before_the_final(bench: Workbench, when: str) -> None:
    house = House(bench, when=when)
    finalised(bench, 1)
    assert house.look(0) == house.look(100) == []


def test_finalised_exposures_are_archived_once(bench: Workbench) -> None:
    house = House(bench)
    finalised(bench, 1)
    stock(bench.ledger, 2)
    assert house.look(0) == [("0001",)]
    finalised(bench, 3)
    assert house.look(10) == [], "one job at a time"
    house.end()
    assert house.look(20) == [("0003",)]
    house.end()
    assert house.look(30) == house.look(100) == []
    job = house.main.jobs[0]
    assert (job.key, Job.from_json(job.to_json())) == (f"lynx/{NIGHT}/0001", job)


def test_exposures_settle_first(bench: Workbench) -> None:
    house = House(bench, settle_s=0.05)
    finalised(bench, 1)
    assert house.look(0) == []
    time.sleep(0.06)
    assert house.look(0.06) == [("0001",)]


def test_what_fails_is_alarmed_and_tried_again_later(bench: Workbench) -> None:
    house = House(bench)
    finalised(bench, 1)
    house.look(0)
    house.end(error="Retryable: 1 of 1 exposures could not be archived: disk full")
    assert len(house.told) == 1
    assert "disk full" in house.told[0]
    assert house.look(29) == []
    assert house.look(31) == [("0001",)]


def test_a_large_night_goes_in_batches(bench: Workbench) -> None:
    house = House(bench)
    finalised(bench, *range(1, 26))
    assert [len(batch) for batch in house.look(0)] == [20]
    house.end()
    assert [len(batch) for batch in house.look(2)] == [5]


def archive_job(*exposures: str) -> Job:
    return Job(
        job_id="x",
        kind=JobKind.ARCHIVE,
        key="k",
        camera="lynx",
        night=NIGHT,
        deadline_s=9,
        exposures=exposures,
    )


def test_the_library_call_behind_the_job(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...] | None] = []

    def spy(night: object, camera: object, *, exposures: tuple[str, ...] | None, **_: object) -> NightArchive:
        asked.append(exposures)
        return NightArchive(night=NIGHT, camera="lynx", content=Content.RAW, exposures=())

    monkeypatch.setattr(nightglass.archive, "archive_night", spy)
    assert perform(archive_job("a", "b"), bench, on_phase=lambda *_: None)["failures"] == []
    perform(archive_job(), bench, on_phase=lambda *_: None)
    assert asked == [("a", "b"), None]


def test_a_job_with_failures_ends_with_an_error(bench: Workbench) -> None:
    with pytest.raises(Retryable, match=r"1 of 1 exposures of lynx.*the ledger has no exposure"):
        perform(archive_job(f"lynx/{NIGHT}/4711"), bench, on_phase=lambda *_: None)


def test_archives_hold_up_neither_masters_nor_groups(bench: Workbench) -> None:
    executor = DarkExecutor(bench, capacity=1)
    executor.submit(archive_job(f"lynx/{NIGHT}/4711"))
    reports: list[JobReport] = []
    end = time.monotonic() + 120
    while not any(report.phase is JobPhase.ENDED for report in reports):
        assert time.monotonic() < end, reports
        time.sleep(0.02)
        reports += executor.poll()
    assert reports[-1].error.startswith("Retryable: 1 of 1")
    executor.close()


@pytest.mark.parametrize(
    ("exposures", "flow"), [(("lynx/20260821/1",), "archive-exposure"), (("a", "b"), "archive-night")]
)
def test_dark_archives_are_reported_as_the_flow_that_would_have_run(exposures: tuple[str, ...], flow: str) -> None:
    terms = PuppetExecutor().terms
    flight = Flights().launch(archive_job(*exposures), terms=terms, dark=True, now=0.0)
    assert run_record(flight, error="").flow == flow
