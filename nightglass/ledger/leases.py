"""Groups and leases: who may reduce what, until when, and how it ended."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, or_, select

from nightglass.errors import LeaseLost, Misconfigured, Rejected, Waiting
from nightglass.ledger.records import Entry, GroupRecord, Lease
from nightglass.ledger.rows import as_entry, as_json, blame, by_exposures, by_key
from nightglass.ledger.statements import Row, Statement, upsert
from nightglass.ledger.store import Store
from nightglass.ledger.tables import entries, groups, products
from nightglass.ledger.transitions import TRANSITIONS, Move, Transaction
from nightglass.model import Product, Quality, State

__all__ = ["Leases", "save_products"]

_LONGEST_WAIT_S = 3600.0
_TOKEN_BYTES = 8
_OVER: dict[str, Any] = {"retry_at": None, "fallback": None}

_GROUP = Statement(select(groups.c.revision, groups.c.members).where(groups.c.group_id == bindparam("group_id")))
_SAVE_GROUP = upsert(groups)
_SAVE_PRODUCT = upsert(products)
_READY = (
    select(entries)
    .where(
        entries.c.active_state == State.GROUPED.value,
        or_(entries.c.retry_at.is_(None), entries.c.retry_at <= bindparam("now")),
    )
    .order_by(entries.c.key)
    .limit(bindparam("limit"))
)
_RUNNING = select(entries).where(entries.c.active_state == State.RUNNING.value).order_by(entries.c.key)
_TOKENS = Statement(select(entries.c.token).where(entries.c.active_state == State.RUNNING.value))
_EXPIRED = Statement(_RUNNING.where(entries.c.lease_until <= bindparam("now")))


class Leases:
    """The part of the ledger that hands out work and takes back results.

    Parameters
    ----------
    store : Store
    clock : callable
        Gives epoch seconds, for calls without `now`.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def group(self, record: GroupRecord, *, now: float | None = None) -> bool:
        """Record a closed group, or a later revision of it; its COMPLETE members become GROUPED.

        Returns
        -------
        bool
            False if this revision, or a later one, was recorded before and nothing changed.
        """
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            rows = by_exposures(transaction.connection, record.members)
            fresh = [row for row in rows.values() if row["state"] == State.COMPLETE]
            is_new = _save_group(transaction, record, urgent=len(fresh), at=at)
            for row in fresh:
                transaction.move(
                    row, Move.GROUP, at=at, group_id=record.group_id, grouped_at=at, retry_at=None, reason=record.reason
                )
            return is_new or bool(fresh)

    def ready(self, camera: str | None = None, *, now: float | None = None, limit: int = 10_000) -> tuple[Entry, ...]:
        """Return entries that are grouped and due, oldest first; the wait before a further attempt is over."""
        statement = _READY if camera is None else _READY.where(entries.c.camera == camera)
        with self._store.read() as connection:
            at = self._clock() if now is None else now
            rows = connection.execute(statement, {"now": at, "limit": limit}).mappings().all()
        return tuple(as_entry(row) for row in rows)

    def claim(
        self, exposure_ids: Sequence[str], *, owner: str, lease_s: float, now: float | None = None
    ) -> tuple[Lease, ...]:
        """Take exposures that are COMPLETE, GROUPED or WAITING, all of them or none.

        Returns
        -------
        tuple of Lease
            In the order asked for; empty if one of them cannot be had: unknown, taken, or in another state.
        """
        return self._claim(exposure_ids, Move.CLAIM, owner=owner, lease_s=lease_s, now=now)

    def claim_again(
        self, exposure_ids: Sequence[str], *, owner: str, lease_s: float, now: float | None = None
    ) -> tuple[Lease, ...]:
        """Take exposures for a redo, all of them or none: as `claim`, and REDUCED ones too.

        A redo of a REDUCED exposure that comes to nothing leaves it REDUCED, with its former product.
        """
        return self._claim(exposure_ids, Move.CLAIM_AGAIN, owner=owner, lease_s=lease_s, now=now)

    def extend(self, lease: Lease, *, lease_s: float, now: float | None = None) -> Lease:
        """Prolong a lease from now on.

        Raises
        ------
        LeaseLost
            If it is not valid any more.
        """
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            row = _held(transaction, lease, at=at)
            transaction.change(row, lease_until=at + lease_s)
        return Lease(
            exposure_id=lease.exposure_id,
            key=lease.key,
            token=lease.token,
            until=at + lease_s,
            revision=lease.revision,
            attempts=lease.attempts,
        )

    def commit(
        self,
        lease: Lease,
        *,
        products: Sequence[Product],
        quality: Quality | None = None,
        measured: Mapping[str, Any] | None = None,
        masters: Sequence[str] = (),
        timings: Mapping[str, Any] | None = None,
        publish: Callable[[], None],
        now: float | None = None,
    ) -> None:
        """Make a reduction final: check the lease, publish (rename parts to final names), record, commit.

        Parameters
        ----------
        publish : callable
            Called once, inside the transaction, after the check: only the holder of a lease publishes. It must not
            call the ledger. If it raises, nothing is recorded. A crash after it and before the commit leaves files
            without a record; the redo writes the same bytes over them.

        Raises
        ------
        LeaseLost
            If the lease expired, was revoked, or the file was replaced; `publish` is not called.
        """
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            row = _held(transaction, lease, at=at)
            publish()
            save_products(transaction, products, night=row["night"], camera=row["camera"], at=at)
            first = row["reduced_at"] is None
            transaction.move(
                row,
                Move.COMMIT,
                at=at,
                quality=quality.value if quality else None,
                measured=as_json(dict(measured or {})),
                masters=as_json(list(masters)),
                timings=as_json(dict(timings or {})),
                fallback=None,
                retry_at=None,
                reduced_at=at,
                latency_s=at - row["seen_at"] if first else row["latency_s"],
            )

    def give_back(
        self, lease: Lease, error: BaseException, *, max_attempts: int, retry_s: float, now: float | None = None
    ) -> State:
        """End a lease without a result; the class of the error says what becomes of the exposure.

        Rejected: REJECTED. Waiting: WAITING. Misconfigured: FAILED. Any other: GROUPED again, after `retry_s` seconds
        that double with each attempt, until `max_attempts` are used up: then FAILED. A redo of what had been REDUCED
        is REDUCED again instead of any of these, with the reason: whoever wanted it redone asks once more, because
        the queue would run it with other step lists.

        Raises
        ------
        LeaseLost
            If somebody else has the exposure now, or its file was replaced.
        """
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            row = _held(transaction, lease, at=None)
            move, values = _verdict(row, error, max_attempts=max_attempts, retry_s=retry_s, at=at)
            after = transaction.move(row, move, at=at, **values, **blame(error))
        return State(after["state"])

    def sweep(self, *, now: float | None = None, max_attempts: int | None = None) -> tuple[Entry, ...]:
        """Take back every expired lease; with `max_attempts`, give up what expired that often."""
        at = self._clock() if now is None else now
        with self._store.read() as connection:
            if not _EXPIRED.all(connection, now=at):
                return ()
        swept = []
        with self._store.write() as transaction:
            for row in _EXPIRED.all(transaction.connection, now=at):
                error = LeaseLost(f"the lease of {row['owner']} expired in attempt {row['attempts']}")
                limit = row["attempts"] + 1 if max_attempts is None else max_attempts
                move, values = _verdict(row, error, max_attempts=limit, retry_s=0, at=at)
                swept.append(transaction.move(row, move, at=at, **values, **blame(error)))
        return tuple(as_entry(row) for row in swept)

    def revoke(
        self,
        *,
        owners: Collection[str] = (),
        owner_prefix: str = "",
        leases: Collection[Lease] = (),
        reason: str = "",
        now: float | None = None,
    ) -> tuple[Entry, ...]:
        """Take leases back at once, by owner or one by one, and let their exposures run again.

        The attempt does not count: the exposure is not to blame for the death of its holder. A redo of what had been
        REDUCED is REDUCED again, as with `give_back`.

        Raises
        ------
        Misconfigured
            If nothing says whose leases are meant.
        """
        if not (owners or owner_prefix or leases):
            message = "revoke was not told whose leases"
            raise Misconfigured(message, remedy="give owners, owner_prefix or leases")
        at = self._clock() if now is None else now
        tokens = {lease.token for lease in leases}
        revoked = []
        with self._store.write() as transaction:
            for row in transaction.connection.execute(_RUNNING).mappings().all():
                meant = row["token"] in tokens or row["owner"] in owners
                if meant or (owner_prefix and row["owner"].startswith(owner_prefix)):
                    text = reason or f"revoked from {row['owner']}"
                    attempts = max(row["attempts"] - 1, 0)
                    values = {"reason": text, "cause": "LeaseLost", "attempts": attempts, **_OVER}
                    if _is_redo(row):
                        revoked.append(transaction.move(row, Move.KEEP, at=at, **values))
                    else:
                        revoked.append(transaction.move(row, Move.RETURN, at=at, grouped_at=at, **values))
        return tuple(as_entry(row) for row in revoked)

    def running(self, camera: str | None = None) -> tuple[Entry, ...]:
        """Return the entries under a lease, with owner and end of it."""
        statement = _RUNNING if camera is None else _RUNNING.where(entries.c.camera == camera)
        with self._store.read() as connection:
            return tuple(as_entry(row) for row in connection.execute(statement).mappings())

    def tokens(self) -> frozenset[str]:
        """Return the tokens of all leases: what is asked after each exposure, and costs a tenth of `running`."""
        with self._store.read() as connection:
            return frozenset(row["token"] for row in _TOKENS.all(connection))

    def _claim(
        self, exposure_ids: Sequence[str], move: Move, *, owner: str, lease_s: float, now: float | None
    ) -> tuple[Lease, ...]:
        at = self._clock() if now is None else now
        wanted = list(dict.fromkeys(exposure_ids))
        sources = TRANSITIONS[Move.CLAIM].sources | TRANSITIONS[move].sources
        with self._store.write() as transaction:
            rows = by_exposures(transaction.connection, wanted)
            if len(rows) < len(wanted) or any(row["state"] not in sources for row in rows.values()):
                return ()
            taken = [_take(transaction, rows[name], owner=owner, until=at + lease_s, at=at) for name in wanted]
        return tuple(
            Lease(
                exposure_id=row["exposure_id"],
                key=row["key"],
                token=row["token"],
                until=row["lease_until"],
                revision=row["revision"],
                attempts=row["attempts"],
            )
            for row in taken
        )


def _save_group(transaction: Transaction, record: GroupRecord, *, urgent: int, at: float) -> bool:
    """Record a group unless it is recorded already; `urgent` of its members are in no group yet."""
    stored = _GROUP.one(transaction.connection, group_id=record.group_id)
    members, revision = record.members, record.revision
    if stored is not None and stored["revision"] >= revision:
        former = json.loads(stored["members"])
        if not urgent or set(members) <= set(former):
            return False
        # an engine that has forgotten this group made another of the same id: nobody must be left behind
        members, revision = tuple(dict.fromkeys((*former, *members))), stored["revision"] + 1
    _SAVE_GROUP.run(
        transaction.connection,
        group_id=record.group_id,
        night=record.night.label,
        camera=record.camera,
        rule=record.rule,
        members=as_json(members),
        complete=int(record.complete),
        revision=revision,
        reason=record.reason,
        at=at,
    )
    return True


def _take(transaction: Transaction, row: Row, *, owner: str, until: float, at: float) -> Row:
    redo = row["state"] == State.REDUCED
    again = redo or row["state"] == State.WAITING
    return transaction.move(
        row,
        Move.CLAIM_AGAIN if redo else Move.CLAIM,
        at=at,
        token=secrets.token_hex(_TOKEN_BYTES),
        owner=owner,
        lease_until=until,
        attempts=1 if again else row["attempts"] + 1,
        running_at=at,
        retry_at=None,
        fallback=State.REDUCED.value if redo else row["fallback"],
    )


def _held(transaction: Transaction, lease: Lease, *, at: float | None) -> Row:
    """Return the row of a lease that is still good; without a time, one that expired and was not taken back is."""
    row = by_key(transaction.connection, lease.key)
    if row is None or row["state"] != State.RUNNING or row["token"] != lease.token:
        state = "gone" if row is None else row["state"]
        message = f"{lease.exposure_id} was taken from this holder (it is {state} now)"
        raise LeaseLost(message, remedy="its present holder, or the next one, does the work")
    if at is not None and row["lease_until"] <= at:
        message = f"the lease on {lease.exposure_id} expired {at - row['lease_until']:.1f} s ago"
        raise LeaseLost(message, remedy="raise reduction.lease_s if exposures take that long")
    return row


def _is_redo(row: Row) -> bool:
    """Whether there is a product, which stands if nothing comes of this lease."""
    return bool(row["fallback"] == State.REDUCED)


def _verdict(
    row: Row, error: BaseException, *, max_attempts: int, retry_s: float, at: float
) -> tuple[Move, dict[str, Any]]:
    if _is_redo(row):
        return Move.KEEP, _OVER
    match error:
        case Rejected():
            return Move.REJECT, _OVER
        case Waiting():
            return Move.WAIT, _OVER
        case Misconfigured():
            return Move.FAIL, _OVER
    if row["attempts"] >= max_attempts:
        return Move.FAIL, _OVER
    wait_s = min(retry_s * 2.0 ** (row["attempts"] - 1), _LONGEST_WAIT_S)
    return Move.RETURN, {"retry_at": at + wait_s, "grouped_at": at}


def save_products(transaction: Transaction, items: Sequence[Product], *, night: str, camera: str, at: float) -> None:
    """Record products; one of the same subject, kind and path is replaced."""
    rows = [
        {
            "subject": item.key,
            "kind": item.kind.value,
            "path": str(item.path),
            "night": night,
            "camera": camera,
            "checksum": item.checksum,
            "size": item.size,
            "inputs": as_json(item.inputs),
            "superseded": 0,
            "at": at,
        }
        for item in items
    ]
    if rows:
        _SAVE_PRODUCT.many(transaction.connection, rows)
