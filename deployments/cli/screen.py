"""How a night looks on a terminal; pure: views in, renderables out."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from nightglass.model import Quality, State

if TYPE_CHECKING:
    from deployments.cli.view import NightView
    from nightglass.ledger import ArchiveState, Entry, StageRecord

__all__ = ["STATE_STYLES", "add_row", "bar", "brief", "duration", "night_screen", "output", "problems", "table"]

STATE_STYLES = {
    State.REDUCED: "green",
    State.RUNNING: "bright_cyan",
    State.GROUPED: "cyan",
    State.COMPLETE: "blue",
    State.SEEN: "bright_black",
    State.WAITING: "yellow",
    State.SKIPPED: "bright_black",
    State.REJECTED: "magenta",
    State.FAILED: "bold red",
}
"""In the order in which they are shown: the way of an exposure, then the side tracks."""
_QUALITY_STYLES = {Quality.OK: "green", Quality.WARNING: "yellow", Quality.BAD: "red"}
_BAR = 48
_MEASURES = (("seeing", '{:.2f}"'), ("background", "{:.0f} e"), ("sources", "{:.0f}"))
_WIDE = 100
_DIRECTORIES = re.compile(r"(?<![\w:/])/(?:[^\s/:]+/)+")


def output() -> Console:
    """Return the console that commands write to."""
    return Console(highlight=False)


def table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table in the house's style; a column that begins with ``>`` is aligned to the right."""
    made = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        title=Text(title, "bold") if title else None,
        title_justify="left",
        pad_edge=False,
    )
    for column in columns:
        made.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    return made


def add_row(made: Table, *cells: RenderableType, style: str | None = None) -> None:
    """Add a row whose texts are shown as they are: brackets in a reason or a path are no markup."""
    made.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells), style=style)


_SERVING = "serving"
"""Phase of a process that has image builders and runs no night."""


def night_screen(view: NightView, *, width: int = _WIDE) -> RenderableType:
    """Return the whole screen of a night.

    Parameters
    ----------
    width : int
        Columns of the terminal; below 100 the measured quantities are left out.
    """
    parts: list[RenderableType] = [_headline(view), bar(view.counts), _legend(view), _facts(view)]
    if view.recent:
        parts += ["", _recent(view, wide=width >= _WIDE)]
    if view.errors:
        parts += ["", problems(view)]
    parts += [Text.assemble(("! ", "bold red"), alarm) for alarm in _alarms(view)]
    cameras = ", ".join(view.cameras) or "no camera"
    return Panel(
        Group(*parts),
        title=f"[bold]Nightglass[/] · {cameras} · night {view.night}",
        title_align="left",
        border_style="bright_black",
        padding=(0, 1),
    )


def bar(counts: dict[State, int], *, width: int = _BAR) -> Text:
    """Return a bar that is divided as the states are; each state that occurs gets at least one cell."""
    total = sum(counts.values())
    if not total:
        return Text("─" * width, style="bright_black")
    cells = {state: max(1, width * count // total) for state, count in counts.items() if count}
    cells[max(cells, key=lambda state: counts[state])] += width - sum(cells.values())
    return Text.assemble(*(("━" * cells[state], style) for state, style in STATE_STYLES.items() if state in cells))


def problems(view: NightView, *, limit: int = 6) -> Table:
    """Return what went wrong, by cause."""
    made = table("state", ">exposures", "reason", "for example")
    for item in view.errors[:limit]:
        examples = ", ".join(name.rsplit("/", 1)[-1] for name in item.examples[:2])
        add_row(made, Text(item.state.value, STATE_STYLES[item.state]), str(item.count), brief(item.reason), examples)
    if len(view.errors) > limit:
        add_row(made, "", "", Text(f"and {len(view.errors) - limit} more causes", "bright_black"), "")
    return made


def brief(reason: str) -> str:
    """Return a reason without the directories of the paths in it: the example says which file it is."""
    return _DIRECTORIES.sub("", reason)


def duration(seconds: float) -> str:
    """Return a time span as people say it: ``0.61 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def _headline(view: NightView) -> Text:
    done = view.counts.get(State.REDUCED, 0)
    text = Text.assemble((f"{done}", "bold green"), f" of {view.total} exposures reduced")
    if view.latency_s:
        p50, p95 = view.latency_s
        text.append(f"   latency p50 {duration(p50)}, p95 {duration(p95)}")
    style = "yellow" if view.lag_s > 10 else ""
    return text.append("   lag ").append(duration(view.lag_s), style)


def _legend(view: NightView) -> Columns:
    shown = [
        Text.assemble(("━ ", style), f"{state.value} {view.counts[state]}")
        for state, style in STATE_STYLES.items()
        if view.counts.get(state)
    ]
    return Columns(shown or [Text("no exposure yet", "bright_black")], padding=(0, 2))


def _facts(view: NightView) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bright_black")
    grid.add_column(overflow="fold")
    if view.watches:
        add_row(grid, "watch", Group(*(_watch(view, index) for index in range(len(view.watches)))))
    if view.stages:
        add_row(grid, "stages", Text("   ").join(_stage(stage, view.at) for stage in view.stages))
    if any(view.archives.values()):
        add_row(grid, "archive", _archives(view.archives))
    if any(view.built.values()):
        add_row(grid, "built cubes", _archives(view.built))
    if view.ui_url:
        add_row(grid, "Prefect", Text.assemble((view.ui_url, f"link {view.ui_url} underline")))
    add_row(grid, "disk", f"{view.disk.free_gib:.1f} GiB free of {view.disk.total_gib:.1f}")
    return grid


def _archives(states: Mapping[ArchiveState, int]) -> Text:
    styles = {"archived": "green", "failed": "bold red", "running": "bright_cyan"}
    counts = [(state.value, count) for state, count in states.items() if count]
    return Text(", ").join(Text(f"{count} {name}", styles.get(name, "")) for name, count in counts)


def _watch(view: NightView, index: int) -> Text:
    beat = view.watches[index]
    text = Text(beat.phase if beat.phase == _SERVING else f"{beat.phase}, {beat.queued} queued, {beat.running} running")
    state = str(beat.breaker.get("state", ""))
    if state == "open":
        text.append(f"   breaker open: {beat.breaker.get('reason', '')}", "yellow")
    elif state:
        text.append(f"   breaker {state}")
    for source in beat.sources:
        if source.get("error"):
            text.append(f"   {source['directory']}: {source['error']}", "red")
    for stream in beat.streams:
        text.append("\n")
        text.append_text(_stream(stream))
    for builder in beat.builders:
        text.append(f"\nimage builder {builder['name']} at {builder['address'] or 'no port yet'}: ")
        kept = f"{builder['frames']} frames of {builder['exposures']} exposures kept"
        text.append(f"{kept}, {builder['unsaved']} not saved")
    return text


def _stream(state: Mapping[str, Any]) -> Text:
    text = Text(f"stream {state['name']}: {state['messages']} messages, {state['bytes'] / 2**20:.1f} MiB")
    text.append(f", {state['files']} files, lag {state['lag_s']:.1f} s")
    counts = [(name, state[name]) for name in ("waiting", "partial", "late", "lost", "dropped") if state[name]]
    for name, count in counts:
        text.append(f", {count} {name}", "" if name == "waiting" else "yellow")
    if state["error"]:
        text.append(f"   {state['error']}", "red")
    return text


def _stage(stage: StageRecord, at: float) -> Text:
    left, pending = stage.due.timestamp() - at, stage.state.value == "pending"
    when = {
        "pending": f"in {duration(left)}" if left > 0 else f"due {duration(-left)} ago",
        "running": "running",
        "done": "done",
        "failed": f"failed: {stage.reason}",
    }[stage.state.value]
    style = {"done": "green", "failed": "red", "running": "bright_cyan"}.get(stage.state.value, "")
    return Text.assemble(
        f"{stage.stage.value} ", (when, style), f" ({stage.due:%H:%M} UTC)" if pending and left > 0 else ""
    )


def _recent(view: NightView, *, wide: bool) -> Table:
    measures = _MEASURES if wide else ()
    made = table("exposure", "kind", "filter", ">latency", *(f">{name}" for name, _ in measures), "quality", ">ago")
    for entry in view.recent:
        add_row(made, *_recent_row(entry, view.at, measures))
    return made


def _recent_row(entry: Entry, at: float, measures: Iterable[tuple[str, str]]) -> list[RenderableType]:
    quality = entry.quality
    latency = duration(entry.latency_s) if entry.latency_s is not None else ""
    return [
        entry.exposure_id.rsplit("/", 1)[-1],
        entry.kind.value if entry.kind else "",
        entry.ref.filter if entry.ref else "",
        latency,
        *(_measured(entry, name, form) for name, form in measures),
        Text(quality.value, _QUALITY_STYLES[quality]) if quality else "",
        duration(float(round(max(0.0, at - entry.times.get("reduced", at))))).replace(".00", ""),
    ]


def _measured(entry: Entry, name: str, form: str) -> str:
    value = entry.measured.get(name)
    if name == "seeing" and value == entry.measured.get("fwhm_pixels"):
        form = "{:.2f} px"  # the scale of the camera is not known
    return form.format(value) if isinstance(value, (int, float)) and value == value else ""


def _alarms(view: NightView) -> list[str]:
    found = [f"{alarm.get('subject', '')}: {alarm.get('text', '')}" for beat in view.watches for alarm in beat.alarms]
    silent = [beat for beat in view.watches if time.time() - beat.at > 5]
    return found + [f"the watch {beat.pid} has been silent for {time.time() - beat.at:.0f} s" for beat in silent]
