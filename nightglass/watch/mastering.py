"""When masters are made: after calibrations stopped coming for a moment, or have been coming for long. Sans-I/O."""

from __future__ import annotations

from dataclasses import dataclass

from nightglass.model import Night

__all__ = ["MasterDesk"]

_LONG = 6
"""In settling times: masters are also made while frames keep coming for so long."""


@dataclass(slots=True)
class _Pending:
    first: float
    last: float


class MasterDesk:
    """Nights with calibrations that no master holds yet.

    Parameters
    ----------
    settle_s : float
        Masters are made when no further calibration was reduced for this long.
    """

    def __init__(self, *, settle_s: float) -> None:
        self._settle_s = settle_s
        self._pending: dict[tuple[str, Night], _Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def note(self, camera: str, night: Night, now: float) -> None:
        """Note that a calibration of a night was reduced, or that its masters should be looked at."""
        pending = self._pending.setdefault((camera, night), _Pending(now, now))
        pending.last = now

    def waits(self, camera: str, night: Night) -> bool:
        """Return whether masters of a night are still to be made."""
        return (camera, night) in self._pending

    def due(self, now: float) -> tuple[tuple[str, Night], ...]:
        """Return the cameras and nights whose masters should be made now."""
        return tuple(key for key, pending in self._pending.items() if self._due_at(pending) <= now)

    def hurry(self) -> None:
        """Make everything due: nothing more will come."""
        for pending in self._pending.values():
            pending.first = pending.last = float("-inf")

    def take(self, camera: str, night: Night) -> None:
        """Forget a night: its masters are being made. What comes from now on is pending again."""
        self._pending.pop((camera, night), None)

    def next_due(self) -> float | None:
        """Return when `due` gives something, or None if nothing is pending."""
        return min((self._due_at(pending) for pending in self._pending.values()), default=None)

    def _due_at(self, pending: _Pending) -> float:
        return min(pending.last + self._settle_s, pending.first + _LONG * self._settle_s)
