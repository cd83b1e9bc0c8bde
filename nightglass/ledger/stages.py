"""Nights and their scheduled stages: opened once, due at a time, run by one holder at a time."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, insert, or_, select, update

from nightglass.errors import LeaseLost, Misconfigured, Rejected
from nightglass.ledger.records import NightRecord, StageLease, StageRecord, StageState
from nightglass.ledger.rows import as_json, blame
from nightglass.ledger.statements import Row
from nightglass.ledger.store import Store
from nightglass.ledger.tables import nights, stages
from nightglass.ledger.transitions import Transaction
from nightglass.model import Night, Stage

__all__ = ["Stages"]

_LONGEST_WAIT_S = 3600.0
_TOKEN_BYTES = 8
_NOBODY = {"token": None, "owner": None, "lease_until": None}
_ONE_NIGHT = (nights.c.night == bindparam("of_night"), nights.c.camera == bindparam("of_camera"))
_ITS_STAGES = (stages.c.night == bindparam("of_night"), stages.c.camera == bindparam("of_camera"))
_ONE_STAGE = (*_ITS_STAGES, stages.c.stage == bindparam("of_stage"))
_JOINED = select(nights.c.opened_at, nights.c.closed_at, stages).join(
    stages, and_(stages.c.night == nights.c.night, stages.c.camera == nights.c.camera)
)
_ORDER = (nights.c.night, nights.c.camera, stages.c.due, stages.c.stage)
_DUE = (
    select(stages)
    .join(nights, and_(stages.c.night == nights.c.night, stages.c.camera == nights.c.camera))
    .where(
        nights.c.closed_at.is_(None),
        stages.c.due <= bindparam("now"),
        or_(
            and_(
                stages.c.state == StageState.PENDING.value,
                or_(stages.c.retry_at.is_(None), stages.c.retry_at <= bindparam("now")),
            ),
            and_(stages.c.state == StageState.RUNNING.value, stages.c.lease_until <= bindparam("now")),
        ),
    )
    .order_by(stages.c.due)
)


class Stages:
    """The part of the ledger that knows nights and when their stages are due.

    Parameters
    ----------
    store : Store
    clock : callable
        Gives epoch seconds, for calls without `now`.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def open_night(
        self, night: Night, camera: str, *, midway_due: datetime, final_due: datetime, now: float | None = None
    ) -> NightRecord:
        """Open a night once; a night that was opened before is returned as it is, open or closed."""
        known = self.find_night(night, camera)
        if known is not None:
            return known
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            connection = transaction.connection
            if _nights(connection, night, camera):
                return _nights(connection, night, camera)[0]
            key = {"night": night.label, "camera": camera}
            connection.execute(insert(nights), {**key, "opened_at": at, "closed_at": None})
            fresh = {**key, **_NOBODY, "state": StageState.PENDING.value, "attempts": 0, "retry_at": None}
            fresh |= {"summary": "{}", "reason": "", "started_at": None, "ended_at": None}
            dues = {Stage.MIDWAY: midway_due, Stage.FINAL: final_due}
            rows = [{**fresh, "stage": stage.value, "due": due.timestamp()} for stage, due in dues.items()]
            connection.execute(insert(stages), rows)
            return _nights(connection, night, camera)[0]

    def find_night(self, night: Night, camera: str) -> NightRecord | None:
        """Return a night of a camera, or None if it was never opened."""
        with self._store.read() as connection:
            return next(iter(_nights(connection, night, camera)), None)

    def nights(self, camera: str | None = None) -> tuple[NightRecord, ...]:
        """Return all nights, of one camera or of all, earliest first."""
        with self._store.read() as connection:
            return _nights(connection, None, camera)

    def open_nights(self, camera: str | None = None) -> tuple[NightRecord, ...]:
        """Return the nights that are not closed, earliest first."""
        with self._store.read() as connection:
            return _nights(connection, None, camera, nights.c.closed_at.is_(None))

    def close_night(self, night: Night, camera: str, *, now: float | None = None) -> NightRecord:
        """Close a night; one that is closed stays as it is.

        Raises
        ------
        Misconfigured
            If it was never opened.
        """
        at = self._clock() if now is None else now
        statement = update(nights).where(*_ONE_NIGHT, nights.c.closed_at.is_(None)).values(closed_at=bindparam("at"))
        with self._store.write() as transaction:
            transaction.connection.execute(statement, {**_named(night, camera), "at": at})
            return _the_night(transaction.connection, night, camera)

    def reopen(self, night: Night, camera: str, *, final_due: datetime) -> NightRecord:
        """Open a closed night again, with a new final stage; one that is open stays as it is.

        Raises
        ------
        Misconfigured
            If it was never opened.
        """
        with self._store.write() as transaction:
            if not _the_night(transaction.connection, night, camera).is_open:
                opened = update(nights).where(*_ONE_NIGHT).values(closed_at=None)
                transaction.connection.execute(opened, _named(night, camera))
                _reset(transaction, night, camera, Stage.FINAL, final_due)
            return _the_night(transaction.connection, night, camera)

    def reset_stage(self, night: Night, camera: str, stage: Stage, *, due: datetime) -> StageRecord:
        """Let a stage run (again) at a time, as a person wishes; a holder that runs it now loses its lease.

        Raises
        ------
        Misconfigured
            If the night was never opened.
        """
        with self._store.write() as transaction:
            _the_night(transaction.connection, night, camera)
            _reset(transaction, night, camera, stage, due)
            return _the_night(transaction.connection, night, camera).stage(stage)

    def stages_due(self, *, now: float | None = None) -> tuple[StageRecord, ...]:
        """Return stages of open nights that somebody should run now, the one due first coming first.

        That is: due, and neither done nor under a lease that is still good.
        """
        at = self._clock() if now is None else now
        with self._store.read() as connection:
            return tuple(_as_stage(row) for row in connection.execute(_DUE, {"now": at}).mappings())

    def claim_stage(
        self, night: Night, camera: str, stage: Stage, *, owner: str, lease_s: float, now: float | None = None
    ) -> StageLease | None:
        """Take a stage, also before it is due.

        Returns
        -------
        StageLease or None
            None if it is done or given up, or any stage of this night is under a good lease: one runs at a time.

        Raises
        ------
        Misconfigured
            If the night was never opened.
        """
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            record = _the_night(transaction.connection, night, camera)
            mine = record.stage(stage)
            if mine.state in (StageState.DONE, StageState.FAILED) or any(_is_held(item, at) for item in record.stages):
                return None
            values = {
                "state": StageState.RUNNING.value,
                "token": secrets.token_hex(_TOKEN_BYTES),
                "owner": owner,
                "lease_until": at + lease_s,
                "attempts": mine.attempts + 1,
                "retry_at": None,
                "started_at": at,
                "ended_at": None,
            }
            _change(transaction, night, camera, stage, values)
        return StageLease(
            night=night,
            camera=camera,
            stage=stage,
            token=str(values["token"]),
            until=at + lease_s,
            attempts=mine.attempts + 1,
        )

    def extend_stage(self, lease: StageLease, *, lease_s: float, now: float | None = None) -> StageLease:
        """Prolong the lease on a stage from now on.

        Raises
        ------
        LeaseLost
            If somebody else took it.
        """
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            _check(transaction, lease)
            _change(transaction, lease.night, lease.camera, lease.stage, {"lease_until": at + lease_s})
        return replace(lease, until=at + lease_s)

    def finish_stage(
        self, lease: StageLease, summary: Mapping[str, Any] | None = None, *, now: float | None = None
    ) -> None:
        """Record that a stage ended well, with a small JSON-able summary; the final one ends midway too.

        Raises
        ------
        LeaseLost
            If somebody else took it.
        """
        at = self._clock() if now is None else now
        done = {"state": StageState.DONE.value, "reason": "", "ended_at": at, "retry_at": None, **_NOBODY}
        with self._store.write() as transaction:
            _check(transaction, lease)
            if lease.stage is Stage.FINAL and _state(transaction, lease, Stage.MIDWAY) is not StageState.DONE:
                reason = {"reason": "final came first, and does the same"}
                _change(transaction, lease.night, lease.camera, Stage.MIDWAY, {**done, **reason})
            values = {**done, "summary": as_json(dict(summary or {}))}
            _change(transaction, lease.night, lease.camera, lease.stage, values)

    def fail_stage(
        self,
        lease: StageLease,
        error: BaseException,
        *,
        max_attempts: int = 3,
        retry_s: float = 60.0,
        now: float | None = None,
    ) -> StageState:
        """End a run of a stage that did not go well: it is PENDING again for a while, or FAILED after `max_attempts`.

        `retry_s` doubles with each attempt; Rejected and Misconfigured errors are not tried again.

        Raises
        ------
        LeaseLost
            If somebody else took it.
        """
        at = self._clock() if now is None else now
        over = lease.attempts >= max_attempts or isinstance(error, (Rejected, Misconfigured))
        state = StageState.FAILED if over else StageState.PENDING
        wait_s = min(retry_s * 2.0 ** (lease.attempts - 1), _LONGEST_WAIT_S)
        values = {"state": state.value, "reason": blame(error)["reason"], "ended_at": at, **_NOBODY}
        values |= {"retry_at": None if over else at + wait_s}
        with self._store.write() as transaction:
            _check(transaction, lease)
            _change(transaction, lease.night, lease.camera, lease.stage, values)
        return state

    def revoke_stages(self, *, owners: Collection[str] = (), owner_prefix: str = "") -> tuple[StageRecord, ...]:
        """Take stages back from holders that are known to be dead; the attempt does not count."""
        revoked = []
        with self._store.write() as transaction:
            for record in _nights(transaction.connection, None, None):
                for item in record.stages:
                    meant = item.owner in owners or (owner_prefix and item.owner.startswith(owner_prefix))
                    if item.state is StageState.RUNNING and meant:
                        values = {"state": StageState.PENDING.value, "attempts": max(item.attempts - 1, 0), **_NOBODY}
                        _change(transaction, item.night, item.camera, item.stage, values)
                        revoked.append(item)
        return tuple(revoked)


def _named(night: Night, camera: str) -> dict[str, str]:
    return {"of_night": night.label, "of_camera": camera}


def _nights(
    connection: Connection, night: Night | None, camera: str | None, *conditions: ColumnElement[bool]
) -> tuple[NightRecord, ...]:
    statement = _JOINED.where(*conditions).order_by(*_ORDER)
    if night is not None:
        statement = statement.where(nights.c.night == night.label)
    if camera is not None:
        statement = statement.where(nights.c.camera == camera)
    rows = connection.execute(statement).mappings().all()
    return tuple(
        _as_night(list(its_rows)) for _key, its_rows in groupby(rows, key=lambda row: (row["night"], row["camera"]))
    )


def _the_night(connection: Connection, night: Night, camera: str) -> NightRecord:
    found = _nights(connection, night, camera)
    if not found:
        message = f"night {night} of camera {camera} was never opened"
        raise Misconfigured(message, remedy="open it first: nightglass run --night")
    return found[0]


def _as_night(rows: list[Row]) -> NightRecord:
    first = rows[0]
    return NightRecord(
        night=Night(first["night"]),
        camera=first["camera"],
        opened_at=first["opened_at"],
        closed_at=first["closed_at"],
        stages=tuple(_as_stage(row) for row in rows),
    )


def _as_stage(row: Row) -> StageRecord:
    return StageRecord(
        night=Night(row["night"]),
        camera=row["camera"],
        stage=Stage(row["stage"]),
        due=datetime.fromtimestamp(row["due"], UTC),
        state=StageState(row["state"]),
        owner=row["owner"] or "",
        lease_until=row["lease_until"],
        attempts=row["attempts"],
        summary=json.loads(row["summary"]),
        reason=row["reason"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )


def _is_held(record: StageRecord, at: float) -> bool:
    return record.state is StageState.RUNNING and (record.lease_until or 0.0) > at


def _change(transaction: Transaction, night: Night, camera: str, stage: Stage, values: dict[str, Any]) -> None:
    statement = update(stages).where(*_ONE_STAGE).values(values)
    transaction.connection.execute(statement, {**_named(night, camera), "of_stage": stage.value})


def _reset(transaction: Transaction, night: Night, camera: str, stage: Stage, due: datetime) -> None:
    values = {"state": StageState.PENDING.value, "due": due.timestamp(), "attempts": 0, "retry_at": None, "reason": ""}
    _change(transaction, night, camera, stage, {**values, **_NOBODY})


def _state(transaction: Transaction, lease: StageLease, stage: Stage) -> StageState:
    return _the_night(transaction.connection, lease.night, lease.camera).stage(stage).state


def _check(transaction: Transaction, lease: StageLease) -> None:
    query = select(stages.c.state, stages.c.token).where(*_ONE_STAGE)
    names = {**_named(lease.night, lease.camera), "of_stage": lease.stage.value}
    row = transaction.connection.execute(query, names).one_or_none()
    if row is None or row.state != StageState.RUNNING or row.token != lease.token:
        message = f"{lease.stage.value} of night {lease.night} ({lease.camera}) was taken from this holder"
        raise LeaseLost(message, remedy="its present holder does the work")
