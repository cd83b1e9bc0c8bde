"""When exposures are archived that need not wait for the final stage: after they settled, a few at a time."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from nightglass.archive.nights import ready_exposures
from nightglass.model import Night, State
from nightglass.watch.jobs import Job, JobKind, JobReport

if TYPE_CHECKING:
    from nightglass.config import Archive
    from nightglass.ledger import Ledger
    from nightglass.watch.alarms import Alarms
    from nightglass.watch.launcher import Launcher
    from nightglass.watch.nightkeeper import NightKeeper

__all__ = ["ArchiveDesk"]

_log = logging.getLogger(__name__)

_BATCH = 20
"""Exposures in one job: what is archived is seen, and what failed is tried again, before all of a night is through."""


class ArchiveDesk:
    """Launches archives of finalised exposures, where the observatory file asks for it.

    The ledger is searched only after its counters of a night changed, and not before exposures had time to settle.

    Parameters
    ----------
    rules : Archive
        Says whether exposures are archived at once, and how long they settle.
    """

    def __init__(
        self, ledger: Ledger, launcher: Launcher, keeper: NightKeeper, alarms: Alarms, *, rules: Archive
    ) -> None:
        self._ledger = ledger
        self._launcher = launcher
        self._keeper = keeper
        self._alarms = alarms
        self._rules = rules
        self._counts: dict[tuple[str, Night], dict[State, int]] = {}
        self._changed: dict[tuple[str, Night], float] = {}
        self._due: dict[tuple[str, Night], float] = {}

    def look(self, now: float) -> None:
        """Launch what is due; called every few seconds.

        Parameters
        ----------
        now : float
            On the watch's own clock.
        """
        if self._rules.when != "exposure":
            return
        for record in self._keeper.open_nights:
            key = (record.camera, record.night)
            counts = self._ledger.counts(record.night, record.camera)
            if counts != self._counts.get(key):
                self._counts[key] = counts
                self._changed[key] = now
                self._due.setdefault(key, now + self._rules.settle_s)
            if self._due.get(key, now + 1) <= now and not self._launcher.flights.has(JobKind.ARCHIVE, *key):
                del self._due[key]
                self._launch(*key, now)
                settled = self._changed[key] + self._rules.settle_s
                if now < settled:  # the last to come was not looked at in earnest
                    self._due[key] = settled

    def ended(self, job: Job, report: JobReport, now: float) -> None:
        """Take note of the end of a job: what it left is looked for again."""
        if job.kind is not JobKind.ARCHIVE:
            return
        place = f"archive/{job.camera}/{job.night}"
        if report.error:
            text = (
                f"{report.error}. Its frames stay where they are; it is tried again, at the final stage at the latest."
            )
            self._alarms.raise_(place, f"Not archived: {job.camera}, night {job.night}", text)
            self._due[job.camera, job.night] = now + self._rules.retry_s + self._rules.settle_s
        else:
            self._alarms.clear(place)
            self._due[job.camera, job.night] = now

    def _launch(self, camera: str, night: Night, now: float) -> None:
        settle_s = self._rules.settle_s
        ready = ready_exposures(
            night, camera, ledger=self._ledger, content=self._rules.what, now=time.time(), settle_s=settle_s
        )
        if ready:
            _log.info("%d exposures of %s, night %s, are archived", len(ready), camera, night)
            self._launcher.start(JobKind.ARCHIVE, camera, night, now=now, exposures=ready[:_BATCH])
