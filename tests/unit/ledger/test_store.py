"""Opening, locking and refusing: the database is busy, old, foreign, broken or not there."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Select

import nightglass.ledger
from nightglass.errors import Misconfigured, Retryable
from nightglass.ledger import Ledger
from nightglass.ledger.statements import Statement
from nightglass.ledger.store import Store
from nightglass.model import State
from tests.unit.ledger.material import CAMERA, NIGHT, arrival, claimed, commit, grouped, reduced, see, tallied

ROOT = Path(__file__).resolve().parents[3]


def test_a_ledger_is_made_with_its_directory_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        (name,) = reduced(ledger, 1)
    with Ledger.open(f"sqlite:///{path}") as ledger:
        assert ledger.find(name).state is State.REDUCED
        assert ledger.name == str(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_writer_that_holds_the_ledger_too_long_makes_others_retry(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path, busy_timeout_s=0.1) as ledger:
        entry = see(ledger, arrival(1))
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(Retryable, match=r"was locked for longer than 0\.1 s"):
            see(ledger, arrival(2))
        assert ledger.find(entry.key) == entry, "reading needs no write lock"
        assert see(ledger, arrival(1)) == entry, "nor does a sighting that is known"
        assert ledger.sweep() == ()
        holder.execute("ROLLBACK")
        holder.close()
        assert see(ledger, arrival(2)).state is State.SEEN


def test_a_full_disk_undoes_the_transaction_and_is_worth_a_retry(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        entry = see(ledger, arrival(0))
        burst = [arrival(number).sighting for number in range(2000)]
        with ledger._store.read() as connection:  # the pool has one connection, so the limit holds for the writer
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 20}")
        with pytest.raises(Retryable, match="full"):
            ledger.see_many(burst, camera=CAMERA, night=NIGHT)
        assert list(ledger.entries()) == [entry]
        with ledger._store.read() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
        assert len(ledger.see_many(burst, camera=CAMERA, night=NIGHT)) == 2000
        assert ledger.counts() == tallied(ledger)


def test_readers_see_no_half_transaction(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        (lease,) = claimed(ledger, 1)
        seen: list[State] = []

        def look() -> None:
            reader = threading.Thread(target=lambda: seen.append(ledger.find(lease.exposure_id).state))
            reader.start()
            reader.join()

        commit(ledger, lease, publish=look)
        assert seen == [State.RUNNING]


def test_another_schema_version_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE ng_meta SET value = '0' WHERE name = 'schema'")
    with pytest.raises(Misconfigured, match=r"schema version 0.*move the file away"):
        Ledger.open(path)


@pytest.mark.parametrize("content", ["a database", "no database"])
def test_a_file_of_something_else_is_not_touched(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.sqlite"
    if content == "a database":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE flow_run (id)")
    else:
        path.write_bytes(b"SIMPLE  =                    T" * 300)
    before = path.read_bytes()[100:]
    with pytest.raises(Misconfigured, match=r"other\.sqlite"):
        Ledger.open(path)
    assert path.read_bytes()[100:] == before


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql+nodriver://h/d", "nonsense://x", "://"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(Misconfigured):
        Ledger.open(url)


def test_a_place_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="its directory cannot be made"):
        Ledger.open(tmp_path / "file" / "ledger.sqlite")


def test_a_forked_child_gets_connections_of_its_own(tmp_path: Path) -> None:
    # in a process of its own, because this one may have threads
    script = f"""
import os
from nightglass.ledger import Ledger
from tests.unit.ledger.material import commit, grouped
with Ledger.open({str(tmp_path / "ledger.sqlite")!r}) as ledger:
    ids = grouped(ledger, 1, 2)
    child = os.fork()
    if child == 0:
        ledger.claim(ids[:1], owner="child", lease_s=60)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    (lease,) = ledger.claim(ids[1:], owner="parent", lease_s=60)
    commit(ledger, lease)
    assert ledger.holders() == ("child",)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=ROOT)


def test_threads_share_a_ledger(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ids = grouped(ledger, *range(40))
        won: list[str] = []

        def work(owner: str) -> None:
            for name in ids:
                won.extend(lease.exposure_id for lease in ledger.claim([name], owner=owner, lease_s=60))

        threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == sorted(ids)
        assert ledger.counts(NIGHT)[State.RUNNING] == 40


TYPED = {"_BY_END"}
"""Names of statements that look up what a person typed at a command, which no exposure waits for."""


def _statements() -> list[Any]:
    modules = (nightglass.ledger.arrivals, nightglass.ledger.leases, nightglass.ledger.rows)
    found = [(f"{module.__name__}.{name}", value) for module in modules for name, value in vars(module).items()]
    hot = [(name, value) for name, value in found if name.rpartition(".")[2] not in TYPED]
    return [pytest.param(value, id=name) for name, value in hot if isinstance(value, (Select, Statement))]


@pytest.mark.parametrize("statement", _statements())
def test_no_statement_of_the_hot_path_walks_through_a_table(statement: Any, tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite"):
        store = Store(tmp_path / "ledger.sqlite", busy_timeout_s=1)
    statement = statement if isinstance(statement, Statement) else Statement(statement)
    with store.read() as connection:
        sql, constants, order = statement._compile(connection)
        values = tuple(constants[name] for name in order or ())
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)]
    store.close()
    assert all(step.startswith(("SEARCH", "USE TEMP B-TREE")) for step in plan)
    assert all("ng_entries_night " not in step for step in plan), "a night has thousands of entries"
