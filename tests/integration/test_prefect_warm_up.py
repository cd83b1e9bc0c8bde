"""The idle run by which a runner gets ready: it is deleted, and not before the server recorded its tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.pipe import decode
from deployments.runner import Runner
from nightglass.config import load_camera
from nightglass.pool import SerialPool
from nightglass.watch.owners import Owner
from nightglass.watch.work import Workbench
from tests.integration.conftest import ASKING_S, PrefectSite

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.cluster]
PATIENCE_S = 120.0


async def eventually(condition: Callable[[], Any], *, what: str) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (found := await asyncio.to_thread(condition)):
        assert time.monotonic() < end, what
        await asyncio.sleep(ASKING_S)
    return found


@asynccontextmanager
async def ready_runner(site: PrefectSite) -> AsyncIterator[None]:
    """Have a runner in this process, from the moment at which it says that it is ready."""
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    said: list[str] = []
    with temporary_settings({PREFECT_API_URL: site.server.api_url}), site.ledger() as ledger:
        bench = Workbench(
            ledger=ledger, pool=SerialPool(), observatory=site.observatory, cameras={"lynx": load_camera("lynx")}
        )
        serving = asyncio.create_task(Runner(bench, said.append).serve(lines))
        try:
            await eventually(lambda: said, what="a word of the runner")
            assert [decode(line).kind for line in said] == ["ready"], said
            yield
        finally:
            lines.put_nowait(None)
            await serving


def idle_runs(client: SyncPrefectClient) -> list[FlowRun]:
    mine = {"tags": {"all_": [f"runner={Owner.here('runner')}"]}, "name": {"any_": ["warm-up"]}}
    return client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(mine))


async def test_the_idle_run_is_deleted_after_its_tasks_were_recorded(
    prefect_site: PrefectSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where their run is gone, the server fails to record them again and again, and locks its database meanwhile."""
    monkeypatch.setattr("deployments.runner._RECORDED_S", 8.0)  # of which a server without other work needs one or two
    with prefect_site.client() as client:
        before = {run.id for run in await asyncio.to_thread(idle_runs, client)}  # when this is its second run

        def made() -> list[FlowRun]:
            return [run for run in idle_runs(client) if run.id not in before]

        async with ready_runner(prefect_site):
            (idle,) = await asyncio.to_thread(made)

            def tasks() -> Any:
                asked = {"task_runs": {"flow_run_id": {"any_": [str(idle.id)]}}}
                return client.request("POST", "/task_runs/filter", json=asked).json()

            await eventually(tasks, what="tasks of the idle run on the server")
            assert await asyncio.to_thread(made) == [idle]
            await eventually(lambda: not made(), what="the end of the idle run")
