"""What a builder publishes: the variables that control systems watch, events, alarms."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from nightglass.builder.events import EventLog
from nightglass.builder.journal import plain
from nightglass.builder.records import FrameView

__all__ = ["Bulletin"]

_log = logging.getLogger(__name__)
_MOST_ALARMS: Final = 64


class Bulletin:
    """The newest values of the published variables, and the way by which everybody is told.

    Parameters
    ----------
    on_alarm : callable
        Told what a person should know.
    """

    def __init__(self, name: str, on_alarm: Callable[[str], None]) -> None:
        self.events = EventLog()
        self._name = name
        self._on_alarm = on_alarm
        self._lock = threading.Lock()
        self._state = "INITIALIZED"
        self._ready: dict[str, dict[str, Any]] = {"exposure_ready": {}, "image_ready": {}, "archive_ready": {}}
        self._alarms: dict[str, dict[str, Any]] = {}

    @property
    def state(self) -> str:
        """INITIALIZED, READY or CLOSED."""
        return self._state

    @property
    def alarms(self) -> list[dict[str, Any]]:
        """What lasts, newest last; each with ``key``, ``text`` and ``at``."""
        with self._lock:
            return list(self._alarms.values())

    def ready(self, variable: str) -> dict[str, Any]:
        """Return ``exposure_ready``, ``image_ready`` or ``archive_ready``; empty: nothing was yet."""
        with self._lock:
            return dict(self._ready[variable])

    def set_state(self, state: str) -> None:
        """Publish STATUS."""
        self._state = state
        self.events.add("status", what="state", state=state)

    def set_ready(self, variable: str, **value: Any) -> None:
        """Publish one of the variables."""
        with self._lock:
            self._ready[variable] = plain({**value, "at": time.time()})
        names = {"exposure_ready": "exposure", "image_ready": "frame", "archive_ready": "archive"}
        self.events.add(names[variable], what=variable, **value)

    def frame(self, what: str, view: FrameView, **more: Any) -> None:
        """Tell what happened to a frame."""
        self.events.add(
            "frame",
            what=what,
            expid=view.expid,
            frame=view.frame,
            state=view.state,
            missing=view.missing,
            revision=view.revision,
            **more,
        )

    def alarm(self, key: str, text: str, **data: Any) -> None:
        """Tell what a person should know; once, while it lasts."""
        with self._lock:
            known = self._alarms.get(key, {}).get("text") == text
            if not known:
                self._alarms.pop(key, None)
                self._alarms[key] = {"key": key, "text": text, "at": time.time()}
                while len(self._alarms) > _MOST_ALARMS:
                    self._alarms.pop(next(iter(self._alarms)))
        if known:
            return
        _log.warning("image builder %s: %s", self._name, text)
        self.events.add("alarm", key=key, text=text, **data)
        try:
            self._on_alarm(f"image builder {self._name}: {text}")
        except Exception:  # noqa: BLE001 - a boundary: whoever listens cannot stop the builder
            _log.exception("image builder %s: an alarm could not be told", self._name)

    def all_clear(self, key: str) -> None:
        """Tell that it is over."""
        with self._lock:
            gone: Mapping[str, Any] | None = self._alarms.pop(key, None)
        if gone is not None:
            self.events.add("status", what="alarm_over", key=key)
