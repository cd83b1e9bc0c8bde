"""Nights are opened once, kept, rolled over at noon; sensors follow them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nightglass.config import Observatory, load_camera
from nightglass.errors import Misconfigured
from nightglass.ledger import Ledger, NightRecord, StageState
from nightglass.model import Night, Stage
from nightglass.watch.alarms import Alarms
from nightglass.watch.nightkeeper import NightKeeper
from nightglass.watch.sentry import Sentry
from nightglass.watch.sources import Place, Sources
from tests.unit.watch.puppet import stock

NIGHT = Night("20260821")
EVENING = datetime(2026, 8, 21, 22, tzinfo=UTC)
CAMERAS = {"lynx": load_camera("lynx")}


class Desk:
    def __init__(self, root: Path, ledger: Ledger, **observatory: object) -> None:
        self.ledger, self.told, self.opened = ledger, [], []
        self.heard = threading.Event()
        self.keeper = NightKeeper(
            ledger,
            Observatory.model_validate({"root": root, **observatory}),
            cameras=frozenset({"lynx"}),
            fallback_s=60,
            alarms=Alarms(lambda *both: self.told.append(both)),
            on_opened=self._hear,
        )

    def _hear(self, record: NightRecord) -> None:
        self.opened.append(record.night)
        self.heard.set()
        message = "Prefect is away"
        raise ConnectionError(message)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite") as opened:
        yield opened


def test_a_night_is_opened_and_announced_once_and_keeps_its_due_times(tmp_path: Path, ledger: Ledger) -> None:
    desk = Desk(tmp_path, ledger)
    record = desk.keeper.open("lynx", NIGHT, EVENING)
    assert desk.heard.wait(120)
    assert desk.keeper.open("lynx", NIGHT, EVENING + timedelta(hours=3)) == record
    assert record.stage(Stage.FINAL).due == EVENING + timedelta(hours=48)
    again = Desk(tmp_path, ledger, night={"final": "20h"})
    again.keeper.refresh()
    assert again.keeper.open_nights == (record,)
    assert again.heard.wait(120), "a watch that died between opening and telling told nobody"
    assert desk.opened == [NIGHT]


def test_a_stage_is_left_to_others_for_a_while(tmp_path: Path, ledger: Ledger) -> None:
    desk = Desk(tmp_path, ledger)
    due = desk.keeper.open("lynx", NIGHT, EVENING).stage(Stage.MIDWAY).due
    ledger.open_night(NIGHT, "guide", midway_due=due, final_due=due, now=EVENING.timestamp())
    assert desk.keeper.due(due + timedelta(seconds=59)) == ()
    assert [(stage.camera, stage.stage) for stage in desk.keeper.due(due + timedelta(seconds=60))] == [
        ("lynx", Stage.MIDWAY)
    ]
    assert desk.keeper.finals_due(EVENING + timedelta(hours=47)) == ()
    assert desk.keeper.finals_due(EVENING + timedelta(hours=48)) == (("lynx", NIGHT),)


def test_a_night_closed_while_exposures_came_in_is_opened_again(tmp_path: Path, ledger: Ledger) -> None:
    desk = Desk(tmp_path, ledger)
    desk.keeper.open("lynx", NIGHT, EVENING)
    desk.keeper.refresh()
    stock(ledger, 1)
    ledger.close_night(NIGHT, "lynx")
    later = EVENING + timedelta(days=2)
    desk.keeper.refresh()
    desk.keeper.reopen_if_busy(later)
    (record,) = desk.keeper.open_nights
    assert record.is_open
    assert record.stage(Stage.FINAL).state is StageState.PENDING
    assert record.stage(Stage.FINAL).due == later + timedelta(minutes=15)


def test_rules_that_cannot_be_kept_raise_an_alarm_and_no_error(tmp_path: Path, ledger: Ledger) -> None:
    desk = Desk(tmp_path, ledger, night={"midway": "sun", "final": "sun"})
    assert desk.keeper.open("lynx", NIGHT, EVENING).stage(Stage.FINAL).due == EVENING + timedelta(hours=48)
    assert "no latitude" in desk.told[0][1]


def sources(directory: str, *, nights: tuple[Night, ...] = (), started_at: datetime = EVENING) -> Sources:
    source = {"camera": "lynx", "directory": directory}
    site = {"timezone": "America/Santiago"}
    observatory = Observatory.model_validate({"sources": [source], "site": site})
    return Sources(observatory, CAMERAS, nights=nights, on_sighting=lambda *_: None, started_at=started_at)


def where(found: Sources) -> list[tuple[str, str]]:
    return [(place.directory.name, str(place.night)) for place in found.places]


def test_the_sensor_of_a_night_stops_at_local_noon_and_the_next_one_starts(tmp_path: Path) -> None:
    found = sources(f"{tmp_path}/{{camera}}-{{night}}")
    try:
        noon = datetime(2026, 8, 22, 16, tzinfo=UTC)  # 12:00 in Santiago
        found.sync(EVENING)
        found.sync(noon - timedelta(seconds=1), more_nights=[NIGHT])
        assert where(found) == [("lynx-20260821", "20260821")]
        found.sync(noon, more_nights=[NIGHT])
        assert where(found) == [("lynx-20260822", "20260822")], "a night that is over gets no sensor back"
        assert (tmp_path / "lynx-20260822").is_dir()
    finally:
        found.stop()


def test_a_named_night_names_what_comes_into_a_plain_directory_until_it_is_over(tmp_path: Path) -> None:
    old = Night("20171219")
    found = sources(str(tmp_path / "raw"), nights=(old,))
    try:
        found.sync(EVENING)
        assert where(found) == [("raw", "20171219")], "a replay is watched until the noon after its start"
        found.sync(EVENING, more_nights=[NIGHT])
        assert where(found) == [("raw", "None")], "two open nights: the headers decide"
        found.sync(EVENING + timedelta(days=1), more_nights=[Night("20260822")])
        assert where(found) == [("raw", "20260822")]
        found.sync(EVENING + timedelta(days=3))
        assert where(found) == []
    finally:
        found.stop()


def test_a_plain_directory_without_a_night_is_watched_for_ever(tmp_path: Path) -> None:
    found = sources(str(tmp_path / "raw"))
    try:
        for day in range(3):
            found.sync(EVENING + timedelta(days=day))
            assert where(found) == [("raw", "None")]
    finally:
        found.stop()


def test_a_directory_that_cannot_be_made_is_told_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found = sources(str(tmp_path / "file" / "raw"))
    try:
        found.sync(EVENING)
        assert [(state["state"], state["error"][:18]) for state in found.states()] == [("failed", "NotADirectoryError")]
        (tmp_path / "file").unlink()
        found.sync(EVENING)
        assert [state["error"] for state in found.states()] == [""]
    finally:
        found.stop()


def test_a_file_that_no_sensor_can_pass_on_raises_one_alarm(tmp_path: Path) -> None:
    for name in (b"bad-\xff.fits", b"worse-\xff.fits"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(bytes(2880))
    told: list[tuple[str, str]] = []
    found = sources(str(tmp_path))
    sentry = Sentry(Observatory(), Alarms(lambda *both: told.append(both)))
    try:
        found.sync(EVENING)
        complaints: list[tuple[Place, str]] = []
        end = time.monotonic() + 120
        while len(complaints) < 2 and time.monotonic() < end:
            complaints += found.complaints()
            time.sleep(0.02)
    finally:
        found.stop()
    assert len({text for _, text in complaints}) == 2
    sentry.note_complaints(complaints)
    ((subject, text),) = told
    assert subject == "A file of lynx is not taken in"
    assert "rename the file" in text


def test_wrong_names_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"\{camera\} and \{night\}"):
        sources("/data/{nihgt}").sync(EVENING)
    with pytest.raises(Misconfigured, match="was not loaded"):
        Sources(
            Observatory.model_validate({"sources": [{"camera": "linx", "directory": "/x"}]}),
            CAMERAS,
            nights=(),
            on_sighting=lambda *_: None,
            started_at=EVENING,
        )


def test_places_are_equal_by_camera_directory_and_night(tmp_path: Path) -> None:
    found = sources(str(tmp_path / "raw"))
    try:
        found.sync(EVENING)
        (place,) = found.places
        assert place == Place(place.source, place.camera, place.directory, None)
        assert len({place, Place(place.source, place.camera, place.directory, NIGHT)}) == 2
    finally:
        found.stop()
