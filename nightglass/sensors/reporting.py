"""What a sensor says when something is wrong: once, and to whom it may concern."""

from __future__ import annotations

import logging
from collections.abc import Callable

__all__ = ["Report"]

_log = logging.getLogger(__name__)

_MOST = 1000


class Report:
    """Alarms about the whole sensor and complaints about single paths.

    Parameters
    ----------
    on_alarm : callable or None
        Gets the text of each.

    Attributes
    ----------
    trouble : str
        The alarm that stands; empty when all is well.
    """

    def __init__(self, on_alarm: Callable[[str], None] | None) -> None:
        self._on_alarm = on_alarm
        self._complaints: dict[str, str] = {}
        self.trouble = ""

    def alarm(self, text: str) -> None:
        """Raise an alarm; it stands until `trouble` is emptied."""
        self.trouble = text
        _log.error("%s", text)
        self._tell(text)

    def complain(self, path: str, text: str) -> None:
        """Say what is wrong with a path, unless just that was said already."""
        if self._complaints.get(path) == text:
            return
        if len(self._complaints) >= _MOST:
            self._complaints.clear()
        self._complaints[path] = text
        _log.warning("%s", text)
        self._tell(text)

    def settle(self, path: str) -> None:
        """Say that nothing is wrong with a path any more."""
        self._complaints.pop(path, None)

    def _tell(self, text: str) -> None:
        if self._on_alarm is not None:
            self._on_alarm(text)
