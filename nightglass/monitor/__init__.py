"""The live monitor: what comes over a stream, as a picture that is renewed twice a second, however fast it comes.

A monitor is a subclass of `Monitor`; `run_monitor` gives messages to it and publishes its pictures; `nightglass.web`
shows them. Histograms and statistics are of constant size, and can be merged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nightglass.monitor.aartfaac import AartfaacMonitor, clipped_rms
from nightglass.monitor.astropix import AstroPix4Monitor
from nightglass.monitor.feeds import Arrival, Feed, FeedState
from nightglass.monitor.histograms import Histogram, Histogram1d, Histogram2d
from nightglass.monitor.live import LivePicture
from nightglass.monitor.moments import RunningStatistics
from nightglass.monitor.monitor import Monitor
from nightglass.monitor.pictures import (
    HistogramPanel,
    MapPanel,
    Panel,
    Picture,
    Series,
    SeriesPanel,
    TablePanel,
    shrink,
)
from nightglass.monitor.rates import RateMeter
from nightglass.monitor.running import run_monitor
from nightglass.monitor.traffic import TrafficMonitor

__all__ = [
    "MONITORS",
    "AartfaacMonitor",
    "Arrival",
    "AstroPix4Monitor",
    "Feed",
    "FeedState",
    "Histogram",
    "Histogram1d",
    "Histogram2d",
    "HistogramPanel",
    "LivePicture",
    "MapPanel",
    "Monitor",
    "Panel",
    "Picture",
    "RateMeter",
    "RunningStatistics",
    "Series",
    "SeriesPanel",
    "TablePanel",
    "TrafficMonitor",
    "clipped_rms",
    "monitor_for",
    "run_monitor",
    "shrink",
]

MONITORS: dict[str, Callable[[str], Monitor[Any]]] = {
    "aartfaac": AartfaacMonitor,
    "astropix": AstroPix4Monitor,
}
"""Protocol -> what makes its monitor of an address."""


def monitor_for(protocol: str, address: str) -> Monitor[Any]:
    """Return the monitor of a protocol; one that has none of its own is watched by its traffic."""
    return MONITORS.get(protocol, TrafficMonitor)(address)
