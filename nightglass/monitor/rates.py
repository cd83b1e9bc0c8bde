"""How much comes in a second: counts in a ring of time slots, in constant memory."""

from __future__ import annotations

import math
from collections import deque

__all__ = ["RateMeter"]


class RateMeter:
    """Counts what comes, and tells the rate over the last seconds and its history.

    Parameters
    ----------
    slot_s : float
        Length of a time slot.
    slots : int
        How many are remembered, the one that is being filled not counted.
    """

    def __init__(self, *, slot_s: float = 1.0, slots: int = 120) -> None:
        self._slot_s = slot_s
        self._slots: deque[float] = deque(maxlen=slots)
        self._filling = 0.0
        self._number: int | None = None
        self._began: float | None = None
        self.total = 0.0

    def add(self, count: float, *, now: float) -> None:
        """Count what came at a moment, in seconds of a clock that does not go back."""
        self._advance(now)
        self._filling += count
        self.total += count

    def rate(self, *, now: float, over_s: float = 5.0) -> float:
        """Return the mean rate over the last seconds, or since the first count if that is shorter, per second."""
        self._advance(now)
        if self._number is None or self._began is None:
            return 0.0
        whole = min(len(self._slots), max(1, round(over_s / self._slot_s)))
        recent = [self._slots[-index] for index in range(1, whole + 1)]
        start = max(self._began, (self._number - whole) * self._slot_s)
        return (sum(recent) + self._filling) / max(now - start, self._slot_s)

    def history(self, *, now: float) -> tuple[tuple[float, float], ...]:
        """Return the whole slots as pairs of their age in seconds, negative, and their rate per second."""
        self._advance(now)
        last = self._number or 0
        count = len(self._slots)
        return tuple(
            ((last - count + index + 0.5) * self._slot_s - now, value / self._slot_s)
            for index, value in enumerate(self._slots)
        )

    def _advance(self, now: float) -> None:
        number = math.floor(now / self._slot_s)
        if self._number is None:
            self._number, self._began = number, now
        passed = number - self._number
        if passed <= 0:
            return
        self._slots.append(self._filling)
        # a long silence fills the ring with nothing, and no more than the ring
        self._slots.extend([0.0] * min(passed - 1, self._slots.maxlen or 0))
        self._filling, self._number = 0.0, number
