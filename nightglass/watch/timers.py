"""Things that are done every so often: sans-I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Timers"]


@dataclass(slots=True)
class _Timer:
    name: str
    period_s: float
    action: Callable[[], None]
    due: float


class Timers:
    """A small table of periodic actions."""

    def __init__(self) -> None:
        self._timers: list[_Timer] = []

    def every(self, period_s: float, name: str, action: Callable[[], None]) -> None:
        """Add an action; it is due at once and then every `period_s` seconds."""
        self._timers.append(_Timer(name, period_s, action, float("-inf")))

    def due(self, now: float) -> list[tuple[str, Callable[[], None]]]:
        """Return the actions that are due, and set them for their next time."""
        found = []
        for timer in self._timers:
            if timer.due <= now:
                # from now, not from when it was due: after a pause nothing is made up for
                timer.due = now + timer.period_s
                found.append((timer.name, timer.action))
        return found

    def next_due(self) -> float:
        """Return when the next action is due; infinity without any."""
        return min((timer.due for timer in self._timers), default=float("inf"))
