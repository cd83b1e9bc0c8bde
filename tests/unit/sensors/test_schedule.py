from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nightglass.model import Sighting
from nightglass.sensors.schedule import TransferSchedule, Verdict

SEEN = datetime(2026, 8, 21, tzinfo=UTC)


def sighting(name: str, size: int = 1) -> Sighting:
    return Sighting(path=Path(name), size=size, mtime_ns=size, inode=1, seen_at=SEEN)


def states(item: Sighting) -> tuple[int, int]:
    return item.size, item.mtime_ns


@pytest.fixture
def schedule() -> TransferSchedule:
    return TransferSchedule(slots=2, timeout_s=10.0)


def test_backoff_doubles_up_to_its_limit_and_ends_at_the_time_out(schedule: TransferSchedule) -> None:
    schedule.offer(sighting("a"), 0.0)
    now, waits = 0.0, []
    while True:
        assert schedule.take(now) is not None
        verdict = schedule.postponed(Path("a"), (1, 1), now)
        if verdict is Verdict.OVERDUE:
            break
        assert schedule.take(now) is None
        waits.append(round(schedule.next_due() - now, 3))
        now = schedule.next_due()
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 1.0]
    assert now == 10.0
    assert schedule.finished(Path("a"), None, now) is Verdict.DONE
    assert len(schedule) == 0


def test_growth_puts_the_time_out_off(schedule: TransferSchedule) -> None:
    schedule.offer(sighting("a"), 0.0)
    schedule.take(0.0)
    schedule.postponed(Path("a"), (1, 1), 0.0)
    assert schedule.take(9.0) is not None
    assert schedule.postponed(Path("a"), (2, 2), 9.0) is Verdict.AGAIN
    assert schedule.take(18.9) is not None
    assert schedule.postponed(Path("a"), (2, 2), 18.9) is Verdict.AGAIN
    assert schedule.take(19.0) is not None
    assert schedule.postponed(Path("a"), (2, 2), 19.0) is Verdict.OVERDUE


def test_an_offer_is_checked_at_once_and_goes_before_repeats(schedule: TransferSchedule) -> None:
    for name in ("slow1", "slow2", "slow3"):
        schedule.offer(sighting(name), 0.0)
        schedule.take(0.0)
        schedule.postponed(Path(name), (1, 1), 0.0)
    schedule.offer(sighting("slow3", 2), 0.1)
    assert schedule.take(0.1) == sighting("slow3", 2)
    assert schedule.take(5.0) == sighting("slow1")
    schedule.finished(Path("slow3"), (2, 2), 5.0)
    assert schedule.take(5.0) is None, "one slot is kept for what has just come"
    schedule.offer(sighting("new"), 5.0)
    assert schedule.take(5.0) == sighting("new")


def test_a_change_during_a_check_is_checked_too(schedule: TransferSchedule) -> None:
    schedule.offer(sighting("a"), 0.0)
    schedule.take(0.0)
    schedule.offer(sighting("a", 2), 0.1)
    assert schedule.superseded(Path("a"), (1, 1))
    assert not schedule.superseded(Path("a"), (2, 2)), "the check read what was announced meanwhile"
    assert schedule.finished(Path("a"), (1, 1), 0.2) is Verdict.AGAIN
    assert schedule.take(0.2) == sighting("a", 2)
    assert schedule.finished(Path("a"), (2, 2), 0.3) is Verdict.DONE


def test_the_echo_of_a_result_is_passed_over_for_a_while(schedule: TransferSchedule) -> None:
    def check(item: Sighting, now: float) -> bool:
        schedule.offer(item, now)
        taken = schedule.take(now)
        if taken:
            schedule.finished(taken.path, states(taken), now)
        return taken is not None

    assert check(sighting("a"), 0.0)
    assert not check(sighting("a"), 1.0)
    assert check(sighting("a", 2), 1.0)
    assert check(sighting("a", 2), 12.0)
    assert len(schedule._results) == 1


def test_what_nobody_took_is_checked_until_somebody_does() -> None:
    schedule = TransferSchedule(slots=1, timeout_s=1.0)
    schedule.offer(sighting("a"), 0.0)
    now = 0.0
    for _ in range(50):
        assert schedule.take(now) is not None
        schedule.refused(Path("a"), now)
        now = schedule.next_due()
    assert now > 100


class Schedule(RuleBasedStateMachine):
    """Compared with a plain model: what is offered, what runs, what was told."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = 3
        self.schedule = TransferSchedule(slots=self.slots, timeout_s=8.0)
        self.now = 0.0
        self.disk: dict[Path, int] = {}
        self.pending: set[Path] = set()
        self.running: dict[Path, Sighting] = {}
        self.told: dict[Path, int] = {}

    @rule(name=st.sampled_from("abcdef"), growth=st.integers(0, 2))
    def offer(self, name: str, growth: int) -> None:
        path = Path(name)
        self.disk[path] = self.disk.get(path, 1) + growth
        self.schedule.offer(sighting(name, self.disk[path]), self.now)
        if self.told.get(path) != self.disk[path]:
            self.pending.add(path)

    @rule(seconds=st.sampled_from([0.1, 0.5, 4.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        taken = self.schedule.take(self.now)
        if taken is None:
            return
        assert taken.path not in self.running, "a file is never checked twice at once"
        assert taken.size == self.disk[taken.path]
        self.running[taken.path] = taken

    @precondition(lambda self: self.running)
    @rule(data=st.data(), outcome=st.sampled_from(["good", "bad", "later", "refused"]))
    def end(self, data: st.DataObject, outcome: str) -> None:
        path = data.draw(st.sampled_from(sorted(self.running)))
        read = states(self.running.pop(path))
        if outcome == "refused":
            self.schedule.refused(path, self.now)
            return
        if outcome == "later":
            current = (self.disk[path], self.disk[path])
            if self.schedule.postponed(path, current, self.now) is Verdict.OVERDUE:
                self._tell(path, None)
            return
        if not self.schedule.superseded(path, read):
            self._tell(path, read if outcome == "good" else None)
        else:
            assert self.schedule.finished(path, read, self.now) is Verdict.AGAIN

    def _tell(self, path: Path, state: tuple[int, int] | None) -> None:
        if state is not None:
            self.told[path] = state[0]
        if self.schedule.finished(path, state, self.now) is Verdict.DONE:
            self.pending.discard(path)

    @invariant()
    def slots_are_bounded(self) -> None:
        assert len(self.running) <= self.slots
        assert self.schedule._running == len(self.running)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.pending <= set(self.schedule._transfers)
        assert set(self.running) <= set(self.schedule._transfers)

    def teardown(self) -> None:
        """Everything that waits comes up in the end, and the schedule says when."""
        for path in list(self.running):
            self.running.pop(path)
            self.schedule.finished(path, None, self.now)
        for _ in range(200):
            taken = self.schedule.take(self.now)
            if taken is not None:
                self.schedule.finished(taken.path, None, self.now)
            elif self.schedule.next_due() < float("inf"):
                self.now = max(self.now, self.schedule.next_due())
            else:
                break
        assert len(self.schedule) == 0


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
