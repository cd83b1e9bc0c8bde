"""The grouping engine: members in, groups out.

It opens no file, asks no clock and keeps no thread: every call is told the time. Exposures that belong to no set
pass straight through as groups of one. A set is closed when all its positions are filled (a moment later if the
exposure numbers leave room for others between its members), at a time-out that scales with the exposure time, or by a
flush; a member that comes later makes a revision of its closed set.

What belongs together is decided by observing time, not by order of arrival: exposures that have the rule's fields
in common lie in a pool, in order of their start, and a set ends where the next number is not higher or the pause is
longer than the time-out. So the last member of one set, when it arrives after the first of the next, finds its own.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from nightglass.groups.sets import (
    ClosedSet,
    Key,
    Member,
    Place,
    Pool,
    ReadyGroup,
    deadline,
    gap_s,
    group_id_of,
    is_snug,
    place_of,
)
from nightglass.model import ExposureRef, Night

if TYPE_CHECKING:
    from nightglass.config import GroupRule

__all__ = ["GroupEngine"]

_CLOSED_LIMIT = 512
_SINGLES_LIMIT = 4096
_EVER = float("inf")


class GroupEngine:
    """Collects exposures into groups; not thread-safe.

    Memory is bounded by what waits in pools: of closed sets only the latest 512 are remembered, of groups of one
    the latest 4096 ids.

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
        self._pools: dict[Key, Pool] = {}
        self._waiting: dict[str, Pool] = {}
        self._walls: dict[Key, list[datetime]] = {}
        self._closed: OrderedDict[ClosedSet, None] = OrderedDict()
        self._closed_by_key: dict[Key, list[ClosedSet]] = {}
        self._handed_out: dict[str, ClosedSet] = {}
        self._singles: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of exposures that wait for others."""
        return len(self._waiting)

    def waiting(self) -> tuple[tuple[str, tuple[ExposureRef, ...], float], ...]:
        """Return rule name, members and deadline of each open set, for a status page."""
        return tuple(
            (pool.rule.name, tuple(member.ref for member in members), deadline(members, pool.names))
            for pool, members in self._open_sets()
        )

    def add(self, ref: ExposureRef, now: float) -> tuple[ReadyGroup, ...]:
        """Take in an exposure; return the groups that are ready by it.

        The same exposure again changes nothing; a new revision of it takes the place of the old one.
        """
        known = self._known(ref.exposure_id)
        if known is not None:
            if known.ref.revision >= ref.revision:
                return ()
            self._take_out(known)
        place = place_of(self._rules, ref)
        if place is None:
            return self._single(ref)
        timeout_s = place.rule.timeout_s + place.rule.timeout_exposures * ref.exposure_time_s + self._overhead_s
        member = Member(ref, place.position, now + timeout_s, now)
        home = self._home(place, member)
        if home is not None:
            home.members[member.position] = member
            self._handed_out[ref.exposure_id] = home
            return (home.ready(late=True, reason=f"{ref.name} {'was replaced' if known else 'came late'}"),)
        walls = self._walls.setdefault(place.key, [])
        pool = self._pools.setdefault(place.key, Pool(place.rule, place.key, place.names, walls))
        pool.put(member)
        self._waiting[ref.exposure_id] = pool
        full = [members for members in pool.sets(self._overhead_s) if len(members) == len(pool.names)]
        return tuple(self._close(pool, members) for members in full if is_snug(pool.rule, members))

    def tick(self, now: float) -> tuple[ReadyGroup, ...]:
        """Close the sets whose time-out is over."""
        due = [item for item in self._open_sets() if self._deadline(item) <= now]
        due.sort(key=self._deadline)
        return tuple(self._close(pool, members, reason="time-out") for pool, members in due)

    def flush(self, night: Night | None = None) -> tuple[ReadyGroup, ...]:
        """Close all open sets, of one night or of all: nothing more will come."""
        chosen = [item for item in self._open_sets() if night is None or item[1][0].ref.night == night]
        return tuple(self._close(pool, members, reason="end of the night") for pool, members in chosen)

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
        """Return when `tick` has something to do, or None while nothing waits."""
        return min((self._deadline(item) for item in self._open_sets()), default=None)

    @staticmethod
    def _deadline(item: tuple[Pool, list[Member]]) -> float:
        return deadline(item[1], item[0].names)

    def _open_sets(self) -> list[tuple[Pool, list[Member]]]:
        return [(pool, members) for pool in self._pools.values() for members in pool.sets(self._overhead_s)]

    def _known(self, exposure_id: str) -> Member | None:
        pool, closed = self._waiting.get(exposure_id), self._handed_out.get(exposure_id)
        members = pool.members if pool else closed.members.values() if closed else ()
        return next((member for member in members if member.ref.exposure_id == exposure_id), None)

    def _take_out(self, member: Member) -> None:
        closed = self._handed_out.pop(member.ref.exposure_id, None)
        if closed is not None:
            del closed.members[member.position]
        else:
            self._drop(self._waiting[member.ref.exposure_id], [member])

    def _drop(self, pool: Pool, members: Sequence[Member]) -> None:
        pool.remove(members)
        for member in members:
            del self._waiting[member.ref.exposure_id]
        if not pool.members:
            del self._pools[pool.key]
            if pool.key not in self._closed_by_key:
                del self._walls[pool.key]

    def _home(self, place: Place, member: Member) -> ClosedSet | None:
        """Return the closed set to which an exposure belongs, unless one that waits in the pool is nearer."""
        pool, walls = self._pools.get(place.key), self._walls.get(place.key, [])
        nearest_s = min((abs(gap_s(other, member)) for other in pool.members), default=_EVER) if pool else _EVER
        best = None
        for closed in self._closed_by_key.get(place.key, ()):
            distance_s = closed.distance_s(member, self._overhead_s, walls)
            if distance_s is not None and distance_s < nearest_s:
                nearest_s, best = distance_s, closed
        return best

    def _single(self, ref: ExposureRef) -> tuple[ReadyGroup, ...]:
        if self._singles.get(ref.exposure_id, 0) >= ref.revision:
            return ()
        self._remember_single(ref)
        late = ref.revision > 1
        return (ReadyGroup(group_id=ref.exposure_id, rule=None, members=(ref,), late=late, revision=ref.revision),)

    def _close(self, pool: Pool, members: Sequence[Member], *, reason: str = "") -> ReadyGroup:
        self._drop(pool, members)
        by_position = {member.position: member for member in sorted(members, key=lambda member: member.position)}
        first = next(iter(by_position.values())).ref
        closed = ClosedSet(
            pool.rule, pool.key, pool.names, group_id_of(pool.rule, first), by_position, members[0].ref.started_at
        )
        self._keep(closed)
        return closed.ready(reason=reason if len(members) < len(pool.names) else "")

    def _keep(self, closed: ClosedSet) -> None:
        self._closed[closed] = None
        self._closed_by_key.setdefault(closed.key, []).append(closed)
        insort(self._walls.setdefault(closed.key, []), closed.wall)
        for member in closed.members.values():
            self._handed_out[member.ref.exposure_id] = closed
        if len(self._closed) > _CLOSED_LIMIT:
            self._forget(self._closed.popitem(last=False)[0])

    def _forget(self, closed: ClosedSet) -> None:
        self._closed_by_key[closed.key].remove(closed)
        self._walls[closed.key].remove(closed.wall)
        if not self._closed_by_key[closed.key]:
            del self._closed_by_key[closed.key]
            if closed.key not in self._pools:
                del self._walls[closed.key]
        for member in closed.members.values():
            del self._handed_out[member.ref.exposure_id]

    def _remember(self, group: ReadyGroup) -> None:
        if group.rule is None:
            self._remember_single(group.members[0])
            return
        places = [(place_of([group.rule], ref), ref) for ref in group.members]
        members = {place.position: Member(ref, place.position, 0.0) for place, ref in places if place is not None}
        whole = next((place for place, _ in places if place is not None), None)
        if whole is None or any(self._known(ref.exposure_id) for ref in group.members):
            return  # the rule was changed in the meantime, or the group is known
        wall = min(ref.started_at for ref in group.members)
        self._keep(ClosedSet(group.rule, whole.key, whole.names, group.group_id, members, wall, group.revision))

    def _remember_single(self, ref: ExposureRef) -> None:
        self._singles[ref.exposure_id] = ref.revision
        self._singles.move_to_end(ref.exposure_id)
        if len(self._singles) > _SINGLES_LIMIT:
            self._singles.popitem(last=False)
