"""Ledgers of former versions are brought up to date in place, in one transaction."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from sqlalchemy import Connection, select, update

from nightglass.ledger.tables import SCHEMA_VERSION, archives, entries, meta
from nightglass.model import sanitize

__all__ = ["MIGRATIONS", "migrate"]

_PART = re.compile(r"(.*/\d+)-([^/]+)")


def migrate(connection: Connection, version: int) -> None:
    """Bring a ledger from a version to the present one.

    Parameters
    ----------
    connection : Connection
        In a write transaction: a crash leaves the ledger as it was.
    """
    for step in range(version, SCHEMA_VERSION):
        MIGRATIONS[step](connection)
    connection.execute(update(meta).where(meta.c.name == "schema").values(value=str(SCHEMA_VERSION)))


def _to_2(connection: Connection) -> None:
    """Add archives beside the reductions, and exposures of several files."""
    archives.create(connection)
    connection.exec_driver_sql(f"ALTER TABLE {entries.name} ADD COLUMN parent VARCHAR")
    for index in entries.indexes:
        if index.name == "ng_entries_parent":
            index.create(connection)
    # detectors of one read-out that came as files of their own bear its number and the detector's name
    parts = select(entries.c.key, entries.c.exposure_id, entries.c.ref).where(
        entries.c.exposure_id.like("%-%"), entries.c.ref.is_not(None)
    )
    for row in connection.execute(parts).all():
        found, detector = _PART.fullmatch(row.exposure_id), json.loads(row.ref).get("detector")
        if found and detector and found[2] == sanitize(detector):
            connection.execute(update(entries).where(entries.c.key == row.key).values(parent=found[1]))


MIGRATIONS: Mapping[int, Callable[[Connection], None]] = {1: _to_2}
"""Version -> what makes the next one of it."""
