"""One group, from its leases to committed products: the library call that every executor ends in."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from nightglass.errors import LeaseLost, Misconfigured, NightglassError, Rejected, Retryable, Waiting
from nightglass.ledger import Lease
from nightglass.model import ExposureRef, Product, Quality, State
from nightglass.reduction.plan import plan
from nightglass.reduction.spec import ReductionResult, ReductionSpec, check_names
from nightglass.reduction.stacking import stack_group
from nightglass.reduction.worker import reduce_exposure

if TYPE_CHECKING:
    from nightglass.config import Camera, Observatory
    from nightglass.ledger import Ledger
    from nightglass.pool import Pool

__all__ = ["GroupJob", "GroupOutcome", "MemberOutcome", "run_group"]

_log = logging.getLogger(__name__)

_FRESH = 0.75
"""A lease with less than this fraction of its time left is prolonged when its exposure begins or comes nearer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupJob:
    """The request to reduce a group whose members are claimed.

    Attributes
    ----------
    rule : str
        Name of the camera's `GroupRule`; empty for a group of one.
    refs : tuple of ExposureRef
        The members, in order.
    leases : tuple of Lease
        One a member.
    lists : tuple of str
        Names of the step lists that run, in order.
    """

    job_id: str
    group_id: str
    camera: str
    refs: tuple[ExposureRef, ...]
    leases: tuple[Lease, ...]
    lists: tuple[str, ...]
    rule: str = ""

    def __post_init__(self) -> None:
        if [ref.exposure_id for ref in self.refs] != [lease.exposure_id for lease in self.leases]:
            message = f"group {self.group_id}: its leases are not those of its members"
            raise Misconfigured(message, remedy="this is an error of Nightglass; please report it")

    def to_json(self) -> dict[str, Any]:
        """Return the job as plain JSON values."""
        return {
            "job_id": self.job_id,
            "group_id": self.group_id,
            "camera": self.camera,
            "refs": [ref.to_json() for ref in self.refs],
            "leases": [lease.to_json() for lease in self.leases],
            "lists": list(self.lists),
            "rule": self.rule,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Make the job from what `to_json` gave.

        Raises
        ------
        Misconfigured
            If the record is of another shape.
        """
        check_names(cls, record)
        return cls(
            job_id=record["job_id"],
            group_id=record["group_id"],
            camera=record["camera"],
            refs=tuple(ExposureRef.from_json(ref) for ref in record["refs"]),
            leases=tuple(Lease.from_json(lease) for lease in record["leases"]),
            lists=tuple(record["lists"]),
            rule=record["rule"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberOutcome:
    """How one member ended.

    Attributes
    ----------
    state : State or None
        In the ledger now; None where the lease was lost and somebody else decides.
    error : str
        Class and text; empty: reduced.
    again : bool
        Whether another attempt may well succeed.
    """

    exposure_id: str
    state: State | None
    quality: Quality | None = None
    error: str = ""
    timings: dict[str, float] = field(default_factory=dict)
    masters: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOutcome:
    """How a group ended.

    Attributes
    ----------
    stack : Product or None
        The stack of its reduced members, where the rule asks for one.
    notes : tuple of str
        Why there is no stack, and the like.
    """

    group_id: str
    members: tuple[MemberOutcome, ...]
    stack: Product | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def reduced(self) -> tuple[str, ...]:
        """Ids of the members that were reduced."""
        return tuple(item.exposure_id for item in self.members if item.state is State.REDUCED and not item.error)

    @property
    def errors(self) -> dict[str, str]:
        """Exposure id -> error, for the others."""
        return {item.exposure_id: item.error for item in self.members if item.error}


def run_group(job: GroupJob, *, ledger: Ledger, pool: Pool, observatory: Observatory, camera: Camera) -> GroupOutcome:
    """Reduce the members of a group, commit each as it ends, and stack them if the rule says so.

    Nothing that goes wrong with one member stops the others or leaves this function as an exception: its lease is given
    back, and the class of the error decides what becomes of it. A member whose lease was lost is left alone.

    Raises
    ------
    Misconfigured
        If the camera has no step list of a name that the job asks for.
    """
    started = time.monotonic()
    for name in job.lists:
        for ref in job.refs:
            camera.step_list(name, ref.kind)
    run = _Run(job, ledger, pool, observatory, camera)
    members = run.reduce()
    stack, notes = run.stack() if any(member.state is State.REDUCED for member in members) else (None, ())
    return GroupOutcome(
        group_id=job.group_id,
        members=members,
        stack=stack,
        notes=notes,
        seconds=round(time.monotonic() - started, 4),
    )


class _Run:
    """The state of one call of `run_group`."""

    def __init__(self, job: GroupJob, ledger: Ledger, pool: Pool, observatory: Observatory, camera: Camera) -> None:
        self._job = job
        self._ledger = ledger
        self._pool = pool
        self._rules = observatory.reduction
        self._observatory = observatory
        self._camera = camera
        self._pending: dict[Future[ReductionResult], tuple[ReductionSpec, Lease]] = {}
        self._outcomes: dict[str, MemberOutcome] = {}

    def reduce(self) -> tuple[MemberOutcome, ...]:
        for ref, lease in zip(self._job.refs, self._job.leases, strict=True):
            self._guarded(lease, partial(self._submit, ref, lease))
        self._progress()
        while self._pending:
            left = min(lease.until for _, lease in self._pending.values()) - time.time()
            done, _ = wait(self._pending, max(left, 0), FIRST_COMPLETED)
            for future in done:
                spec, lease = self._pending.pop(future)
                self._guarded(lease, partial(self._finish, spec, lease, future))
            if done:
                self._progress()
            else:
                self._give_up()
        return tuple(self._outcomes[lease.exposure_id] for lease in self._job.leases)

    def _submit(self, ref: ExposureRef, lease: Lease) -> None:
        # a job that waited long in a queue finds out here that its lease was lost, before any work is done
        if lease.until - time.time() < _FRESH * self._rules.lease_s:
            lease = self._ledger.extend(lease, lease_s=self._rules.lease_s)
        spec = plan(
            ref,
            self._job.lists,
            token=lease.token,
            ledger=self._ledger,
            observatory=self._observatory,
            camera=self._camera,
        )
        future = self._pool.submit(reduce_exposure, spec, key=ref.exposure_id)
        self._pending[future] = (spec, lease)

    def _progress(self) -> None:
        """Something ended: the others, which waited for it, get their time anew."""
        for future, (spec, lease) in list(self._pending.items()):
            if lease.until - time.time() < _FRESH * self._rules.lease_s and not future.done():
                try:
                    longer = self._ledger.extend(lease, lease_s=self._rules.lease_s)
                except NightglassError as error:
                    self._drop(future, error)
                else:
                    self._pending[future] = (spec, longer)

    def _give_up(self) -> None:
        for future, (_, lease) in list(self._pending.items()):
            if lease.until > time.time():
                continue
            message = f"{lease.exposure_id} was not reduced within {self._rules.lease_s:g} s"
            self._drop(future, Retryable(message, remedy="raise reduction.lease_s if exposures take that long"))

    def _drop(self, future: Future[ReductionResult], error: NightglassError) -> None:
        _, lease = self._pending.pop(future)
        future.cancel()
        future.add_done_callback(_discard)
        self._give_back(lease, error)

    def _finish(self, spec: ReductionSpec, lease: Lease, future: Future[ReductionResult]) -> None:
        result = future.result()
        inputs = (spec.ref.content_id, *result.masters)
        products = [
            Product(
                kind=part.kind,
                key=spec.ref.exposure_id,
                path=part.final,
                checksum=part.checksum,
                size=part.size,
                inputs=inputs,
            )
            for part in result.parts
        ]
        try:
            self._ledger.commit(
                lease,
                products=products,
                quality=result.quality,
                measured=result.measured,
                masters=result.masters,
                timings=result.timings,
                publish=lambda: _publish(result),
            )
        finally:
            _remove(result)
        self._outcomes[lease.exposure_id] = MemberOutcome(
            exposure_id=lease.exposure_id,
            state=State.REDUCED,
            quality=result.quality,
            timings=result.timings,
            masters=result.masters,
            notes=result.notes,
        )

    def stack(self) -> tuple[Product | None, tuple[str, ...]]:
        """Stack the group, where its rule asks for it; a stack that fails is a note, for its members are reduced."""
        if not self._job.rule:
            return None, ()
        try:
            return stack_group(
                self._job.group_id,
                ledger=self._ledger,
                pool=self._pool,
                observatory=self._observatory,
                camera=self._camera,
            )
        except Exception as error:  # noqa: BLE001 - a boundary: midway and final try again
            _log.exception("group %s: no stack", self._job.group_id)
            return None, (f"no stack: {type(error).__name__}: {error}",)

    def _guarded(self, lease: Lease, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a boundary: the ledger takes the error, by class and text
            if not isinstance(error, NightglassError):
                _log.exception("exposure %s: unexpected error", lease.exposure_id)
            self._give_back(lease, error)

    def _give_back(self, lease: Lease, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        state: State | None = None
        if not isinstance(error, LeaseLost):
            try:
                state = self._ledger.give_back(
                    lease, error, max_attempts=self._rules.attempts, retry_s=self._rules.retry_s
                )
            except NightglassError as problem:
                # lost: somebody else decides; locked or gone: the lease expires and the sweep decides
                _log.warning("exposure %s: lease not given back: %s", lease.exposure_id, problem)
        _log.log(
            logging.INFO if isinstance(error, LeaseLost) else logging.WARNING,
            "exposure %s is not reduced (%s): %s",
            lease.exposure_id,
            state.value if state else "its lease is somebody else's",
            text,
        )
        final = isinstance(error, (LeaseLost, Rejected, Waiting, Misconfigured)) or state is State.FAILED
        self._outcomes[lease.exposure_id] = MemberOutcome(
            exposure_id=lease.exposure_id, state=state, error=text, again=not final
        )


def _publish(result: ReductionResult) -> None:
    from nightglass.fitsio import publish

    for part in result.parts:
        publish(part.part, part.final)


def _discard(future: Future[ReductionResult]) -> None:
    """Remove what a worker wrote that nobody waits for any more."""
    if not future.cancelled() and future.exception() is None:
        _remove(future.result())


def _remove(result: ReductionResult) -> None:
    """Remove parts that were not published, as those of a lost lease."""
    for part in result.parts:
        part.part.unlink(missing_ok=True)
