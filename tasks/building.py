"""Tasks around exposures of an image builder: the watch builds and archives them, a run shows what was done."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Cancelled, Completed, Failed

from nightglass.builder.accounts import CLEARED, STEPS, Account, read_account
from nightglass.builder.cubeaccounts import CubeAccount, newest_account, read_cube_account
from nightglass.cubes.looking import draw_cube
from nightglass.errors import Misconfigured, NightglassError
from nightglass.layout import Layout
from nightglass.model import Night
from nightglass.watch.jobs import JobPhase
from tasks.artifacts import artifact_key, show_quicklook, show_summary, show_table
from tasks.bench import current_handover

if TYPE_CHECKING:
    from nightglass.config import Observatory

__all__ = [
    "CONCLUSIONS",
    "conclude_account",
    "conclude_cube",
    "find_account",
    "find_cube",
    "show_account",
    "show_built_cube",
    "show_look",
    "show_stage",
    "show_step",
]

_log = logging.getLogger(__name__)

CONCLUSIONS = frozenset({"Completed", "Partial", "Cleared", "NotArchived"})
"""Names of the states in which a run ends that has told what there is to tell."""
_MOST_ROWS = 500
"""An artifact is a row of the server's database: of longer exposures the first and the last frames are shown."""


@task(name="read-account", task_run_name="{exposure}", cache_policy=NO_CACHE, persist_result=False)
async def find_account(exposure: str, builder: str, camera: str, observatory: Observatory, job: str) -> Account:
    """Read the account of an exposure by `nightglass.builder.accounts.read_account`.

    Raises
    ------
    Misconfigured
        If the id is none, or there is no account.
    """
    _tell_working(job)
    keys = _keys(exposure, builder, camera, observatory)
    return await asyncio.to_thread(read_account, Layout(observatory.root).account(*keys))


@task(name="read-cube-account", task_run_name="{exposure}", cache_policy=NO_CACHE, persist_result=False)
async def find_cube(
    exposure: str, builder: str, camera: str, order: str, observatory: Observatory, job: str
) -> CubeAccount:
    """Read the account of an order to archive an exposure by `nightglass.builder.cubeaccounts.read_cube_account`.

    Raises
    ------
    Misconfigured
        If the id is none, or there is no account.
    """
    _tell_working(job)
    keys, layout = _keys(exposure, builder, camera, observatory), Layout(observatory.root)
    path = layout.cube_account(*keys, order) if order else await asyncio.to_thread(newest_account, layout, *keys)
    return await asyncio.to_thread(read_cube_account, path)


@task(name="step", task_run_name="{step}", cache_policy=NO_CACHE, persist_result=False)
async def show_step(step: str, summary: dict[str, Any]) -> State[Any]:
    """Show one step of all frames: how many, and how long it took."""
    _log.info("%s: %s", step, summary)
    text = ", ".join(f"{name} {value}" for name, value in summary.items())
    return Completed(message=text, name="Completed" if summary["frames"] else "NotDone")


async def show_account(account: Account) -> None:
    """Leave a table of the frames with the run, and an event for those who wait for exposures."""
    half = _MOST_ROWS // 2
    frames = account.frames if len(account.frames) <= _MOST_ROWS else account.frames[:half] + account.frames[-half:]
    rows = [
        {
            "frame": frame.frame,
            "state": frame.state,
            "extensions": frame.extensions,
            "missing": ", ".join(frame.missing),
            "MiB": round(frame.size / 2**20, 1),
            **{f"{step}_s": _rounded(frame.seconds(step)) for step in STEPS},
        }
        for frame in frames
    ]
    key = artifact_key("build", account.exposure.replace("/", "-"))
    await show_table(rows, key=key, description=f"Exposure {account.exposure}, builder {account.builder}")
    emit_event(
        event="nightglass.exposure.built",
        resource={"prefect.resource.id": f"nightglass.exposure.{account.exposure}"},
        payload={
            "builder": account.builder,
            "frames": len(account.frames),
            "partial": account.partial,
            "archive": account.archive,
        },
    )


@task(name="stage", task_run_name="{stage}", cache_policy=NO_CACHE, persist_result=False)
async def show_stage(stage: str, seconds: float) -> State[Any]:
    """Show one stage of a cube, and how long it took."""
    _log.info("%s: %s s", stage, seconds)
    return Completed(message=f"{seconds} s")


async def show_built_cube(account: CubeAccount) -> None:
    """Leave what is known of a cube, and a table of its sources, with the run, and an event for those who wait."""
    name = account.exposure.replace("/", "-")
    await show_summary(f"Archive of {account.exposure}", account.facts(), {}, key=artifact_key("archive", name))
    rows = [
        {
            "source": source.name,
            "planes": source.planes,
            "shape": "x".join(map(str, source.shape)),
            "bitpix": source.bitpix,
            "MiB": round(source.stored_bytes / 2**20, 1),
        }
        for source in account.sources
    ]
    await show_table(rows, key=artifact_key("sources", name), description=account.path)
    emit_event(
        event="nightglass.exposure.archived" if account.path else "nightglass.exposure.archive-failed",
        resource={"prefect.resource.id": f"nightglass.exposure.{account.exposure}"},
        payload={
            "builder": account.builder,
            "path": account.path,
            "planes": account.planes,
            "frames": account.frames,
            "bytes": account.size,
            "seconds": round(account.seconds, 3),
            "error": account.error,
            "remedy": account.remedy,
        },
    )


@task(name="quick-look", cache_policy=NO_CACHE, persist_result=False)
async def show_look(account: CubeAccount, observatory: Observatory) -> None:
    """Leave a picture of the first plane of each source with the run; a cube that went elsewhere has none."""
    night = Night(account.night)
    layout = Layout(observatory.root)
    path = layout.cube_account(account.camera, night, account.builder, account.expid, account.order)
    picture = path.with_suffix(".png")
    try:
        await asyncio.to_thread(draw_cube, Path(account.path), picture, label=account.exposure)
    except NightglassError as error:
        _log.info("no picture of %s: %s", account.path, error)
    else:
        await show_quicklook(picture, night=night, name=f"{account.builder}-{account.expid}")


def conclude_cube(account: CubeAccount) -> State[Any]:
    """Return the end of the run: complete where there is a cube, failed with the reason and the remedy where not."""
    if not account.path:
        text = f"{account.kind}: {account.error}" + (f" ({account.remedy})" if account.remedy else "")
        return Failed(name="NotArchived", message=text)
    rate = f"{account.rate_mib_s:.0f} MiB/s"
    return Completed(message=f"{account.planes} planes, {account.size} bytes, {account.seconds:.2f} s, {rate}")


def conclude_account(account: Account) -> State[Any]:
    """Return the end of the run: complete, or partial and which frames; or cleared, and nothing came of it."""
    if account.state == CLEARED:
        return Cancelled(name="Cleared", message="the exposure was cleared before it was complete")
    text = f"{len(account.frames)} frames"
    if account.partial:
        _log.warning("frames %s of %s lack extensions", account.partial[:20], account.exposure)
        return Completed(name="Partial", message=f"{text}, {len(account.partial)} of them partial")
    return Completed(message=text)


def _tell_working(job: str) -> None:
    handover = current_handover(job)
    if handover is not None:
        handover.tell(JobPhase.WORKING, "", "")


def _keys(exposure: str, builder: str, camera: str, observatory: Observatory) -> tuple[str, Night, str, int]:
    """Return camera, night, builder and number of an exposure."""
    parts = exposure.split("/")
    if len(parts) != 3 or not parts[2].isdecimal():
        message = f"{exposure!r} is no exposure with a number"
        raise Misconfigured(message, remedy="write it as guider/20260821/17")
    name = camera or parts[0]
    found = builder or next((each.name for each in observatory.builders if each.camera == name), name)
    return name, Night(parts[1]), found, int(parts[2])


def _rounded(seconds: float | None) -> float | str:
    return "" if seconds is None else round(seconds, 3)
