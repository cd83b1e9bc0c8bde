"""Work that nobody brings: what the ledger holds at the start, what other processes leave there, what is due again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nightglass.model import State
from nightglass.watch.recovery import closed_groups

if TYPE_CHECKING:
    from nightglass.config import Camera
    from nightglass.ledger import Entry, Ledger
    from nightglass.watch.collector import Collector
    from nightglass.watch.intake import Intake
    from nightglass.watch.launcher import Launcher
    from nightglass.watch.nightkeeper import NightKeeper
    from nightglass.watch.sources import Sources

__all__ = ["Search"]

_MANY = 500
"""Files on the bench, or groups in the queue, above which the ledger is not searched for more."""
_LATER_S = 5.0


@dataclass(slots=True, kw_only=True)
class Search:
    """Brings entries of the ledger to where they go on.

    Attributes
    ----------
    ready_at : float
        When, on the watch's own clock, entries that wait for their next attempt should be looked for.
    """

    cameras: Mapping[str, Camera]
    ledger: Ledger
    intake: Intake
    collector: Collector
    launcher: Launcher
    keeper: NightKeeper
    sources: Sources
    ready_at: float = 0.0

    def restore(self, now: float) -> None:
        """Take up everything after a restart."""
        for name, camera in self.cameras.items():
            pending = self.ledger.pending(name)
            complete = [entry for entry in pending if entry.state is State.COMPLETE]
            closed = closed_groups(self.ledger, camera, self.keeper.open_nights)
            self.collector.restore(name, closed, complete, now)
            for entry in pending:
                if entry.state is State.SEEN:
                    self._resume(entry)
            self.launcher.restock(self.ledger.ready(name), now)

    def look(self, now: float) -> None:
        """Find what other processes left: a retry by a person, a stage that gave up."""
        if len(self.intake) > _MANY:
            return
        for camera in self.cameras:
            self.take(self.ledger.pending(camera), now)
        self.ready_at = now

    def retry(self, now: float) -> None:
        """Queue the entries whose wait for the next attempt is over, if it is time to look."""
        if now < self.ready_at:
            return
        self.ready_at = float("inf")
        if len(self.launcher.queue) > _MANY:
            self.ready_at = now + _LATER_S
            return
        for camera in self.cameras:
            self.launcher.restock(self.ledger.ready(camera), now)

    def take(self, entries: Iterable[Entry], now: float) -> None:
        """Bring each entry to where it goes on, by its state."""
        due = []
        for entry in entries:
            if entry.state is State.COMPLETE:
                self.complete(entry, now)
            elif entry.state is State.SEEN:
                self._resume(entry)
            elif entry.state is State.GROUPED:
                wait_s = (entry.retry_at or 0.0) - time.time()
                if wait_s <= 0:
                    due.append(entry)
                else:
                    self.ready_at = min(self.ready_at, now + wait_s + 0.01)
        self.launcher.restock(due, now)

    def complete(self, entry: Entry, now: float) -> None:
        """Open the night of an exposure that is complete, and let it find its group."""
        if entry.ref is not None:
            self.keeper.open(entry.camera, entry.ref.night, datetime.now(UTC))
            self.collector.add(entry, now)

    def _resume(self, entry: Entry) -> None:
        place = self.sources.place_of(entry)
        if place is not None:
            self.intake.resume(entry, place)
