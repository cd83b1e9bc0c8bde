"""Tasks around master calibrations."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from nightglass.calibrations import build_masters
from nightglass.errors import Retryable
from nightglass.model import Kind, MasterRef
from nightglass.watch.jobs import JobPhase
from tasks.artifacts import artifact_key, show_table
from tasks.bench import current_bench, current_handover
from tasks.choosing import the_cameras, the_night

__all__ = ["build_night_masters", "if_retryable", "show_masters"]

_TIMEOUT_S = 1800.0


async def if_retryable(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Say whether a failed task is worth another attempt: the world was busy, and nobody else took the work."""
    del task, run
    try:
        await state.aresult()
    except Retryable as error:
        return type(error) is Retryable
    except Exception:  # noqa: BLE001 - whatever it is, it is told where the task was called
        return False
    return False


@task(
    name="build-masters",
    task_run_name="{night}-masters",
    retries=2,
    retry_delay_seconds=[2, 10],
    retry_condition_fn=if_retryable,
    cache_policy=NO_CACHE,
    persist_result=False,
    timeout_seconds=_TIMEOUT_S,
)
async def build_night_masters(night: str, camera: str, kinds: str, job: str) -> tuple[MasterRef, ...]:
    """Combine the masters of a night by `nightglass.calibrations.build_masters`; a few attempts."""
    bench = current_bench()
    handover = current_handover(job)
    if handover is not None:
        handover.tell(JobPhase.WORKING, "", "")
    wanted = [Kind(kind.strip()) for kind in kinds.split(",") if kind.strip()]
    masters = await asyncio.to_thread(
        build_masters,
        the_night(night, bench.observatory),
        bench.camera(the_cameras(camera, bench.observatory)[0]),
        kinds=wanted or None,
        ledger=bench.ledger,
        pool=bench.pool,
        observatory=bench.observatory,
    )
    return tuple(masters)


async def show_masters(masters: Sequence[MasterRef]) -> None:
    """Leave a table of masters with the run; none where none was made."""
    rows = [
        {
            "kind": master.kind.value,
            "filter": master.filter,
            "binning": master.binning,
            "exposure_s": master.exposure_time_s,
            "frames": master.frames,
            "quality": master.quality.value,
            "master": master.master_id[:8],
        }
        for master in masters
    ]
    if masters:
        key = artifact_key(masters[0].camera, masters[0].night, "masters")
        await show_table(rows, key=key, description=f"Masters of night {masters[0].night}")
