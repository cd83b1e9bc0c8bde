"""Tasks around exposures of an image builder: the watch builds them, a run shows what was done."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Completed

from nightglass.builder.accounts import STEPS, Account, read_account
from nightglass.errors import Misconfigured
from nightglass.layout import Layout
from nightglass.model import Night
from nightglass.watch.jobs import JobPhase
from tasks.artifacts import artifact_key, show_table
from tasks.bench import current_handover

if TYPE_CHECKING:
    from nightglass.config import Observatory

__all__ = ["conclude_account", "find_account", "show_account", "show_step"]

_log = logging.getLogger(__name__)

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
    handover = current_handover(job)
    if handover is not None:
        handover.tell(JobPhase.WORKING, "", "")
    parts = exposure.split("/")
    if len(parts) != 3 or not parts[2].isdecimal():
        message = f"{exposure!r} is no exposure with a number"
        raise Misconfigured(message, remedy="write it as guider/20260821/17")
    name = camera or parts[0]
    found = builder or next((each.name for each in observatory.builders if each.camera == name), name)
    path = Layout(observatory.root).account(name, Night(parts[1]), found, int(parts[2]))
    return await asyncio.to_thread(read_account, path)


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


def conclude_account(account: Account) -> State[Any]:
    """Return the end of the run: complete, or partial and which frames."""
    text = f"{len(account.frames)} frames"
    if account.partial:
        _log.warning("frames %s of %s lack extensions", account.partial[:20], account.exposure)
        return Completed(name="Partial", message=f"{text}, {len(account.partial)} of them partial")
    return Completed(message=text)


def _rounded(seconds: float | None) -> float | str:
    return "" if seconds is None else round(seconds, 3)
