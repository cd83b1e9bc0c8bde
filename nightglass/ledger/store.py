"""The database behind the ledger: opening it, one writer at a time, and errors that say what to do."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, inspect, make_url, select
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from nightglass.errors import Misconfigured, NightglassError, Retryable
from nightglass.ledger.migrations import MIGRATIONS, migrate
from nightglass.ledger.tables import SCHEMA_VERSION, meta, metadata
from nightglass.ledger.transitions import Transaction

__all__ = ["Store"]

_WRITES = "nightglass_writes"
_ADVISORY_LOCK = 0x6E69676874  # any constant that all our processes share
_CACHE_KIB = 16 * 1024


class Store:
    """An open database.

    Parameters
    ----------
    url : str or Path
        A path (of an SQLite file, made with its directory if it is missing) or an SQLAlchemy URL.
    busy_timeout_s : float
        How long a transaction waits for another writer.

    Raises
    ------
    Misconfigured
        If the URL is none, its driver is not installed, or the ledger is of another schema version.
    Retryable
        If the database is locked or cannot be reached.
    """

    def __init__(self, url: str | Path, *, busy_timeout_s: float) -> None:
        self._url = _parse(url)
        self._busy_timeout_s = busy_timeout_s
        self._pid = os.getpid()
        self._engine = self._connect()
        self._writer = self._engine.execution_options(**{_WRITES: True})
        try:
            self._prepare()
        except NightglassError:
            self._engine.dispose()
            raise

    @property
    def name(self) -> str:
        """The database as one may show it: without a password."""
        return self._url.database or "" if self._is_file else self._url.render_as_string(hide_password=True)

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._engine.dialect.name

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose(close=os.getpid() == self._pid)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection that sees one state of the ledger and takes no write lock."""
        self._leave_parent()
        with self._translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Yield a transaction that no other writer overlaps; it is committed at the end, or undone by an exception.

        Raises
        ------
        Retryable
            If another writer holds the ledger for longer than the busy time-out, or the disk is full.
        """
        self._leave_parent()
        with self._translated(), self._writer.begin() as connection:
            transaction = Transaction(connection)
            yield transaction
            transaction.flush()

    @property
    def _is_file(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    def _connect(self) -> Engine:
        try:
            if self._is_file:
                return self._connect_file()
            engine = create_engine(self._url, pool_pre_ping=True, max_overflow=-1)
        except (ModuleNotFoundError, NoSuchModuleError) as error:
            message = f"ledger {self.name}: no driver for it is installed ({error})"
            raise Misconfigured(message, remedy="pip install 'psycopg[binary]'") from error
        if engine.dialect.name != "postgresql":
            message = f"ledger {self.name}: {engine.dialect.name} is not supported"
            raise Misconfigured(message, remedy="give the path of an SQLite file or a postgresql:// URL")
        event.listen(engine, "begin", self._begin_server)
        return engine

    def _connect_file(self) -> Engine:
        database = self._url.database
        if not database or database == ":memory:":
            message = "a ledger in memory would be lost with its process"
            raise Misconfigured(message, remedy="give the path of a file")
        try:
            Path(database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"ledger {database}: its directory cannot be made: {error}"
            raise Misconfigured(message, remedy="choose another root, or give the right to write there") from error
        arguments = {"timeout": self._busy_timeout_s, "check_same_thread": False}
        engine = create_engine(self._url, connect_args=arguments, poolclass=QueuePool, pool_size=4, max_overflow=-1)
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "begin", _begin_file)
        return engine

    def _connected(self, connection: sqlite3.Connection, _record: Any) -> None:
        # the driver's own BEGIN is deferred: two claimers read the same rows, then both write
        connection.isolation_level = None
        _switch_to_wal(connection, self._busy_timeout_s)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")

    def _begin_server(self, connection: Connection) -> None:
        if not connection.get_execution_options().get(_WRITES):
            return
        # one writer at a time, as with SQLite, so that one way of reasoning holds for both
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(self._busy_timeout_s * 1000)}")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")

    def _leave_parent(self) -> None:
        if os.getpid() != self._pid:  # forked: the connections are the parent's
            self._engine.dispose(close=False)
            self._pid = os.getpid()

    def _prepare(self) -> None:
        with self.read() as connection:
            version = self._version(connection)
        if version is None:
            with self.write() as transaction:
                if self._version(transaction.connection) is None:  # nobody was faster
                    metadata.create_all(transaction.connection)
                    transaction.connection.execute(meta.insert(), {"name": "schema", "value": str(SCHEMA_VERSION)})
            version = str(SCHEMA_VERSION)
        if version in {str(former) for former in MIGRATIONS}:
            with self.write() as transaction:
                version = self._version(transaction.connection)
                if version != str(SCHEMA_VERSION):  # nobody was faster
                    migrate(transaction.connection, int(version or 0))
            version = str(SCHEMA_VERSION)
        if version != str(SCHEMA_VERSION):
            message = f"ledger {self.name} has schema version {version}, this Nightglass needs {SCHEMA_VERSION}"
            remedy = "use the Nightglass that wrote it, or move the file away to begin a new ledger"
            raise Misconfigured(message, remedy=remedy)

    def _version(self, connection: Connection) -> str | None:
        names = inspect(connection).get_table_names()
        if meta.name in names:
            return str(connection.execute(select(meta.c.value).where(meta.c.name == "schema")).scalar_one_or_none())
        if names and self._is_file:
            message = f"{self.name} is a database of something else: it has tables {', '.join(sorted(names)[:3])}..."
            raise Misconfigured(message, remedy="give the ledger a file of its own")
        return None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, PoolTimeout, sqlite3.OperationalError) as error:
            raise self._judged(error) from error
        except (DatabaseError, sqlite3.DatabaseError) as error:
            if "not a database" not in str(error) and "malformed" not in str(error):
                raise
            message = f"ledger {self.name} cannot be read: {_cause(error)}"
            raise Misconfigured(
                message, remedy="restore it from a copy, or move it away to begin a new ledger"
            ) from error

    def _judged(self, error: Exception) -> NightglassError:
        cause = _cause(error)
        if "locked" in cause or "busy" in cause or "lock timeout" in cause:
            message = f"ledger {self.name} was locked for longer than {self._busy_timeout_s:g} s"
            return Retryable(message, remedy="find the process that holds it; the work is tried again by itself")
        if "readonly" in cause or "unable to open" in cause:
            message = f"ledger {self.name} cannot be written: {cause}"
            return Misconfigured(message, remedy="check owner and rights of the file and its directory")
        return Retryable(f"ledger {self.name}: {cause}", remedy="check disk space or the database server")


def _parse(url: str | Path) -> URL:
    if isinstance(url, Path) or "://" not in url:
        return URL.create("sqlite", database=str(Path(url).expanduser().absolute()))
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        message = f"{url!r} is no address of a ledger: {error}"
        raise Misconfigured(message, remedy="give a path or postgresql://user@host/database") from error
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername in ("postgresql", "postgres") else parsed


def _begin_file(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _switch_to_wal(connection: sqlite3.Connection, patience_s: float) -> None:
    # SQLite does not wait for the lock that the switch needs, so several first openers would fail
    end = time.monotonic() + patience_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def _cause(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip()
