"""The executor of last resort, and the one of a site without Prefect: threads that make the library calls."""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any

from nightglass.watch.executor import Terms
from nightglass.watch.jobs import Job, JobKind, JobPhase, JobReport
from nightglass.watch.work import Workbench, perform

__all__ = ["DarkExecutor"]

_log = logging.getLogger(__name__)


class _Crew:
    """Daemon threads that serve one queue until they are dismissed.

    Not a `concurrent.futures` pool: the interpreter joins its threads at exit, and a thread that hangs in a
    library call would then keep the whole process alive.
    """

    def __init__(self, name: str, size: int, work: Callable[[Job, _Crew], None]) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._work = work
        self.dismissed = False
        self._threads = [threading.Thread(target=self._serve, name=f"{name}-{n}", daemon=True) for n in range(size)]
        for thread in self._threads:
            thread.start()

    def put(self, job: Job) -> None:
        self._jobs.put(job)

    def dismiss(self) -> None:
        """Let each thread end after the job it is at; jobs not begun are dropped."""
        self.dismissed = True
        for _ in self._threads:
            self._jobs.put(None)

    def join(self, timeout_s: float) -> None:
        for thread in self._threads:
            thread.join(timeout_s / len(self._threads))

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not self.dismissed:
                self._work(job, self)


class DarkExecutor:
    """Runs jobs in threads of this process, by plain library calls.

    Group jobs have threads of their own, so that masters and stages, which take long, do not hold them up; archives,
    which take longer still, have one that holds up nobody.

    Parameters
    ----------
    bench : Workbench
        Ledger, pool and configuration that the calls need.
    capacity : int
        Group jobs at once; one more than the pool has workers keeps all of them busy.
    """

    def __init__(self, bench: Workbench, *, capacity: int) -> None:
        self._bench = bench
        self._terms = Terms(capacity=capacity, start_s=math.inf, silence_s=math.inf, visible=False)
        self._reports: queue.SimpleQueue[JobReport] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        self._wake: Callable[[], None] = lambda: None
        self._groups, self._archives, self._others = self._hire()

    @property
    def terms(self) -> Terms:
        """See `Executor`."""
        return self._terms

    @property
    def healthy(self) -> bool:
        """Always true: this is what others fall back on."""
        return True

    def attach(self, wake: Callable[[], None]) -> None:
        """See `Executor`."""
        self._wake = wake

    def submit(self, job: Job) -> None:
        """See `Executor`."""
        crews = {JobKind.GROUP: self._groups, JobKind.ARCHIVE: self._archives}
        crews.get(job.kind, self._others).put(job)

    def poll(self) -> Iterable[JobReport]:
        """See `Executor`."""
        reports = []
        while not self._reports.empty():
            reports.append(self._reports.get())
        return reports

    def cancel(self, job_id: str) -> None:
        """See `Executor`."""
        self._cancelled.add(job_id)

    def restart(self) -> None:
        """Leave the threads that hang to themselves, and hire new ones."""
        for crew in (self._groups, self._archives, self._others):
            crew.dismiss()
        self._cancelled.clear()
        self._groups, self._archives, self._others = self._hire()

    def close(self) -> None:
        """See `Executor`."""
        for crew in (self._groups, self._archives, self._others):
            crew.dismiss()
        for crew in (self._groups, self._archives, self._others):
            crew.join(1.0)

    def _hire(self) -> tuple[_Crew, _Crew, _Crew]:
        # two for the rest: a final that takes minutes does not hold up the masters
        return (
            _Crew("dark-group", self._terms.capacity, self._do),
            _Crew("dark-archive", 1, self._do),
            _Crew("dark-other", 2, self._do),
        )

    def _do(self, job: Job, crew: _Crew) -> None:
        def tell(phase: JobPhase, group_id: str = "", error: str = "", summary: dict[str, Any] | None = None) -> None:
            if not crew.dismissed:
                self._reports.put(
                    JobReport(job_id=job.job_id, phase=phase, group_id=group_id, error=error, summary=summary or {})
                )
                self._wake()

        if job.job_id in self._cancelled:
            self._cancelled.discard(job.job_id)
            tell(JobPhase.ENDED, error="Cancelled: taken back before it began")
            return
        try:
            summary = perform(job, self._bench, on_phase=tell)
        except Exception as error:  # noqa: BLE001 - a boundary: the watch decides what becomes of the job
            _log.exception("%s job %s (%s) failed", job.kind, job.job_id, job.key)
            tell(JobPhase.ENDED, error=f"{type(error).__name__}: {error}")
        else:
            tell(JobPhase.ENDED, summary=summary)
