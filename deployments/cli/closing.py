"""What is left when a night is over: counts, latency, and where everything lies."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deployments.cli.screen import STATE_STYLES, add_row, bar, duration, problems, table
from deployments.cli.view import NightView
from nightglass.layout import Layout
from nightglass.model import Stage

__all__ = ["closing"]

_PLACES = (("products", "reduced", "*.fits"), ("quick looks", "quicklook", "*.png"), ("masters", "masters", "*.fits"))
_MORE = (("stacks", "stacks", "*.fits"),)


def closing(view: NightView, layout: Layout) -> RenderableType:
    """Return the closing screen of a night."""
    parts: list[RenderableType] = [
        Text(f"Night {view.night} of {', '.join(view.cameras) or 'no camera'}", "bold"),
        bar(view.counts),
        "",
        _counts(view),
    ]
    if view.errors:
        parts += ["", problems(view)]
    return Group(*parts, "", _places(view, layout))


def _counts(view: NightView) -> Table:
    made = table("state", ">exposures")
    for state, style in STATE_STYLES.items():
        if count := view.counts.get(state, 0):
            add_row(made, Text(state.value, style), str(count))
    add_row(made, "all", str(view.total), style="bold")
    if view.latency_s:
        made.add_section()
        for name, seconds in zip(("median latency", "95 % below"), view.latency_s, strict=True):
            add_row(made, name, duration(seconds))
    return made


def _places(view: NightView, layout: Layout) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bright_black")
    grid.add_column(justify="right")
    grid.add_column(overflow="fold")
    for camera in view.cameras:
        night = layout.night(camera, view.night)
        for name, directory, pattern in (*_PLACES, *_MORE):
            if files := list((night / directory).glob(pattern)):
                add_row(grid, name, str(len(files)), _path(night / directory))
        reports = [layout.report(camera, view.night, stage, ".html") for stage in (Stage.FINAL, Stage.MIDWAY)]
        for name, path in (("report", _first(reports)), ("log", layout.log(camera, view.night))):
            if path is not None and path.exists():
                add_row(grid, name, "", _path(path))
    return grid


def _first(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def _path(path: Path) -> Text:
    return Text.assemble((str(path), f"link {path.as_uri()}"))
