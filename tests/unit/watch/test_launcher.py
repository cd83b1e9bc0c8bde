"""Launching, freeing, taking back: with a real ledger and an executor that misbehaves on demand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nightglass.errors import LeaseLost
from nightglass.ledger import Entry
from nightglass.model import State
from nightglass.watch.breaker import BreakerState
from nightglass.watch.dispatch import Dispatch
from nightglass.watch.jobs import Job, JobKind, JobPhase, JobReport
from nightglass.watch.launcher import Launcher
from nightglass.watch.owners import Owner
from nightglass.watch.work import Workbench
from tests.unit.watch.puppet import NIGHT, PuppetExecutor, commit, open_bench, stock


class Stand:
    """A launcher between a queue and two puppets; what is over goes back to the queue, as in the watch."""

    def __init__(self, bench: Workbench) -> None:
        self.ledger = bench.ledger
        self.main, self.dark = PuppetExecutor(), PuppetExecutor(visible=False, start_s=1e9, silence_s=1e9)
        self.over: list[Entry] = []
        self.ended: list[tuple[Job, JobReport]] = []
        self.launcher = Launcher(
            bench=bench,
            owner=Owner.here("watch"),
            main=self.main,
            dark=self.dark,
            queue=Dispatch(batch_limit=8, slots=2),
            on_over=self._take,
            on_end=lambda *both: self.ended.append(both),
        )

    def _take(self, entries: tuple[Entry, ...]) -> None:
        self.over += entries
        self.launcher.restock(self.ledger.ready(), 0.0)

    def stock(self, *numbers: int) -> None:
        for number in numbers:
            stock(self.ledger, number)
        self.launcher.restock(self.ledger.ready(), 0.0)

    def turn(self, now: float) -> None:
        self.launcher.listen(now)
        self.launcher.check(now)
        self.launcher.pump(now)

    def states(self) -> dict[str, State]:
        return {entry.exposure_id[-4:]: entry.state for entry in self.ledger.entries()}


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    with open_bench(tmp_path, lease_s=10, attempts=2, retry_s=0) as bench:
        yield Stand(bench)


def test_the_ledger_frees_the_slot_before_the_report_comes(stand: Stand) -> None:
    stand.stock(*range(1, 15))
    stand.turn(0)
    assert [len(job.groups) for job in stand.main.jobs] == [7, 4]
    first = stand.main.jobs[0]
    commit(stand.ledger, first)
    stand.turn(0.5)
    assert len(stand.main.jobs) == 3
    assert [entry.state for entry in stand.over] == [State.REDUCED] * 7
    stand.main.say(first, JobPhase.ENDED)
    stand.turn(0.6)
    assert len(stand.launcher.flights) == 2


def test_what_went_down_with_its_runner_runs_again_at_once_and_is_not_blamed(stand: Stand) -> None:
    stand.stock(1, 2)
    stand.turn(0)
    first, second = stand.main.jobs
    for job in (first, second):
        stand.main.say(job, JobPhase.WORKING, flow_run_id=f"run-{job.job_id}")
    commit(stand.ledger, second)
    for job in (first, second):
        stand.main.say(job, JobPhase.ENDED, error="Retryable: the runner died", lost=True)
    stand.turn(0.1)
    again = stand.main.jobs[2]
    assert [ref.exposure_id for ref in again.groups[0].refs] == [ref.exposure_id for ref in first.groups[0].refs]
    assert again.groups[0].leases[0].attempts == 1
    (heard_late,) = stand.ledger.unreported()
    assert (heard_late.flow_run_id, heard_late.error) == (f"run-{second.job_id}", "")


def test_a_silent_runner_is_restarted_and_what_it_had_runs_dark(stand: Stand) -> None:
    stand.stock(1, 2)
    stand.turn(0)
    done, other = stand.main.jobs
    stand.main.say(done, JobPhase.WORKING, flow_run_id="run-1")
    commit(stand.ledger, done)
    stand.turn(1)
    stand.turn(3.5)  # 2.5 s of silence; the other had not begun, so nothing needs to finish
    assert stand.main.restarts == 1
    assert stand.launcher.breaker.state is BreakerState.OPEN
    assert [job.groups[0].group_id for job in stand.dark.jobs] == [other.groups[0].group_id]
    with pytest.raises(LeaseLost):
        commit(stand.ledger, other)
    commit(stand.ledger, stand.dark.jobs[0])
    stand.dark.say(stand.dark.jobs[0], JobPhase.ENDED)
    stand.turn(4)
    assert set(stand.states().values()) == {State.REDUCED}
    late = stand.ledger.unreported()
    assert {(run.flow, run.flow_run_id) for run in late} == {("reduce-exposure", "run-1"), ("reduce-exposure", "")}


def test_bad_health_opens_the_breaker_but_lets_begun_work_finish(stand: Stand) -> None:
    stand.stock(1, 2)
    stand.turn(0)
    begun, idle = stand.main.jobs
    stand.main.say(begun, JobPhase.WORKING)
    stand.turn(0.1)
    stand.main.healthy = False
    stand.turn(0.2)
    assert stand.main.cancelled == [idle.job_id]
    assert [job.groups[0].group_id for job in stand.dark.jobs] == [idle.groups[0].group_id]
    commit(stand.ledger, begun)  # its lease is still good
    stand.main.say(begun, JobPhase.ENDED)
    commit(stand.ledger, stand.dark.jobs[0])
    stand.turn(0.3)
    assert set(stand.states().values()) == {State.REDUCED}
    assert stand.main.restarts == 0
    stand.main.healthy = True
    stand.turn(1)
    stand.turn(2.5)
    stand.stock(3)
    stand.turn(2.6)
    assert len(stand.main.jobs) == 3


def test_a_batch_goes_without_what_is_somebody_elses(stand: Stand) -> None:
    stand.stock(*range(1, 8))
    lost = f"lynx/{NIGHT}/0006"
    assert stand.ledger.claim([lost], owner="somebody", lease_s=60)
    stand.turn(0)
    first, second = stand.main.jobs
    assert [group.group_id[-4:] for group in first.groups] == ["0007", "0005", "0004"]
    assert [group.group_id[-4:] for group in second.groups] == ["0003", "0002", "0001"]
    leases = {lease.token for job in (first, second) for group in job.groups for lease in group.leases}
    assert len(leases) == 6
    assert leases < stand.ledger.tokens()


def test_only_the_groups_of_a_batch_that_have_not_begun_are_taken_back(stand: Stand) -> None:
    stand.stock(*range(1, 8))
    stand.turn(0)
    batch = stand.main.jobs[0]
    assert len(batch.groups) == 4
    begun, *idle = (group.group_id for group in batch.groups)
    stand.main.say(batch, JobPhase.WORKING)
    stand.main.say(batch, JobPhase.WORKING, group_id=begun)
    stand.turn(0.1)
    stand.main.healthy = False
    stand.turn(0.2)
    flight = stand.launcher.flights.get(batch.job_id)
    assert flight is not None
    assert set(flight.pending) == {begun}
    assert stand.states()[begun[-4:]] is State.RUNNING
    assert all(name in stand.launcher.queue or name in str(stand.dark.jobs) for name in idle)


def test_a_job_that_does_not_begin_is_taken_back_and_given_again(stand: Stand) -> None:
    stand.stock(1)
    stand.turn(0)
    stand.turn(3.1)
    assert stand.main.restarts == 1
    assert "late start" in stand.launcher.breaker.reason
    assert stand.states() == {"0001": State.RUNNING}
    assert len(stand.dark.jobs) == 1
    assert next(stand.ledger.entries()).attempts == 1  # the exposure is not to blame


def test_a_job_past_its_deadline_costs_its_exposure_an_attempt_until_none_is_left(stand: Stand) -> None:
    stand.main.healthy = False
    stand.stock(1)
    now = 0.0
    for attempt in (1, 2):
        stand.turn(now)
        assert len(stand.dark.jobs) == attempt
        stand.dark.say(stand.dark.jobs[-1], JobPhase.WORKING)
        stand.turn(now + 1)
        now += 100
        stand.turn(now)
        assert stand.dark.restarts == attempt
    assert stand.states() == {"0001": State.FAILED}
    assert "stalled" in next(stand.ledger.entries()).reason


def test_a_run_that_ends_badly_returns_its_exposures_to_the_queue(stand: Stand) -> None:
    stand.stock(1)
    stand.turn(0)
    job = stand.main.jobs[0]
    stand.main.say(job, JobPhase.WORKING)
    stand.main.say(job, JobPhase.ENDED, error="Cancelled by a person")
    stand.turn(0.1)
    assert [each.groups[0].group_id for each in stand.main.jobs] == [job.groups[0].group_id] * 2
    assert stand.launcher.breaker.state is BreakerState.CLOSED


def test_a_run_that_ends_before_it_began_sends_its_exposures_to_the_dark(stand: Stand) -> None:
    stand.stock(1)
    stand.turn(0)
    stand.main.say(stand.main.jobs[0], JobPhase.ENDED, error="Retryable: there is no runner")
    stand.turn(0.1)
    assert len(stand.dark.jobs) == 1
    assert "there is no runner" in stand.launcher.breaker.reason


def test_a_stage_that_is_taken_back_is_told_like_one_that_failed(stand: Stand) -> None:
    stand.launcher.start(JobKind.MASTERS, "lynx", NIGHT, now=0)
    assert stand.main.jobs[0].key == f"{NIGHT}-masters"
    stand.main.healthy = False
    stand.turn(1)
    assert [(job.kind, report.error) for job, report in stand.ended] == [
        (JobKind.MASTERS, "Retryable: Prefect does not answer; work goes on without it")
    ]


def test_what_was_begun_in_a_runner_that_died_is_given_to_the_dark_after_a_while(stand: Stand) -> None:
    stand.stock(1)
    stand.turn(0)
    (job,) = stand.main.jobs
    stand.main.say(job, JobPhase.WORKING)
    stand.turn(0.1)
    stand.main.healthy = False
    stand.turn(1)
    stand.turn(10.5)
    assert stand.dark.jobs == []
    stand.turn(11.5)
    assert [each.groups[0].group_id for each in stand.dark.jobs] == [job.groups[0].group_id]
    assert next(stand.ledger.entries()).attempts == 1


def test_masters_that_hang_while_the_executor_is_away_are_given_to_the_dark(stand: Stand) -> None:
    stand.launcher.start(JobKind.MASTERS, "lynx", NIGHT, now=0)
    stand.main.say(stand.main.jobs[0], JobPhase.WORKING)
    stand.turn(0.1)
    stand.main.healthy = False
    stand.turn(1)
    stand.turn(30)
    assert stand.ended == []
    stand.turn(32)
    stand.turn(32.1)
    assert stand.main.restarts == 1
    assert len(stand.ended) == 1
    assert len(stand.launcher.flights) == 0


def test_a_group_whose_member_was_skipped_goes_without_it(stand: Stand) -> None:
    stand.stock(1)
    stand.ledger.skip([f"lynx/{NIGHT}/0001"])
    stand.turn(0)
    assert stand.main.jobs == []
    assert len(stand.launcher.queue) == 0


def test_the_end_of_the_watch_gives_everything_back(stand: Stand) -> None:
    stand.stock(1, 2)
    stand.turn(0)
    stand.launcher.take_back_all("the watch ends", 1)
    assert set(stand.states().values()) == {State.GROUPED}
    assert {entry.attempts for entry in stand.ledger.entries()} == {0}
