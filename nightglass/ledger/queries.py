"""Questions to the ledger that change nothing: counts, entries, latency, lag, errors, history."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, func, or_, select

from nightglass.ledger.archive_records import ArchiveState
from nightglass.ledger.records import Entry, ErrorSummary, Event, GroupRecord
from nightglass.ledger.rows import as_entry, by_exposures, find
from nightglass.ledger.statements import Row
from nightglass.ledger.store import Store
from nightglass.ledger.tables import archives, counters, entries, events, groups, stages
from nightglass.model import ExposureRef, Kind, Night, State

__all__ = ["Queries"]

_PAGE = 500
_EXAMPLES = 5
_TROUBLE = (State.FAILED, State.REJECTED, State.WAITING)


class Queries:
    """The part of the ledger that answers.

    Parameters
    ----------
    store : Store
    clock : callable
        Gives epoch seconds, for calls without `now`.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def find(self, name: str) -> Entry:
        """Return the entry of an exposure id, an entry key or a path.

        Raises
        ------
        Misconfigured
            If there is none.
        """
        with self._store.read() as connection:
            return as_entry(find(connection, name))

    def knows(self, path: Path, camera: str) -> bool:
        """Tell whether a path of a camera was ever seen."""
        statement = select(entries.c.key).where(entries.c.path == str(path), entries.c.camera == camera)
        with self._store.read() as connection:
            return connection.execute(statement).first() is not None

    def refs(self, exposure_ids: Iterable[str]) -> tuple[ExposureRef, ...]:
        """Return the references of exposures, in this order; ids without one (replaced, unknown) are left out."""
        wanted = list(exposure_ids)
        with self._store.read() as connection:
            rows = by_exposures(connection, wanted)
        return tuple(
            ExposureRef.from_json(json.loads(rows[name]["ref"]))
            for name in wanted
            if name in rows and rows[name]["ref"]
        )

    def entries(
        self,
        night: Night | None = None,
        camera: str | None = None,
        states: Collection[State] | None = None,
        kinds: Collection[Kind] | None = None,
        ids: Collection[str] | None = None,
    ) -> Iterator[Entry]:
        """Yield entries in order of their keys, page by page: no transaction is open between two pages."""
        if ids is not None:
            return self._among(ids, night, camera, states, kinds)
        statement = select(entries).order_by(entries.c.key).limit(_PAGE)
        if night is not None:
            statement = statement.where(entries.c.night == night.label)
        if camera is not None:
            statement = statement.where(entries.c.camera == camera)
        if states is not None:
            statement = statement.where(entries.c.state.in_([state.value for state in states]))
        if kinds is not None:
            statement = statement.where(entries.c.kind.in_([kind.value for kind in kinds]))
        return self._pages(statement)

    def latest(self, night: Night, camera: str | None = None, *, limit: int = 10) -> tuple[Entry, ...]:
        """Return the exposures of a night that were reduced last, the newest first."""
        statement = select(entries).where(entries.c.night == night.label, entries.c.reduced_at.is_not(None))
        if camera is not None:
            statement = statement.where(entries.c.camera == camera)
        statement = statement.order_by(entries.c.reduced_at.desc()).limit(limit)
        with self._store.read() as connection:
            return tuple(as_entry(row) for row in connection.execute(statement).mappings())

    def pending(self, camera: str | None = None) -> tuple[Entry, ...]:
        """Return entries that are SEEN or COMPLETE, oldest first: what a restarted watch has to take up again."""
        statement = select(entries).where(
            or_(
                entries.c.active_state == State.SEEN.value,
                entries.c.active_state == State.COMPLETE.value,
            )
        )
        if camera is not None:
            statement = statement.where(entries.c.camera == camera)
        with self._store.read() as connection:
            return tuple(as_entry(row) for row in connection.execute(statement.order_by(entries.c.key)).mappings())

    def counts(self, night: Night | None = None, camera: str | None = None) -> dict[State, int]:
        """Return how many entries are in each state, from counters: the cost does not grow with the night."""
        statement = select(counters.c.state, func.sum(counters.c.count).label("total")).group_by(counters.c.state)
        if night is not None:
            statement = statement.where(counters.c.night == night.label)
        if camera is not None:
            statement = statement.where(counters.c.camera == camera)
        with self._store.read() as connection:
            found = {row.state: int(row.total) for row in connection.execute(statement)}
        return {state: found.get(state.value, 0) for state in State}

    def nights_seen(self, camera: str | None = None) -> tuple[tuple[Night, str], ...]:
        """Return the nights and cameras of which there are entries, opened or not, the earliest first."""
        statement = select(counters.c.night, counters.c.camera).distinct().where(counters.c.count > 0)
        if camera is not None:
            statement = statement.where(counters.c.camera == camera)
        with self._store.read() as connection:
            return tuple(sorted((Night(row.night), str(row.camera)) for row in connection.execute(statement)))

    def latencies(self, night: Night, camera: str | None = None) -> tuple[float, float] | None:
        """Return median and 95th percentile (nearest rank) of the seconds from sighting to first product.

        None while nothing is reduced.
        """
        column = entries.c.latency_s
        chosen = select(column).where(entries.c.night == night.label, column.is_not(None))
        if camera is not None:
            chosen = chosen.where(entries.c.camera == camera)
        ordered = chosen.order_by(column)
        with self._store.read() as connection:
            total = connection.execute(select(func.count()).select_from(chosen.subquery())).scalar_one()
            if not total:
                return None
            return _rank(connection, ordered, total, 0.5), _rank(connection, ordered, total, 0.95)

    def lag(self, camera: str | None = None, *, now: float | None = None) -> float:
        """Return for how many seconds the exposure that waits longest has been ready and not taken; 0 if none waits."""
        at = self._clock() if now is None else now
        since = func.min(func.coalesce(entries.c.retry_at, entries.c.grouped_at))
        statement = select(since).where(entries.c.active_state == State.GROUPED.value)
        if camera is not None:
            statement = statement.where(entries.c.camera == camera)
        with self._store.read() as connection:
            earliest = connection.execute(statement).scalar_one()
        return 0.0 if earliest is None else max(at - float(earliest), 0.0)

    def waiting_reasons(self, night: Night | None = None, camera: str | None = None) -> dict[str, int]:
        """Return why entries are WAITING, and how many for each reason."""
        return {item.reason: item.count for item in self._trouble([State.WAITING], night, camera)}

    def errors(self, night: Night | None = None, camera: str | None = None) -> tuple[ErrorSummary, ...]:
        """Return what went wrong, by state, cause and reason, the most frequent first."""
        return self._trouble(_TROUBLE, night, camera)

    def groups(
        self, night: Night | None = None, camera: str | None = None, *, rule: str | None = None
    ) -> tuple[GroupRecord, ...]:
        """Return closed groups in order of their ids."""
        statement = select(groups).order_by(groups.c.group_id)
        wanted = {"night": night and night.label, "camera": camera, "rule": rule}
        for name, value in wanted.items():
            if value is not None:
                statement = statement.where(groups.c[name] == value)
        with self._store.read() as connection:
            return tuple(_as_group(row) for row in connection.execute(statement).mappings())

    def find_group(self, group_id: str) -> GroupRecord | None:
        """Return a closed group, or None."""
        with self._store.read() as connection:
            row = connection.execute(select(groups).where(groups.c.group_id == group_id)).mappings().one_or_none()
        return None if row is None else _as_group(row)

    def history(self, name: str) -> tuple[Event, ...]:
        """Return every change of state of an entry (exposure id, key or path), and every remark on it, in order.

        Raises
        ------
        Misconfigured
            If there is no such entry.
        """
        with self._store.read() as connection:
            key = find(connection, name)["key"]
            statement = select(events).where(events.c.key == key).order_by(events.c.number)
            return tuple(_as_event(row) for row in connection.execute(statement).mappings())

    def holders(self) -> tuple[str, ...]:
        """Return the owners of all leases: on exposures, stages and archives."""
        running = select(entries.c.owner).where(entries.c.active_state == State.RUNNING.value)
        staging = select(stages.c.owner).where(stages.c.owner.is_not(None))
        archiving = select(archives.c.owner).where(archives.c.active_state == ArchiveState.RUNNING.value)
        with self._store.read() as connection:
            found = {owner for each in (running, staging, archiving) for owner in connection.execute(each).scalars()}
        return tuple(sorted(owner for owner in found if owner))

    def _among(
        self,
        ids: Collection[str],
        night: Night | None,
        camera: str | None,
        states: Collection[State] | None,
        kinds: Collection[Kind] | None,
    ) -> Iterator[Entry]:
        """Return those of a few exposures that fit; asked after each reduction, so it is one statement for each."""
        with self._store.read() as connection:
            rows = by_exposures(connection, ids)
        for entry in sorted(map(as_entry, rows.values()), key=lambda entry: entry.key):
            if (
                night in (None, entry.night)
                and camera in (None, entry.camera)
                and (states is None or entry.state in states)
                and (kinds is None or entry.kind in kinds)
            ):
                yield entry

    def _pages(self, statement: Select[Any]) -> Iterator[Entry]:
        last = ""
        while True:
            with self._store.read() as connection:
                rows = connection.execute(statement.where(entries.c.key > last)).mappings().all()
            yield from (as_entry(row) for row in rows)
            if len(rows) < _PAGE:
                return
            last = rows[-1]["key"]

    def _trouble(self, states: Collection[State], night: Night | None, camera: str | None) -> tuple[ErrorSummary, ...]:
        found: dict[tuple[State, str, str], list[str]] = {}
        for entry in self.entries(night, camera, states):
            name = entry.exposure_id or str(entry.path)
            found.setdefault((entry.state, entry.cause, entry.reason), []).append(name)
        summaries = (
            ErrorSummary(state=state, cause=cause, reason=reason, count=len(names), examples=tuple(names[:_EXAMPLES]))
            for (state, cause, reason), names in found.items()
        )
        return tuple(sorted(summaries, key=lambda item: (-item.count, item.state, item.cause, item.reason)))


def _rank(connection: Connection, ordered: Select[Any], total: int, fraction: float) -> float:
    offset = max(math.ceil(fraction * total) - 1, 0)
    return float(connection.execute(ordered.limit(1).offset(offset)).scalar_one())


def _as_group(row: Row) -> GroupRecord:
    return GroupRecord(
        group_id=row["group_id"],
        night=Night(row["night"]),
        camera=row["camera"],
        rule=row["rule"],
        members=tuple(json.loads(row["members"])),
        complete=bool(row["complete"]),
        revision=row["revision"],
        reason=row["reason"],
    )


def _as_event(row: Row) -> Event:
    return Event(
        key=row["key"],
        number=row["number"],
        revision=row["revision"],
        at=row["at"],
        before=State(row["before"]) if row["before"] else None,
        after=State(row["after"]),
        reason=row["reason"],
        owner=row["owner"],
    )
