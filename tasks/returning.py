"""What happens to the work of a run that ends any other way than well: it goes back to the queue."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State

from nightglass.layout import Layout
from nightglass.ledger import Ledger
from tasks.bench import find_observatory, open_ledger, read_job

__all__ = ["return_work"]


async def return_work(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Give the exposures and stages of a cancelled or crashed run back, so that somebody else does them at once.

    Prefect calls it in the process of the run, or, when that is gone, in the worker's. Where it can't be called at all,
    leases expire.
    """
    del flow
    await asyncio.to_thread(_return, flow_run, f"its flow run {flow_run.name} is {state.name}")


def _return(flow_run: FlowRun, reason: str) -> None:
    parameters = flow_run.parameters or {}
    observatory = find_observatory(str(parameters.get("configuration") or ""))
    with open_ledger(observatory) as ledger:
        _return_own(ledger, f"flow-{flow_run.id}", reason)
        job = read_job(Layout(observatory.root), str(parameters.get("job") or ""))
        leases = [lease for group in job.groups for lease in group.leases] if job is not None else []
        if leases:
            ledger.revoke(leases=leases, reason=reason)


def _return_own(ledger: Ledger, role: str, reason: str) -> None:
    owners = [owner for owner in ledger.holders() if owner.endswith(f":{role}")]
    if owners:
        ledger.revoke(owners=owners, reason=reason)
        ledger.revoke_stages(owners=owners)
        ledger.revoke_archives(owners=owners, reason=reason)
