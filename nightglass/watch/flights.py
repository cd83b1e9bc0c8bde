"""Jobs that an executor has, and what to think of them: sans-I/O.

The ledger frees a slot: a group is over when its leases are, whatever the executor says or does not say. The reports
tell only how far a job came, which decides what may be taken back without loss, and what must be fenced.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nightglass.model import CALIBRATION_KINDS
from nightglass.watch.executor import Terms
from nightglass.watch.jobs import Job, JobKind, JobPhase, JobReport

if TYPE_CHECKING:
    from nightglass.ledger import Lease

__all__ = ["Flight", "Flights", "Trouble", "Verdict"]


class Trouble(enum.StrEnum):
    """What is wrong with a flight."""

    LATE_START = "late start"
    """The executor has it, but its work did not begin in time."""
    STALLED = "stalled"
    """Nothing of it came forward until its deadline."""
    SILENT = "silent"
    """The ledger says done, but the executor does not say that it ended."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One flight that is in trouble."""

    flight: Flight
    trouble: Trouble
    after_s: float

    def __str__(self) -> str:
        return f"{self.flight.job.kind} job {self.flight.job.key}: {self.trouble} for {self.after_s:.1f} s"


@dataclass(slots=True)
class Flight:
    """One job in an executor.

    Attributes
    ----------
    dark : bool
        Whether it is in the dark executor.
    launched_at, progress_at : float
        When it was given, and when something of it last came forward.
    phases : dict
        Group id (empty: the job) -> how far it came.
    pending : dict
        Group id -> exposure ids whose leases are not over.
    begun : bool
        Whether anything of it came as far as WORKING.
    done_at : float or None
        When all its work was over.
    flow_run_id : str
        Of the Prefect flow run that shows it, once it is known.
    started_at : float
        As `launched_at`, in epoch seconds, for people.
    """

    job: Job
    dark: bool
    terms: Terms
    launched_at: float
    progress_at: float
    phases: dict[str, JobPhase] = field(default_factory=dict)
    pending: dict[str, set[str]] = field(default_factory=dict)
    begun: bool = False
    done_at: float | None = None
    flow_run_id: str = ""
    started_at: float = field(default_factory=time.time)

    def phase(self, group_id: str = "") -> JobPhase:
        """Return how far the job, or one group of it, came; a job of one group speaks for its group."""
        alone = len(self.job.groups) == 1
        own = self.phases.get(group_id, JobPhase.ACCEPTED)
        return max(own, self.phases.get("", JobPhase.ACCEPTED), key=lambda each: each.rank) if alone else own

    @property
    def working(self) -> bool:
        """Whether a library call of it is under way, as far as is known."""
        if self.done_at is not None:
            return False
        if self.job.kind is not JobKind.GROUP:
            return self.phase() is JobPhase.WORKING
        return any(self.phase(group_id) is JobPhase.WORKING for group_id in self.pending)

    def open_leases(self, *, working: bool = False) -> list[Lease]:
        """Return the leases that were not over; with `working`, only of groups whose call has begun."""
        return [
            lease
            for group in self.job.groups
            for lease in group.leases
            if lease.exposure_id in self.pending.get(group.group_id, ())
            and (not working or self.phase(group.group_id) is JobPhase.WORKING)
        ]


class Flights:
    """All jobs in flight."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __iter__(self) -> Iterator[Flight]:
        return iter(tuple(self._flights.values()))

    def get(self, job_id: str) -> Flight | None:
        """Return a flight by its job's id, if it is in the air."""
        return self._flights.get(job_id)

    def launch(self, job: Job, *, terms: Terms, dark: bool, now: float) -> Flight:
        """Note that a job was given to an executor."""
        pending = {group.group_id: {lease.exposure_id for lease in group.leases} for group in job.groups}
        flight = Flight(job, dark, terms, now, now, pending=pending)
        self._flights[job.job_id] = flight
        return flight

    def hear(self, report: JobReport, now: float) -> Flight | None:
        """Take a report; return the flight it is about, or None if that was taken back before."""
        flight = self._flights.get(report.job_id)
        if flight is None:
            return None
        flight.flow_run_id = report.flow_run_id or flight.flow_run_id
        before = flight.phases.get(report.group_id, JobPhase.ACCEPTED)
        if report.phase.rank > before.rank:  # phases go forward, whatever order the pipe gives them
            flight.phases[report.group_id] = report.phase
            flight.progress_at = now
        flight.begun = flight.begun or report.phase in (JobPhase.WORKING, JobPhase.DONE)
        self._note_done(flight, now)
        return flight

    def settle(self, job_id: str, exposure_ids: Iterable[str], now: float) -> None:
        """Take from the ledger that leases of a job are over, one way or another."""
        flight = self._flights.get(job_id)
        if flight is None:
            return
        over = set(exposure_ids)
        for group_id, open_ids in tuple(flight.pending.items()):
            if open_ids & over:
                flight.progress_at = now
                open_ids -= over
            if not open_ids:
                del flight.pending[group_id]
        self._note_done(flight, now)

    def land(self, job_id: str) -> Flight | None:
        """Forget a flight: it ended, or was taken back."""
        return self._flights.pop(job_id, None)

    def busy(self, *, dark: bool) -> int:
        """Return how many group slots of an executor are taken; work that the ledger calls done takes none."""
        return sum(
            flight.dark is dark and flight.job.kind is JobKind.GROUP and flight.done_at is None
            for flight in self._flights.values()
        )

    @property
    def in_batches(self) -> bool:
        """Whether every slot is taken by a batch of which several groups are left: no one report can free a slot."""
        taken = [
            flight for flight in self._flights.values() if flight.job.kind is JobKind.GROUP and flight.done_at is None
        ]
        return (
            bool(taken)
            and len(taken) >= min(flight.terms.capacity for flight in taken)
            and all(len(flight.pending) > 1 for flight in taken)
        )

    def has(self, kind: JobKind, camera: str, night: object) -> bool:
        """Return whether a job of that kind for a night of a camera is in the air."""
        return any(
            flight.job.kind is kind and flight.job.camera == camera and flight.job.night == night
            for flight in self._flights.values()
        )

    def calibrating(self) -> bool:
        """Return whether calibration frames are in the air."""
        return any(
            ref.kind in CALIBRATION_KINDS
            for flight in self._flights.values()
            if flight.done_at is None
            for group in flight.job.groups
            for ref in group.refs
        )

    def verdicts(self, now: float) -> tuple[Verdict, ...]:
        """Return the flights that are in trouble now."""
        return tuple(verdict for flight in self._flights.values() if (verdict := _judge(flight, now)) is not None)

    def _note_done(self, flight: Flight, now: float) -> None:
        if flight.done_at is not None or flight.pending:
            return
        # what a rule asks for beyond the exposures (a stack) has no lease: there the call must have returned
        beyond = [group.group_id for group in flight.job.groups if group.rule]
        if flight.job.kind is not JobKind.GROUP:
            beyond = [""]
        ended = flight.phases.get("") is JobPhase.ENDED
        if ended or all(flight.phase(name).rank >= JobPhase.DONE.rank for name in beyond):
            flight.done_at = now

    def retreatable(self) -> tuple[tuple[Flight, tuple[str, ...]], ...]:
        """Return flights outside the dark with the groups of them that have not begun, for the breaker's opening."""
        found = []
        for flight in self._flights.values():
            if flight.dark or flight.done_at is not None:
                continue
            if flight.job.kind is JobKind.GROUP:
                idle = tuple(name for name in flight.pending if flight.phase(name) is JobPhase.ACCEPTED)
                if idle:
                    found.append((flight, idle))
            elif flight.phase() is JobPhase.ACCEPTED:
                found.append((flight, ()))
        return tuple(found)


def _judge(flight: Flight, now: float) -> Verdict | None:
    terms, job = flight.terms, flight.job
    if flight.done_at is not None:
        silent = now - flight.done_at
        return Verdict(flight, Trouble.SILENT, silent) if silent > terms.silence_s else None
    idle = now - flight.progress_at
    if idle > job.deadline_s:
        return Verdict(flight, Trouble.STALLED, idle)
    # masters and stages may queue behind each other, groups never do: they were given for a free slot
    waited = now - flight.launched_at
    if job.kind is JobKind.GROUP and not flight.begun and waited > terms.start_s:
        return Verdict(flight, Trouble.LATE_START, waited)
    return None
