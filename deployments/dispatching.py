"""Group jobs as runs of deployments, for sites that reduce on more than one host.

The job, with its leases, is written down under ``<root>/run/jobs``, where the run finds it by the id that it gets as a
parameter; a worker therefore needs the root, as it needs the files anyway. When the file is gone, the job was taken
back, and a run that comes too late does nothing.

A run may be queued for longer than a lease lasts: until its flow begins the leases are prolonged here, and from then
on by the flow itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Iterable

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled

from deployments.calls import call_of, problem_of
from nightglass.errors import LeaseLost, NightglassError
from nightglass.layout import Layout
from nightglass.ledger import Lease, Ledger
from nightglass.watch.jobs import Job, JobPhase
from nightglass.watch.work import Workbench
from tasks.bench import job_file

__all__ = ["Dispatcher"]

_log = logging.getLogger(__name__)

_POLL_S = 0.5
_OPENING_S = 60.0
"""Seconds that a run which has begun may take to open its workbench, which may mean to start workers."""
_FRESH = 0.5
"""Leases are prolonged when less than this fraction of their time is left."""


class Dispatcher:
    """Hands jobs to deployments and follows their runs.

    Parameters
    ----------
    bench : Workbench
        Its ledger holds the leases of the jobs.
    """

    def __init__(self, bench: Workbench) -> None:
        self._ledger = bench.ledger
        self._layout = Layout(bench.observatory.root)
        self._configuration = os.environ.get("NIGHTGLASS_CONFIG", "")

    async def run(self, job: Job, tell: Callable[[JobPhase, str], None], cancelled: Callable[[], bool]) -> str:
        """Have a job done by whoever takes runs of its deployment; return what went wrong, empty if nothing did.

        Parameters
        ----------
        job : Job
            With its leases.
        tell : callable
            Told the phase and the id of the flow run.
        cancelled : callable
            Whether the watch took the job back.
        """
        path = job_file(self._layout, job.job_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(job.to_json()))
        part.replace(path)
        held = _Held((lease for group in job.groups for lease in group.leases), self._ledger)
        try:
            async with get_client() as client:
                run = await self._create(client, job)
                return await self._follow(client, run, held, tell, cancelled)
        finally:
            path.unlink(missing_ok=True)

    async def _create(self, client: PrefectClient, job: Job) -> FlowRun:
        call = call_of(job, configuration=self._configuration)
        deployment = await client.read_deployment_by_name(call.deployment)
        return await client.create_flow_run_from_deployment(
            deployment.id,
            name=job.key,
            parameters=call.parameters,
            tags=["nightglass", f"night={job.night}"],
            idempotency_key=job.job_id,
        )

    async def _follow(
        self,
        client: PrefectClient,
        run: FlowRun,
        held: _Held,
        tell: Callable[[JobPhase, str], None],
        cancelled: Callable[[], bool],
    ) -> str:
        told = False
        while True:
            if run.state is not None and run.state.is_final():
                return problem_of(run.state)
            if run.state is not None and run.state.is_running() and not told:
                told = True
                await asyncio.to_thread(held.prolong, at_least_s=_OPENING_S)
                tell(JobPhase.WORKING, str(run.id))
            if cancelled():
                await client.set_flow_run_state(run.id, Cancelled(message="taken back by the watch"), force=True)
                return "Cancelled: taken back by the watch"
            if not told and held.is_stale:
                await asyncio.to_thread(held.prolong)
            await asyncio.sleep(_POLL_S)
            run = await client.read_flow_run(run.id)


class _Held:
    """Leases of a job whose run has not begun."""

    def __init__(self, leases: Iterable[Lease], ledger: Ledger) -> None:
        self._leases = list(leases)
        self._ledger = ledger
        self._term_s = max((lease.until for lease in self._leases), default=0.0) - time.time()
        self._since = time.monotonic()

    @property
    def is_stale(self) -> bool:
        """Whether it is time to prolong them."""
        return time.monotonic() - self._since > (1 - _FRESH) * self._term_s

    def prolong(self, *, at_least_s: float = 0.0) -> None:
        """Let them last from now on as long as they did at first, or longer; those that were taken back stay so."""
        self._since = time.monotonic()
        kept = []
        for lease in self._leases:
            try:
                kept.append(self._ledger.extend(lease, lease_s=max(self._term_s, at_least_s)))
            except LeaseLost as error:
                _log.info("%s", error)
            except NightglassError as error:
                _log.warning("the lease on %s is not prolonged: %s", lease.exposure_id, error)
                kept.append(lease)
        self._leases = kept
