"""One thread for all that happens at a later time: deadlines of frames, second attempts, readings of the disk."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

__all__ = ["Clockwork"]

_log = logging.getLogger(__name__)


class Clockwork:
    """Calls quick functions when it is time; those that take long hand their work to somebody else."""

    def __init__(self, name: str) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Call a function at a time, in seconds since 1970; infinity is never."""
        if moment == float("inf"):
            return
        with self._changed:
            heapq.heappush(self._due, (moment, next(self._numbers), action))
            self._changed.notify_all()

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call a function in a while."""
        self.at(time.time() + delay_s, action)

    def close(self) -> None:
        """End; what is not due yet is not called."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while (action := self._next()) is not None:
            try:
                action()
            except Exception:  # noqa: BLE001 - a boundary: whatever one of them does, the others are called
                _log.exception("something that was due could not be done")

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._closed:
                now = time.time()
                if self._due and self._due[0][0] <= now:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(self._due[0][0] - now if self._due else None)
            return None
