"""The grouping engine: order, time-outs, late and duplicate members, restarts, and memory."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nightglass.config import GroupRule
from nightglass.groups import GroupEngine, ReadyGroup
from nightglass.ledger import GroupRecord
from nightglass.model import ExposureRef, Kind, Night

NIGHT = Night("20260821")
DUSK = datetime(2026, 8, 21, 23, tzinfo=UTC)
EXPOSURE_S = 5.0
CADENCE_S = 8.0
DITHER = GroupRule(name="dither", timeout_s=60, timeout_exposures=3)
TIMEOUT_S = 75.0
PAIR = GroupRule(name="pair", members="detectors", expected=("a", "b"), by=("number",))


def exposure(number: int, place: int, count: int, *, at_s: float | None = None, **changes: Any) -> ExposureRef:
    values: dict[str, Any] = {
        "exposure_id": f"lynx/{NIGHT}/{number:04d}",
        "night": NIGHT,
        "camera": "lynx",
        "kind": Kind.SCIENCE,
        "path": Path(f"{number}.fits"),
        "size": 1,
        "content_id": f"{number:032x}",
        "started_at": DUSK + timedelta(seconds=CADENCE_S * number if at_s is None else at_s),
        "exposure_time_s": EXPOSURE_S,
        "target": "M31",
        "filter": "r",
        "group_number": place,
        "group_count": count,
    }
    return ExposureRef(**(values | changes))


def dither(first: int, count: int, **changes: Any) -> list[ExposureRef]:
    return [exposure(first + place, place + 1, count, **changes) for place in range(count)]


def feed(engine: GroupEngine, refs: Iterable[ExposureRef], now: float = 0.0) -> list[ReadyGroup]:
    return [group for ref in refs for group in engine.add(ref, now)]


def names(group: ReadyGroup) -> list[str]:
    return [ref.name for ref in group.members]


@pytest.mark.parametrize("seed", range(5))
def test_any_order_makes_the_same_sets_once(seed: int) -> None:
    sets = [dither(0, 5), dither(10, 3, filter="g"), dither(20, 4, target="M33"), dither(30, 2, detector="b")]
    refs = [ref for members in sets for ref in members]
    random.Random(seed).shuffle(refs)
    engine = GroupEngine([DITHER])
    ready = feed(engine, refs + refs)
    assert sorted(ready, key=lambda group: group.group_id) == [
        ReadyGroup(group_id=f"lynx/{NIGHT}/dither:{members[0].name}", rule=DITHER, members=tuple(members))
        for members in sets
    ]
    assert len(engine) == 0
    assert engine.next_deadline() is None


@settings(deadline=None, max_examples=60)
@given(order=st.permutations(range(9)))
def test_sets_that_follow_one_another_are_told_apart_in_any_order(order: list[int]) -> None:
    """A watch that was away reads what came meanwhile in any order: sets of one field, one right after the other."""
    refs = [*dither(10, 3), *dither(13, 3), *dither(16, 3)]
    engine = GroupEngine([DITHER])
    ready = feed(engine, [refs[place] for place in order]) + list(engine.tick(10.0))
    assert sorted(names(group) for group in ready) == [
        [f"{number:04d}" for number in range(first, first + 3)] for first in (10, 13, 16)
    ]
    assert all(group.complete and not group.reason for group in ready)


def test_a_set_whose_numbers_have_holes_is_closed_a_moment_later() -> None:
    engine = GroupEngine([DITHER])
    refs = [exposure(10, 1, 2), exposure(14, 2, 2)]
    assert feed(engine, refs, now=100.0) == []
    assert engine.tick(101.0) == ()
    (group,) = engine.tick(103.0)
    assert names(group) == ["0010", "0014"]
    assert group.complete
    assert not group.reason


@settings(deadline=None, max_examples=60)
@given(order=st.permutations(range(12)), lag=st.integers(1, 4))
def test_sets_of_one_target_overlap_in_transit(order: list[int], lag: int) -> None:
    """Three sets follow each other; every file is late by a few places, and the sets come out as they were taken."""
    refs = [*dither(0, 4), *dither(4, 4), *dither(8, 4)]
    arriving = sorted(range(12), key=lambda number: number + order[number] * lag / 12)
    ready = feed(GroupEngine([DITHER]), [refs[number] for number in arriving])
    assert sorted(names(group) for group in ready) == [
        [ref.name for ref in refs[first : first + 4]] for first in (0, 4, 8)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"group_number": 0, "group_count": 0},
        {"group_number": 1, "group_count": 1},
        {"group_number": 6, "group_count": 5},
        {"group_number": 2, "group_count": 0},
        {"group_number": 1, "group_count": 10**9},
        {"kind": Kind.FLAT},
    ],
)
def test_what_belongs_to_no_set_passes_straight_through(changes: dict[str, Any]) -> None:
    engine = GroupEngine([DITHER])
    ref = exposure(1, 1, 5, **changes)
    (group,) = engine.add(ref, 0.0)
    assert group == ReadyGroup(group_id=ref.exposure_id, rule=None, members=(ref,))
    assert engine.add(ref, 1.0) == ()
    (again,) = engine.add(ref.revised(2), 2.0)
    assert (again.revision, again.late) == (2, True)


def test_the_timeout_scales_with_the_exposure_time() -> None:
    engine = GroupEngine([DITHER], overhead_s=10)
    feed(engine, dither(0, 5)[:3], now=100.0)
    engine.add(replace(dither(0, 5)[3], exposure_time_s=200.0), 110.0)
    assert engine.next_deadline() == 110 + 60 + 3 * 200 + 10
    assert engine.tick(779.9) == ()
    (group,) = engine.tick(780.0)
    assert (names(group), group.complete, group.late) == (["0000", "0001", "0002", "0003"], False, False)
    assert group.reason == "time-out; 4 of 5 members, without 5"
    assert engine.tick(9999.0) == ()


def test_a_late_member_revises_its_closed_set() -> None:
    engine = GroupEngine([DITHER])
    refs = dither(0, 5)
    feed(engine, [refs[0], refs[1], refs[4]])
    (closed,) = engine.tick(TIMEOUT_S)
    (first,) = engine.add(refs[3], 200.0)
    (second,) = engine.add(refs[2], 201.0)
    assert {closed.group_id, first.group_id, second.group_id} == {f"lynx/{NIGHT}/dither:0000"}
    assert [(group.revision, group.late, group.complete) for group in (closed, first, second)] == [
        (1, False, False),
        (2, True, False),
        (3, True, True),
    ]
    assert names(second) == [ref.name for ref in refs]
    assert second.reason == "0002 came late"


def test_a_late_member_goes_to_its_own_set_while_the_next_one_is_open() -> None:
    engine = GroupEngine([DITHER])
    first, second = dither(0, 4), dither(5, 4)
    feed(engine, first[:3])
    engine.tick(TIMEOUT_S)
    feed(engine, second[:2], now=100.0)
    (late,) = engine.add(first[3], 101.0)
    assert names(late) == [ref.name for ref in first]
    (whole,) = feed(engine, second[2:], now=102.0)
    assert names(whole) == [ref.name for ref in second]


def test_a_repeated_set_is_another_set_even_if_the_first_lacks_a_member() -> None:
    engine = GroupEngine([DITHER])
    first, second = dither(0, 3), dither(10, 3)
    ready = feed(engine, [first[0], first[1], *second])
    assert [names(group) for group in ready] == [[ref.name for ref in second]]
    (flushed,) = engine.flush()
    assert (names(flushed), flushed.reason) == (["0000", "0001"], "end of the night; 2 of 3 members, without 3")


def test_what_is_left_around_a_closed_set_is_not_joined_across_it() -> None:
    engine = GroupEngine([GroupRule(name="pairs", timeout_s=600)])
    before, between, behind = exposure(0, 1, 2), dither(1, 2), exposure(3, 2, 2)
    ready = feed(engine, [before, behind, *between])
    assert [names(group) for group in ready if group.members[0] == between[0]] == [["0001", "0002"]]
    apart = GroupEngine([GroupRule(name="pairs", timeout_s=600)])
    feed(apart, between)
    assert feed(apart, [before, behind]) == []
    assert [names(group) for group in apart.flush()] == [["0000"], ["0003"]]


def test_only_the_night_that_ends_is_flushed() -> None:
    engine = GroupEngine([DITHER])
    tomorrow = replace(exposure(9, 1, 2), night=NIGHT.shifted(1))
    feed(engine, [exposure(1, 1, 2), tomorrow])
    (group,) = engine.flush(NIGHT)
    assert (group.night, group.camera) == (NIGHT, "lynx")
    assert len(engine) == 1
    assert engine.waiting()[0][:2] == ("dither", (tomorrow,))


def test_detectors_of_one_readout_by_number_and_by_time() -> None:
    def pair(number: int, detector: str, suffix: str = "") -> ExposureRef:
        ref = exposure(number, 0, 0, detector=detector)
        return replace(ref, exposure_id=ref.exposure_id + suffix)

    arriving = [pair(1, "a"), pair(2, "b", "-0a"), pair(1, "b", "-1b"), pair(2, "a")]
    for rules in ([PAIR], [PAIR.model_copy(update={"by": ("target",)})]):
        engine = GroupEngine(rules)
        ready = feed(engine, arriving)
        assert [names(group) for group in ready] == [["0001", "0001-1b"], ["0002", "0002-0a"]]
        (alone,) = engine.add(pair(3, "c"), 0.0)
        assert alone.rule is None


def test_a_replaced_exposure_takes_its_own_place() -> None:
    engine = GroupEngine([DITHER])
    refs = dither(0, 3)
    feed(engine, refs[:2])
    assert engine.add(refs[1].revised(2), 0.0) == ()
    (whole,) = engine.add(refs[2], 0.0)
    assert [ref.revision for ref in whole.members] == [1, 2, 1]
    (again,) = engine.add(refs[0].revised(2), 0.0)
    assert (again.group_id, again.revision, again.late) == (whole.group_id, 2, True)
    assert again.reason == "0000 was replaced"
    assert engine.add(refs[0], 0.0) == (), "an older revision changes nothing"
    (moved,) = engine.add(replace(refs[1], revision=3, group_number=0), 0.0)
    assert moved.rule is None


def test_memory_stays_bounded() -> None:
    engine = GroupEngine([DITHER])
    for number in range(3000):
        feed(engine, dither(10 * number, 2, target=f"t{number}"))
        feed(engine, [exposure(10 * number + 5, 0, 0), exposure(10 * number + 6, 0, 0)])
    assert len(engine._closed) == len(engine._closed_by_key) == len(engine._walls) == 512
    assert len(engine._handed_out) == 1024
    assert len(engine._singles) == 4096
    assert not engine._pools


class GroupMachine(RuleBasedStateMachine):
    """Sets are observed one after the other; files come in any order, twice, late, and across restarts.

    What the ledger would keep is kept here: the last revision of every group, and what is in no group yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.engine = GroupEngine([DITHER])
        self.now = 0.0
        self.refs: list[ExposureRef] = []
        self.on_the_way: list[ExposureRef] = []
        self.arrived: dict[str, ExposureRef] = {}
        self.groups: dict[str, ReadyGroup] = {}

    @rule(count=st.integers(2, 4), field=st.sampled_from(["M31", "M33"]))
    def observe(self, count: int, field: str) -> None:
        refs = dither(len(self.refs), count, target=field)
        self.refs += refs
        self.on_the_way += refs

    @rule(pick=st.integers(0, 5))
    def arrive(self, pick: int) -> None:
        if self.on_the_way:
            ref = self.on_the_way.pop(min(pick, len(self.on_the_way) - 1))
            self.arrived[ref.exposure_id] = ref
            self.keep(self.engine.add(ref, self.now))

    @rule(pick=st.integers(0, 100))
    def arrive_again(self, pick: int) -> None:
        if self.arrived:
            ref = list(self.arrived.values())[pick % len(self.arrived)]
            assert self.engine.add(ref, self.now) == ()

    @rule(seconds=st.sampled_from([1.0, 40.0, TIMEOUT_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.keep(self.engine.tick(self.now))
        deadline = self.engine.next_deadline()
        assert deadline is None or deadline > self.now

    @rule()
    def crash_and_restart(self) -> None:
        self.engine = GroupEngine([DITHER])
        grouped = self.members()
        loose = [ref for ref in self.arrived.values() if ref.exposure_id not in grouped]
        self.keep(self.engine.restore(loose, self.now, closed=self.groups.values()))

    @rule()
    def end_the_night(self) -> None:
        self.keep(self.engine.flush())
        assert set(self.members()) == set(self.arrived)

    @invariant()
    def nobody_is_lost_or_in_two_groups(self) -> None:
        members = self.members()
        assert len(members) == len(set(members))
        assert len(members) + len(self.engine) == len(self.arrived)

    @invariant()
    def a_group_holds_one_of_each_position_of_one_target(self) -> None:
        for group in self.groups.values():
            places = [ref.group_number for ref in group.members]
            assert places == sorted(set(places))
            assert len({(ref.target, ref.group_count) for ref in group.members}) == 1
            assert group.complete == (len(places) == group.members[0].group_count)
            starts = [ref.started_at for ref in group.members]
            assert starts == sorted(starts)
            assert GroupRecord.of(group).members == tuple(ref.exposure_id for ref in group.members)

    def keep(self, ready: Iterable[ReadyGroup]) -> None:
        for group in ready:
            before = self.groups.get(group.group_id)
            assert group.revision == (before.revision + 1 if before else 1)
            assert group.late == (before is not None)
            assert before is None or set(before.members) < set(group.members)
            self.groups[group.group_id] = group

    def members(self) -> list[str]:
        return [ref.exposure_id for group in self.groups.values() for ref in group.members]


TestGroups = GroupMachine.TestCase
TestGroups.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
