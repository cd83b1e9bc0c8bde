"""What was written and what ran: products, masters, and runs that are to be reported late."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, select, update

from nightglass.ledger.leases import save_products
from nightglass.ledger.records import RunRecord
from nightglass.ledger.rows import as_json
from nightglass.ledger.statements import Row, upsert
from nightglass.ledger.store import Store
from nightglass.ledger.tables import masters, products, runs
from nightglass.model import Kind, MasterRef, Night, Product, ProductKind

__all__ = ["Catalogue"]

_SAVE_MASTER = upsert(masters)
_SAVE_RUN = upsert(runs)


class Catalogue:
    """The part of the ledger that indexes products, masters and late runs.

    Parameters
    ----------
    store : Store
    clock : callable
        Gives epoch seconds, for calls without `now`.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def add_product(self, product: Product, *, night: Night, camera: str, now: float | None = None) -> None:
        """Record a product that no lease stands behind (master, stack, report); the same again replaces it."""
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            save_products(transaction, [product], night=night.label, camera=camera, at=at)

    def products(
        self, night: Night | None = None, camera: str | None = None, kind: ProductKind | None = None
    ) -> tuple[Product, ...]:
        """Return the products of a night, in order of their subjects; superseded ones are left out."""
        wanted = {"night": night and night.label, "camera": camera, "kind": kind and kind.value}
        statement = select(products).where(products.c.superseded == 0).order_by(products.c.subject, products.c.kind)
        for name, value in wanted.items():
            if value is not None:
                statement = statement.where(products.c[name] == value)
        with self._store.read() as connection:
            return tuple(_as_product(row) for row in connection.execute(statement).mappings())

    def products_of(self, subject: str) -> tuple[Product, ...]:
        """Return the products of an exposure, master, group or night id; superseded ones are left out."""
        statement = select(products).where(products.c.subject == subject, products.c.superseded == 0)
        with self._store.read() as connection:
            return tuple(_as_product(row) for row in connection.execute(statement).mappings())

    def add_master(self, master: MasterRef, *, now: float | None = None) -> None:
        """Put a master into the index; one of the same id is replaced."""
        at = self._clock() if now is None else now
        row = {
            "master_id": master.master_id,
            "camera": master.camera,
            "kind": master.kind.value,
            "night": master.night.label,
            "record": as_json(master.to_json()),
            "at": at,
        }
        with self._store.write() as transaction:
            _SAVE_MASTER.run(transaction.connection, **row)

    def masters(
        self,
        camera: str,
        kind: Kind | None = None,
        *,
        night: Night | None = None,
        since: Night | None = None,
        until: Night | None = None,
    ) -> tuple[MasterRef, ...]:
        """Return masters of a camera, the latest night first; `since` and `until` are included."""
        statement = select(masters.c.record).where(masters.c.camera == camera)
        if kind is not None:
            statement = statement.where(masters.c.kind == kind.value)
        if night is not None:
            statement = statement.where(masters.c.night == night.label)
        if since is not None:
            statement = statement.where(masters.c.night >= since.label)
        if until is not None:
            statement = statement.where(masters.c.night <= until.label)
        statement = statement.order_by(masters.c.night.desc(), masters.c.at.desc(), masters.c.master_id)
        with self._store.read() as connection:
            return tuple(MasterRef.from_json(json.loads(record)) for record in connection.execute(statement).scalars())

    def find_master(self, master_id: str) -> MasterRef | None:
        """Return a master by its id, or None."""
        statement = select(masters.c.record).where(masters.c.master_id == master_id)
        with self._store.read() as connection:
            record = connection.execute(statement).scalar_one_or_none()
        return None if record is None else MasterRef.from_json(json.loads(record))

    def record_run(self, run: RunRecord) -> None:
        """Queue a run for a late report; the same run again replaces it and is reported again."""
        row = {
            "run_id": run.run_id,
            "record": as_json({**asdict(run), "night": run.night.label}),
            "ended_at": run.ended_at,
            "flow_run_id": run.flow_run_id,
            "reported_at": None,
        }
        with self._store.write() as transaction:
            _SAVE_RUN.run(transaction.connection, **row)

    def unreported(self, limit: int = 100) -> tuple[RunRecord, ...]:
        """Return runs that are still to be reported, the first that ended coming first."""
        statement = select(runs).where(runs.c.reported_at.is_(None)).order_by(runs.c.ended_at).limit(limit)
        with self._store.read() as connection:
            return tuple(_as_run(row) for row in connection.execute(statement).mappings())

    def mark_reported(self, run_ids: Iterable[str], flow_run_id: str = "", *, now: float | None = None) -> None:
        """Take runs from the queue; the flow run that shows them is kept."""
        at = self._clock() if now is None else now
        values: dict[str, Any] = {"reported_at": at} | ({"flow_run_id": flow_run_id} if flow_run_id else {})
        statement = update(runs).where(runs.c.run_id == bindparam("of_run")).values(values)
        named: Sequence[dict[str, str]] = [{"of_run": run_id} for run_id in run_ids]
        if named:
            with self._store.write() as transaction:
                transaction.connection.execute(statement, named)


def _as_product(row: Row) -> Product:
    return Product(
        kind=ProductKind(row["kind"]),
        key=row["subject"],
        path=Path(row["path"]),
        checksum=row["checksum"],
        size=row["size"],
        inputs=tuple(json.loads(row["inputs"])),
    )


def _as_run(row: Row) -> RunRecord:
    record = json.loads(row["record"])
    return RunRecord(**{**record, "night": Night(record["night"]), "flow_run_id": row["flow_run_id"]})
