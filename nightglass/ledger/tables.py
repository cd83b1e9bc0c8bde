"""The tables of the ledger. Names carry a prefix because a PostgreSQL database may be shared with Prefect's own."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text

__all__ = [
    "SCHEMA_VERSION",
    "archives",
    "counters",
    "entries",
    "events",
    "groups",
    "masters",
    "meta",
    "metadata",
    "nights",
    "products",
    "revisions",
    "runs",
    "sequences",
    "stages",
]

SCHEMA_VERSION = 2
"""Grows when a table changes its shape; `nightglass.ledger.migrations` then learns a further step."""

metadata = MetaData()

meta = Table(
    "ng_meta",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)

entries = Table(
    "ng_entries",
    metadata,
    Column("key", String, primary_key=True),
    Column("night", String, nullable=False),
    Column("camera", String, nullable=False),
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("content_id", String),
    Column("exposure_id", String),
    # the exposure of which the file is only a part: one frame, or one detector
    Column("parent", String),
    Column("revision", Integer, nullable=False),
    Column("state", String, nullable=False),
    # the state again while work is left, else NULL: a partial index over it stays small in a ledger of millions
    Column("active_state", String),
    # where a redo falls back to when it comes to nothing: the old product is still good
    Column("fallback", String),
    Column("reason", Text, nullable=False, default=""),
    Column("cause", String, nullable=False, default=""),
    Column("kind", String),
    Column("ref", Text),
    Column("group_id", String),
    Column("token", String),
    Column("owner", String),
    Column("lease_until", Float(53)),
    Column("attempts", Integer, nullable=False, default=0),
    Column("retry_at", Float(53)),
    Column("quality", String),
    Column("masters", Text),
    Column("measured", Text),
    Column("timings", Text),
    Column("seen_at", Float(53), nullable=False),
    Column("complete_at", Float(53)),
    Column("grouped_at", Float(53)),
    Column("running_at", Float(53)),
    Column("reduced_at", Float(53)),
    Column("latency_s", Float(53)),
    Column("changes", Integer, nullable=False),
    Index("ng_entries_path", "path", "camera", unique=True),
    Index("ng_entries_exposure", "exposure_id", unique=True),
    # night and camera first, so that the random part of an index lies within one night
    Index("ng_entries_content", "night", "camera", "content_id"),
    Index("ng_entries_night", "night", "camera", "key"),
)
Index(
    "ng_entries_active",
    entries.c.active_state,
    entries.c.key,
    sqlite_where=entries.c.active_state.is_not(None),
    postgresql_where=entries.c.active_state.is_not(None),
)
Index(
    "ng_entries_latency",
    entries.c.night,
    entries.c.camera,
    entries.c.latency_s,
    sqlite_where=entries.c.latency_s.is_not(None),
    postgresql_where=entries.c.latency_s.is_not(None),
)

Index(
    "ng_entries_parent",
    entries.c.parent,
    entries.c.key,
    sqlite_where=entries.c.parent.is_not(None),
    postgresql_where=entries.c.parent.is_not(None),
)

events = Table(
    "ng_events",
    metadata,
    Column("key", String, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, nullable=False),
    Column("at", Float(53), nullable=False),
    Column("before", String),
    Column("after", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("owner", String, nullable=False),
    sqlite_with_rowid=False,
)

revisions = Table(
    "ng_revisions",
    metadata,
    Column("key", String, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("at", Float(53), nullable=False),
    Column("state", String, nullable=False),
    Column("record", Text, nullable=False),
    sqlite_with_rowid=False,
)

sequences = Table(
    "ng_sequences",
    metadata,
    Column("night", String, primary_key=True),
    Column("camera", String, primary_key=True),
    Column("last", BigInteger, nullable=False),
)

counters = Table(
    "ng_counters",
    metadata,
    Column("night", String, primary_key=True),
    Column("camera", String, primary_key=True),
    Column("state", String, primary_key=True),
    Column("count", BigInteger, nullable=False),
)

groups = Table(
    "ng_groups",
    metadata,
    Column("group_id", String, primary_key=True),
    Column("night", String, nullable=False),
    Column("camera", String, nullable=False),
    Column("rule", String, nullable=False),
    Column("members", Text, nullable=False),
    Column("complete", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Float(53), nullable=False),
    Index("ng_groups_night", "night", "camera", "group_id"),
    sqlite_with_rowid=False,
)

products = Table(
    "ng_products",
    metadata,
    Column("subject", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("night", String, nullable=False),
    Column("camera", String, nullable=False),
    Column("checksum", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("superseded", Integer, nullable=False),
    Column("at", Float(53), nullable=False),
    Index("ng_products_night", "night", "camera", "kind", "subject"),
    sqlite_with_rowid=False,
)

masters = Table(
    "ng_masters",
    metadata,
    Column("master_id", String, primary_key=True),
    Column("camera", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("night", String, nullable=False),
    Column("record", Text, nullable=False),
    Column("at", Float(53), nullable=False),
    Index("ng_masters_choice", "camera", "kind", "night"),
)

archives = Table(
    "ng_archives",
    metadata,
    Column("key", String, primary_key=True),
    Column("night", String, nullable=False),
    Column("camera", String, nullable=False),
    Column("exposure", String, nullable=False),
    Column("content", String, nullable=False),
    Column("state", String, nullable=False),
    # as in ng_entries: the state again while work is left
    Column("active_state", String),
    Column("token", String),
    Column("owner", String),
    Column("lease_until", Float(53)),
    Column("attempts", Integer, nullable=False),
    Column("retry_at", Float(53)),
    Column("wanted", Text, nullable=False),
    Column("held", Text, nullable=False),
    Column("path", Text),
    Column("checksum", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sources", Integer, nullable=False),
    Column("frames", Integer, nullable=False),
    Column("files", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("cause", String, nullable=False),
    Column("requested_at", Float(53), nullable=False),
    Column("archived_at", Float(53)),
    Column("verified_at", Float(53)),
    Column("purged_at", Float(53)),
    Index("ng_archives_night", "night", "camera", "state"),
)
Index(
    "ng_archives_active",
    archives.c.active_state,
    archives.c.key,
    sqlite_where=archives.c.active_state.is_not(None),
    postgresql_where=archives.c.active_state.is_not(None),
)

nights = Table(
    "ng_nights",
    metadata,
    Column("night", String, primary_key=True),
    Column("camera", String, primary_key=True),
    Column("opened_at", Float(53), nullable=False),
    Column("closed_at", Float(53)),
)

stages = Table(
    "ng_stages",
    metadata,
    Column("night", String, primary_key=True),
    Column("camera", String, primary_key=True),
    Column("stage", String, primary_key=True),
    Column("due", Float(53), nullable=False),
    Column("state", String, nullable=False),
    Column("token", String),
    Column("owner", String),
    Column("lease_until", Float(53)),
    Column("attempts", Integer, nullable=False),
    Column("retry_at", Float(53)),
    Column("summary", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("started_at", Float(53)),
    Column("ended_at", Float(53)),
    Index("ng_stages_state", "state", "due"),
)

runs = Table(
    "ng_runs",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("record", Text, nullable=False),
    Column("ended_at", Float(53), nullable=False),
    Column("flow_run_id", String, nullable=False),
    Column("reported_at", Float(53)),
    Index("ng_runs_open", "reported_at", "ended_at"),
)
