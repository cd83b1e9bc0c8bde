"""The monitor of streams that have none of their own: sizes and pauses of messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

from nightglass.monitor.feeds import Arrival
from nightglass.monitor.histograms import Histogram1d
from nightglass.monitor.moments import RunningStatistics
from nightglass.monitor.monitor import Monitor
from nightglass.monitor.pictures import HistogramPanel, Picture, TablePanel

__all__ = ["TrafficMonitor"]

_MOST_PEERS = 64


class TrafficMonitor(Monitor[Any]):
    """Shows how messages come, whatever is in them.

    Parameters
    ----------
    address : str
        What the message row calls the source.
    """

    title = "Traffic"

    def __init__(self, address: str = "") -> None:
        self._address = address
        self._sizes = Histogram1d(np.linspace(0, 32, 65), label="log2 of the size [byte]")
        self._pauses = Histogram1d(np.linspace(-6, 3, 91), label="log10 of the time since the message before [s]")

    def setup(self) -> None:
        """Empty histograms and counts."""
        self._sizes.reset()
        self._pauses.reset()
        self._size = RunningStatistics()
        self._peers: Counter[str] = Counter()
        self._messages = 0
        self._last: datetime | None = None

    def process(self, message: Any) -> None:  # noqa: ARG002 - nothing of it is looked at
        """Take one message, of which nothing else is known."""
        self._messages += 1

    def process_many(self, arrivals: Sequence[Arrival[Any]]) -> None:
        """Take messages as they came."""
        self._messages += len(arrivals)
        sizes = np.array([arrival.size for arrival in arrivals], np.float64)
        self._size.update(sizes)
        self._sizes.fill(np.log2(np.maximum(sizes, 1)))
        times = [arrival.received_at.timestamp() for arrival in arrivals]
        before = [self._last.timestamp()] if self._last else []
        self._pauses.fill(np.log10(np.maximum(np.diff([*before, *times]), 1e-9)))
        self._last = arrivals[-1].received_at
        for arrival in arrivals:
            self._peers[arrival.peer if len(self._peers) < _MOST_PEERS else "others"] += 1

    def update(self) -> Picture:
        """Return sizes, pauses and peers."""
        return Picture(
            title=self.title,
            message=f"{self._address or 'messages'}: {self._messages} messages",
            panels=(
                HistogramPanel.of(
                    self._sizes, title="Size", y_label="messages", note=f"mean {self._size.mean:.0f} byte"
                ),
                HistogramPanel.of(self._pauses, title="Pauses", y_label="messages"),
                TablePanel(title="Senders", columns=("peer", "messages"), rows=tuple(sorted(self._peers.items()))),
            ),
        )
