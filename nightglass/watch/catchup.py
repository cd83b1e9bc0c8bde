"""The start of a watch in a directory that is full already: calibrations and their masters first, then science."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nightglass.watch.chores import Chores
    from nightglass.watch.launcher import Launcher

__all__ = ["CatchUp"]

_log = logging.getLogger(__name__)


class CatchUp:
    """Holds science back until the calibrations that are there have become masters, within limits.

    Parameters
    ----------
    look_until, hold_until : float
        Until when to wait for files that are still being looked at, and for masters: neither one slow file nor a
        master that fails holds up the night.
    """

    def __init__(self, launcher: Launcher, chores: Chores, *, look_until: float, hold_until: float) -> None:
        self._launcher = launcher
        self._chores = chores
        self._look_until = look_until
        self._hold_until = hold_until
        launcher.queue.hold()

    @property
    def is_over(self) -> bool:
        """Whether science runs as it comes."""
        return not self._launcher.queue.held

    def proceed(self, now: float, *, looking: bool) -> None:
        """Go on: hurry the masters when the calibrations are done, release science when nothing is waited for.

        Parameters
        ----------
        looking : bool
            Whether files are still being scanned or checked: they may be calibrations.
        """
        if self.is_over:
            return
        queue, flights = self._launcher.queue, self._launcher.flights
        calibrating = queue.calibrations() > 0 or flights.calibrating()
        waiting = calibrating or (looking and now < self._look_until)
        if not waiting and self._chores.making_masters() and now < self._hold_until:
            self._chores.desk.hurry()
        elif not waiting or now >= self._hold_until:
            queue.release()
            _log.info("caught up: science is reduced from now on as it comes")
            self._chores.look_back(now)
