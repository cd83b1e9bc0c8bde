"""The thread that lets light curves grow: how it ends, and what it holds open."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from nightglass.config import load_camera
from nightglass.layout import Layout
from nightglass.ledger import Entry, Ledger
from nightglass.lightcurves import live_paths
from nightglass.watch.curves import CurveDesk
from tests.unit.ledger.material import DUSK, NIGHT, reduced

CAMERA = load_camera("aartfaac").model_copy(update={"name": "lynx"})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite") as opened:
        opened.open_night(NIGHT, "lynx", midway_due=DUSK + timedelta(1), final_due=DUSK + timedelta(2))
        yield opened


def desk_of(ledger: Ledger, root: Path) -> CurveDesk:
    return CurveDesk({"lynx": CAMERA}, ledger=ledger, layout=Layout(root))


def one(ledger: Ledger) -> Entry:
    """Return a reduced exposure, whose product is nowhere."""
    (name,) = reduced(ledger, 1)
    entry = ledger.find(name)
    assert entry is not None
    return entry


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_desk_that_is_hurried_leaves_the_rest_to_the_next_watch(tmp_path: Path, ledger: Ledger) -> None:
    desk, entry = desk_of(ledger, tmp_path), one(ledger)
    desk.start()
    desk.note(replace(entry, exposure_id=f"lynx/{NIGHT}/{number}") for number in range(20_000))
    until(lambda: live_paths("lynx", NIGHT, Layout(tmp_path))[0].exists())
    desk.stop(hurry=lambda: True)
    assert not desk._thread.is_alive()
    assert desk._pending


def test_tables_of_a_night_that_is_closed_are_closed_and_not_gone_on_with(tmp_path: Path, ledger: Ledger) -> None:
    desk, entry = desk_of(ledger, tmp_path), one(ledger)
    paths = live_paths("lynx", NIGHT, Layout(tmp_path))
    desk.start()
    until(lambda: bool(desk._books) or paths[0].exists())
    ledger.close_night(NIGHT, "lynx")
    desk._tidy_at = 0.0
    until(lambda: not desk._books)
    for path in paths:
        path.unlink()
    desk.note([entry])
    until(lambda: desk._noted.empty())
    desk.stop(hurry=lambda: False)
    assert not any(path.exists() for path in paths)
