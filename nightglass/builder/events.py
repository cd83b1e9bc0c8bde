"""What happened, for whoever listens: numbered, kept for a while, and waited for."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from nightglass.builder.journal import plain
from nightglass.builder.records import BuilderEvent

__all__ = ["EventLog"]

_KEPT = 4096


class EventLog:
    """The last events of a builder.

    Their numbers begin with the time of the start in milliseconds, so that who asks for what came after a number gets
    what came after it, also when the builder was started anew in between.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: deque[BuilderEvent] = deque(maxlen=_KEPT)
        self._number = int(time.time() * 1000)
        self._closed = False

    def add(self, name: str, **data: Any) -> BuilderEvent:
        """Add an event."""
        with self._changed:
            self._number += 1
            event = BuilderEvent(number=self._number, name=name, at=time.time(), data=plain(data))
            self._events.append(event)
            self._changed.notify_all()
            return event

    def after(self, number: int) -> list[BuilderEvent]:
        """Return the events after a number, oldest first, as far as they are kept."""
        with self._changed:
            return self._after(number)

    def wait(self, number: int, timeout_s: float) -> list[BuilderEvent]:
        """Return the events after a number; wait so long for the first of them."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._number > number, timeout_s)
            return self._after(number)

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _after(self, number: int) -> list[BuilderEvent]:
        found: list[BuilderEvent] = []
        for event in reversed(self._events):
            if event.number <= number:
                break
            found.append(event)
        return found[::-1]
