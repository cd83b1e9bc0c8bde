"""When jobs leave the executor for the dark, and when they come back: sans-I/O.

Opening is immediate, because an exposure waits; closing takes health that holds for a while, and for longer each
time it proved short-lived, so that a server that comes and goes does not pull every second job down with it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Breaker", "BreakerChange", "BreakerState"]


_UNHEALTHY = "Prefect does not answer; work goes on without it"


class BreakerState(enum.StrEnum):
    """Where jobs run."""

    CLOSED = "closed"
    """In the executor."""
    OPEN = "open"
    """In the dark."""


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """The breaker opened or closed."""

    state: BreakerState
    reason: str
    at: float


class Breaker:
    """Opens on the first sign of trouble, closes when health has held.

    Parameters
    ----------
    hold_s : float
        Seconds for which health must hold before the breaker closes.
    hold_limit_s : float
        The hold is doubled whenever the breaker opens within `hold_limit_s` of having closed, up to this.
    """

    def __init__(self, *, hold_s: float = 1.0, hold_limit_s: float = 60.0) -> None:
        self._base_s = hold_s
        self._limit_s = hold_limit_s
        self._hold_s = hold_s
        self._healthy_since: float | None = None
        self._closed_at: float | None = None
        self.state = BreakerState.CLOSED
        self.reason = ""
        self.since = 0.0
        self.trips = 0

    @property
    def hold_s(self) -> float:
        """Seconds of health that the next closing takes."""
        return self._hold_s

    def observe(self, *, healthy: bool, now: float) -> BreakerChange | None:
        """Take one look at the executor's health; return the change it makes, if any."""
        if not healthy:
            self._healthy_since = None
            return None if self.state is BreakerState.OPEN else self._open(_UNHEALTHY, now)
        if self.state is BreakerState.CLOSED:
            return None
        if self._healthy_since is None:
            self._healthy_since = now
        if now - self._healthy_since < self._hold_s:
            return None
        self.state, self.reason, self.since = BreakerState.CLOSED, "", now
        self._closed_at = now
        return BreakerChange(self.state, f"healthy for {self._hold_s:g} s", now)

    def trip(self, reason: str, now: float) -> BreakerChange | None:
        """Open for a reason that the executor itself does not know: silence, a missed deadline."""
        self._healthy_since = None  # health must be shown anew, after the restart
        return None if self.state is BreakerState.OPEN else self._open(reason, now)

    def closes_at(self) -> float | None:
        """Return when the breaker closes if health holds; None if it is closed or health was not seen."""
        if self.state is BreakerState.CLOSED or self._healthy_since is None:
            return None
        return self._healthy_since + self._hold_s

    def _open(self, reason: str, now: float) -> BreakerChange:
        soon = self._closed_at is not None and now - self._closed_at < self._limit_s
        self._hold_s = min(2 * self._hold_s, self._limit_s) if soon else self._base_s
        self.state, self.reason, self.since = BreakerState.OPEN, reason, now
        self.trips += 1
        return BreakerChange(self.state, reason, now)
