"""How a live picture looks on a terminal; pure: pictures in, renderables out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel as Frame
from rich.text import Text

from deployments.cli.screen import add_row, table
from nightglass.monitor import HistogramPanel, MapPanel, SeriesPanel, TablePanel

if TYPE_CHECKING:
    from nightglass.monitor import Panel, Picture

__all__ = ["bars", "blocks", "picture_screen"]

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_HALF = "▀"
_HIGH = 6
_WIDE = 50
_MAP = 36
_SMALL_MAP = 24
_SHADES = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""Five colours of the map that matplotlib calls viridis."""


def picture_screen(picture: Picture, *, width: int = 100) -> RenderableType:
    """Return the whole screen of a picture.

    Parameters
    ----------
    width : int
        Columns of the terminal.
    """
    figures = [
        *(Text.assemble((_short(value), "bold"), f" {name}") for name, value in picture.counters.items()),
        *(Text.assemble((_short(value), "bold bright_cyan"), f" {name}") for name, value in picture.rates.items()),
        *(
            Text.assemble((_short(value), "bold yellow" if value else "green"), f" {name}")
            for name, value in picture.losses.items()
        ),
    ]
    parts: list[RenderableType] = [Text(picture.message), Columns(figures, padding=(0, 3))]
    parts += [Text.assemble(("! ", "bold red"), alarm) for alarm in picture.alarms]
    plots = [panel for panel in picture.panels if not isinstance(panel, TablePanel)]
    # a few sky images beside one another are better than one large one
    most = _MAP if sum(isinstance(panel, MapPanel) for panel in plots) < 3 else _SMALL_MAP
    parts.append(Columns([_drawn(panel, min(_WIDE, width - 8), most) for panel in plots], padding=(1, 3)))
    tables = [panel for panel in picture.panels if isinstance(panel, TablePanel)]
    parts.append(Columns([_drawn(panel, width - 8, most) for panel in tables], padding=(1, 3)))
    title = f"[bold]Nightglass[/] · {picture.title}"
    return Frame(Group(*parts), title=title, title_align="left", border_style="bright_black", padding=(0, 1))


def bars(values: Sequence[float], *, width: int, height: int = _HIGH) -> Text:
    """Return a bar chart of eighths of cells; values that are too many are added up in groups."""
    found = np.nan_to_num(np.asarray(values, np.float64))
    if found.size > width:
        group = -(-found.size // width)
        found = np.pad(found, (0, -found.size % group)).reshape(-1, group).sum(axis=1)
    top = max(float(found.max(initial=0)), 1e-300)
    eighths = np.round(found / top * height * 8).astype(int)
    rows = [
        "".join(_EIGHTHS[min(8, max(0, int(level) - 8 * row))] for level in eighths)
        for row in range(height - 1, -1, -1)
    ]
    return Text("\n".join(rows), "bright_cyan")


def blocks(values: NDArray[Any], low: float, high: float, *, most: int = _MAP) -> Text:
    """Return an image of half blocks, two rows of pixels in a line; row 0 is at the bottom."""
    step = max(1, -(-max(values.shape) // most))
    small = np.asarray(values, np.float64)[::step, ::step][::-1]
    if small.shape[0] % 2:
        small = np.vstack([small, np.full((1, small.shape[1]), np.nan)])
    share = (small - low) / ((high - low) or 1)
    text = Text()
    for upper, lower in zip(share[::2], share[1::2], strict=True):
        for one, two in zip(upper, lower, strict=True):
            text.append(_HALF, f"{_colour(one)} on {_colour(two)}")
        text.append("\n")
    text.rstrip()
    return text


def _drawn(panel: Panel, width: int, most: int) -> RenderableType:
    parts: list[RenderableType] = [Text(panel.title, "bold")]
    if isinstance(panel, HistogramPanel):
        ends = f"{_short(panel.edges[0])} to {_short(panel.edges[-1])}   largest {_short(max(panel.contents))}"
        parts += [bars(panel.contents, width=width), Text(f"{panel.x_label}: {ends}", "bright_black")]
    elif isinstance(panel, MapPanel):
        finite = np.asarray(panel.values)[np.isfinite(panel.values)]
        low, high = panel.shown or ((float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0))
        scale = f"{panel.value_label}: {_short(low)} to {_short(high)}"
        parts += [blocks(panel.values, low, high, most=most), Text(scale, "bright_black")]
    elif isinstance(panel, SeriesPanel):
        for one in panel.series:
            last = f" {one.name}: {_short(one.y[-1])}" if one.y else f" {one.name}"
            parts.append(bars(one.y[-width:], width=width, height=1 if len(panel.series) > 1 else 3).append(last))
        parts.append(Text(f"{panel.y_label} against {panel.x_label}", "bright_black"))
    elif isinstance(panel, TablePanel):
        parts.append(_table(panel))
    if panel.note:
        parts.append(Text(panel.note, "bright_black"))
    return Group(*parts)


def _table(panel: TablePanel) -> RenderableType:
    if not panel.rows:
        return Text("nothing yet", "bright_black")
    numeric = [not isinstance(cell, str) for cell in panel.rows[0]]
    made = table(*(f">{name}" if right else name for name, right in zip(panel.columns, numeric, strict=True)))
    for row in panel.rows:
        add_row(made, *(cell if isinstance(cell, str) else _short(cell) for cell in row))
    return made


def _colour(share: float) -> str:
    if share != share:
        return "default"
    place = min(1.0, max(0.0, share)) * (len(_SHADES) - 1)
    lower = min(int(place), len(_SHADES) - 2)
    mixed = (round(a + (b - a) * (place - lower)) for a, b in zip(_SHADES[lower], _SHADES[lower + 1], strict=True))
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def _short(value: float) -> str:
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else f"{value:.4g}"
