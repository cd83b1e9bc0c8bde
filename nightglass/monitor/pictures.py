"""What a live monitor shows at one moment, as plain values: panels, a message row, traffic and alarms."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightglass.monitor.histograms import Histogram1d

__all__ = ["HistogramPanel", "MapPanel", "Panel", "Picture", "Series", "SeriesPanel", "TablePanel", "shrink"]

_STEPS = 65534
_BLANK = 65535
Number = float | int


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramPanel:
    """A histogram with error bars.

    Attributes
    ----------
    title : str
    edges : tuple of float
        One more than there are contents.
    contents, errors : tuple of float
    x_label, y_label : str
        With units.
    note : str
        One line: entries, mean, what lies outside.
    """

    title: str
    edges: tuple[float, ...]
    contents: tuple[float, ...]
    errors: tuple[float, ...]
    x_label: str
    y_label: str = "entries"
    note: str = ""

    @classmethod
    def of(cls, histogram: Histogram1d, *, title: str, y_label: str = "entries", note: str = "") -> HistogramPanel:
        """Return the panel of a histogram, as it is now."""
        return cls(
            title=title,
            edges=tuple(histogram.edges[0].tolist()),
            contents=tuple(histogram.contents.tolist()),
            errors=tuple(histogram.errors.tolist()),
            x_label=histogram.labels[0],
            y_label=y_label,
            note=note,
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "kind": "histogram",
            "title": self.title,
            "edges": _plain(self.edges),
            "contents": _plain(self.contents),
            "errors": _plain(self.errors),
            "x_label": self.x_label,
            "y_label": self.y_label,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MapPanel:
    """An image, or a histogram of two dimensions.

    Attributes
    ----------
    title : str
    values : ndarray, (rows, columns)
        Row 0 is at the bottom. NaN stays blank. It must not be written to any more.
    extent : tuple of float
        Left, right, bottom and top edge, in the units of the labels.
    x_label, y_label, value_label : str
        With units.
    shown : tuple of float or None
        Values at the ends of the colour bar; None: the smallest and the largest.
    note : str
    """

    title: str
    values: NDArray[Any]
    extent: tuple[float, float, float, float]
    x_label: str
    y_label: str
    value_label: str
    shown: tuple[float, float] | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return plain values; pixels as base64 of little-endian uint16 between `low` and `high`, 65535 is blank."""
        values = np.asarray(self.values, np.float64)
        finite = np.isfinite(values)
        low, high = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 0.0)
        span = high - low
        # half of each, so that the whole range of float64 has a span
        share = np.where(finite, values, low) / 2 - low / 2
        steps = np.round(share * (_STEPS / (span / 2))) if 0 < span < math.inf else np.zeros(values.shape)
        codes = np.where(finite, np.clip(steps, 0, _STEPS), _BLANK).astype("<u2")
        shown = self.shown or (low, high)
        return {
            "kind": "map",
            "title": self.title,
            "shape": list(values.shape),
            "data": base64.b64encode(codes.tobytes()).decode(),
            "low": low,
            "high": high,
            "shown": _plain(shown),
            "extent": _plain(self.extent),
            "x_label": self.x_label,
            "y_label": self.y_label,
            "value_label": self.value_label,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Series:
    """A curve: a name for the legend, and its points."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPanel:
    """Curves over a common axis."""

    title: str
    series: tuple[Series, ...]
    x_label: str
    y_label: str
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        curves = [{"name": one.name, "x": _plain(one.x), "y": _plain(one.y)} for one in self.series]
        return {
            "kind": "series",
            "title": self.title,
            "series": curves,
            "x_label": self.x_label,
            "y_label": self.y_label,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePanel:
    """A small table; a cell that is a number is aligned to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | Number, ...], ...]
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        rows = [[cell if isinstance(cell, str) else _number(cell) for cell in row] for row in self.rows]
        return {"kind": "table", "title": self.title, "columns": list(self.columns), "rows": rows, "note": self.note}


Panel = HistogramPanel | MapPanel | SeriesPanel | TablePanel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """Everything that a monitor shows at one moment.

    Attributes
    ----------
    title : str
    message : str
        The message row.
    panels : tuple of Panel
    counters : mapping
        Name -> number; what a viewer wants to see at a glance.
    rates : mapping
        Name with unit -> number a second. Filled in by `run_monitor`, as is all that follows.
    losses : mapping
        Name -> number: what was lost, dropped or damaged, zeros included.
    alarms : tuple of str
        What a person ought to know now.
    number : int
        Counts up with each picture.
    at : float
        Epoch seconds.
    """

    title: str
    message: str = ""
    panels: tuple[Panel, ...] = ()
    counters: Mapping[str, Number] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    losses: Mapping[str, Number] = field(default_factory=dict)
    alarms: tuple[str, ...] = ()
    number: int = 0
    at: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return plain values: no NaN, no arrays."""
        return {
            "title": self.title,
            "message": self.message,
            "panels": [panel.as_json() for panel in self.panels],
            "counters": {name: _number(value) for name, value in self.counters.items()},
            "rates": {name: _number(value) for name, value in self.rates.items()},
            "losses": {name: _number(value) for name, value in self.losses.items()},
            "alarms": list(self.alarms),
            "number": self.number,
            "at": self.at,
        }

    def to_text(self) -> str:
        """Return one line of JSON."""
        return json.dumps(self.as_json(), allow_nan=False, separators=(",", ":"))


def shrink(image: NDArray[np.floating], *, most: int) -> NDArray[np.float32]:
    """Return an image of at most so many rows and columns: means over blocks, NaN where any pixel of a block is.

    Rows and columns beyond the last whole block are left out.

    Parameters
    ----------
    image : ndarray, (rows, columns)
    most : int
    """
    rows, columns = image.shape
    step = max(1, math.ceil(max(rows, columns) / most))
    tall, wide = max(1, rows // step), max(1, columns // step)
    down, across = min(step, rows), min(step, columns)
    cut = image[: tall * down, : wide * across]
    # along memory first: images of AARTFAAC have contiguous columns
    if cut.strides[0] < cut.strides[1]:
        means = cut.T.reshape(wide, across, tall, down).mean(axis=3).mean(axis=1).T
    else:
        means = cut.reshape(tall, down, wide, across).mean(axis=3).mean(axis=1)
    return np.ascontiguousarray(means, np.float32)


def _plain(values: Sequence[float]) -> list[Number | None]:
    return [_number(value) for value in values]


def _number(value: Number) -> Number | None:
    if isinstance(value, (int, np.integer)):
        return int(value)
    return float(value) if math.isfinite(value) else None
