"""Archives: which exposures are cubes, which should be, and who is writing one."""

from __future__ import annotations

import enum
import json
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from nightglass.errors import LeaseLost, Misconfigured, Rejected
from nightglass.ledger.archive_records import ArchivedFile, ArchiveLease, ArchiveRecord, ArchiveState
from nightglass.ledger.records import Entry
from nightglass.ledger.rows import archive_key, as_archive, as_entry, as_json, blame, members_of
from nightglass.ledger.statements import Row, Statement
from nightglass.ledger.store import Store
from nightglass.ledger.tables import archives
from nightglass.model import Content, Night

__all__ = ["ARCHIVE_TRANSITIONS", "ArchiveMove", "Archives"]

_LONGEST_WAIT_S = 3600.0
_TOKEN_BYTES = 8
_FREE: dict[str, Any] = {"token": None, "owner": None, "lease_until": None}

_BY_KEY = Statement(select(archives).where(archives.c.key == bindparam("key")))


class ArchiveMove(enum.StrEnum):
    """What can happen to the archive of an exposure."""

    RENEW = "renew"
    """Its frames changed, or a person asks for it again."""
    CLAIM = "claim"
    TAKE_OVER = "take over"
    """The lease of its holder expired."""
    COMMIT = "commit"
    RETURN = "return"
    """Given back or revoked; it will be tried again."""
    FAIL = "fail"


ARCHIVE_TRANSITIONS: Mapping[ArchiveMove, tuple[frozenset[ArchiveState], ArchiveState]] = {
    ArchiveMove.RENEW: (frozenset({ArchiveState.ARCHIVED, ArchiveState.FAILED}), ArchiveState.PENDING),
    ArchiveMove.CLAIM: (frozenset({ArchiveState.PENDING}), ArchiveState.RUNNING),
    ArchiveMove.TAKE_OVER: (frozenset({ArchiveState.RUNNING}), ArchiveState.RUNNING),
    ArchiveMove.COMMIT: (frozenset({ArchiveState.RUNNING}), ArchiveState.ARCHIVED),
    ArchiveMove.RETURN: (frozenset({ArchiveState.RUNNING}), ArchiveState.PENDING),
    ArchiveMove.FAIL: (frozenset({ArchiveState.RUNNING}), ArchiveState.FAILED),
}
"""Every legal change of state of an archive; its first state is PENDING."""


class Archives:
    """The part of the ledger that knows the cubes.

    Parameters
    ----------
    store : Store
    clock : callable
        Gives epoch seconds, for calls without `now`.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def members(self, exposure: str) -> tuple[Entry, ...]:
        """Return the files of an exposure, in order of arrival; empty if the ledger has none."""
        with self._store.read() as connection:
            return tuple(as_entry(row) for row in members_of(connection, exposure))

    def find_archive(self, exposure: str, content: Content = Content.RAW) -> ArchiveRecord | None:
        """Return what is known about the cube of an exposure, or None."""
        with self._store.read() as connection:
            row = _BY_KEY.one(connection, key=archive_key(exposure, content))
        return None if row is None else as_archive(row)

    def archives(
        self,
        night: Night | None = None,
        camera: str | None = None,
        *,
        content: Content | None = None,
        states: Collection[ArchiveState] | None = None,
    ) -> tuple[ArchiveRecord, ...]:
        """Return the archives of a night, or of all, in order of their keys."""
        statement = select(archives).order_by(archives.c.key)
        wanted = {"night": night and night.label, "camera": camera, "content": content and content.value}
        for name, value in wanted.items():
            if value is not None:
                statement = statement.where(archives.c[name] == value)
        if states is not None:
            statement = statement.where(archives.c.state.in_([state.value for state in states]))
        with self._store.read() as connection:
            return tuple(as_archive(row) for row in connection.execute(statement).mappings())

    def archive_counts(
        self, night: Night | None = None, camera: str | None = None, *, built: bool = False
    ) -> dict[ArchiveState, int]:
        """Return how many archives of the night are in each state; or how many cubes of its image builders."""
        of_builders = archives.c.content == Content.BUILT.value
        statement = (
            select(archives.c.state, func.count().label("total"))
            .where(of_builders if built else ~of_builders)
            .group_by(archives.c.state)
        )
        if night is not None:
            statement = statement.where(archives.c.night == night.label)
        if camera is not None:
            statement = statement.where(archives.c.camera == camera)
        with self._store.read() as connection:
            found = {row.state: int(row.total) for row in connection.execute(statement)}
        return {state: found.get(state.value, 0) for state in ArchiveState}

    def request_archive(
        self,
        exposure: str,
        content: Content,
        *,
        night: Night,
        camera: str,
        wanted: Collection[str],
        again: bool = False,
        now: float | None = None,
    ) -> ArchiveRecord:
        """Ask for the cube of an exposure to hold these contents; what comes back says whether there is work.

        A cube that holds them already, or could not be made of them, stays as it is, unless `again` says otherwise.
        """
        at = self._clock() if now is None else now
        contents = sorted(wanted)
        key = archive_key(exposure, content)
        with self._store.write() as transaction:
            connection = transaction.connection
            row = _BY_KEY.one(connection, key=key)
            if row is None:
                row = _fresh(key, exposure, content, night=night, camera=camera, contents=contents, at=at)
                connection.execute(insert(archives), row)
                return as_archive(row)
            changed = json.loads(row["wanted"]) != contents
            over = row["state"] in ARCHIVE_TRANSITIONS[ArchiveMove.RENEW][0]
            if over and (changed or again or _is_stale(row, contents)):
                values = {"wanted": as_json(contents), "requested_at": at, "attempts": 0, "retry_at": None}
                row = _move(connection, row, ArchiveMove.RENEW, **values)
            elif changed:
                # whoever writes it now commits what it began with; the next request sees the difference
                row = _change(connection, row, wanted=as_json(contents))
            return as_archive(row)

    def claim_archive(
        self, exposure: str, content: Content, *, owner: str, lease_s: float, now: float | None = None
    ) -> ArchiveLease | None:
        """Take the right to write a cube that is PENDING, or whose holder's lease expired; None: it can't be had."""
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            row = _BY_KEY.one(transaction.connection, key=archive_key(exposure, content))
            if row is None or row["state"] not in (ArchiveState.PENDING, ArchiveState.RUNNING):
                return None
            running = row["state"] == ArchiveState.RUNNING
            if running and (row["lease_until"] or 0.0) > at:
                return None
            row = _move(
                transaction.connection,
                row,
                ArchiveMove.TAKE_OVER if running else ArchiveMove.CLAIM,
                token=secrets.token_hex(_TOKEN_BYTES),
                owner=owner,
                lease_until=at + lease_s,
                attempts=row["attempts"] + 1,
                retry_at=None,
            )
        return ArchiveLease(
            key=row["key"],
            exposure=exposure,
            content=content,
            token=row["token"],
            until=row["lease_until"],
            attempts=row["attempts"],
            wanted=tuple(json.loads(row["wanted"])),
        )

    def extend_archive(self, lease: ArchiveLease, *, lease_s: float, now: float | None = None) -> None:
        """Prolong a lease from now on; one that expired and that nobody took is good again.

        Raises
        ------
        LeaseLost
            If somebody else took it.
        """
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            row = _held(transaction.connection, lease, at=None)
            _change(transaction.connection, row, lease_until=at + lease_s)

    def commit_archive(
        self,
        lease: ArchiveLease,
        *,
        path: Path,
        checksum: str,
        size: int,
        sources: int,
        frames: int,
        files: Sequence[ArchivedFile],
        verified: bool,
        publish: Callable[[], None],
        now: float | None = None,
    ) -> ArchiveRecord:
        """Make a cube final: check the lease, publish (rename the part to its final name), record, commit.

        Parameters
        ----------
        publish : callable
            Called once, inside the transaction, after the check: only the holder of a lease publishes. It must not
            call the ledger. If it raises, nothing is recorded.

        Raises
        ------
        LeaseLost
            If the lease expired or was taken; `publish` is not called.
        """
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            row = _held(transaction.connection, lease, at=at)
            publish()
            row = _move(
                transaction.connection,
                row,
                ArchiveMove.COMMIT,
                path=str(path),
                checksum=checksum,
                size=size,
                sources=sources,
                frames=frames,
                files=as_json([{**asdict(item), "path": str(item.path)} for item in files]),
                held=as_json(sorted(lease.wanted)),
                retry_at=None,
                archived_at=at,
                verified_at=at if verified else None,
                purged_at=None,
            )
        return as_archive(row)

    def give_back_archive(
        self, lease: ArchiveLease, error: BaseException, *, max_attempts: int, retry_s: float, now: float | None = None
    ) -> ArchiveState:
        """End a lease without a cube: Rejected and Misconfigured fail for good, others after `max_attempts`.

        `retry_s` doubles with each attempt. A former cube stays recorded.

        Raises
        ------
        LeaseLost
            If somebody else took it.
        """
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            row = _held(transaction.connection, lease, at=None)
            over = isinstance(error, (Rejected, Misconfigured)) or row["attempts"] >= max_attempts
            wait_s = min(retry_s * 2.0 ** (row["attempts"] - 1), _LONGEST_WAIT_S)
            move = ArchiveMove.FAIL if over else ArchiveMove.RETURN
            retry_at = None if over else at + wait_s
            after = _move(transaction.connection, row, move, retry_at=retry_at, **blame(error))
        return ArchiveState(after["state"])

    def revoke_archives(
        self, *, owners: Collection[str] = (), owner_prefix: str = "", reason: str = ""
    ) -> tuple[ArchiveRecord, ...]:
        """Take leases back from holders that are known to be dead; the attempt does not count."""
        statement = select(archives).where(archives.c.active_state == ArchiveState.RUNNING.value)
        revoked = []
        with self._store.write() as transaction:
            for row in transaction.connection.execute(statement).mappings().all():
                if row["owner"] in owners or (owner_prefix and row["owner"].startswith(owner_prefix)):
                    text = reason or f"revoked from {row['owner']}"
                    values: dict[str, Any] = {"reason": text, "cause": "LeaseLost"}
                    values |= {"attempts": max(row["attempts"] - 1, 0), "retry_at": None}
                    revoked.append(_move(transaction.connection, row, ArchiveMove.RETURN, **values))
        return tuple(as_archive(row) for row in revoked)

    def mark_purged(self, records: Iterable[ArchiveRecord], *, now: float | None = None) -> None:
        """Note that raw frames of these cubes were deleted."""
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            for record in records:
                statement = update(archives).where(archives.c.key == record.key).values(purged_at=at)
                transaction.connection.execute(statement)


def _fresh(
    key: str, exposure: str, content: Content, *, night: Night, camera: str, contents: list[str], at: float
) -> dict[str, Any]:
    nothing = dict.fromkeys(("retry_at", "path", "archived_at", "verified_at", "purged_at"))
    return {
        **nothing,
        **_FREE,
        "key": key,
        "night": night.label,
        "camera": camera,
        "exposure": exposure,
        "content": content.value,
        "state": ArchiveState.PENDING.value,
        "active_state": ArchiveState.PENDING.value,
        "attempts": 0,
        "wanted": as_json(contents),
        "held": "[]",
        "checksum": "",
        "size": 0,
        "sources": 0,
        "frames": 0,
        "files": "[]",
        "reason": "",
        "cause": "",
        "requested_at": at,
    }


def _is_stale(row: Row, contents: list[str]) -> bool:
    """Return whether a cube holds something else than is wanted: a frame came while it was written."""
    return bool(row["state"] == ArchiveState.ARCHIVED and json.loads(row["held"]) != contents)


def _move(connection: Connection, row: Row, move: ArchiveMove, **values: Any) -> Row:
    """Change the state of an archive, and with it other columns; token, owner and lease go unless they are set."""
    sources, target = ARCHIVE_TRANSITIONS[move]
    if row["state"] not in sources:
        message = f"the archive of {row['exposure']} is {row['state']}, so one cannot {move.value} it"
        raise Misconfigured(message, remedy=f"possible from {', '.join(sorted(sources))}")
    is_active = target in (ArchiveState.PENDING, ArchiveState.RUNNING)
    state = {"state": target.value, "active_state": target.value if is_active else None, "reason": "", "cause": ""}
    return _change(connection, row, **{**state, **_FREE, **values})


def _change(connection: Connection, row: Row, **values: Any) -> Row:
    connection.execute(update(archives).where(archives.c.key == row["key"]).values(values))
    return {**row, **values}


def _held(connection: Connection, lease: ArchiveLease, *, at: float | None) -> Row:
    """Return the row of a lease that is still good; without a time, one that expired and that nobody took is."""
    row = _BY_KEY.one(connection, key=lease.key)
    if row is None or row["state"] != ArchiveState.RUNNING or row["token"] != lease.token:
        state = "gone" if row is None else row["state"]
        message = f"the archive of {lease.exposure} was taken from this holder (it is {state} now)"
        raise LeaseLost(message, remedy="its present holder, or the next one, does the work")
    if at is not None and row["lease_until"] <= at:
        message = f"the lease on the archive of {lease.exposure} expired {at - row['lease_until']:.1f} s ago"
        raise LeaseLost(message, remedy="raise archive.lease_s if this host stands still for so long")
    return row
