"""Alarms of the watch: raised once, repeated rarely, cleared when the cause is gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Alarm", "Alarms"]

_log = logging.getLogger(__name__)

AlarmFunction = Callable[[str, str], None]
"""Takes subject and text; must not block (an outbox, not a mail server)."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something a person should know.

    Attributes
    ----------
    key : str
        What it is about: alarms of one key are one alarm.
    since, told_at : float
        When it was raised, and when somebody was last told, in epoch seconds.
    """

    key: str
    subject: str
    text: str
    since: float
    told_at: float


class Alarms:
    """The alarms that stand now.

    Parameters
    ----------
    tell : callable
        Called with subject and text.
    repeat_s : float
        An alarm that stands, or comes and goes, is told again after this long and not before.
    clock : callable
        Gives epoch seconds.
    """

    def __init__(
        self, tell: AlarmFunction, *, repeat_s: float = 1800.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._repeat_s = repeat_s
        self._standing: dict[str, Alarm] = {}
        self._told: dict[str, float] = {}

    @property
    def standing(self) -> tuple[Alarm, ...]:
        """The alarms whose cause is not gone, oldest first."""
        return tuple(sorted(self._standing.values(), key=lambda alarm: alarm.since))

    def raise_(self, key: str, subject: str, text: str) -> None:
        """Say that a cause is there; somebody is told unless it was done lately."""
        now = self._clock()
        before = self._standing.get(key)
        told_at = self._told.get(key)
        due = told_at is None or now - told_at >= self._repeat_s
        if due:
            self._told[key] = now
            _log.warning("alarm: %s: %s", subject, text)
            try:
                self._tell(subject, text)
            except Exception:  # noqa: BLE001 - a boundary: a notice that fails must not stop the night
                _log.exception("the alarm %r could not be passed on", subject)
        self._standing[key] = Alarm(key, subject, text, before.since if before else now, self._told[key])

    def clear(self, key: str) -> None:
        """Say that a cause is gone."""
        if self._standing.pop(key, None) is not None:
            _log.info("alarm over: %s", key)
