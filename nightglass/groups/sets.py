"""Sets of exposures: where an exposure stands, what belongs together, and what is handed out."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from nightglass.model import ExposureRef, Night

if TYPE_CHECKING:
    from nightglass.config import GroupRule

__all__ = [
    "ClosedSet",
    "Key",
    "Member",
    "Place",
    "Pool",
    "ReadyGroup",
    "deadline",
    "gap_s",
    "group_id_of",
    "is_snug",
    "place_of",
]

_NUMBER = re.compile(r"\d+")
_CLOCK_TOLERANCE_S = 1.0
"""Start times are often cut to whole seconds."""
_COUNT_LIMIT = 10_000
"""A count from a header is not to be trusted with memory."""
_SETTLE_S = 2.0
"""How long a full set waits for members that fit better, when its numbers have holes."""

Key = tuple[str, ...]
"""What the members of a set have in common."""


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


class Place(NamedTuple):
    """Where an exposure stands: in which pool, and at which position (from 0) of the names that make a set."""

    rule: GroupRule
    key: Key
    names: tuple[str, ...]
    position: int


class Member(NamedTuple):
    """An exposure at its position; the set waits for others until its deadline."""

    ref: ExposureRef
    position: int
    deadline: float
    arrived: float = 0.0


@dataclass(slots=True, eq=False)
class Pool:
    """Exposures of one key that are in no closed set, in order of their start.

    `walls` are the starts of closed sets of this key: no other set reaches from before one to behind it.
    """

    rule: GroupRule
    key: Key
    names: tuple[str, ...]
    walls: list[datetime]
    members: list[Member] = field(default_factory=list)

    def put(self, member: Member) -> None:
        """Take in an exposure."""
        self.members.append(member)
        self.members.sort(key=lambda item: (item.ref.started_at, item.position))

    def remove(self, members: Iterable[Member]) -> None:
        """Let exposures go."""
        gone = {member.ref.exposure_id for member in members}
        self.members = [member for member in self.members if member.ref.exposure_id not in gone]

    def sets(self, slack_s: float) -> list[list[Member]]:
        """Return the members divided into sets."""
        found: list[list[Member]] = []
        for member in self.members:
            if found and self._continues(found[-1], member, slack_s):
                found[-1].append(member)
            else:
                found.append([member])
        return found

    def _continues(self, members: list[Member], member: Member, slack_s: float) -> bool:
        last = members[-1]
        if self.rule.members == "detectors":
            fits = all(member.position != other.position for other in members)
        else:
            fits = member.position > last.position
        return (
            fits
            and abs(gap_s(last, member)) <= _longest_gap_s(self.rule, last, member, slack_s)
            and not _is_divided(self.walls, last, member)
        )


@dataclass(slots=True, eq=False)
class ClosedSet:
    """A set that was handed out, kept for members that come late."""

    rule: GroupRule
    key: Key
    names: tuple[str, ...]
    group_id: str
    members: dict[int, Member]
    wall: datetime
    revision: int = 0

    def distance_s(self, member: Member, slack_s: float, walls: Sequence[datetime]) -> float | None:
        """Return how far in observing time the nearest member is, or None if the exposure does not belong here."""
        if member.position in self.members:
            return None
        if not self.members:  # its only member was replaced
            return 0.0
        for other in self.members.values():
            backwards = gap_s(other, member) * (member.position - other.position) < 0
            if backwards and self.rule.members == "numbered":
                return None
            if abs(gap_s(other, member)) > _longest_gap_s(self.rule, other, member, slack_s):
                return None
        nearest = min(self.members.values(), key=lambda other: abs(gap_s(other, member)))
        return None if _is_divided(walls, nearest, member) else abs(gap_s(nearest, member))

    def ready(self, *, late: bool = False, reason: str = "") -> ReadyGroup:
        """Return the group in its next revision."""
        self.revision += 1
        missing = [name for index, name in enumerate(self.names) if index not in self.members]
        short = (
            f"{len(self.members)} of {len(self.names)} members, without {', '.join(missing[:20])}" if missing else ""
        )
        return ReadyGroup(
            group_id=self.group_id,
            rule=self.rule,
            members=tuple(self.members[index].ref for index in sorted(self.members)),
            complete=not missing,
            late=late,
            revision=self.revision,
            reason="; ".join(text for text in (reason, short) if text),
        )


def deadline(members: Collection[Member], names: Sequence[str]) -> float:
    """Return until when a set waits for further members."""
    if len(members) == len(names):
        return max(member.arrived for member in members) + _SETTLE_S
    return max(member.deadline for member in members)


def is_snug(rule: GroupRule, members: Sequence[Member]) -> bool:
    """Tell whether no other exposure can come between the members of a full set.

    Files that wait for a watch which was away are read in any order. The first of one dither set and the others of
    the next then look like a whole set, until the exposures between them are read; the exposure numbers tell.
    """
    if rule.members == "detectors":
        return True
    numbers = [_NUMBER.fullmatch(_number(member.ref)) for member in members]
    first = numbers[0]
    return first is not None and all(
        number is not None and int(number[0]) - int(first[0]) == member.position - members[0].position
        for number, member in zip(numbers, members, strict=True)
    )


def place_of(rules: Sequence[GroupRule], ref: ExposureRef) -> Place | None:
    """Return where an exposure stands, or None if it is processed alone."""
    for rule in rules:
        if ref.kind not in rule.kinds:
            continue
        if rule.members == "detectors":
            names, name = rule.expected, ref.detector
        else:
            count = ref.group_count if ref.group_count <= _COUNT_LIMIT else 0
            names, name = tuple(str(number) for number in range(1, count + 1)), str(ref.group_number)
        if name in names and len(names) > 1:
            return Place(rule, _key(rule, ref, len(names)), names, names.index(name))
    return None


def _key(rule: GroupRule, ref: ExposureRef, count: int) -> Key:
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


def gap_s(one: Member, other: Member) -> float:
    """Return how many seconds after the first exposure the second began; negative: before."""
    return (other.ref.started_at - one.ref.started_at).total_seconds()


def _is_divided(walls: Sequence[datetime], one: Member, other: Member) -> bool:
    """Tell whether a closed set starts between two exposures."""
    first, last = sorted((one.ref.started_at, other.ref.started_at))
    place = bisect_right(walls, first)
    return place < len(walls) and walls[place] < last


def _longest_gap_s(rule: GroupRule, one: Member, other: Member, slack_s: float) -> float:
    """Return the longest time between the starts of two members of one set, in seconds."""
    exposure_time_s = max(one.ref.exposure_time_s, other.ref.exposure_time_s)
    if rule.members == "detectors" and "number" not in rule.by:
        return exposure_time_s / 2 + _CLOCK_TOLERANCE_S  # the next read-out starts after a whole exposure time
    pause_s = rule.timeout_s + (1.0 + rule.timeout_exposures) * exposure_time_s + slack_s + _CLOCK_TOLERANCE_S
    return pause_s * max(abs(one.position - other.position), 1)


def group_id_of(rule: GroupRule, first: ExposureRef) -> str:
    """Return the id of a set whose first present member is given."""
    # a colon is in no exposure id; a replaced exposure may begin another set than it began before
    suffix = f"-r{first.revision}" if first.revision > 1 else ""
    return f"{first.camera}/{first.night}/{rule.name}:{first.name}{suffix}"
