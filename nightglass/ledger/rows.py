"""Between rows and records: reading entries by key, id or path, and turning a row into an `Entry`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, bindparam, select

from nightglass.errors import Misconfigured, NightglassError
from nightglass.ledger.records import Entry
from nightglass.ledger.tables import entries
from nightglass.ledger.transitions import Row
from nightglass.model import ExposureRef, Kind, Night, Quality, State

__all__ = ["as_entry", "as_json", "blame", "by_exposures", "by_key", "chunks", "find", "find_all"]

_CHUNK = 400
_STAGES = ("seen", "complete", "grouped", "running", "reduced")

_BY_KEY = select(entries).where(entries.c.key == bindparam("key"))
_BY_EXPOSURE = select(entries).where(entries.c.exposure_id == bindparam("exposure_id"))
_BY_PATH = select(entries).where(entries.c.path == bindparam("path")).order_by(entries.c.key.desc()).limit(1)
_BY_EXPOSURES = select(entries).where(entries.c.exposure_id.in_(bindparam("exposure_ids", expanding=True)))

T = TypeVar("T")


def by_key(connection: Connection, key: str) -> Row | None:
    """Return the row of an entry key."""
    return _one(connection, _BY_KEY, key=key)


def by_exposures(connection: Connection, exposure_ids: Iterable[str]) -> dict[str, Row]:
    """Return the rows of those exposure ids that there are."""
    found: dict[str, Row] = {}
    for some in chunks(exposure_ids, _CHUNK):
        rows = connection.execute(_BY_EXPOSURES, {"exposure_ids": some}).mappings()
        found.update({row["exposure_id"]: row for row in rows})
    return found


def find(connection: Connection, name: str) -> Row:
    """Return the row of an exposure id, an entry key or a path, as a person may give it.

    Raises
    ------
    Misconfigured
        If there is none.
    """
    row = (
        _one(connection, _BY_EXPOSURE, exposure_id=name)
        or by_key(connection, name)
        or _one(connection, _BY_PATH, path=name)
    )
    if row is None:
        message = f"the ledger has no exposure {name!r}"
        raise Misconfigured(
            message, remedy="give an exposure id as `nightglass status` shows it, or the path of the file"
        )
    return row


def find_all(connection: Connection, names: Iterable[str]) -> list[Row]:
    """Return the rows of several names, each entry once.

    Raises
    ------
    Misconfigured
        If there is none for one of them.
    """
    rows = [find(connection, name) for name in names]
    return list({row["key"]: row for row in rows}.values())


def as_entry(row: Row) -> Entry:
    """Return the record of a row."""
    return Entry(
        key=row["key"],
        camera=row["camera"],
        night=Night(row["night"]),
        path=Path(row["path"]),
        size=row["size"],
        mtime_ns=row["mtime_ns"],
        content_id=row["content_id"] or "",
        exposure_id=row["exposure_id"] or "",
        revision=row["revision"],
        state=State(row["state"]),
        reason=row["reason"],
        cause=row["cause"],
        kind=Kind(row["kind"]) if row["kind"] else None,
        ref=ExposureRef.from_json(json.loads(row["ref"])) if row["ref"] else None,
        group_id=row["group_id"] or "",
        token=row["token"] or "",
        owner=row["owner"] or "",
        lease_until=row["lease_until"],
        attempts=row["attempts"],
        retry_at=row["retry_at"],
        quality=Quality(row["quality"]) if row["quality"] else None,
        masters=tuple(json.loads(row["masters"])) if row["masters"] else (),
        measured=json.loads(row["measured"]) if row["measured"] else {},
        timings=json.loads(row["timings"]) if row["timings"] else {},
        latency_s=row["latency_s"],
        times={stage: row[f"{stage}_at"] for stage in _STAGES if row[f"{stage}_at"] is not None},
    )


def as_json(value: Any) -> str:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":"))


def blame(error: BaseException) -> dict[str, str]:
    """Return reason and cause that an error leaves in a row; the text of a Nightglass error holds its remedy."""
    text = str(error) if isinstance(error, NightglassError) else f"{type(error).__name__}: {error}"
    return {"reason": text, "cause": type(error).__name__}


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of at most `size` items: a statement takes only so many parameters."""
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some


def _one(connection: Connection, statement: Select[Any], **parameters: str | Sequence[str]) -> Row | None:
    return connection.execute(statement, parameters).mappings().one_or_none()
