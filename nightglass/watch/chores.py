"""Jobs beside the exposures: masters, stages that nobody else runs, and late reports."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from nightglass.model import CALIBRATION_KINDS, Night, Stage, State
from nightglass.watch.jobs import Job, JobKind, JobReport
from nightglass.watch.mastering import MasterDesk

if TYPE_CHECKING:
    from nightglass.ledger import Entry, Ledger, StageRecord
    from nightglass.watch.alarms import Alarms
    from nightglass.watch.launcher import Launcher
    from nightglass.watch.nightkeeper import NightKeeper

__all__ = ["Chores"]

_log = logging.getLogger(__name__)

_MASTER_ATTEMPTS = 3
_QUIET_LIMIT = timedelta(minutes=10)
"""How long a final waits for exposures of its night that are still being reduced."""


class Chores:
    """Starts what is due, and sees to what follows from its end.

    Parameters
    ----------
    on_again : callable
        Told entries that may run again, because a master was made for which they waited.
    """

    def __init__(
        self,
        ledger: Ledger,
        launcher: Launcher,
        keeper: NightKeeper,
        alarms: Alarms,
        *,
        settle_s: float,
        on_again: Callable[[tuple[Entry, ...]], None],
    ) -> None:
        self._ledger = ledger
        self._launcher = launcher
        self._keeper = keeper
        self._alarms = alarms
        self._on_again = on_again
        self.desk = MasterDesk(settle_s=settle_s)
        self._known: dict[tuple[str, Night], set[str]] = {}
        self._begun: set[tuple[str, Night]] = set()
        self._failures: dict[tuple[str, Night], int] = {}

    def note_over(self, entries: tuple[Entry, ...], now: float) -> None:
        """Note calibrations that were reduced: their masters are to be made."""
        for entry in entries:
            if entry.state is State.REDUCED and entry.kind in CALIBRATION_KINDS:
                self._failures.pop((entry.camera, entry.night), None)
                self.desk.note(entry.camera, entry.night, now)

    def look_back(self, now: float) -> None:
        """Note the open nights that have reduced calibrations: a watch that died may have owed them masters."""
        for record in self._keeper.open_nights:
            if (record.camera, record.night) in self._begun:
                continue
            found = self._ledger.entries(record.night, record.camera, [State.REDUCED], CALIBRATION_KINDS)
            if next(found, None) is not None:
                self.desk.note(record.camera, record.night, now)

    def start_masters(self, now: float) -> None:
        """Launch the masters that are due."""
        for camera, night in self.desk.due(now):
            if self._launcher.flights.has(JobKind.MASTERS, camera, night):
                continue
            self._known[camera, night] = self._ids(camera)
            self.desk.take(camera, night)
            self._begun.add((camera, night))
            self._launcher.start(JobKind.MASTERS, camera, night, now=now)

    def start_stages(self, now: float) -> None:
        """Launch the stages that are due and that nobody ran."""
        moment = datetime.now(UTC)
        for record in self._keeper.due(moment):
            if self._launcher.flights.has(JobKind.STAGE, record.camera, record.night):
                continue
            patient = moment - record.due < _QUIET_LIMIT
            if record.stage is Stage.FINAL and patient and not self.is_quiet(record.camera, record.night):
                continue
            self._tell_of(record)
            self._launcher.start(JobKind.STAGE, record.camera, record.night, now=now, stage=record.stage)

    def start_reports(self, now: float) -> None:
        """Launch the late report of dark runs, if there are any and somebody can take it."""
        main = self._launcher.main
        if main is None or not main.terms.visible or self._launcher.is_dark:
            return
        if any(flight.job.kind is JobKind.REPORT for flight in self._launcher.flights):
            return
        for run in self._ledger.unreported(limit=1):
            self._launcher.start(JobKind.REPORT, run.camera, run.night, now=now)

    def ended(self, job: Job, report: JobReport, now: float) -> None:
        """Take note of the end of a job."""
        what = f"{job.kind} job {job.key} of {job.camera}"
        if report.error:
            _log.warning("%s ended: %s", what, report.error)
        else:
            _log.info("%s ended %s", what, report.summary or "")
        if job.kind is JobKind.MASTERS:
            self._masters_ended(job, report, now)
        elif job.kind is JobKind.STAGE:
            self._keeper.refresh()
            if report.error:
                text = f"{job.key} of camera {job.camera} failed: {report.error}. It is tried again."
                self._alarms.raise_(f"stage/{job.camera}/{job.key}", f"{job.key} failed", text)

    def is_quiet(self, camera: str, night: Night) -> bool:
        """Whether nothing of a night is queued or in the air."""
        flying = any(
            flight.job.camera == camera and flight.job.night == night and flight.job.kind is not JobKind.STAGE
            for flight in self._launcher.flights
        )
        return not flying and not self._launcher.queue.waiting(camera, night)

    def making_masters(self) -> bool:
        """Whether masters are owed or being made."""
        flying = any(flight.job.kind is JobKind.MASTERS for flight in self._launcher.flights)
        return flying or len(self.desk) > 0

    def _masters_ended(self, job: Job, report: JobReport, now: float) -> None:
        key = (job.camera, job.night)
        if report.error:
            self._failures[key] = self._failures.get(key, 0) + 1
            if self._failures[key] < _MASTER_ATTEMPTS:
                self.desk.note(job.camera, job.night, now)
            else:
                text = f"Masters of {job.camera}, night {job.night}, cannot be made: {report.error}"
                self._alarms.raise_(f"masters/{job.camera}/{job.night}", "No masters", text)
            return
        self._failures.pop(key, None)
        self._alarms.clear(f"masters/{job.camera}/{job.night}")
        # the ledger is asked, not the report: a job that was taken back may have made masters, too
        if self._ids(job.camera) - self._known.pop(key, set()):
            self._retry_waiting(job.camera)

    def _retry_waiting(self, camera: str) -> None:
        """Let exposures that wait for a master try again; those that still miss one go on waiting."""
        names = [
            entry.key
            for record in self._keeper.open_nights
            if record.camera == camera
            for entry in self._ledger.entries(record.night, camera, [State.WAITING])
        ]
        if names:
            self._on_again(self._ledger.retry(names, owner="watch"))

    def _ids(self, camera: str) -> set[str]:
        return {master.master_id for master in self._ledger.masters(camera)}

    def _tell_of(self, record: StageRecord) -> None:
        main = self._launcher.main
        if main is None or not main.terms.visible:
            return  # without Prefect the watch is the one who runs stages
        name = f"{record.stage} of night {record.night}"
        text = (
            f"{name} of camera {record.camera} was due at {record.due:%Y-%m-%d %H:%M} UTC and nobody ran it, "
            "so the watch does. Is the serve child or a worker running?"
        )
        key = f"fallback/{record.camera}/{record.night}/{record.stage}"
        self._alarms.raise_(key, f"{name}: run by the watch", text)
        self._alarms.clear(key)
