"""The grouping engine: members in, groups out.

It opens no file, asks no clock and keeps no thread: every call is told the time. Exposures that belong to no set
pass straight through as groups of one. A set is closed when all its positions are filled, at a time-out that
scales with the exposure time, or by a flush; a member that comes later makes a revision of its closed set.

Which set a member belongs to is decided by observing time, not by order of arrival: within a set, a higher number
was taken later, and neighbours are not further apart than the time-out allows. So the last member of one set, when
it arrives after the first of the next, still finds its own.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from nightglass.model import ExposureRef, Night

if TYPE_CHECKING:
    from nightglass.config import GroupRule

__all__ = ["GroupEngine", "ReadyGroup"]

_NUMBER = re.compile(r"\d+")
_CLOCK_TOLERANCE_S = 1.0
"""Start times are often cut to whole seconds."""
_CLOSED_LIMIT = 512
_SINGLES_LIMIT = 4096

_COUNT_LIMIT = 10_000

_Position = int | str
_Key = tuple[str, ...]


class _Place(NamedTuple):
    rule: GroupRule
    key: _Key
    position: _Position
    positions: tuple[_Position, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyGroup:
    """Exposures that are to be processed together.

    Attributes
    ----------
    group_id : str
        Made of rule and first member when the group is closed; its revisions keep it. A group of one bears the id
        of its exposure.
    rule : GroupRule or None
        None: a group of one.
    members : tuple of ExposureRef
        In order of position; a revision holds all members, not only the new ones.
    complete : bool
        Whether no position is empty.
    late : bool
        Whether this is a revision: a member came, or was replaced, after the group was closed.
    reason : str
        Why it was closed as it is; empty for a complete group.
    """

    group_id: str
    rule: GroupRule | None
    members: tuple[ExposureRef, ...]
    complete: bool = True
    late: bool = False
    revision: int = 1
    reason: str = ""

    @property
    def night(self) -> Night:
        """Night of the members."""
        return self.members[0].night

    @property
    def camera(self) -> str:
        """Camera of the members."""
        return self.members[0].camera


@dataclass(slots=True, eq=False)
class _Set:
    """One set; it is open until it gets an id."""

    rule: GroupRule
    key: _Key
    positions: tuple[_Position, ...]
    members: dict[_Position, ExposureRef] = field(default_factory=dict)
    deadline: float = 0.0
    group_id: str = ""
    revision: int = 0

    @property
    def night(self) -> Night:
        return next(iter(self.members.values())).night

    @property
    def is_full(self) -> bool:
        return len(self.members) == len(self.positions)

    @property
    def shortage(self) -> str:
        missing = [str(place) for place in self.positions if place not in self.members]
        if not missing:
            return ""
        return f"{len(self.members)} of {len(self.positions)} members, without {', '.join(missing[:20])}"

    def distance_s(self, position: _Position, ref: ExposureRef, slack_s: float) -> float | None:
        """Return how far in observing time the nearest member is, or None if the exposure does not belong here."""
        if position in self.members:
            return None
        nearest_s = None
        for place, member in self.members.items():
            step = _step(place, position)
            gap_s = (ref.started_at - member.started_at).total_seconds()
            longest_s = _longest_gap_s(self.rule, max(ref.exposure_time_s, member.exposure_time_s), slack_s)
            if abs(gap_s) > longest_s * max(abs(step), 1) or gap_s * step < -_CLOCK_TOLERANCE_S * abs(step):
                return None
            nearest_s = abs(gap_s) if nearest_s is None else min(nearest_s, abs(gap_s))
        return nearest_s or 0.0

    def ready(self, *, late: bool = False, reason: str = "") -> ReadyGroup:
        """Close the set, or revise it if it was closed."""
        members = tuple(self.members[place] for place in self.positions if place in self.members)
        self.group_id = self.group_id or _group_id(self.rule, members[0])
        self.revision += 1
        return ReadyGroup(
            group_id=self.group_id,
            rule=self.rule,
            members=members,
            complete=self.is_full,
            late=late,
            revision=self.revision,
            reason="; ".join(text for text in (reason, self.shortage) if text),
        )


class GroupEngine:
    """Collects exposures into groups; not thread-safe.

    Memory is bounded by the open sets: of closed ones only the latest 512 are remembered, of groups of one the
    latest 4096 ids.

    Parameters
    ----------
    rules : sequence of GroupRule
        The first that fits an exposure counts.
    overhead_s : float
        Added to each time-out: what transfer and read-out take.
    """

    def __init__(self, rules: Sequence[GroupRule], *, overhead_s: float = 0.0) -> None:
        self._rules = tuple(rules)
        self._overhead_s = overhead_s
        self._open: dict[_Key, list[_Set]] = {}
        self._closed: OrderedDict[_Set, None] = OrderedDict()
        self._closed_by_key: dict[_Key, list[_Set]] = {}
        self._home: dict[str, _Set] = {}
        self._singles: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of exposures that wait in open sets."""
        return sum(len(item.members) for sets in self._open.values() for item in sets)

    def waiting(self) -> tuple[tuple[str, tuple[ExposureRef, ...], float], ...]:
        """Return rule name, members and deadline of each open set, for a status page."""
        return tuple(
            (item.rule.name, tuple(item.members.values()), item.deadline)
            for sets in self._open.values()
            for item in sets
        )

    def add(self, ref: ExposureRef, now: float) -> tuple[ReadyGroup, ...]:
        """Take in an exposure; return the groups that are ready by it.

        The same exposure again changes nothing; a new revision of it takes the place of the old one.
        """
        home = self._home.get(ref.exposure_id)
        if home is not None and not self._leave(home, ref):
            return ()
        place = _place(self._rules, ref)
        if place is None:
            ready = self._single(ref)
        else:
            ready = self._join(self._choose(place, ref), place, ref, now, replaced=home is not None)
        if home is not None and not home.members and not home.group_id:
            self._drop(self._open, home)
        return ready

    def tick(self, now: float) -> tuple[ReadyGroup, ...]:
        """Close the sets whose time-out is over."""
        due = [item for sets in self._open.values() for item in sets if item.deadline <= now]
        due.sort(key=lambda item: item.deadline)
        return tuple(self._close(item, reason="time-out") for item in due)

    def flush(self, night: Night | None = None) -> tuple[ReadyGroup, ...]:
        """Close all open sets, of one night or of all: nothing more will come."""
        chosen = [item for sets in self._open.values() for item in sets if night is None or item.night == night]
        return tuple(self._close(item, reason="end of the night") for item in chosen)

    def restore(
        self, refs: Iterable[ExposureRef], now: float, *, closed: Iterable[ReadyGroup] = ()
    ) -> tuple[ReadyGroup, ...]:
        """Take up work after a restart: groups that were closed before, then exposures that are in no group yet.

        Time-outs begin anew. Returns the groups that are ready by it.
        """
        for group in closed:
            self._remember(group)
        return tuple(ready for ref in refs for ready in self.add(ref, now))

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do, or None while no set is open."""
        return min((item.deadline for sets in self._open.values() for item in sets), default=None)

    def _leave(self, home: _Set, ref: ExposureRef) -> bool:
        """Take the old revision of an exposure out of its set; False if this one is not newer."""
        place, member = next(item for item in home.members.items() if item[1].exposure_id == ref.exposure_id)
        if member.revision >= ref.revision:
            return False
        del home.members[place], self._home[ref.exposure_id]
        return True

    def _choose(self, place: _Place, ref: ExposureRef) -> _Set:
        best: tuple[float, int] | None = None
        chosen = None
        # an open set goes before a closed one that is as near
        candidates = [*self._open.get(place.key, ()), *self._closed_by_key.get(place.key, ())]
        for order, item in enumerate(candidates):
            distance_s = item.distance_s(place.position, ref, self._overhead_s)
            if distance_s is not None and (best is None or (distance_s, order) < best):
                best, chosen = (distance_s, order), item
        if chosen is None:
            chosen = _Set(place.rule, place.key, place.positions)
            self._open.setdefault(place.key, []).append(chosen)
        return chosen

    def _join(
        self, item: _Set, place: _Place, ref: ExposureRef, now: float, *, replaced: bool
    ) -> tuple[ReadyGroup, ...]:
        item.members[place.position] = ref
        self._home[ref.exposure_id] = item
        if item.group_id:
            return (item.ready(late=True, reason=f"{ref.name} {'was replaced' if replaced else 'came late'}"),)
        rule = item.rule
        item.deadline = now + rule.timeout_s + rule.timeout_exposures * ref.exposure_time_s + self._overhead_s
        return (self._close(item, reason=""),) if item.is_full else ()

    def _single(self, ref: ExposureRef) -> tuple[ReadyGroup, ...]:
        if self._singles.get(ref.exposure_id, 0) >= ref.revision:
            return ()
        self._remember_single(ref)
        return (
            ReadyGroup(
                group_id=ref.exposure_id, rule=None, members=(ref,), late=ref.revision > 1, revision=ref.revision
            ),
        )

    def _close(self, item: _Set, *, reason: str) -> ReadyGroup:
        self._drop(self._open, item)
        self._keep(item)
        return item.ready(reason=reason)

    def _remember(self, group: ReadyGroup) -> None:
        first = group.members[0]
        if group.rule is None:
            self._remember_single(first)
            return
        places = {ref.exposure_id: _place([group.rule], ref) for ref in group.members}
        whole = next((place for place in places.values() if place is not None), None)
        if whole is None or any(ref.exposure_id in self._home for ref in group.members):
            return  # the rule was changed in the meantime, or the group is known
        item = _Set(group.rule, whole.key, whole.positions, group_id=group.group_id, revision=group.revision)
        for ref in group.members:
            place = places[ref.exposure_id]
            if place is not None:
                item.members[place.position] = ref
                self._home[ref.exposure_id] = item
        self._keep(item)

    def _remember_single(self, ref: ExposureRef) -> None:
        self._singles[ref.exposure_id] = ref.revision
        self._singles.move_to_end(ref.exposure_id)
        if len(self._singles) > _SINGLES_LIMIT:
            self._singles.popitem(last=False)

    def _keep(self, item: _Set) -> None:
        self._closed[item] = None
        self._closed_by_key.setdefault(item.key, []).append(item)
        if len(self._closed) > _CLOSED_LIMIT:
            oldest, _ = self._closed.popitem(last=False)
            self._drop(self._closed_by_key, oldest)
            for member in oldest.members.values():
                del self._home[member.exposure_id]

    @staticmethod
    def _drop(sets: dict[_Key, list[_Set]], item: _Set) -> None:
        siblings = sets[item.key]
        siblings.remove(item)
        if not siblings:
            del sets[item.key]


def _place(rules: Sequence[GroupRule], ref: ExposureRef) -> _Place | None:
    """Return where an exposure stands in its set, or None if it is processed alone."""
    for rule in rules:
        if ref.kind not in rule.kinds:
            continue
        if rule.members == "detectors":
            place = _Place(rule, _key(rule, ref, len(rule.expected)), ref.detector, rule.expected)
        else:
            # a count from a header is not to be trusted with memory
            count = ref.group_count if ref.group_count <= _COUNT_LIMIT else 0
            place = _Place(rule, _key(rule, ref, count), ref.group_number, tuple(range(1, count + 1)))
        if place.position in place.positions and len(place.positions) > 1:
            return place
    return None


def _key(rule: GroupRule, ref: ExposureRef, count: int) -> _Key:
    common = {
        "target": ref.target,
        "filter": ref.filter,
        "detector": ref.detector,
        "binning": ref.binning,
        "readout": ref.readout,
        "number": _number(ref),
    }
    # one rule counts detectors, so what they have in common cannot be the detector
    names = [name for name in rule.by if not (name == "detector" and rule.members == "detectors")]
    return (rule.name, ref.night.label, ref.camera, str(count), *(common[name] for name in names))


def _number(ref: ExposureRef) -> str:
    # files of several detectors bear one number; what follows it in the name keeps their ids apart
    match = _NUMBER.match(ref.name)
    return match[0] if match else ref.name


def _step(place: _Position, position: _Position) -> int:
    return position - place if isinstance(place, int) and isinstance(position, int) else 0


def _longest_gap_s(rule: GroupRule, exposure_time_s: float, slack_s: float) -> float:
    """Return the longest time between the starts of two neighbours in one set, in seconds."""
    if rule.members == "detectors" and "number" not in rule.by:
        return exposure_time_s / 2 + _CLOCK_TOLERANCE_S  # the next read-out starts after a whole exposure time
    return rule.timeout_s + (1.0 + rule.timeout_exposures) * exposure_time_s + slack_s + _CLOCK_TOLERANCE_S


def _group_id(rule: GroupRule, first: ExposureRef) -> str:
    # a colon is in no exposure id; a replaced exposure may begin another set than it began before
    suffix = f"-r{first.revision}" if first.revision > 1 else ""
    return f"{first.camera}/{first.night}/{rule.name}:{first.name}{suffix}"
