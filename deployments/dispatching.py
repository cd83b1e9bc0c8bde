"""Group jobs as runs of deployments, for sites that reduce on more than one host.

The job, with its leases, is written down under ``<root>/run/jobs``, where the run finds it by the id that it gets as a
parameter; a worker therefore needs the root, as it needs the files anyway. When the file is gone, the job was taken
back, and a run that comes too late does nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled

from deployments.calls import call_of
from nightglass.config import Observatory
from nightglass.layout import Layout
from nightglass.watch.jobs import Job, JobPhase
from tasks.bench import job_file

__all__ = ["Dispatcher"]

_POLL_S = 0.5


class Dispatcher:
    """Hands jobs to deployments and follows their runs."""

    def __init__(self, observatory: Observatory) -> None:
        self._layout = Layout(observatory.root)
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
        try:
            async with get_client() as client:
                run = await self._create(client, job)
                return await self._follow(client, run, tell, cancelled)
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
        tell: Callable[[JobPhase, str], None],
        cancelled: Callable[[], bool],
    ) -> str:
        told = False
        while True:
            if run.state is not None and run.state.is_final():
                return "" if run.state.is_completed() else f"{run.state.name}: {run.state.message}"
            if run.state is not None and run.state.is_running() and not told:
                told = True
                tell(JobPhase.WORKING, str(run.id))
            if cancelled():
                await client.set_flow_run_state(run.id, Cancelled(message="taken back by the watch"), force=True)
                return "Cancelled: taken back by the watch"
            await asyncio.sleep(_POLL_S)
            run = await client.read_flow_run(run.id)
