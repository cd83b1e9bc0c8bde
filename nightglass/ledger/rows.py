"""Between rows and records: reading entries by key, id or path, and turning a row into an `Entry`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, select

from nightglass.errors import Misconfigured, NightglassError
from nightglass.ledger.archive_records import ArchivedFile, ArchiveRecord, ArchiveState
from nightglass.ledger.records import Entry
from nightglass.ledger.statements import Row, Statement
from nightglass.ledger.tables import entries
from nightglass.model import Content, ExposureRef, Kind, Night, Quality, State

__all__ = [
    "archive_key",
    "as_archive",
    "as_entry",
    "as_json",
    "blame",
    "by_exposures",
    "by_key",
    "find",
    "find_all",
    "members_of",
]

_MOST_ALIKE = 5
_STAGES = ("seen", "complete", "grouped", "running", "reduced")

_BY_KEY = Statement(select(entries).where(entries.c.key == bindparam("key")))
_BY_EXPOSURE = Statement(select(entries).where(entries.c.exposure_id == bindparam("exposure_id")))
_BY_PATH = Statement(select(entries).where(entries.c.path == bindparam("path")).order_by(entries.c.key.desc()).limit(1))
_BY_END = Statement(
    select(entries)
    .where(entries.c.exposure_id.like(bindparam("end"), escape="\\"))
    .order_by(entries.c.key.desc())
    .limit(_MOST_ALIKE)
)
"""Looks at every row, so it is for what a person typed."""
_BY_PARENT = Statement(select(entries).where(entries.c.parent == bindparam("parent")).order_by(entries.c.key))


def by_key(connection: Connection, key: str) -> Row | None:
    """Return the row of an entry key."""
    return _BY_KEY.one(connection, key=key)


def by_exposures(connection: Connection, exposure_ids: Iterable[str]) -> dict[str, Row]:
    """Return the rows of those exposure ids that there are."""
    # one by one: as fast as an IN list, which would have to be compiled for each length
    rows = (_BY_EXPOSURE.one(connection, exposure_id=name) for name in exposure_ids)
    return {row["exposure_id"]: row for row in rows if row is not None}


def find(connection: Connection, name: str) -> Row:
    """Return the row of an exposure id, its last part, an entry key or a path, as a person may give it.

    Raises
    ------
    Misconfigured
        If there is none, or several nights have one whose last part this is.
    """
    row = (
        _BY_EXPOSURE.one(connection, exposure_id=name)
        or _BY_KEY.one(connection, key=name)
        or _BY_PATH.one(connection, path=name)
    )
    if row is not None:
        return row
    ended = _BY_END.all(connection, end=f"%/{_literal(name)}") if name and "/" not in name else []
    if len(ended) == 1:
        return ended[0]
    if ended:
        message = f"{name!r} is in several nights: {', '.join(row['exposure_id'] for row in ended)}"
        raise Misconfigured(message, remedy="give the whole exposure id, CAMERA/NIGHT/NAME")
    message = f"the ledger has no exposure {name!r}"
    raise Misconfigured(message, remedy="give an exposure id as `nightglass status` shows it, or the path of the file")


def _literal(name: str) -> str:
    """Return a name that LIKE takes as it is."""
    return name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def find_all(connection: Connection, names: Iterable[str]) -> list[Row]:
    """Return the rows of several names, each entry once.

    Raises
    ------
    Misconfigured
        If there is none for one of them.
    """
    rows = [find(connection, name) for name in names]
    return list({row["key"]: row for row in rows}.values())


def members_of(connection: Connection, exposure: str) -> list[Row]:
    """Return the rows of the files of an exposure, in order of arrival."""
    whole = _BY_EXPOSURE.one(connection, exposure_id=exposure)
    if whole is not None and whole["parent"]:
        whole = None  # a part is asked for by the id of its exposure
    found = [*([whole] if whole is not None else []), *_BY_PARENT.all(connection, parent=exposure)]
    if not found and exposure.count("/") == 2:  # perhaps a file that was never understood, see Entry.archive_id
        camera, night, name = exposure.split("/")
        row = by_key(connection, f"{night}/{camera}/{name.rpartition('-')[2]}")
        found = [row] if row is not None and as_entry(row).archive_id == exposure else []
    return sorted(found, key=lambda row: str(row["key"]))


def archive_key(exposure: str, content: Content) -> str:
    """Return the key of an archive: night first and numbers in eight digits, so that keys grow with time."""
    camera, _, rest = exposure.partition("/")
    night, _, name = rest.partition("/")
    return f"{night}/{camera}/{name.zfill(8) if name.isdecimal() else name}/{content.value}"


def as_archive(row: Row) -> ArchiveRecord:
    """Return the record of a row of `archives`."""
    return ArchiveRecord(
        key=row["key"],
        exposure=row["exposure"],
        camera=row["camera"],
        night=Night(row["night"]),
        content=Content(row["content"]),
        state=ArchiveState(row["state"]),
        owner=row["owner"] or "",
        token=row["token"] or "",
        lease_until=row["lease_until"],
        attempts=row["attempts"],
        retry_at=row["retry_at"],
        wanted=tuple(json.loads(row["wanted"])),
        held=tuple(json.loads(row["held"])),
        path=Path(row["path"]) if row["path"] else None,
        checksum=row["checksum"],
        size=row["size"],
        sources=row["sources"],
        frames=row["frames"],
        files=tuple(ArchivedFile(**{**item, "path": Path(item["path"])}) for item in json.loads(row["files"])),
        reason=row["reason"],
        cause=row["cause"],
        requested_at=row["requested_at"],
        archived_at=row["archived_at"],
        verified_at=row["verified_at"],
        purged_at=row["purged_at"],
    )


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
        parent=row["parent"] or "",
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
