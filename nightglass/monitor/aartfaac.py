"""The monitor of a radio sky: the newest image of each sub-band, its noise, and how far behind it is."""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from nightglass.monitor.feeds import Arrival
from nightglass.monitor.monitor import Monitor
from nightglass.monitor.pictures import MapPanel, Panel, Picture, Series, SeriesPanel, TablePanel, shrink
from nightglass.streams.aartfaac import Window, WindowStatus

__all__ = ["AartfaacMonitor", "clipped_rms"]

_MOST_BANDS = 64
_MOST_SHOWN = 12
_CLIP_SIGMA = 3.0
_CLIP_ROUNDS = 8
_SAMPLE = 256
_UNIT = re.compile(r"BUNIT   = '([^']{1,40})'")


@dataclass(slots=True)
class _Band:
    """What is kept of one sub-band; images only shrunk."""

    frequency_hz: float | None
    peer: str
    windows: int = 0
    stamp: datetime | None = None
    lag_s: float = math.nan
    rms: float = math.nan
    blank: float = 0.0
    flat: bool = False
    shape: tuple[int, int] = (0, 0)
    unit: str = ""
    image: NDArray[np.float32] = field(default_factory=lambda: np.full((1, 1), np.nan, np.float32))
    history: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=300))

    @property
    def name(self) -> str:
        """The frequency, or who sent it where there is none."""
        return self.peer if self.frequency_hz is None else f"{self.frequency_hz / 1e6:.3f} MHz"

    @property
    def quality(self) -> str:
        """One word: whether the newest image can be used."""
        if self.flat or not math.isfinite(self.rms):
            return "flat or empty"
        return "NaN pixels" if self.blank else "ok"


class AartfaacMonitor(Monitor[Window]):
    """Shows the sub-bands of a stream of images.

    Parameters
    ----------
    address : str
        What the message row calls the source.
    pixels : int
        Images are shrunk to at most so many rows and columns.
    """

    title = "AARTFAAC"
    batch = 16

    def __init__(self, address: str = "", *, pixels: int = 128) -> None:
        self._address = address
        self._pixels = pixels

    def setup(self) -> None:
        """Forget all sub-bands."""
        self._bands: dict[float | str, _Band] = {}
        self._faults: Counter[str] = Counter()
        self._windows = self._unshown = 0

    def process(self, message: Window) -> None:
        """Take one window, of which it is not known when and how it came."""
        self._show(self._note(message, "", math.nan), message)

    def process_many(self, arrivals: Sequence[Arrival[Window]]) -> None:
        """Take windows; noise is measured in each, but only the newest image of each sub-band is shrunk."""
        newest: dict[int, tuple[_Band, Window]] = {}
        for arrival in arrivals:
            stamp = arrival.message.timestamp
            lag = (arrival.received_at - stamp).total_seconds() if stamp else math.nan
            band = self._note(arrival.message, arrival.peer, lag)
            if band is not None:
                newest[id(band)] = band, arrival.message
        for band, window in newest.values():
            self._show(band, window)

    def _note(self, window: Window, peer: str, lag_s: float) -> _Band | None:
        self._windows += 1
        self._faults.update(str(bit.name) for bit in window.status if bit is not WindowStatus.BYTES_SWAPPED)
        key = peer if window.frequency_hz is None else window.frequency_hz
        if key not in self._bands and len(self._bands) >= _MOST_BANDS:
            self._unshown += 1
            return None
        band = self._bands.setdefault(key, _Band(window.frequency_hz, peer))
        band.windows += 1
        band.stamp, band.lag_s, band.shape = window.timestamp, lag_s, (window.pixels.shape[0], window.pixels.shape[1])
        band.rms = clipped_rms(window.pixels)
        if window.timestamp and math.isfinite(band.rms):
            band.history.append((window.timestamp.timestamp(), band.rms))
        return band

    def _show(self, band: _Band | None, window: Window) -> None:
        if band is None:
            return
        finite = np.isfinite(window.pixels)
        band.blank = 1 - float(finite.mean())
        band.flat = band.rms == 0 or not finite.any()
        unit = _UNIT.search(window.header)
        band.unit = unit.group(1).strip() if unit else ""
        band.image = shrink(window.pixels, most=self._pixels)

    def update(self) -> Picture:
        """Return images in the order of frequency, noise over time, and a table of the sub-bands."""
        bands = sorted(self._bands.values(), key=lambda band: (band.frequency_hz or math.inf, band.peer))
        stamps = [band.stamp for band in bands if band.stamp]
        newest = max(stamps, default=None)
        when = f", newest {newest.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if newest else ""
        behind = [band.lag_s for band in bands if math.isfinite(band.lag_s)]
        counters: dict[str, float | int] = {"windows": self._windows, "sub-bands": len(bands)}
        if behind:
            counters["largest lag [s]"] = round(max(behind), 2)
        return Picture(
            title=self.title,
            message=f"{self._address or 'windows'}: {self._windows} windows of {len(bands)} sub-bands{when}",
            panels=(*(_image(band) for band in bands[:_MOST_SHOWN]), *_noise(bands, newest), _table(bands, newest)),
            counters=counters,
            losses={name.lower().replace("_", " "): count for name, count in sorted(self._faults.items())},
            alarms=(f"{self._unshown} windows of more than {_MOST_BANDS} sub-bands not shown",) * bool(self._unshown),
        )


def clipped_rms(image: NDArray[np.floating]) -> float:
    """Return the noise of an image: the standard deviation of its middle, without what is beyond three of them.

    Clipping is repeated until nothing more goes, up to eight times, as TraP measures the noise that it rejects images
    by (`tkp/quality/statistics.py`). The middle is the inner half of rows and columns, of which each pixel, or each
    few pixels one, is looked at. NaN where nothing is finite.
    """
    rows, columns = image.shape
    down, across = max(1, rows // 2 // _SAMPLE), max(1, columns // 2 // _SAMPLE)
    middle = image[rows // 4 : rows - rows // 4 : down, columns // 4 : columns - columns // 4 : across]
    values = middle[np.isfinite(middle)].astype(np.float64)
    for _ in range(_CLIP_ROUNDS):
        if not values.size:
            return math.nan
        kept = values[np.abs(values - np.median(values)) <= _CLIP_SIGMA * values.std()]
        if kept.size in (0, values.size):
            break
        values = kept
    return float(values.std()) if values.size else math.nan


def _image(band: _Band) -> Panel:
    finite = band.image[np.isfinite(band.image)]
    shown = None
    if finite.size:
        low, high = np.percentile(finite, (1, 99.5)).tolist()
        shown = (low, high) if high > low else None
    rows, columns = band.shape
    return MapPanel(
        title=band.name,
        values=band.image,
        extent=(0.5, columns + 0.5, 0.5, rows + 0.5),
        x_label="x [pixel]",
        y_label="y [pixel]",
        value_label=f"brightness [{band.unit or 'as sent'}]",
        shown=shown,
        note=f"rms {band.rms:.4g}; {band.quality}",
    )


def _noise(bands: Sequence[_Band], newest: datetime | None) -> tuple[Panel, ...]:
    if newest is None:
        return ()
    units = {band.unit for band in bands}
    unit = units.pop() if len(units) == 1 else ""
    zero = newest.timestamp()
    curves = tuple(
        Series(band.name, tuple(when - zero for when, _ in band.history), tuple(rms for _, rms in band.history))
        for band in bands[:_MOST_SHOWN]
    )
    label = f"rms [{unit or 'as sent'}]"
    return (SeriesPanel(title="Noise", series=curves, x_label="time before the newest image [s]", y_label=label),)


def _table(bands: Sequence[_Band], newest: datetime | None) -> Panel:
    rows = []
    for band in bands:
        behind = (newest - band.stamp).total_seconds() if newest and band.stamp else math.nan
        size = f"{band.shape[1]} × {band.shape[0]}"  # noqa: RUF001 - the sign that people read
        rows.append((band.name, band.windows, size, band.rms, 100 * band.blank, band.lag_s, behind, band.quality))
    columns = ("sub-band", "windows", "pixels", "rms", "blank [%]", "lag [s]", "behind others [s]", "quality")
    return TablePanel(title="Sub-bands", columns=columns, rows=tuple(rows))
