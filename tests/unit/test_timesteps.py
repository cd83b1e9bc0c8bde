"""Time steps: nothing is lost, nothing goes out twice, whatever the order and however late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nightglass.groups import Timestep, TimestepEngine

START = datetime(2026, 11, 21, 2, tzinfo=UTC)


def moment(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def shown(steps: tuple[Timestep[str], ...]) -> list[tuple[float, str, int]]:
    return [((step.timestamp - START).total_seconds(), "".join(step.members), step.revision) for step in steps]


def test_a_step_goes_out_with_its_last_member_and_none_of_the_next() -> None:
    engine: TimestepEngine[str] = TimestepEngine(3)
    assert [engine.add(key, moment(0), key, 0.0) for key in "ac"] == [(), ()]
    (step,) = engine.add("b", moment(0), "b", 0.1)
    assert (list(step.members), step.whole, step.missing, step.reason) == (["a", "b", "c"], True, (), "")
    assert (len(engine), engine.next_deadline()) == (0, None)


def test_interleaved_steps_stay_apart() -> None:
    """The way that leaves as soon as another time stamp comes makes three fragments of these two steps."""
    engine: TimestepEngine[str] = TimestepEngine(2)
    assert engine.add("a", moment(0), "a", 0.0) == ()
    assert engine.add("a", moment(1), "a", 0.0) == ()
    assert shown(engine.add("b", moment(0), "b", 0.0)) == [(0, "ab", 1)]
    assert shown(engine.add("b", moment(1), "b", 0.0)) == [(1, "ab", 1)]


def test_one_that_waits_in_vain_goes_out_in_part_and_a_late_member_makes_a_revision() -> None:
    engine: TimestepEngine[str] = TimestepEngine(3, wait_s=2.0)
    engine.add("a", moment(0), "a", 10.0)
    engine.add("b", moment(0), "b", 11.0)
    assert engine.tick(11.9) == ()
    (part,) = engine.tick(12.0)
    assert (list(part.members), part.whole, part.reason) == (["a", "b"], False, "not whole after 2 s")
    (late,) = engine.add("c", moment(0), "c", 13.0)
    assert (list(late.members), late.earlier, late.revision, late.whole) == (["c"], frozenset("ab"), 2, True)
    assert engine.add("c", moment(0), "again", 14.0) == ()
    assert (engine.late, engine.duplicates, len(engine)) == (1, 1, 0)


def test_senders_that_went_on_are_not_waited_for() -> None:
    engine: TimestepEngine[str] = TimestepEngine(2, wait_s=100.0)
    for key in "ab":
        engine.add(key, moment(0), key, 0.0)
    assert engine.add("a", moment(1), "a", 0.0) == ()
    (first,) = engine.add("b", moment(2), "b", 0.0)
    assert shown((first,)) == [(1, "a", 1)]
    assert (first.missing, first.reason) == (("b",), "its missing members were overtaken")


def test_a_tolerance_joins_what_is_near_and_the_first_gives_its_time() -> None:
    engine: TimestepEngine[str] = TimestepEngine(2, tolerance_s=0.1)
    engine.add("a", moment(0.05), "a", 0.0)
    (step,) = engine.add("b", moment(0), "b", 0.0)
    assert step.timestamp == moment(0.05)
    assert engine.add("a", moment(0.2), "a", 0.0) == ()


def test_after_a_restart_late_members_find_their_step() -> None:
    engine: TimestepEngine[str] = TimestepEngine(2)
    engine.restore([(moment(0), {"a"}, 1)])
    assert engine.add("a", moment(0), "again", 0.0) == ()
    assert shown(engine.add("b", moment(0), "b", 0.0)) == [(0, "b", 2)]
    assert engine.duplicates == 1


def test_garbled_clocks_do_not_fill_the_memory() -> None:
    engine: TimestepEngine[str] = TimestepEngine(6, wait_s=1e9)
    released = [step for second in range(1000) for step in engine.add("a", moment(second), "a", float(second))]
    assert len(engine) <= 65
    assert len(released) + len(engine) == 1000


@settings(max_examples=100)
@given(st.permutations([(key, step) for step in range(4) for key in "abc"]), st.integers(0, 11))
def test_any_order_gives_the_same_steps(order: list[tuple[str, int]], pause: int) -> None:
    """In whatever order members come, and whenever the clock strikes, each goes out once with its step."""
    engine: TimestepEngine[str] = TimestepEngine(3, wait_s=1.0)
    out: list[Timestep[str]] = []
    for place, (key, second) in enumerate(order):
        out += engine.add(key, moment(second), f"{key}{second}", float(place >= pause))
        out += engine.tick(float(place >= pause))
    out += engine.flush()
    found = [(step.timestamp, key) for step in out for key in step.members]
    assert sorted(found) == sorted((moment(second), key) for key, second in order)
    assert {step.timestamp for step in out if step.whole} == {moment(second) for second in range(4)}


class Stream(RuleBasedStateMachine):
    """Members at random, twice at random, while time goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.engine: TimestepEngine[int] = TimestepEngine(3, wait_s=2.0)
        self.now = 0.0
        self.sent = 0
        self.distinct: dict[tuple[datetime, str], int] = {}
        self.out: dict[tuple[datetime, str], int] = {}
        self.revisions: dict[datetime, int] = {}

    def take(self, steps: tuple[Timestep[int], ...]) -> None:
        assert [step.timestamp for step in steps] == sorted(step.timestamp for step in steps)
        for step in steps:
            assert step.revision == self.revisions.get(step.timestamp, 0) + 1
            self.revisions[step.timestamp] = step.revision
            assert step.members
            assert not step.members.keys() & step.earlier
            assert step.whole == (not step.reason)
            for key, member in step.members.items():
                assert (step.timestamp, key) not in self.out
                self.out[step.timestamp, key] = member

    @rule(key=st.sampled_from("abcd"), second=st.integers(0, 5))
    def send(self, key: str, second: int) -> None:
        self.sent += 1
        self.distinct.setdefault((moment(second), key), self.sent)
        self.take(self.engine.add(key, moment(second), self.sent, self.now))

    @rule(seconds=st.floats(0.1, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.engine.tick(self.now))
        deadline = self.engine.next_deadline()
        assert deadline is None or deadline > self.now

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.sent == len(self.out) + len(self.engine) + self.engine.duplicates

    def teardown(self) -> None:
        self.take(self.engine.flush())
        assert self.out == self.distinct


TestStream = Stream.TestCase
