"""What a person should know while the night runs: a full disk, a growing lag, a directory that is gone."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from nightglass.watch.breaker import Breaker, BreakerState

if TYPE_CHECKING:
    from nightglass.config import Observatory
    from nightglass.watch.alarms import Alarms
    from nightglass.watch.sources import Place

__all__ = ["Sentry"]

_GIB = 1 << 30
_DARK_S = 60.0
_PAUSE_GIB = 0.25
"""Below this much free space nothing is launched: failed writes would use up the attempts of good exposures."""


class Sentry:
    """Looks after disk, lag and sources.

    Attributes
    ----------
    free_gib : float
        Free space under the root at the last look.
    """

    def __init__(self, observatory: Observatory, alarms: Alarms) -> None:
        self._root = observatory.root
        self._limits = observatory.limits
        self._alarms = alarms
        self.free_gib = float("inf")

    @property
    def must_pause(self) -> bool:
        """Whether the disk is so full that nothing should be launched."""
        return self.free_gib < min(_PAUSE_GIB, self._limits.free_disk_gib)

    def look_at_disk(self) -> None:
        """Raise or clear the alarm about free space."""
        self.free_gib = shutil.disk_usage(self._root).free / _GIB
        if self.free_gib >= self._limits.free_disk_gib:
            self._alarms.clear("disk")
            return
        text = f"{self._root} has {self.free_gib:.2f} GiB free, less than {self._limits.free_disk_gib:g} GiB."
        if self.must_pause:
            text += " Nothing is reduced until there is more."
        self._alarms.raise_("disk", "Disk almost full", text)

    def look_at_lag(self, lag_s: float, queued: int) -> None:
        """Raise or clear the alarm about exposures that wait."""
        if lag_s <= self._limits.lag_alarm_s:
            self._alarms.clear("lag")
            return
        text = (
            f"The oldest of {queued} ready groups has waited for {lag_s:.0f} s. "
            "More workers help if this happens often; nothing is lost."
        )
        self._alarms.raise_("lag", "Reduction lags behind", text)

    def look_at_breaker(self, breaker: Breaker, now: float) -> None:
        """Raise or clear the alarm about jobs that run dark for long; `now` is on the breaker's clock."""
        if breaker.state is BreakerState.CLOSED:
            self._alarms.clear("breaker")
        elif now - breaker.since > _DARK_S:
            text = (
                f"For {now - breaker.since:.0f} s exposures are reduced without Prefect: {breaker.reason}. "
                "Nothing is lost, and the runs are reported when it is back."
            )
            self._alarms.raise_("breaker", "Prefect is away", text)

    def note_complaints(self, complaints: list[tuple[Place, str]]) -> None:
        """Raise an alarm about files that can't be taken in, for each directory at most one in half an hour."""
        for place, text in complaints:
            key = f"files/{place.directory}"
            self._alarms.raise_(key, f"A file of {place.camera.name} is not taken in", text)
            self._alarms.clear(key)  # an event, not a state; the log has them all

    def look_at_sources(self, states: list[dict[str, Any]]) -> None:
        """Raise or clear an alarm for each watched directory."""
        for state in states:
            key = f"source/{state['directory']}"
            if state["error"]:
                self._alarms.raise_(key, f"Directory of {state['camera']}", f"{state['directory']}: {state['error']}")
            else:
                self._alarms.clear(key)
