"""Flow runs that are shown under a key: told twice they are one, and told anew they are the same, with news.

The work they show is done elsewhere. While it goes on the run is `Running`, and takes no place in the runner; when it
is over the flow is run under the id of that run, reads the account, and ends as the account says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import FlowRunCreate
from prefect.flow_engine import run_flow
from prefect.states import Pending, Running, to_state_create

from deployments.calls import problem_of
from deployments.definitions import load_flow
from nightglass.watch.jobs import Job, JobKind
from tasks.building import CONCLUSIONS

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

    from deployments.calls import FlowCall

__all__ = ["run_key", "show_keyed"]

_NAMES = {JobKind.BUILD: ("Collecting", "build"), JobKind.CUBE: ("Archiving", "archive-exposure")}
"""Kind -> name of the state while it goes on, and last part of the name of the run."""


def run_key(job: Job) -> str:
    """Return the idempotency key of the run that shows a job."""
    return f"nightglass/{job.kind.value}/{job.builder}/{job.exposures[0]}/{job.order}"


async def show_keyed(job: Job, call: FlowCall) -> tuple[str, str]:
    """Show how the work of an image builder goes on, or what came of it.

    Returns
    -------
    tuple
        The id of the run, and what was not told; empty: all was.
    """
    async with get_client() as client:
        flow = load_flow(call.entrypoint)
        run = await _find(client, job, call, flow.name)
        if job.progress:
            await client.set_flow_run_state(run.id, _running(job), force=True)
            return str(run.id), ""
        if job.kind is JobKind.CUBE and run.state is not None and run.state.is_final() and _is_told(run.state):
            return str(run.id), ""  # an order ends once
        # whatever it was: an earlier telling may have been cut off, or the exposure got another frame
        await client.set_flow_run_state(run.id, Pending(), force=True)
        run = await client.read_flow_run(run.id)
    state: State = await run_flow(flow, flow_run=run, parameters=call.parameters, return_type="state")  # type: ignore[misc]
    return str(run.id), "" if _is_told(state) else problem_of(state)


async def _find(client: PrefectClient, job: Job, call: FlowCall, flow_name: str) -> FlowRun:
    """Return the run of that key; it is made if there is none."""
    body = FlowRunCreate(
        flow_id=await client.create_flow_from_name(flow_name),
        name=f"{job.exposures[0]}-{_NAMES[job.kind][1]}",
        parameters=call.parameters,
        state=to_state_create(_running(job) if job.progress else Pending()),
        tags=["nightglass", "builder", f"night={job.night}"],
        idempotency_key=run_key(job),
    )
    answer = await client.request("POST", "/flow_runs/", json=body.model_dump(mode="json", exclude_unset=True))
    return await client.read_flow_run(UUID(answer.json()["id"]))


def _running(job: Job) -> State[None]:
    return Running(name=_NAMES[job.kind][0], message=job.progress)


def _is_told(state: State[None]) -> bool:
    return state.name in CONCLUSIONS
