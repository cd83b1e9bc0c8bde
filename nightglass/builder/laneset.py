"""Lanes by name, made when they are needed, and begun and ended together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from nightglass.builder.lanes import Lane
from nightglass.errors import Retryable

__all__ = ["LaneSet"]

_FEW: Final = 32
"""Lanes that are kept although nothing waits in them."""


class LaneSet:
    """The lanes of all who are delivered to; safe for many threads.

    Parameters
    ----------
    make : callable
        Makes the lane of a name that has none; called while nobody else can get one.
    """

    def __init__(self, make: Callable[[str], Lane]) -> None:
        self._make = make
        self._lock = threading.RLock()
        self._lanes: dict[str, Lane] = {}
        self._started = False

    def __iter__(self) -> Iterator[str]:
        """Yield the names that have a lane now."""
        with self._lock:
            return iter(list(self._lanes))

    def get(self, name: str) -> Lane | None:
        """Return the lane of a name; None where it has none."""
        with self._lock:
            return self._lanes.get(name)

    @contextmanager
    def held(self, name: str) -> Iterator[Lane]:
        """Give the lane of a name, which is not forgotten while the block runs."""
        with self._lock:
            lane = self._opened(name)
            lane.hold()
        try:
            yield lane
        finally:
            lane.let_go()

    def start(self, names: Iterable[str]) -> None:
        """Begin to deliver, also in the lanes of names that have something from before."""
        with self._lock:
            self._started = True
            for name in (*names, *self._lanes):
                self._opened(name)

    def close(self) -> None:
        """Stop; what was not delivered stays on disk."""
        for lane in self._all():
            lane.close()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing is left to deliver."""
        end = time.monotonic() + timeout_s
        return all(lane.wait_idle(max(end - time.monotonic(), 0.0)) for lane in self._all())

    def drop(self, name: str) -> Lane | None:
        """Forget the lane of a name, and return it; None where there is none."""
        with self._lock:
            return self._lanes.pop(name, None)

    def make_room(self, most: int, *, prefix: str = "") -> list[str]:
        """Forget lanes in which nothing waits, where there are more than a few, and return their names.

        Parameters
        ----------
        most : int
            How many may be needed.
        prefix : str
            Of the names that are looked at.

        Raises
        ------
        Retryable
            If as many as may be are still needed.
        """
        with self._lock:
            lanes = {name: lane for name, lane in self._lanes.items() if name.startswith(prefix)}
            if len(lanes) < _FEW:
                return []
            gone = [name for name, lane in lanes.items() if lane.is_idle]
            if len(lanes) - len(gone) >= most:
                message = f"{most} receivers are waited for already"
                raise Retryable(message, remedy="see which of them are away, and take them out of send_to")
            for name in gone:
                del self._lanes[name]
            return gone

    def _all(self) -> list[Lane]:
        with self._lock:
            return list(self._lanes.values())

    def _opened(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = self._make(name)
        if self._started:
            lane.start()
        return lane
