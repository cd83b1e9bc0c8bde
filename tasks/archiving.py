"""Tasks around cubes: exposures and nights that are archived, cubes of any frames, and what is shown of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State as RunState
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from nightglass import archive
from nightglass.archive.requests import cube_request
from nightglass.model import Content
from nightglass.watch.jobs import JobPhase
from tasks.artifacts import artifact_key, show_table
from tasks.bench import current_bench, current_handover
from tasks.calibrating import if_retryable
from tasks.choosing import the_cameras, the_night
from tasks.reducing import flow_owner, is_repeated

if TYPE_CHECKING:
    from nightglass.archive import ArchiveSummary
    from nightglass.config import Camera
    from nightglass.cubes.records import CubeSummary
    from nightglass.watch.work import Workbench
    from tasks.postprocessing import StageWork

__all__ = [
    "archive_one",
    "archive_several",
    "archive_stage",
    "assemble_frames",
    "conclude_archives",
    "show_archives",
    "show_cube",
]

_log = logging.getLogger(__name__)

_TIMEOUT_S = 24 * 3600.0
"""A night of large cubes takes long; leases, which are prolonged while a cube is written, bound those that hang."""
_TICK_S = 2.0
_MIB = 2.0**20


@task(
    name="archive-exposure",
    task_run_name="{exposure}",
    cache_policy=NO_CACHE,
    persist_result=False,
    timeout_seconds=_TIMEOUT_S,
    retries=1,
    retry_delay_seconds=10,
    retry_condition_fn=if_retryable,
)
async def archive_one(exposure: str, camera: str, what: str, redo: str, job: str) -> tuple[ArchiveSummary, ...]:
    """Archive one exposure by `nightglass.archive.archive_exposure`; one attempt more if the world was busy."""
    bench = current_bench()
    _tell_working(job)
    async with _progress(exposure) as progress:
        summary = await asyncio.to_thread(
            archive.archive_exposure,
            exposure,
            ledger=bench.ledger,
            pool=bench.pool,
            observatory=bench.observatory,
            camera=await asyncio.to_thread(_camera_of, bench, exposure, camera),
            content=Content(what) if what else None,
            redo=archive.Redo(redo or archive.Redo.CHANGED),
            owner=flow_owner(),
            progress=progress,
        )
    return (summary,)


@task(
    name="archive-night",
    task_run_name="{night}-archive",
    cache_policy=NO_CACHE,
    persist_result=False,
    timeout_seconds=_TIMEOUT_S,
)
async def archive_several(night: str, camera: str, what: str, redo: str, job: str) -> tuple[ArchiveSummary, ...]:
    """Archive the exposures of a night, or those of the watch's job, by `nightglass.archive.archive_night`.

    It is not retried: the ledger retries each exposure by itself.
    """
    bench = current_bench()
    handover = current_handover(job)
    if job and handover is None and not is_repeated():
        _log.info("the watch took job %s back", job)
        return ()
    _tell_working(job)
    cameras = [bench.camera(name) for name in the_cameras(camera, bench.observatory)]
    done: list[ArchiveSummary] = []
    for each in cameras:
        async with _progress(f"{each.name}-{night or 'tonight'}") as progress:
            result = await asyncio.to_thread(
                archive.archive_night,
                the_night(night, bench.observatory),
                each,
                exposures=handover.job.exposures or None if handover is not None else None,
                ledger=bench.ledger,
                pool=bench.pool,
                observatory=bench.observatory,
                content=Content(what) if what else None,
                redo=archive.Redo(redo or archive.Redo.CHANGED),
                owner=flow_owner(),
                progress=progress,
                cancelled=handover.cancelled if handover is not None else lambda: False,
            )
            done += result.exposures
    return tuple(done)


@task(name="archive-stage", cache_policy=NO_CACHE, persist_result=False, timeout_seconds=_TIMEOUT_S)
async def archive_stage(work: StageWork) -> int:
    """Archive all exposures of the night before it is closed; return how many have no cube. It never fails."""
    work.archive = await asyncio.to_thread(work.post.archive)
    return len(work.archive.failures) if work.archive is not None else 0


@task(
    name="assemble-cube",
    task_run_name="{out}",
    cache_policy=NO_CACHE,
    persist_result=False,
    timeout_seconds=_TIMEOUT_S,
)
async def assemble_frames(
    frames: Sequence[str],
    out: str,
    *,
    role: str,
    compress: str,
    camera: str,
    extra: str,
    cards: str,
    mode: str,
    existing: str,
) -> CubeSummary:
    """Assemble a cube of any frames by `nightglass.cubes.assemble_cube`."""
    from nightglass.cubes.assembling import assemble_cube

    bench = current_bench()
    known = bench.camera(the_cameras(camera, bench.observatory)[0]) if camera else None
    request = cube_request(
        frames,
        Path(out).expanduser().absolute(),
        camera=known,
        role=role,
        compress=compress,
        extra=[card for card in extra.split(";") if card.strip()],
        keep_cards=cards != "drop",
        mode="gather" if mode == "gather" else "shared",
        overwrite=existing == "replace",
    )
    async with _progress(Path(out).name) as progress:
        return await asyncio.to_thread(
            assemble_cube,
            request,
            pool=bench.pool,
            limits=bench.observatory.limits,
            camera=known,
            progress=progress,
        )


async def show_archives(name: str, summaries: Sequence[ArchiveSummary]) -> None:
    """Leave a table with the run: each exposure with its sources, frames, size and rate."""
    rows = [item.to_json() for item in summaries]
    await show_table(rows, key=artifact_key("archive", name), description=f"Archive: {name}")


async def show_cube(cube: CubeSummary) -> None:
    """Leave a table with the run: each source of a cube, and the whole."""
    rows: list[dict[str, Any]] = [
        {
            "source": source.name,
            "frames": source.frames,
            "shape": f"{source.shape[1]}x{source.shape[0]}",
            "bitpix": source.bitpix,
            "size_mib": round(source.stored_bytes / _MIB, 2),
            "rate_mib_s": "",
            "note": source.note,
        }
        for source in cube.sources
    ]
    seconds = sum(cube.seconds.values())
    whole = {"source": "all", "frames": cube.frames, "shape": "", "bitpix": "", "size_mib": round(cube.size / _MIB, 2)}
    rate = round(cube.pixel_bytes / _MIB / seconds, 1) if seconds else ""
    problems = "; ".join(f"{problem.path.name}: {problem.reason}" for problem in cube.problems)
    rows.append({**whole, "rate_mib_s": rate, "note": problems})
    await show_table(rows, key=artifact_key("cube", cube.path.name), description=str(cube.path))


def conclude_archives(summaries: Sequence[ArchiveSummary]) -> RunState[Any]:
    """Return the state in which a run ends: failed if an exposure has no cube now and nobody else is at it."""
    good = [item for item in summaries if item.outcome.is_good]
    bad = [item for item in summaries if item.error]
    message = f"{len(good)} of {len(summaries)} archived"
    if bad:
        return Failed(message=f"{message}; {bad[0].exposure}: {bad[0].error}")
    if not summaries:
        return Completed(name="Skipped", message="there was nothing to archive", data=[])
    return Completed(message=message, data=[str(item.path) for item in good])


def _tell_working(job: str) -> None:
    handover = current_handover(job)
    if handover is not None:
        handover.tell(JobPhase.WORKING, "", "")


def _camera_of(bench: Workbench, exposure: str, camera: str) -> Camera:
    if camera:
        return bench.camera(the_cameras(camera, bench.observatory)[0])
    entries = bench.ledger.members(exposure) or (bench.ledger.find(exposure),)
    return bench.camera(entries[0].camera)


@asynccontextmanager
async def _progress(name: str) -> AsyncIterator[Callable[[int, int], None]]:
    """Give a function that may be told from any thread how far it is, and show that in the UI now and then."""
    told = [0.0]

    def tell(done: int, total: int) -> None:
        told[0] = 100.0 * done / total if total else 0.0

    async def show() -> None:
        await asyncio.sleep(_TICK_S)  # most cubes are done by then
        artifact: Any = await acreate_progress_artifact(progress=told[0], key=artifact_key("progress", name))
        while True:
            await asyncio.sleep(_TICK_S)
            await aupdate_progress_artifact(artifact, progress=min(told[0], 100.0))

    if not flow_run.id:  # called by plain Python: there is nowhere to show it
        yield tell
        return
    shower = asyncio.create_task(show())
    try:
        yield tell
    finally:
        shower.cancel()
        with suppress(asyncio.CancelledError, Exception):  # it only shows: whatever it met, the cube is what counts
            await shower
