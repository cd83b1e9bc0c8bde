"""The end of a watch that runs once: groups flushed, masters made, final stages run, late runs reported."""

from __future__ import annotations

import enum
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

from nightglass.ledger import StageState
from nightglass.model import Night, Stage, State
from nightglass.watch.jobs import JobKind

if TYPE_CHECKING:
    from nightglass.ledger import Ledger
    from nightglass.watch.chores import Chores
    from nightglass.watch.collector import Collector
    from nightglass.watch.intake import Intake
    from nightglass.watch.launcher import Launcher

__all__ = ["Finish"]

_log = logging.getLogger(__name__)

_REPORT_S = 20.0
_STARTS = 2
"""Of a final: the first may fall into a breakdown of its executor."""
_UNSETTLED = (State.GROUPED, State.RUNNING)


class _Step(enum.Enum):
    REDUCE = enum.auto()
    STAGES = enum.auto()
    REPORT = enum.auto()
    OVER = enum.auto()


class Finish:
    """Leads a watch from its first file to its end."""

    def __init__(
        self, intake: Intake, collector: Collector, launcher: Launcher, chores: Chores, ledger: Ledger
    ) -> None:
        self._intake = intake
        self._collector = collector
        self._launcher = launcher
        self._chores = chores
        self._ledger = ledger
        self._step = _Step.REDUCE
        self._starts: Counter[tuple[str, Night]] = Counter()
        self._report_until = 0.0
        self._failed: dict[tuple[str, Night], str] = {}

    @property
    def stages_failed(self) -> tuple[str, ...]:
        """Final stages that did not end well, and why."""
        return tuple(f"{camera}/{night}: {reason}" for (camera, night), reason in self._failed.items())

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do."""
        return self._step is _Step.OVER

    def proceed(self, now: float) -> None:
        """Go on to the next step if this one is done; called when all files are through, and science is released."""
        match self._step:
            case _Step.REDUCE:
                self._reduce()
            case _Step.STAGES:
                self._run_stages(now)
            case _Step.REPORT:
                self._report(now)

    def _reduce(self) -> None:
        if len(self._launcher.queue) or len(self._launcher.flights):
            return
        if len(self._chores.desk):
            self._chores.desk.hurry()
        elif len(self._collector):
            self._collector.flush()
        elif not self._is_unsettled():
            self._step = _Step.STAGES

    def _is_unsettled(self) -> bool:
        """Whether an exposure waits for its next attempt, or somebody else is at one."""
        return any(
            self._ledger.counts(night, camera)[state] for camera, night in self._intake.touched for state in _UNSETTLED
        )

    def _run_stages(self, now: float) -> None:
        if len(self._launcher.flights):
            return
        for camera, night in sorted(self._intake.touched):
            record = self._ledger.find_night(night, camera)
            if record is None or not record.is_open:
                continue
            final = record.stage(Stage.FINAL)
            if final.state is StageState.RUNNING:
                return  # somebody else runs it
            if final.state is StageState.PENDING and self._starts[camera, night] < _STARTS:
                self._starts[camera, night] += 1
                self._launcher.start(JobKind.STAGE, camera, night, now=now, stage=Stage.FINAL)
                return
            _log.error("final of night %s, camera %s, did not end well: %s", night, camera, final.reason)
            self._failed[camera, night] = final.reason
        self._step = _Step.REPORT
        self._report_until = time.monotonic() + _REPORT_S

    def _report(self, now: float) -> None:
        main = self._launcher.main
        if len(self._launcher.flights):
            return
        visible = main is not None and main.terms.visible
        if visible and now < self._report_until and self._ledger.unreported(limit=1):
            self._chores.start_reports(now)
            return
        self._step = _Step.OVER
