"""One thread for all that happens at a later time: deadlines of frames, second attempts, readings of the disk."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["Clockwork"]

_log = logging.getLogger(__name__)


_LONGEST_SLEEP_S: Final = 3600.0


class Clockwork:
    """Calls quick functions when it is time; those that take long hand their work to somebody else.

    It goes by a clock that nobody sets: when the time of the day is corrected, nothing comes early or waits for hours.
    """

    def __init__(self, name: str) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call a function in a while; infinity is never."""
        if not math.isfinite(delay_s):
            return
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._numbers), action))
            self._changed.notify_all()

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
                left = self._due[0][0] - time.monotonic() if self._due else _LONGEST_SLEEP_S
                if left <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(min(left, _LONGEST_SLEEP_S))
            return None
