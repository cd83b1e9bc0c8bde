"""Members of a time step, from senders that know nothing of one another: in they come, out go steps.

No clock, no thread, no pixels looked at: every call is told the time. A step is released as soon as it is whole; when
every sender whose member is missing has sent a later one (senders send in order, so it will not come); when its first
member has waited long enough; or by a flush. A member that comes after that makes a revision of its step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

__all__ = ["Timestep", "TimestepEngine"]

M = TypeVar("M")

_RELEASED_LIMIT = 512
_OPEN_LIMIT = 64


@dataclass(frozen=True, slots=True)
class Timestep(Generic[M]):
    """What belongs to one moment.

    Attributes
    ----------
    timestamp : datetime
        Of the member that came first; it stays that of all revisions.
    members : dict
        Key -> member, in the order of keys: those that came since the last release.
    earlier : frozenset of str
        Keys that went out with earlier revisions.
    missing : tuple of str
        Keys that were seen before in this stream and are not here, now or earlier.
    expected : int
        Members that make it whole.
    revision : int
        1, and one more for each release of late members.
    reason : str
        Why it was released before it was whole; empty where it is.
    """

    timestamp: datetime
    members: dict[str, M]
    earlier: frozenset[str]
    missing: tuple[str, ...]
    expected: int
    revision: int
    reason: str = ""

    @property
    def whole(self) -> bool:
        """Whether all members are there."""
        return len(self.members) + len(self.earlier) >= self.expected


@dataclass(slots=True, eq=False)
class _Open(Generic[M]):
    timestamp: datetime
    first_at: float
    earlier: frozenset[str] = frozenset()
    revision: int = 1
    members: dict[str, M] = field(default_factory=dict)


class TimestepEngine(Generic[M]):
    """Collects members by their time stamps; not thread-safe.

    Of released steps the latest 512 are remembered, by their keys alone; no more than 64 are open at once, so that
    senders with garbled clocks cannot fill the memory: beyond that the oldest goes out.

    Parameters
    ----------
    members : int
        How many make a step whole.
    tolerance_s : float
        Time stamps that differ by no more belong to one step.
    wait_s : float
        How long a step waits after its first member.

    Attributes
    ----------
    duplicates : int
        Members that were left out, because their step had one of that key.
    late : int
        Members that came after their step was released.
    """

    def __init__(self, members: int, *, tolerance_s: float = 0.0, wait_s: float = 2.0) -> None:
        self._expected = max(members, 1)
        self._tolerance = timedelta(seconds=tolerance_s)
        self._wait_s = wait_s
        self._open: dict[datetime, _Open[M]] = {}
        self._released: OrderedDict[datetime, tuple[frozenset[str], int]] = OrderedDict()
        self._newest: dict[str, datetime] = {}
        self.duplicates = 0
        self.late = 0

    def __len__(self) -> int:
        """Return the number of members that wait."""
        return sum(len(step.members) for step in self._open.values())

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that was seen, in order."""
        return tuple(sorted(self._newest))

    def add(self, key: str, timestamp: datetime, member: M, now: float) -> tuple[Timestep[M], ...]:
        """Take a member in; return the steps that are ready by it, earliest first.

        Parameters
        ----------
        key : str
            Which of the members it is, as the sub-band; keys sort as the members should.
        timestamp : datetime
            Aware.
        now : float
            On any clock that does not go back, in seconds.
        """
        step = self._home(timestamp, now)
        if key in step.members or key in step.earlier:
            self.duplicates += 1
            if not step.members:
                del self._open[step.timestamp]
            return ()
        self.late += step.revision > 1
        step.members[key] = member
        self._newest[key] = max(self._newest.get(key, timestamp), timestamp)
        ready = [item for item in self._open.values() if self._is_whole(item) or self._is_overtaken(item)]
        by_age = sorted((item for item in self._open.values() if item not in ready), key=lambda item: item.first_at)
        ready += by_age[: max(len(by_age) - _OPEN_LIMIT, 0)]
        return self._release(ready, "its missing members were overtaken")

    def tick(self, now: float) -> tuple[Timestep[M], ...]:
        """Release the steps whose time is over."""
        due = [step for step in self._open.values() if step.first_at + self._wait_s <= now]
        return self._release(due, f"not whole after {self._wait_s:g} s")

    def flush(self) -> tuple[Timestep[M], ...]:
        """Release all steps: nothing more will come."""
        return self._release(list(self._open.values()), "the stream ended")

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do, or None while nothing waits."""
        return min((step.first_at + self._wait_s for step in self._open.values()), default=None)

    def restore(self, released: Iterable[tuple[datetime, Collection[str], int]]) -> None:
        """Take up work after a restart: time stamp, keys and revision of steps that were released before."""
        for timestamp, keys, revision in released:
            self._remember(timestamp, frozenset(keys), revision)
            for key in keys:
                self._newest[key] = max(self._newest.get(key, timestamp), timestamp)

    def _home(self, timestamp: datetime, now: float) -> _Open[M]:
        """Return the step of a time stamp: one that is open, a new revision of a released one, or a new one."""
        near = self._nearest(timestamp)
        if near is not None and near in self._open:
            return self._open[near]
        keys, revision = self._released[near] if near is not None else (frozenset(), 0)
        step: _Open[M] = _Open(near or timestamp, now, keys, revision + 1)
        self._open[step.timestamp] = step
        return step

    def _nearest(self, timestamp: datetime) -> datetime | None:
        if timestamp in self._open or timestamp in self._released:
            return timestamp
        if not self._tolerance:
            return None
        known = (*self._open, *self._released)
        nearest = min(known, key=lambda moment: abs(moment - timestamp), default=None)
        return nearest if nearest is not None and abs(nearest - timestamp) <= self._tolerance else None

    def _is_whole(self, step: _Open[M]) -> bool:
        return len(step.members) + len(step.earlier) >= self._expected

    def _is_overtaken(self, step: _Open[M]) -> bool:
        """Tell whether every missing member's sender has gone on to a later step."""
        if len(self._newest) < self._expected:
            return False
        latest = step.timestamp + self._tolerance
        return all(
            newest > latest
            for key, newest in self._newest.items()
            if key not in step.members and key not in step.earlier
        )

    def _release(self, steps: Iterable[_Open[M]], reason: str) -> tuple[Timestep[M], ...]:
        released = []
        for step in sorted(steps, key=lambda item: item.timestamp):
            del self._open[step.timestamp]
            keys = step.earlier | step.members.keys()
            self._remember(step.timestamp, keys, step.revision)
            released.append(
                Timestep(
                    timestamp=step.timestamp,
                    members=dict(sorted(step.members.items())),
                    earlier=step.earlier,
                    missing=tuple(key for key in self.keys if key not in keys),
                    expected=self._expected,
                    revision=step.revision,
                    reason="" if self._is_whole(step) else reason,
                )
            )
        return tuple(released)

    def _remember(self, timestamp: datetime, keys: frozenset[str], revision: int) -> None:
        self._released[timestamp] = (keys, revision)
        self._released.move_to_end(timestamp)
        if len(self._released) > _RELEASED_LIMIT:
            self._released.popitem(last=False)
