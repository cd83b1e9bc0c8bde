"""The screens of a night: whatever a night is like, they fit the terminal and show texts as they are."""

from __future__ import annotations

import io
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from deployments.cli.closing import closing
from deployments.cli.screen import STATE_STYLES, bar, brief, duration, night_screen
from deployments.cli.view import Disk, NightView, as_json, look_without_ledger
from nightglass.config import Observatory
from nightglass.layout import Layout
from nightglass.ledger import ArchiveState, Entry, ErrorSummary, StageRecord, StageState
from nightglass.model import ExposureRef, Kind, Night, Quality, Stage, State
from nightglass.watch.heartbeat import Heartbeat, write_heartbeat
from nightglass.watch.streamline import StreamState

NIGHT = Night("20260821")
NOW = 1_787_400_000.0


def entry(number: int) -> Entry:
    ref = ExposureRef(
        exposure_id=f"lynx/20260821/{number}",
        night=NIGHT,
        camera="lynx",
        kind=Kind.SCIENCE,
        path=Path("raw.fits"),
        size=1,
        content_id="c",
        started_at=datetime.fromtimestamp(NOW, UTC),
        filter="[r]",
    )
    return Entry(
        key=str(number),
        camera="lynx",
        night=NIGHT,
        path=ref.path,
        size=1,
        mtime_ns=1,
        content_id="c",
        exposure_id=ref.exposure_id,
        revision=1,
        state=State.REDUCED,
        reason="",
        cause="",
        kind=Kind.SCIENCE,
        ref=ref,
        group_id="",
        token="",
        owner="",
        lease_until=None,
        attempts=1,
        retry_at=None,
        quality=Quality.WARNING,
        masters=(),
        measured={"seeing": 1.234, "background": float("nan"), "sources": 312},
        timings={},
        latency_s=0.61,
        times={"reduced": NOW - 75},
    )


def view(**changes: object) -> NightView:
    stage = StageRecord(
        night=NIGHT,
        camera="lynx",
        stage=Stage.FINAL,
        due=datetime.fromtimestamp(NOW, UTC) + timedelta(hours=3, minutes=20),
        state=StageState.PENDING,
        owner="",
        lease_until=None,
        attempts=0,
        summary={},
        reason="",
        started_at=None,
        ended_at=None,
    )
    beat = Heartbeat(
        pid=7,
        at=NOW,
        started=NOW,
        phase="watching",
        cameras=["lynx"],
        breaker={"state": "open", "reason": "Prefect does not answer; work goes on without it"},
        alarms=[{"subject": "Lag", "text": "75 s"}],
    )
    trouble = ErrorSummary(
        state=State.REJECTED,
        cause="Rejected",
        reason="/data/raw/a.fits: section [1:650,1:500] [/] leaves the image",
        count=2,
        examples=("/data/raw/a.fits",),
    )
    values: dict[str, object] = {
        "at": NOW,
        "night": NIGHT,
        "cameras": ("lynx",),
        "counts": dict.fromkeys(State, 0) | {State.REDUCED: 31, State.REJECTED: 2},
        "latency_s": (0.61, 1.34),
        "lag_s": 0.4,
        "waiting": {},
        "errors": (trouble,),
        "stages": (stage,),
        "recent": (entry(42),),
        "disk": Disk(812.3, 1024.0),
        "watches": (beat,),
        "ui_url": "http://127.0.0.1:4200",
    }
    return NightView(**(values | changes))  # type: ignore[arg-type]


def printed(screen: RenderableType, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(screen)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_stream_shows_what_came_and_what_did_not() -> None:
    state = StreamState(name="sky", camera="aartfaac", protocol="aartfaac", messages=60, bytes=3 << 20, files=9, late=2)
    beat = replace(view().watches[0], streams=[asdict(state), asdict(replace(state, name="hits", error="refused"))])
    text = printed(night_screen(view(watches=(beat,)), width=140))
    assert "stream sky: 60 messages, 3.0 MiB, 9 files, lag 0.0 s, 2 late" in text
    assert "refused" in text
    assert "lost" not in text


def test_cubes_of_image_builders_are_counted_apart() -> None:
    built = view(archives={ArchiveState.ARCHIVED: 4}, built={ArchiveState.ARCHIVED: 3, ArchiveState.FAILED: 1})
    lines = [" ".join(line.strip("│ ").split()) for line in printed(night_screen(built, width=140)).splitlines()]
    assert {"archive 4 archived", "built cubes 3 archived, 1 failed"} <= set(lines)
    assert as_json(built)["built_archives"] == {"archived": 3, "failed": 1}


def test_the_screen_tells_what_matters() -> None:
    text = printed(night_screen(view(), width=140))
    for words in (
        "31 of 33 exposures reduced",
        "latency p50 0.61 s, p95 1.34 s",
        "breaker open: Prefect does not answer; work goes on without it",
        "final in 3 h 20 min",
        "http://127.0.0.1:4200",
        "812.3 GiB free",
        '1.23"',
        "warning",
        "75 s",
        "Lag: 75 s",
        "a.fits: section [1:650,1:500] [/] leaves the image",
        "[r]",
    ):
        assert words in text
    assert "/data/raw" not in text
    assert "nan" not in text


def test_a_server_with_image_builders_is_no_watch() -> None:
    state = {"name": "guider", "address": "", "exposures": 2, "frames": 9, "unsaved": 1}
    text = printed(
        night_screen(view(watches=(replace(view().watches[0], phase="serving", builders=[state]),)), width=140)
    )
    assert "serving" in text
    assert "queued" not in text
    assert "image builder guider at no port yet: 9 frames of 2 exposures kept, 1 not saved" in text


def test_a_stage_that_is_done_has_no_time_and_pixels_are_no_arcseconds() -> None:
    done = replace(view().stages[0], state=StageState.DONE)
    seen = replace(entry(42), measured={"seeing": 2.5, "fwhm_pixels": 2.5})
    text = printed(night_screen(view(stages=(done,), recent=(seen,)), width=140))
    assert f"{done.stage.value} done " in text
    assert "UTC" not in text
    assert "2.50 px" in text


def test_what_lives_is_shown_before_the_first_exposure(tmp_path: Path) -> None:
    observatory, layout = Observatory(root=tmp_path), Layout(tmp_path)
    assert look_without_ledger(observatory, NIGHT) is None
    layout.run.mkdir()
    write_heartbeat(layout.run / "watch.json", replace(view().watches[0], at=time.time(), phase="serving"))
    early = look_without_ledger(observatory, NIGHT)
    assert early is not None
    assert "lynx" in printed(night_screen(early))
    assert as_json(early)["total"] == 0


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_screens_fit_the_terminal(width: int, tmp_path: Path) -> None:
    for screen in (night_screen(view(), width=width), closing(view(), Layout(tmp_path))):
        assert max(len(line) for line in printed(screen, width).splitlines()) <= width


def test_an_empty_night_has_a_screen_too(tmp_path: Path) -> None:
    empty = view(
        counts=dict.fromkeys(State, 0),
        latency_s=None,
        errors=(),
        stages=(),
        recent=(),
        watches=(),
        cameras=(),
        ui_url="",
    )
    assert "no exposure yet" in printed(night_screen(empty))
    assert "20260821" in printed(closing(empty, Layout(tmp_path)))
    assert as_json(empty)["latency_s"] == {"p50": None, "p95": None}


@given(st.dictionaries(st.sampled_from(list(State)), st.integers(0, 10**6)))
def test_a_bar_shows_every_state_that_occurs(counts: dict[State, int]) -> None:
    drawn = bar(counts)
    assert len(drawn) == 48
    occurring = {state for state, count in counts.items() if count}
    assert {span.style for span in drawn.spans} == {STATE_STYLES[state] for state in occurring}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.00 s"), (0.614, "0.61 s"), (11.8, "12 s"), (119, "119 s"), (121, "2 min"), (12_000, "3 h 20 min")],
)
def test_durations_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_reason_loses_its_directories_only() -> None:
    assert brief("/data/x/raw/a.fits: still growing, 1/2 of it, see http://h/p/q") == (
        "a.fits: still growing, 1/2 of it, see http://h/p/q"
    )
