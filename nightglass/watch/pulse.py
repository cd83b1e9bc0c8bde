"""Composes the heartbeat, and raises the alarms that follow from what it says."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nightglass.model import Night
from nightglass.watch.heartbeat import Heartbeat, write_heartbeat

if TYPE_CHECKING:
    from nightglass.ledger import Ledger
    from nightglass.watch.alarms import Alarms
    from nightglass.watch.building import BuildingDesk
    from nightglass.watch.launcher import Launcher
    from nightglass.watch.nightkeeper import NightKeeper
    from nightglass.watch.sentry import Sentry
    from nightglass.watch.sources import Sources
    from nightglass.watch.streams import StreamDesk

__all__ = ["Pulse", "count_states"]


@dataclass(slots=True, kw_only=True)
class Pulse:
    """The beating part of a watch; see `Heartbeat` for what it tells."""

    path: Path
    started: float
    cameras: tuple[str, ...]
    cluster: str
    ledger: Ledger
    launcher: Launcher
    keeper: NightKeeper
    sources: Sources
    streams: StreamDesk
    building: BuildingDesk
    sentry: Sentry
    alarms: Alarms

    def beat(self, phase: str) -> None:
        """Look at everything once, and write the heartbeat."""
        now = time.monotonic()
        states = self.sources.states()
        lag_s = self._lag_s(now)
        self.sentry.look_at_sources(states)
        self.sentry.note_complaints(self.sources.complaints())
        self.sentry.look_at_lag(lag_s, len(self.launcher.queue))
        breaker = self.launcher.breaker
        self.sentry.look_at_breaker(breaker, now)
        beat = Heartbeat(
            pid=os.getpid(),
            at=time.time(),
            started=self.started,
            phase=phase,
            cameras=list(self.cameras),
            counts=count_states(self.ledger, ((night.camera, night.night) for night in self.keeper.open_nights)),
            queued=len(self.launcher.queue),
            running=len(self.launcher.flights),
            lag_s=lag_s,
            breaker={
                "state": breaker.state.value,
                "reason": breaker.reason,
                # the breaker lives on the watch's own clock
                "since": breaker.since + time.time() - now,
                "trips": breaker.trips,
            },
            cluster=self.cluster,
            sources=states,
            streams=self.streams.look(),
            builders=self.building.look(),
            alarms=[
                {"subject": alarm.subject, "text": alarm.text, "since": alarm.since} for alarm in self.alarms.standing
            ],
        )
        write_heartbeat(self.path, beat)

    def _lag_s(self, now: float) -> float:
        oldest = self.launcher.queue.oldest()
        # what is held back for its masters does not lag
        return 0.0 if oldest is None or self.launcher.queue.held else max(now - oldest, 0.0)


def count_states(ledger: Ledger, nights: Iterable[tuple[str, Night]]) -> dict[str, dict[str, int]]:
    """Return ``<camera>/<night>`` -> state -> exposures, for nights that have any."""
    found = {}
    for camera, night in sorted(nights):
        counts = {state.value: count for state, count in ledger.counts(night, camera).items() if count}
        if counts:
            found[f"{camera}/{night}"] = counts
    return found
