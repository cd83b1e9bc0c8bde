"""Carries notices out: alarms go into the outbox, and a thread of its own tries to deliver what lies there."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from nightglass.notices import Notice, Outbox

if TYPE_CHECKING:
    from nightglass.config import Notices

__all__ = ["Courier"]

_log = logging.getLogger(__name__)

_PERIOD_S = 5.0
_LAST_ROUND_S = 5.0


class Courier:
    """Drains the outbox, in which stages put their notices too.

    Parameters
    ----------
    directory : Path
        Of the outbox.
    config : Notices
        Who is told, and how.

    Raises
    ------
    Misconfigured
        If an address has no meaning.
    """

    def __init__(self, directory: Path, config: Notices) -> None:
        self._outbox = Outbox(directory, config)
        self._stopping = threading.Event()
        self._stirred = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def tell(self, subject: str, text: str) -> None:
        """Put an alarm into the outbox; returns at once."""
        self._outbox.put(Notice(subject=f"Nightglass: {subject}", text=text))
        self._stirred.set()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Deliver what is due, for a few seconds at most, and end."""
        self._stopping.set()
        self._stirred.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_ROUND_S)

    def _run(self) -> None:
        while True:
            last = self._stopping.is_set()
            try:
                self._outbox.drain(time.time())
            except Exception:  # noqa: BLE001 - a boundary: the outbox may be on a full disk, and is tried again
                _log.exception("the outbox could not be drained")
            if last:
                return
            self._stirred.wait(_PERIOD_S)
            self._stirred.clear()
