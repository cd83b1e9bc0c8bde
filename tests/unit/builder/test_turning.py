"""Exposure numbers that come again on another observing day."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from nightglass.builder.records import ExposureState, ExposureView, FrameState, FrameView, Instructions
from nightglass.builder.refusals import Complete, Unsaved
from nightglass.builder.turning import is_over
from nightglass.model import Night
from tests.unit.builder.desk import builder, image, pixels, wait_done

NOON = 1_800_000_000.0
HOUR_S = 3600.0


def yesterday(root: Path) -> Night:
    """Let all that is in a spool have happened a day earlier."""
    (night,) = (path for path in (root / "generic").iterdir() if path.name.isdecimal())
    label = (date.fromisoformat(f"{night.name[:4]}-{night.name[4:6]}-{night.name[6:]}") - timedelta(1)).strftime(
        "%Y%m%d"
    )
    for place in (night, root / "images" / "guider" / night.name):
        if place.exists():
            place.rename(place.with_name(label))
    for path in (root / "generic" / label).glob("builder/*/exposure.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"night": label}))
    for path in (root / "generic" / label).glob("builder/*/*/frame.json"):
        record = json.loads(path.read_text().replace(night.name, label))
        record["times"] = {name: at - 86400 for name, at in record["times"].items()}
        path.write_text(json.dumps(record))
    return Night(label)


def collected(root: Path, value: int, **settings: Any) -> Night:
    """Let an exposure 17 be collected by a builder a day ago."""
    with builder(root, outputs=True, **settings) as made:
        made.rois.accept([{"extension": "A", "x": 2, "y": 2, "size": 2}], expid=17)
        made.assign(17, 0, extensions=["A", "B"], timeout_s=0.05)
        made.accept(17, 0, "A", image(value))
        wait_done(made, 17, 0)
    return yesterday(root)


@pytest.mark.parametrize("way", ["assign", "push", "primary"])
def test_a_number_of_an_earlier_day_is_a_new_exposure(tmp_path: Path, way: str) -> None:
    night = collected(tmp_path, 1, local_copy=True)
    with builder(tmp_path, outputs=True, local_copy=True) as made:
        (written,) = made.frame(17, 0).files
        assert made.accept(17, 0, "A", image(1))[1]  # a repeat
        if way == "assign":
            made.assign(17, 0, extensions=["A"])
        elif way == "primary":
            made.accept(17, 0, "PRIMARY", None, header={"TILEID": 3})
        made.accept(17, 0, "A", image(5))
        made.build(17, 0)
        view = wait_done(made, 17, 0)
        exposure = made.exposure(17)
        assert (exposure.night.label > night.label, view.revision, len(view.extensions)) == (True, 1, 1)
        assert view.files != (written,)
        assert (pixels(view.files[0]), pixels(written)) == (5, 1)
        assert not list((tmp_path / "generic" / night.label / "builder").glob("*"))
        assert [event.data["night"] for event in made.events() if event.data.get("what") == "made_way"] == [night.label]
        assert json.loads((tmp_path / "run" / "rois-guider.json").read_text()) == {}  # regions were of the former
    with builder(tmp_path, outputs=True) as made:
        assert made.exposure(17).night == exposure.night


def test_what_is_not_saved_does_not_make_way(tmp_path: Path) -> None:
    night = collected(tmp_path, 1)
    with builder(tmp_path, outputs=True) as made:
        for call in (lambda: made.assign(17, 0, extensions=["A", "C"]), lambda: made.accept(17, 0, "A", image(5))):
            with pytest.raises(Unsaved, match=f"17 of {night.label}"):
                call()
        assert pixels(made.frame(17, 0).extensions[0].path) == 1
        made.accept(17, 0, "B", image(2))  # this one was awaited
        assert made.exposure(17).night == night
        assert wait_done(made, 17, 0).state is FrameState.BUILT
        made.write(17)
        made.finalize(17)  # something of it came just now, so that it would go on
        made.assign(17, 0, extensions=["A", "C"])
        assert made.exposure(17).night != night


def test_without_frames_that_nobody_assigned_an_assignment_alone_begins_anew(tmp_path: Path) -> None:
    collected(tmp_path, 1, preset="guider", local_copy=True)
    with builder(tmp_path, outputs=True, preset="guider", local_copy=True) as made:
        made.accept(17, 0, "B", image(2))
        wait_done(made, 17, 0)
        with pytest.raises(Complete):
            made.accept(17, 0, "A", image(5))
        made.finalize(17)
        made.assign(17, 0, extensions=["A"])
        made.accept(17, 0, "A", image(5))
        assert made.frame(17, 0).state is FrameState.BUILT


@pytest.mark.parametrize(
    ("later_s", "state", "frame_state", "exptime_s", "over"),
    [
        (0.5 * HOUR_S, ExposureState.OPEN, FrameState.BUILT, None, False),
        (2 * HOUR_S, ExposureState.OPEN, FrameState.BUILT, None, True),
        (2 * HOUR_S, ExposureState.OPEN, FrameState.BUILT, 2 * HOUR_S, False),
        (2 * HOUR_S, ExposureState.OPEN, FrameState.OPEN, None, False),
        (0.0, ExposureState.COMPLETE, FrameState.BUILT, None, True),
        (0.0, ExposureState.ARCHIVED, FrameState.BUILT, None, True),
    ],
)
def test_an_exposure_may_go_on_over_noon(
    later_s: float, state: ExposureState, frame_state: FrameState, exptime_s: float | None, over: bool
) -> None:
    instructions = Instructions(exptime_s=exptime_s)
    exposure = ExposureView(expid=1, night=Night("20270114"), state=state, instructions=instructions)
    view = FrameView(expid=1, frame=0, state=frame_state, times={"assigned": NOON - 10, "last": NOON})
    assert is_over(exposure, [view], Night("20270115"), NOON + later_s) is over
    for night in ("20270114", "20270113"):  # the same, or a clock that was set back
        assert not is_over(exposure, [view], Night(night), NOON + later_s)
