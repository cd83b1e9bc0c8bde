"""A ledger that a former version wrote is brought up to date in place, and nothing of it is lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import nightglass.ledger.migrations
from nightglass.errors import Retryable
from nightglass.ledger import Ledger
from nightglass.ledger.tables import SCHEMA_VERSION
from nightglass.model import Content, State
from tests.unit.ledger.material import CAMERA, NIGHT, arrival, complete, tallied

VERSION_1 = Path(__file__).with_name("version1.sql")
"""Dumped from a ledger that version 1 of the schema wrote."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1.read_text())
    return path


def _shape(path: Path) -> dict[str, set[tuple[str, str]]]:
    with closing(sqlite3.connect(path)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table','index')")]
        return {name: {(row[1], row[2]) for row in connection.execute(f"PRAGMA table_info({name})")} for name in names}


def test_a_ledger_of_version_1_is_brought_up_to_date(old: Path, tmp_path: Path) -> None:
    with Ledger.open(old) as ledger:
        assert ledger.counts() == tallied(ledger)
        assert ledger.counts()[State.REDUCED] == 2
        assert ledger.find(f"{CAMERA}/{NIGHT}/0001").masters == ("bias-1",)
        (running,) = ledger.running()
        assert running.owner == "me"
        assert ledger.find_night(NIGHT, CAMERA) is not None
        assert ledger.archives() == ()
        new = complete(ledger, arrival(20))
        asked = ledger.request_archive(new.archive_id, Content.RAW, night=NIGHT, camera=CAMERA, wanted=[new.content_id])
        assert ledger.find_archive(new.archive_id) == asked
    Ledger.open(tmp_path / "new.sqlite").close()
    assert _shape(old) == _shape(tmp_path / "new.sqlite")
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("SELECT value FROM ng_meta").fetchone() == (str(SCHEMA_VERSION),)


def test_detectors_of_version_1_find_their_exposure(old: Path) -> None:
    with Ledger.open(old) as ledger:
        members = ledger.members(f"{CAMERA}/{NIGHT}/77")
        assert [entry.exposure_id.rpartition("/")[2] for entry in members] == ["77-ccd-1", "77-ccd2"]
        assert {entry.archive_id for entry in members} == {f"{CAMERA}/{NIGHT}/77"}
        (whole,) = ledger.members(f"{CAMERA}/{NIGHT}/m13-01234567")
        assert whole.parent == ""


def test_twice_is_once(old: Path) -> None:
    Ledger.open(old).close()
    before = old.read_bytes()
    Ledger.open(old).close()
    assert old.read_bytes() == before


def test_a_migration_that_fails_leaves_the_ledger_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise Retryable("the power failed")

    before = _shape(old)
    with monkeypatch.context() as patched:
        patched.setattr(nightglass.ledger.migrations, "sanitize", fail)
        with pytest.raises(Retryable):
            Ledger.open(old)
    assert _shape(old) == before
    Ledger.open(old).close()
