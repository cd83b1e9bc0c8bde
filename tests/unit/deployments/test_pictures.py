"""Live pictures on a terminal."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from deployments.cli.pictures import bars, blocks, picture_screen
from deployments.cli.registering import registered, running_monitors
from nightglass.monitor import AartfaacMonitor, AstroPix4Monitor, Monitor, Picture, TablePanel, TrafficMonitor
from nightglass.streams import DECODERS
from tests.unit.monitor.feeding import Came


def lines(picture: Picture, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(picture_screen(picture, width=width))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [40, 80, 150])
@pytest.mark.parametrize(
    ("monitor", "protocol"),
    [(AartfaacMonitor("x"), "aartfaac"), (AstroPix4Monitor("x"), "astropix"), (TrafficMonitor("x"), "astropix")],
)
def test_every_monitor_fits_the_terminal(monitor: Monitor, protocol: str, width: int) -> None:
    monitor.setup()
    assert lines(monitor.update(), width)
    monitor.process_many([Came(DECODERS[protocol].example(seed)) for seed in range(30)])
    shown = lines(monitor.update(), width)
    assert max(map(len, shown)) <= width
    assert any("30 " in line for line in shown)


def test_texts_are_shown_as_they_are() -> None:
    table = TablePanel(title="[red]t", columns=("[b]a", "n"), rows=(("[/]", 1),))
    shown = "\n".join(lines(Picture(title="T", message="[bold]m", panels=(table,), alarms=("[x]",)), 80))
    for text in ("[red]t", "[/]", "[bold]m", "! [x]"):
        assert text in shown


@given(st.lists(st.floats(0, 1e300), max_size=200), st.integers(1, 80))
def test_bars_are_as_wide_as_they_may_be(values: list[float], width: int) -> None:
    drawn = bars(values, width=width).plain.split("\n")
    assert len(drawn) == 6
    assert max(map(len, drawn)) <= width


def test_the_largest_bar_is_full_and_half_of_it_half() -> None:
    assert bars([0, 1, 2], width=3, height=2).plain == "  █\n ██"
    assert bars([1, 1, 2, 2], width=2, height=1).plain == "▄█"


def test_images_have_row_0_at_the_bottom() -> None:
    image = np.array([[0.0, 0.0], [1.0, np.nan]])
    drawn = blocks(image, 0, 1)
    assert drawn.plain == "▀▀"
    assert [str(span.style) for span in drawn.spans] == ["#fde725 on #440154", "default on #440154"]


def test_monitors_that_are_alive_are_linked_to(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with registered(run, "a", "http://127.0.0.1:1/"):
        assert not run.exists()
    run.mkdir()
    with registered(run, "a", "http://127.0.0.1:1/"):
        notes = list((run / "monitors").iterdir())
        assert len(notes) == 1
        assert running_monitors(run) == ()  # this process knows its own
        text = notes[0].read_text()
    assert list((run / "monitors").iterdir()) == []
    other = text.replace(f'"pid": {os.getpid()}', f'"pid": {os.getppid()}')
    (run / "monitors" / "b.json").write_text(other)
    (run / "monitors" / "gone.json").write_text(text.replace(f'"pid": {os.getpid()}', '"pid": 4194999'))
    (run / "monitors" / "evil.json").write_text(other.replace("http:", "javascript:"))
    (run / "monitors" / "torn.json").write_text("{")
    assert running_monitors(run) == ({"name": "a", "address": "http://127.0.0.1:1/"},)
