"""Arrivals: a file is seen, found complete or rejected, and may be replaced at any time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from nightglass.ledger.records import Entry
from nightglass.ledger.rows import as_entry, as_json, blame, by_key, find, find_all
from nightglass.ledger.statements import Row, Statement, upsert
from nightglass.ledger.store import Store
from nightglass.ledger.tables import entries, products, revisions, sequences
from nightglass.ledger.transitions import Move, Transaction
from nightglass.model import ExposureRef, Night, Sighting, State

__all__ = ["Arrivals"]

_DUPLICATE = "Duplicate"
_FORGOTTEN: dict[str, Any] = dict.fromkeys(
    (
        *("content_id", "fallback", "kind", "ref", "group_id", "retry_at", "quality", "masters", "measured", "timings"),
        *("complete_at", "grouped_at", "running_at", "reduced_at", "latency_s"),
    )
)
"""What a replaced file makes void; the exposure id stays reserved."""
_BLANK: dict[str, Any] = {
    **_FORGOTTEN,
    "exposure_id": None,
    "parent": None,
    "token": None,
    "owner": None,
    "lease_until": None,
}

_SAME_CONTENT = (
    entries.c.night == bindparam("night"),
    entries.c.camera == bindparam("camera"),
    entries.c.content_id == bindparam("content_id"),
)
_BY_PATH = Statement(
    select(entries).where(entries.c.path == bindparam("path"), entries.c.camera == bindparam("camera"))
)
# sorted afterwards: an ORDER BY key would make SQLite walk through the night in that order
_TWINS = Statement(
    select(entries).where(*_SAME_CONTENT, entries.c.key != bindparam("of_key"), entries.c.exposure_id.is_not(None))
)
_COPIES = Statement(
    select(entries).where(*_SAME_CONTENT, entries.c.state == State.SKIPPED.value, entries.c.cause == _DUPLICATE)
)
_ID_TAKEN = Statement(
    select(entries.c.key).where(entries.c.exposure_id == bindparam("exposure_id"), entries.c.key != bindparam("of_key"))
)
_FORMER = Statement(
    select(revisions.c.record).where(
        revisions.c.key == bindparam("of_key"),
        revisions.c.revision == bindparam("revision"),
        revisions.c.state == State.REDUCED.value,
    )
)
_SUPERSEDE = Statement(
    update(products).where(products.c.subject == bindparam("of_subject")).values(superseded=bindparam("flag"))
)
_NEW_ENTRY = Statement(insert(entries))
_NEW_REVISION = Statement(insert(revisions))
_DRAW = upsert(sequences, adding=["last"], returning="last")


class Arrivals:
    """The part of the ledger that takes in what sensors and the completeness check found.

    Parameters
    ----------
    store : Store
    clock : callable
        Gives epoch seconds, for calls without `now`.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def see(self, sighting: Sighting, *, camera: str, night: Night) -> Entry:
        """Record a sighting; one that was recorded already changes nothing.

        A file that changed while it is still SEEN is only followed; later a change is a revision: the entry is SEEN
        again, the lease of its holder is void, and its products are superseded until the next commit.
        """
        return self.see_many([sighting], camera=camera, night=night)[0]

    def see_many(self, sightings: Sequence[Sighting], *, camera: str, night: Night) -> tuple[Entry, ...]:
        """Record a burst of sightings in one transaction, in this order; return their entries."""
        with self._store.read() as connection:
            known = _by_paths(connection, camera, sightings)
        if all(_is_known(sighting, known) for sighting in sightings):
            return tuple(as_entry(known[str(sighting.path)]) for sighting in sightings)
        with self._store.write() as transaction:
            known = _by_paths(transaction.connection, camera, sightings)
            for sighting in sightings:
                row = known.get(str(sighting.path))
                if row is not None and not _is_known(sighting, known):
                    known[str(sighting.path)] = _follow(transaction, row, sighting)
            fresh = {str(item.path): item for item in sightings if str(item.path) not in known}
            known.update(_insert(transaction, list(fresh.values()), camera=camera, night=night))
        return tuple(as_entry(known[str(sighting.path)]) for sighting in sightings)

    def complete(self, key: str, ref: ExposureRef, *, revision: int | None = None, now: float | None = None) -> Entry:
        """Record that a file is whole and what its header says; look at the state of the entry that comes back.

        COMPLETE: it goes on; its `ref` is the one to use (its id may have got a suffix, because another file claims
        the same number). SKIPPED: the same content is known under another path. REDUCED: the file was only touched.
        Any other: it had not been SEEN, and nothing was changed.

        Parameters
        ----------
        revision : int, optional
            Of the entry that was inspected. If the file was replaced in the meantime, nothing is changed.
        """
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            row = by_key(transaction.connection, key) or find(transaction.connection, key)
            if row["state"] != State.SEEN or revision not in (None, row["revision"]):
                return as_entry(row)
            return as_entry(_complete(transaction, row, ref, at=at))

    def reject(self, key: str, error: BaseException, *, revision: int | None = None, now: float | None = None) -> Entry:
        """Quarantine an entry (key, exposure id or path) that can never be reduced as it is."""
        return self._judge(key, Move.REJECT, error, revision, now)

    def fail(self, key: str, error: BaseException, *, revision: int | None = None, now: float | None = None) -> Entry:
        """Give an entry (key, exposure id or path) up: it was tried often enough."""
        return self._judge(key, Move.FAIL, error, revision, now)

    def wait(self, key: str, error: BaseException, *, revision: int | None = None, now: float | None = None) -> Entry:
        """Set an entry (key, exposure id or path) aside until an input comes."""
        return self._judge(key, Move.WAIT, error, revision, now)

    def skip(
        self, names: Iterable[str], *, reason: str = "", owner: str = "", now: float | None = None
    ) -> tuple[Entry, ...]:
        """Leave entries out, as a person wishes; a lease on one of them is void.

        Raises
        ------
        Misconfigured
            If a name is unknown; nothing is changed.
        """
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            rows = find_all(transaction.connection, names)
            text = reason or f"skipped by {owner or 'a person'}"
            skipped = [
                row
                if row["state"] == State.SKIPPED
                else transaction.move(row, Move.SKIP, at=at, by=owner, reason=text, cause="Skipped", retry_at=None)
                for row in rows
            ]
        return tuple(as_entry(row) for row in skipped)

    def retry(self, names: Iterable[str], *, owner: str = "", now: float | None = None) -> tuple[Entry, ...]:
        """Let entries run again from where they enter: without a reference from SEEN, with one from COMPLETE.

        An exposure that has been in a group returns to it (GROUPED), so that `ready` hands it out and no group
        engine has to see it a second time. What has not run yet is left as it is.

        Raises
        ------
        Misconfigured
            If a name is unknown; nothing is changed.
        """
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            rows = find_all(transaction.connection, names)
            again = [_retry(transaction, row, at=at, owner=owner) for row in rows]
        return tuple(as_entry(row) for row in again)

    def _judge(self, name: str, move: Move, error: BaseException, revision: int | None, now: float | None) -> Entry:
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            row = find(transaction.connection, name)
            if revision not in (None, row["revision"]):
                return as_entry(row)
            return as_entry(transaction.move(row, move, at=at, retry_at=None, **blame(error)))


def _by_paths(connection: Connection, camera: str, sightings: Sequence[Sighting]) -> dict[str, Row]:
    rows = (_BY_PATH.one(connection, path=str(item.path), camera=camera) for item in sightings)
    return {row["path"]: row for row in rows if row is not None}


def _is_known(sighting: Sighting, known: dict[str, Row]) -> bool:
    row = known.get(str(sighting.path))
    return row is not None and (row["size"], row["mtime_ns"]) == (sighting.size, sighting.mtime_ns)


def _insert(transaction: Transaction, sightings: Sequence[Sighting], *, camera: str, night: Night) -> dict[str, Row]:
    if not sightings:
        return {}
    (drawn,) = _DRAW.all(transaction.connection, night=night.label, camera=camera, last=len(sightings))
    first = drawn["last"] - len(sightings) + 1
    rows: list[dict[str, Any]] = [
        {
            **_BLANK,
            "key": f"{night}/{camera}/{number:08d}",
            "night": night.label,
            "camera": camera,
            "path": str(sighting.path),
            "size": sighting.size,
            "mtime_ns": sighting.mtime_ns,
            "revision": 1,
            "state": State.SEEN.value,
            "active_state": State.SEEN.value,
            "reason": "",
            "cause": "",
            "attempts": 0,
            "seen_at": sighting.seen_at.timestamp(),
            "changes": 1,
        }
        for number, sighting in enumerate(sightings, start=first)
    ]
    _NEW_ENTRY.many(transaction.connection, rows)
    for row in rows:
        transaction.appear(row)
    return {row["path"]: row for row in rows}


def _follow(transaction: Transaction, row: Row, sighting: Sighting) -> Row:
    at = sighting.seen_at.timestamp()
    seen: dict[str, Any] = {"size": sighting.size, "mtime_ns": sighting.mtime_ns, "seen_at": at}
    if row["state"] == State.SEEN:
        return transaction.change(row, **seen)
    connection = transaction.connection
    record = {"revision": row["revision"], "state": row["state"], "record": as_json(dict(row))}
    _NEW_REVISION.run(connection, key=row["key"], at=at, **record)
    if row["exposure_id"]:
        _SUPERSEDE.run(connection, of_subject=row["exposure_id"], flag=1)
        _release_copies(transaction, row, at=at)
    return transaction.move(
        row,
        Move.REVISE,
        at=at,
        reason="the file was replaced",
        revision=row["revision"] + 1,
        attempts=0,
        **seen,
        **_FORGOTTEN,
    )


def _complete(transaction: Transaction, row: Row, ref: ExposureRef, *, at: float) -> Row:
    connection = transaction.connection
    content = {"night": ref.night.label, "camera": row["camera"], "content_id": ref.content_id}
    twins = _TWINS.all(connection, of_key=row["key"], **content)
    if twins:
        return _duplicate(transaction, row, ref, min(twins, key=itemgetter("key")), at=at)
    former = _former(connection, row)
    if former is not None and former["content_id"] == ref.content_id:
        return _restore(transaction, row, former, at=at)
    exposure_id, parent = ref.exposure_id, ref.parent
    if _ID_TAKEN.one(connection, of_key=row["key"], exposure_id=exposure_id) is not None:
        # in a cube of the other's exposure one of the two would have no place
        exposure_id, parent = f"{exposure_id}-{ref.content_id[:8]}", ""
    final = replace(ref, exposure_id=exposure_id, parent=parent, revision=row["revision"])
    return transaction.move(
        row,
        Move.COMPLETE,
        at=at,
        night=ref.night.label,
        size=ref.size,
        content_id=ref.content_id,
        exposure_id=exposure_id,
        parent=parent or None,
        kind=ref.kind.value,
        ref=as_json(final.to_json()),
        complete_at=at,
    )


def _former(connection: Connection, row: Row) -> dict[str, Any] | None:
    """Return the revision before this one, if it was reduced."""
    if row["revision"] == 1:
        return None
    former = _FORMER.one(connection, of_key=row["key"], revision=row["revision"] - 1)
    return None if former is None else dict(json.loads(former["record"]))


def _restore(transaction: Transaction, row: Row, former: dict[str, Any], *, at: float) -> Row:
    _SUPERSEDE.run(transaction.connection, of_subject=former["exposure_id"], flag=0)
    kept = {name: former[name] for name in _FORGOTTEN if name not in ("retry_at", "fallback")}
    return transaction.move(
        row,
        Move.RESTORE,
        at=at,
        reason="the file was touched, its content is unchanged",
        night=former["night"],
        exposure_id=former["exposure_id"],
        **kept,
    )


def _duplicate(transaction: Transaction, row: Row, ref: ExposureRef, twin: Row, *, at: float) -> Row:
    reason = f"same content as {twin['exposure_id']} at {twin['path']}"
    if not Path(twin["path"]).exists() and Path(row["path"]).exists():
        reason = f"{twin['exposure_id']} was moved from here to {row['path']}"
        row = _follow_move(transaction, row, twin, at=at)
    return transaction.move(
        row,
        Move.DUPLICATE,
        at=at,
        reason=reason,
        cause=_DUPLICATE,
        night=ref.night.label,
        content_id=ref.content_id,
        exposure_id=None,  # what the file had been before is no more
        parent=None,
        complete_at=at,
    )


def _follow_move(transaction: Transaction, row: Row, twin: Row, *, at: float) -> Row:
    """Let two rows change places: the exposure's file was renamed, and is seen again under its new name."""
    here = {name: row[name] for name in ("path", "size", "mtime_ns")}
    there = {name: twin[name] for name in ("path", "size", "mtime_ns")}
    moved = {**json.loads(twin["ref"]), "path": row["path"]} if twin["ref"] else None
    row = transaction.change(
        row, path=f"{row['path']}//moving"
    )  # the index allows no two rows of one path, not even now
    twin = transaction.change(twin, **here, ref=as_json(moved) if moved else None)
    if twin["state"] == State.FAILED:
        _retry(transaction, twin, at=at, owner="")
    return transaction.change(row, **there)


def _retry(transaction: Transaction, row: Row, *, at: float, owner: str) -> Row:
    if row["state"] not in (State.FAILED, State.REJECTED, State.SKIPPED, State.WAITING, State.REDUCED):
        return row
    fresh: dict[str, Any] = {"attempts": 0, "retry_at": None, "fallback": None}
    if row["ref"] is None:
        return transaction.move(row, Move.RETRY_FILE, at=at, by=owner, **fresh)
    if row["group_id"]:
        return transaction.move(row, Move.RETRY_GROUP, at=at, by=owner, grouped_at=at, **fresh)
    return transaction.move(row, Move.RETRY_EXPOSURE, at=at, by=owner, complete_at=at, **fresh)


def _release_copies(transaction: Transaction, row: Row, *, at: float) -> None:
    """Let the copies of a content run, now that its first copy was replaced by something else."""
    content = {"night": row["night"], "camera": row["camera"], "content_id": row["content_id"]}
    for copy in _COPIES.all(transaction.connection, **content):
        transaction.move(copy, Move.RETRY_FILE, at=at, content_id=None, complete_at=None)
