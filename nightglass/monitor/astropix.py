"""The monitor of AstroPix 4 chips: time over threshold, hit map, and how well the stream is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from nightglass.monitor.feeds import Arrival
from nightglass.monitor.histograms import Histogram1d, Histogram2d
from nightglass.monitor.moments import RunningStatistics
from nightglass.monitor.monitor import Monitor
from nightglass.monitor.pictures import HistogramPanel, MapPanel, Picture, TablePanel
from nightglass.streams.astropix import HitDecoder, Readout, ReadoutStatus
from nightglass.streams.continuity import Continuity

__all__ = ["AstroPix4Monitor"]

_MOST_PEERS = 64
_CHIPS = 32
_LOSSES = {
    "lost": "readouts lost",
    "gaps": "gaps",
    "late": "late readouts",
    "duplicates": "duplicate readouts",
    "restarts": "restarts of senders",
}


@dataclass(slots=True)
class _Peer:
    """What is kept of one sender: readouts of two of them continue neither hits nor numbers of one another."""

    decoder: HitDecoder = field(default_factory=HitDecoder)
    continuity: Continuity = field(default_factory=Continuity)


class AstroPix4Monitor(Monitor[Readout]):
    """Shows what chips send, as the monitor of astropix-analysis does, and what its transport lost.

    Parameters
    ----------
    address : str
        What the message row calls the source.
    columns, rows : int
        Pixels of the hit map; hits elsewhere are counted as outside.
    tot_us : tuple of float
        Range of the time over threshold, microseconds.
    bins : int
    """

    title = "AstroPix 4"

    def __init__(
        self,
        address: str = "",
        *,
        columns: int = 16,
        rows: int = 35,
        tot_us: tuple[float, float] = (0.0, 500.0),
        bins: int = 99,
    ) -> None:
        self._address = address
        self._tot = Histogram1d(np.linspace(*tot_us, bins + 1), label="time over threshold [µs]")
        self._map = Histogram2d(
            np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5, x_label="column", y_label="row"
        )
        self._columns, self._rows = columns, rows

    def setup(self) -> None:
        """Empty histograms and counts."""
        self._tot.reset()
        self._map.reset()
        self._spread = RunningStatistics()
        self._statuses: Counter[str] = Counter()
        self._chips: NDArray[np.int64] = np.zeros(_CHIPS, np.int64)
        self._peers: dict[str, _Peer] = {}
        self._readouts = self._hits = self._last_id = 0

    def process(self, message: Readout) -> None:
        """Take one readout, of the one sender there is."""
        self._take("", (message,))

    def process_many(self, arrivals: Sequence[Arrival[Readout]]) -> None:
        """Take readouts together, those of each sender in their order."""
        by_peer: dict[str, list[Readout]] = {}
        for arrival in arrivals:
            by_peer.setdefault(arrival.peer, []).append(arrival.message)
        for peer, readouts in by_peer.items():
            self._take(peer, readouts)

    def _take(self, name: str, readouts: Sequence[Readout]) -> None:
        # anybody can send datagrams from many ports; beyond the limit they share one decoder
        name = name if name in self._peers or len(self._peers) < _MOST_PEERS else "others"
        peer = self._peers.get(name) or self._peers.setdefault(name, _Peer())
        count = len(readouts)
        peer.continuity.observe(
            np.fromiter((readout.readout_id for readout in readouts), np.uint32, count),
            np.fromiter((readout.timestamp_ns for readout in readouts), np.uint64, count),
        )
        decoded = peer.decoder.decode(readouts)
        hits = decoded.hits
        self._tot.fill(hits["tot_us"])
        self._map.fill(hits["column"], hits["row"])
        self._spread.update(hits["tot_us"])
        self._chips += np.bincount(hits["chip_id"], minlength=_CHIPS)
        for status, times in zip(*np.unique(decoded.status, return_counts=True), strict=True):
            self._statuses.update({str(bit.name): int(times) for bit in ReadoutStatus(int(status))})
        self._readouts += count
        self._hits += len(hits)
        self._last_id = readouts[-1].readout_id

    def update(self) -> Picture:
        """Return time over threshold, hit map, and the quality of the readouts."""
        spread = self._spread
        note = f"mean {spread.mean:.2f} µs, stdev {spread.stdev:.2f} µs; " if spread.count > 1 else ""
        beyond = self._tot.overflow + self._tot.underflow
        active = int((self._map.contents > 0).sum())
        chips = [(f"chip {chip}", int(count)) for chip, count in enumerate(self._chips) if count]
        quality = [(name.lower().replace("_", " "), count) for name, count in sorted(self._statuses.items())]
        return Picture(
            title=self.title,
            message=f"{self._address or 'readouts'}: {self._readouts} readouts, {self._hits} hits",
            panels=(
                HistogramPanel.of(
                    self._tot, title="Time over threshold", y_label="hits per bin", note=f"{note}{beyond:.0f} beyond"
                ),
                MapPanel(
                    title="Hit map",
                    values=self._map.contents.T.copy(),
                    extent=(-0.5, self._columns - 0.5, -0.5, self._rows - 0.5),
                    x_label="column",
                    y_label="row",
                    value_label="hits per pixel",
                    note=f"{active} of {self._columns * self._rows} pixels hit; {self._map.outside:.0f} hits outside",
                ),
                TablePanel(title="Chips", columns=("chip", "hits"), rows=tuple(chips)),
                TablePanel(title="Readout quality", columns=("what was noteworthy", "readouts"), rows=tuple(quality)),
            ),
            counters={"hits": self._hits, "last readout id": self._last_id},
            losses=self._losses(),
        )

    def _losses(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for peer in self._peers.values():
            total.update(asdict(peer.continuity.losses))
        return {name: total[count] for count, name in _LOSSES.items()}
