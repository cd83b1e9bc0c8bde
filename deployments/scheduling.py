"""Midway and final of every open night, as scheduled runs that people see coming."""

from __future__ import annotations

import asyncio
import os

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Scheduled

from deployments.calls import DEPLOYMENT, STAGE_FLOWS
from nightglass.ledger import StageRecord, StageState
from nightglass.watch.work import Workbench

__all__ = ["StageScheduler", "stage_key"]


def stage_key(record: StageRecord) -> str:
    """Return the idempotency key of a stage's scheduled run: the same for all who schedule it, whenever they do."""
    return f"{record.camera}/{record.night}-{record.stage.value}@{record.due:%Y%m%dT%H%M%S}"


class StageScheduler:
    """Schedules the stages of the ledger's open nights, once each.

    Parameters
    ----------
    bench : Workbench
        Its ledger says which nights are open and when their stages are due.
    """

    def __init__(self, bench: Workbench) -> None:
        self._ledger = bench.ledger
        self._configuration = os.environ.get("NIGHTGLASS_CONFIG", "")
        self._known: set[str] = set()

    async def schedule(self) -> int:
        """Schedule what is not scheduled yet; return how many runs were made.

        A stage whose due time changed is scheduled anew, and its former run is cancelled. Without deployments on
        the server nothing happens: the watch runs the stages itself when they are due.
        """
        nights = await asyncio.to_thread(self._ledger.open_nights)
        pending = [stage for night in nights for stage in night.stages if stage.state is StageState.PENDING]
        new = [stage for stage in pending if stage_key(stage) not in self._known]
        if not new:
            return 0
        count = 0
        async with get_client() as client:
            for record in new:
                try:
                    await self._schedule(client, record)
                except ObjectNotFound:
                    continue  # deployed later, perhaps
                self._known.add(stage_key(record))
                count += 1
        return count

    async def _schedule(self, client: PrefectClient, record: StageRecord) -> None:
        flow_name = STAGE_FLOWS[record.stage].rsplit(".", 1)[-1].replace("_", "-")
        deployment = await client.read_deployment_by_name(f"{flow_name}/{DEPLOYMENT}")
        name = f"{record.night}-{record.stage.value}"
        marks = [f"camera={record.camera}", f"night={record.night}", f"stage={record.stage.value}"]
        run = await client.create_flow_run_from_deployment(
            deployment.id,
            name=name,
            parameters={
                "night": record.night.label,
                "camera": record.camera,
                "configuration": self._configuration,
                "job": stage_key(record),
            },
            state=Scheduled(scheduled_time=record.due),
            tags=["nightglass", *marks],
            idempotency_key=stage_key(record),
        )
        waiting = FlowRunFilter.model_validate(
            {"tags": {"all_": marks}, "state": {"type": {"any_": [StateType.SCHEDULED]}}}
        )
        for other in await client.read_flow_runs(flow_run_filter=waiting):
            if other.id != run.id:
                await client.set_flow_run_state(other.id, Cancelled(message=f"now due at {record.due}"), force=True)
