"""The dark executor: threads that come back, errors that are told, and threads that hang left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from nightglass.model import State
from nightglass.pool import SerialPool
from nightglass.reduction import GroupJob
from nightglass.watch.dark import DarkExecutor
from nightglass.watch.jobs import Job, JobKind, JobPhase, JobReport
from nightglass.watch.work import Workbench
from tests.unit.watch.puppet import NIGHT, open_bench, stock


class StuckPool(SerialPool):
    """Futures that nobody ever fulfils, as those of a cluster that hangs."""

    def submit(self, function: Any, *args: Any, key: str | None = None, priority: int = 0) -> Future[Any]:
        return Future()


class Ear:
    def __init__(self, executor: DarkExecutor) -> None:
        self.executor, self.reports = executor, []
        self.woken = threading.Event()
        executor.attach(self.woken.set)

    def until_ended(self, job_id: str) -> list[JobReport]:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            self.reports += self.executor.poll()
            mine = [report for report in self.reports if report.job_id == job_id]
            if mine and mine[-1].phase is JobPhase.ENDED:
                return mine
            self.woken.wait(0.5)
            self.woken.clear()
        raise AssertionError(self.reports)


def group_job(bench: Workbench, *numbers: int) -> Job:
    groups = []
    for number in numbers:
        exposure = stock(bench.ledger, number)
        groups.append(
            GroupJob(
                job_id=f"job-{numbers[0]}",
                group_id=exposure,
                camera="lynx",
                refs=bench.ledger.refs([exposure]),
                leases=bench.ledger.claim([exposure], owner="test", lease_s=60),
                lists=("realtime",),
            )
        )
    return Job(
        job_id=f"job-{numbers[0]}",
        kind=JobKind.GROUP,
        key="k",
        camera="lynx",
        night=NIGHT,
        deadline_s=60,
        groups=tuple(groups),
    )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    with open_bench(tmp_path, attempts=1) as opened:
        yield opened


def test_phases_are_told_in_order_for_each_group_and_the_ledger_has_the_verdict(bench: Workbench) -> None:
    executor = DarkExecutor(bench, capacity=1)
    ear = Ear(executor)
    job = group_job(bench, 1, 2)
    executor.submit(job)
    told = [(report.phase.value, report.group_id[-1:]) for report in ear.until_ended(job.job_id)]
    executor.close()
    assert told == [("working", ""), ("working", "1"), ("done", "1"), ("working", "2"), ("done", "2"), ("ended", "")]
    assert {entry.state for entry in bench.ledger.entries()} == {State.FAILED}  # there are no such files


def test_an_error_is_told_with_its_class_and_remedy(bench: Workbench) -> None:
    executor = DarkExecutor(bench, capacity=1)
    ear = Ear(executor)
    job = Job(job_id="m", kind=JobKind.MASTERS, key="k", camera="lnyx", night=NIGHT, deadline_s=1)
    executor.submit(job)
    assert ear.until_ended("m")[-1].error == "Misconfigured: there is no camera 'lnyx' here (known: lynx)"
    executor.close()


def test_a_cancelled_job_does_not_begin(bench: Workbench) -> None:
    executor = DarkExecutor(bench, capacity=1)
    ear = Ear(executor)
    executor.cancel("r")
    executor.submit(Job(job_id="r", kind=JobKind.REPORT, key="k", camera="lynx", night=NIGHT, deadline_s=1))
    (report,) = ear.until_ended("r")
    executor.close()
    assert report.error.startswith("Cancelled")


def test_after_a_restart_threads_that_hang_hold_up_nobody_and_are_not_heard(tmp_path: Path) -> None:
    with open_bench(tmp_path, lease_s=1.0, attempts=1) as bench:
        stuck = Workbench(ledger=bench.ledger, pool=StuckPool(), observatory=bench.observatory, cameras=bench.cameras)
        executor = DarkExecutor(stuck, capacity=1)
        ear = Ear(executor)
        hanging = group_job(bench, 1)
        executor.submit(hanging)
        while not ear.reports:
            ear.reports += executor.poll()
        executor.restart()
        report = Job(job_id="r", kind=JobKind.REPORT, key="k", camera="lynx", night=NIGHT, deadline_s=1)
        executor.submit(report)
        ear.until_ended("r")
        time.sleep(1.2)  # the call that hung gives up by its own time-out
        assert {heard.job_id for heard in executor.poll()} == set()
        executor.close()
