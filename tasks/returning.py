"""What happens to the work of a run that ends any other way than well: it goes back to the queue."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State

from nightglass.layout import Layout
from nightglass.ledger import Ledger, StageRecord
from tasks.bench import find_observatory, open_ledger, read_job

__all__ = ["return_work"]

_PUT_OFF = timedelta(hours=1)
"""How much later a stage is due whose run a person cancelled: long enough to look, or to cancel it once more."""


async def return_work(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Give the exposures and stages of a cancelled or crashed run back, so that somebody else does them at once.

    A stage whose run a person cancelled is put off by an hour, or the watch, which runs a stage that is overdue, would
    begin it again at once. Prefect calls this in the process of the run, or, when that is gone, in the worker's. Where
    it can't be called at all, leases expire.
    """
    del flow
    await asyncio.to_thread(_return, flow_run, f"its flow run {flow_run.name} is {state.name}")


def _return(flow_run: FlowRun, reason: str) -> None:
    parameters = flow_run.parameters or {}
    observatory = find_observatory(str(parameters.get("configuration") or ""))
    # a runner that shuts down ends its runs by the same way, but nobody asked the server for it
    is_unwanted = flow_run.state is not None and flow_run.state.is_cancelling()
    with open_ledger(observatory) as ledger:
        for stage in _return_own(ledger, f"flow-{flow_run.id}", reason):
            if is_unwanted:
                due = datetime.now(UTC) + _PUT_OFF
                ledger.reset_stage(stage.night, stage.camera, stage.stage, due=due)
        job = read_job(Layout(observatory.root), str(parameters.get("job") or ""))
        leases = [lease for group in job.groups for lease in group.leases] if job is not None else []
        if leases:
            ledger.revoke(leases=leases, reason=reason)


def _return_own(ledger: Ledger, role: str, reason: str) -> tuple[StageRecord, ...]:
    owners = [owner for owner in ledger.holders() if owner.endswith(f":{role}")]
    if not owners:
        return ()
    ledger.revoke(owners=owners, reason=reason)
    ledger.revoke_archives(owners=owners, reason=reason)
    return ledger.revoke_stages(owners=owners)
