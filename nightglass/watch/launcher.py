"""Gives ready groups to an executor, follows them, and takes back what hangs."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nightglass.errors import LeaseLost, NightglassError, Retryable
from nightglass.model import CALIBRATION_KINDS, State
from nightglass.reduction import GroupJob
from nightglass.watch.breaker import Breaker, BreakerState
from nightglass.watch.claims import claim_batch
from nightglass.watch.dispatch import Dispatch, ReadyItem
from nightglass.watch.flights import Flight, Flights, Trouble, Verdict
from nightglass.watch.jobs import Job, JobKind, JobPhase, JobReport
from nightglass.watch.runs import run_record

if TYPE_CHECKING:
    from nightglass.ledger import Entry, Lease
    from nightglass.model import Night, Stage
    from nightglass.watch.executor import Executor
    from nightglass.watch.owners import Owner
    from nightglass.watch.work import Workbench

__all__ = ["Launcher"]

_log = logging.getLogger(__name__)

_RESTART_GRACE_S = 2.0
"""For library calls that are under way in an executor that is to be restarted."""
_GROUP_PATIENCE_S = 10.0
_PATIENCE_S = 30.0
"""For groups, and for masters and stages, that were begun when the breaker opened."""
_ID_BYTES = 8
_LONG_JOB = {JobKind.ARCHIVE: 360}
"""Masters and stages may take 20 times as long as one exposure without a word, archives, which are leased, longer."""

EndFunction = Callable[[Job, JobReport], None]


@dataclass(slots=True)
class Launcher:
    """Everything between the queue and the executors.

    Attributes
    ----------
    main : Executor or None
        Where jobs go while the breaker is closed; None: there is only the dark.
    on_over : callable
        Told the entries whose leases are over, reduced or not.
    on_end : callable
        Told jobs other than group jobs that ended, and their last report.
    """

    bench: Workbench
    owner: Owner
    main: Executor | None
    dark: Executor
    queue: Dispatch
    on_over: Callable[[tuple[Entry, ...]], None]
    on_end: EndFunction
    flights: Flights = field(default_factory=Flights)
    breaker: Breaker = field(default_factory=Breaker)
    _restart_by: float | None = None

    @property
    def is_dark(self) -> bool:
        """Whether a job given now would run dark."""
        return self.main is None or self.breaker.state is BreakerState.OPEN

    def pump(self, now: float) -> int:
        """Launch batches while slots are free; return how many were launched."""
        launched = 0
        dark = self.is_dark
        executor = self._executor(dark=dark)
        while self.flights.busy(dark=dark) < executor.terms.capacity:
            # a flow run costs something, a dark call nothing: batches would only make latency worse
            batch = self.queue.take(now, batch_limit=1 if dark else None)
            if not batch:
                break
            job = self._claim(batch)
            if job is not None:
                self._launch(job, now)
                launched += 1
        return launched

    def start(
        self,
        kind: JobKind,
        camera: str,
        night: Night,
        *,
        now: float,
        stage: Stage | None = None,
        exposures: tuple[str, ...] = (),
        builder: str = "",
        order: str = "",
        progress: str = "",
    ) -> Job:
        """Launch a job that is no group: masters, a stage, archives, what builders did, or the report of late runs."""
        name = stage.value if stage else {JobKind.REPORT: "late-runs"}.get(kind, kind.value)
        job = Job(
            job_id=secrets.token_hex(_ID_BYTES),
            kind=kind,
            key=exposures[0] if len(exposures) == 1 else f"{night}-{name}",
            camera=camera,
            night=night,
            deadline_s=_LONG_JOB.get(kind, 20) * self.bench.observatory.reduction.lease_s,
            stage=stage,
            exposures=exposures,
            builder=builder,
            order=order,
            progress=progress,
        )
        self._launch(job, now)
        return job

    def listen(self, now: float) -> None:
        """Take the reports of the executors, and look at the ledger for what they are about."""
        ended = []
        for executor in (self.dark, self.main):
            for report in executor.poll() if executor is not None else ():
                flight = self.flights.hear(report, now)
                if flight is None:
                    continue
                if report.phase is JobPhase.ENDED:
                    ended.append((flight, report))
        self.settle(now)
        for flight, report in ended:
            self._end(flight, report, now)

    def settle(self, now: float) -> None:
        """Learn from the ledger which leases are over: that, not a report, frees a slot."""
        held = {flight.job.job_id: flight.open_leases() for flight in self.flights if flight.pending}
        if not held:
            return
        running = self.bench.ledger.tokens()
        over = {
            job_id: [lease.exposure_id for lease in leases if lease.token not in running]
            for job_id, leases in held.items()
        }
        for job_id, exposure_ids in over.items():
            self.flights.settle(job_id, exposure_ids, now)
        self._tell_over([each for exposure_ids in over.values() for each in exposure_ids])

    def check(self, now: float) -> None:
        """Look at health and at the clock: open or close the breaker, take back what hangs."""
        if self.main is not None:
            change = self.breaker.observe(healthy=self.main.healthy, now=now)
            if change is not None:
                _log.warning("the breaker is %s: %s", change.state, change.reason)
                if change.state is BreakerState.OPEN:
                    self._retreat(now, change.reason)
        for verdict in self.flights.verdicts(now):
            self._sentence(verdict, now)
        if self.breaker.state is BreakerState.OPEN:
            self._give_up_waiting(now)
        self._restart_if_due(now)

    def next_check(self) -> float:
        """Return in how many seconds `check` should be called again at the latest."""
        return 0.25 if len(self.flights) or self.main is not None else math.inf

    def attach(self, wake: Callable[[], None]) -> None:
        """Let the executors start, and wake the watch when they have something to say."""
        for executor in (self.dark, self.main):
            if executor is not None:
                executor.attach(wake)

    def close(self) -> None:
        """End the executors."""
        for executor in (self.main, self.dark):
            if executor is not None:
                executor.close()

    def take_back_all(self, reason: str, now: float) -> None:
        """Take back whatever is in the air, for the end of the watch."""
        for flight in self.flights:
            self._executor(dark=flight.dark).cancel(flight.job.job_id)
            self._revoke(flight.open_leases(), reason)
            self.flights.land(flight.job.job_id)
        self.settle(now)

    def restock(self, entries: Iterable[Entry], now: float) -> int:
        """Queue entries that are grouped and due and in nobody's hands; return how many groups that made."""
        groups: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.ref is not None and entry.state is State.GROUPED:
                groups.setdefault(entry.group_id or entry.exposure_id, []).append(entry)
        for group_id, members in groups.items():
            queued = self.queue.get(group_id)
            ids = dict.fromkeys([*(queued.members if queued else ()), *(member.exposure_id for member in members)])
            if queued is not None and len(ids) == len(queued.members):
                continue
            first = members[0]
            self.queue.add(
                ReadyItem(
                    group_id=group_id,
                    camera=first.camera,
                    night=first.night,
                    started_at=max(member.ref.started_at.timestamp() for member in members if member.ref),
                    ready_at=queued.ready_at if queued else now,
                    calibration=first.kind in CALIBRATION_KINDS,
                    members=tuple(ids),
                    rule=self._rule(group_id, first),
                )
            )
        return len(groups)

    def _rule(self, group_id: str, entry: Entry) -> str:
        if group_id == entry.exposure_id:
            return ""
        record = self.bench.ledger.find_group(group_id)
        return record.rule if record is not None else ""

    def _executor(self, *, dark: bool) -> Executor:
        return self.dark if dark or self.main is None else self.main

    def _claim(self, batch: tuple[ReadyItem, ...]) -> Job | None:
        """Claim the exposures of a batch; groups of which nothing can be had any more are left out."""
        rules = self.bench.observatory.reduction
        exposures = sum(len(item.members) for item in batch)
        workers = max(len(self.bench.pool.workers()), 1)
        lease_s = rules.lease_s * math.ceil(exposures / workers)
        job_id, groups = secrets.token_hex(_ID_BYTES), []
        taken = claim_batch(batch, self.bench.ledger, owner=str(self.owner), lease_s=lease_s)
        claimed = [lease.exposure_id for leases in taken for lease in leases]
        refs = {ref.exposure_id: ref for ref in self.bench.ledger.refs(claimed)}
        for item, leases in zip(batch, taken, strict=True):
            if not leases or any(lease.exposure_id not in refs for lease in leases):
                self._revoke(leases, "a member was replaced while it was claimed")
                continue
            groups.append(
                GroupJob(
                    job_id=job_id,
                    group_id=item.group_id,
                    camera=item.camera,
                    refs=tuple(refs[lease.exposure_id] for lease in leases),
                    leases=leases,
                    lists=rules.realtime,
                    rule=item.rule,
                )
            )
        if not groups:
            return None
        first = batch[0]
        return Job(
            job_id=job_id,
            kind=JobKind.GROUP,
            key=groups[0].group_id if len(groups) == 1 else f"{first.camera}/{first.night}/batch-of-{len(groups)}",
            camera=first.camera,
            night=first.night,
            # the call has its own time-out for each exposure; the watch's is for calls that do not return
            deadline_s=1.5 * rules.lease_s + 1.0,
            groups=tuple(groups),
        )

    def _launch(self, job: Job, now: float) -> None:
        dark = self.is_dark
        executor = self._executor(dark=dark)
        self.flights.launch(job, terms=executor.terms, dark=dark, now=now)
        executor.submit(job)

    def _tell_over(self, exposure_ids: list[str]) -> None:
        if exposure_ids:
            self.on_over(tuple(self.bench.ledger.entries(ids=exposure_ids)))

    def _end(self, flight: Flight, report: JobReport, now: float) -> None:
        """Close the file of a job that ended; leases that it left behind are given back."""
        left = flight.open_leases()
        error = report.error or "the run ended without a word about it"
        if left and report.lost:
            self._revoke(left, error)
        elif left and flight.begun:
            self._give_back(left, Retryable(f"{flight.job.key}: {error}"))
        elif left:
            self._revoke(left, f"{flight.job.key} did not begin: {error}")
            if not flight.dark:
                # a run that ends before its work does it again and again: let the dark have a go
                self._trip(f"{flight.job.key} did not begin: {error}", now)
        self.flights.land(flight.job.job_id)
        self._tell_over([lease.exposure_id for lease in left])
        visible = self.main is not None and self.main.terms.visible
        if flight.dark and visible and flight.job.kind is not JobKind.REPORT:
            self.bench.ledger.record_run(run_record(flight, error=report.error))
        if report.lost and flight.job.kind is JobKind.GROUP and flight.flow_run_id and not left:
            self.bench.ledger.record_run(run_record(flight, error=""))  # only its end was not heard
        if flight.job.kind is not JobKind.GROUP:
            self.on_end(flight.job, report)

    def _sentence(self, verdict: Verdict, now: float) -> None:
        flight = verdict.flight
        job_id = flight.job.job_id
        _log.warning("%s", verdict)
        executor = self._executor(dark=flight.dark)
        executor.cancel(job_id)
        if verdict.trouble is Trouble.STALLED:
            # what was being worked on may be to blame: the attempt counts; what had not begun is innocent
            self._give_back(flight.open_leases(working=True), Retryable(f"{verdict}"))
        self._take_back(flight, str(verdict))
        if verdict.trouble is Trouble.SILENT and flight.flow_run_id:
            self.bench.ledger.record_run(run_record(flight, error=""))
        if flight.dark:
            self._restart_dark(str(verdict))
        else:
            self._trip(str(verdict), now)
            self._restart_by = now + _RESTART_GRACE_S if self._restart_by is None else self._restart_by

    def _take_back(self, flight: Flight, reason: str) -> None:
        """Fence a flight off and forget it; its exposures are queued again."""
        left = flight.open_leases()
        self._revoke(left, reason)
        self.flights.land(flight.job.job_id)
        self._tell_over([lease.exposure_id for lease in left])
        if flight.job.kind is not JobKind.GROUP and flight.done_at is None:
            report = JobReport(job_id=flight.job.job_id, phase=JobPhase.ENDED, error=f"Retryable: {reason}")
            self.on_end(flight.job, report)

    def _trip(self, reason: str, now: float) -> None:
        change = self.breaker.trip(reason, now)
        if change is not None:
            _log.warning("the breaker is %s: %s", change.state, change.reason)
            self._retreat(now, reason)

    def _retreat(self, now: float, reason: str) -> None:
        """Take back what has not begun in the executor; what is being worked on may finish."""
        for flight, group_ids in self.flights.retreatable():
            if self.main is not None:
                self.main.cancel(flight.job.job_id)
            if not group_ids or len(group_ids) == len(flight.pending) == len(flight.job.groups):
                self._take_back(flight, reason)
                continue
            idle = [lease for group in flight.job.groups if group.group_id in group_ids for lease in group.leases]
            self._revoke(idle, reason)
        self.settle(now)

    def _give_up_waiting(self, now: float) -> None:
        """Take back what was begun when the breaker opened and does not come forward: its runner may be dead.

        A call that runs after all is fenced; nothing but its time is lost.
        """
        for flight in self.flights:
            is_group = flight.job.kind is JobKind.GROUP
            patience_s = _GROUP_PATIENCE_S if is_group else _PATIENCE_S
            idle_s = now - max(flight.progress_at, self.breaker.since)
            if flight.dark or flight.done_at is not None or idle_s <= patience_s:
                continue
            if self.main is not None:
                self.main.cancel(flight.job.job_id)
            self._take_back(flight, f"it did not end within {patience_s:g} s: {self.breaker.reason}")
            self._restart_by = now + _RESTART_GRACE_S if self._restart_by is None else self._restart_by

    def _restart_if_due(self, now: float) -> None:
        if self._restart_by is None or self.main is None:
            return
        working = [flight for flight in self.flights if not flight.dark and flight.working]
        if working and now < self._restart_by:
            return
        for flight in self.flights:
            if not flight.dark:
                self._take_back(flight, "its executor is restarted")
        self._restart_by = None
        self.main.restart()

    def _restart_dark(self, reason: str) -> None:
        # the threads that hang are left behind; what the others were at is fenced and given again
        for flight in self.flights:
            if flight.dark:
                self._take_back(flight, reason)
        self.dark.restart()

    def _give_back(self, leases: Iterable[Lease], error: NightglassError) -> None:
        rules = self.bench.observatory.reduction
        for lease in leases:
            try:
                self.bench.ledger.give_back(lease, error, max_attempts=rules.attempts, retry_s=rules.retry_s)
            except LeaseLost as lost:
                _log.info("%s", lost)

    def _revoke(self, leases: Iterable[Lease], reason: str) -> None:
        taken = tuple(leases)
        if taken:
            self.bench.ledger.revoke(leases=taken, reason=reason)
