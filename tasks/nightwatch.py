"""Tasks around the watch of a night: start it or find it, and say how far the night is."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import task
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.cache_policies import NO_CACHE

from nightglass.config import Observatory
from nightglass.errors import Retryable
from nightglass.layout import Layout
from nightglass.ledger import Ledger, NightRecord
from nightglass.model import Night, Stage, State
from nightglass.watch.duetimes import due_times
from nightglass.watch.instance import lock_holder
from tasks.artifacts import artifact_key, show_table
from tasks.bench import find_observatory, open_ledger

__all__ = ["NightView", "ensure_watch", "follow_night", "watch_holder"]

_log = logging.getLogger(__name__)
_UP_S = 60.0
"""Seconds for a watch to take its locks: imports and the start of the cluster come first."""
_MOST_STARTS = 5


@dataclass(frozen=True, slots=True)
class NightView:
    """How far a night of one camera is.

    Attributes
    ----------
    percent : float
        Of the time from opening to final; 100 when it is closed.
    """

    camera: str
    record: NightRecord | None
    counts: Mapping[State, int]
    percent: float

    @property
    def closed(self) -> bool:
        """Whether the ledger says that the night is over."""
        return self.record is not None and not self.record.is_open

    def __str__(self) -> str:
        if self.record is None:
            return f"{self.camera}: not opened yet"
        counts = ", ".join(f"{count} {state.value}" for state, count in self.counts.items() if count)
        stages = ", ".join(f"{stage.stage.value} {stage.state.value}" for stage in self.record.stages)
        return f"{self.camera}: {counts or 'no exposures yet'}; {stages}"


@task(name="ensure-watch", task_run_name="watch-{night}", cache_policy=NO_CACHE, persist_result=False)
async def ensure_watch(night: str, cameras: Sequence[str], configuration: str, *, asked: str = "") -> int | None:
    """Open the night, start the watch of these cameras unless it runs, and return its process id.

    A night that is closed needs no watch: None. A watch that is started serves every night from now on, unless one
    was asked for by name.

    The watch is a process of its own session: it goes on when this flow run is cancelled or its process dies.

    Raises
    ------
    Retryable
        If the watch did not come up in time; the message names its log.
    """
    observatory = find_observatory(configuration)
    records = await asyncio.to_thread(_open_night, observatory, Night(night), cameras)
    run = Layout(observatory.root).run
    holder = watch_holder(run, cameras)
    if holder is not None or not any(record.is_open for record in records):
        return holder
    log = run / "watch.log"
    process = await asyncio.to_thread(_start_watch, asked, configuration, log)
    _log.info("started the watch, process %d; its log is %s", process.pid, log)
    end = time.monotonic() + _UP_S
    while (holder := watch_holder(run, cameras)) is None:
        if process.poll() is not None or time.monotonic() > end:
            message = f"the watch of night {night} did not come up (exit status {process.poll()})"
            raise Retryable(message, remedy=f"read {log}")
        await asyncio.sleep(0.2)
    return holder


async def follow_night(
    night: str, cameras: Sequence[str], configuration: str, *, asked: str, poll_s: float
) -> list[str]:
    """Show the progress of a night until it is closed for all these cameras; keep its watch running meanwhile.

    Raises
    ------
    Retryable
        If the watch ends again and again.
    """
    observatory = find_observatory(configuration)
    starts = 0
    artifact = await _announce(night)
    with open_ledger(observatory) as ledger:
        while True:
            views = [await asyncio.to_thread(_look, ledger, Night(night), camera) for camera in cameras]
            await _show(artifact, views)
            if all(view.closed for view in views):
                await _show_end(views, night)
                return [str(view) for view in views]
            if watch_holder(Layout(observatory.root).run, cameras) is None:
                starts += 1
                if starts > _MOST_STARTS:
                    message = f"the watch of night {night} ended {starts} times"
                    raise Retryable(message, remedy=f"read {Layout(observatory.root).run / 'watch.log'}")
                await ensure_watch(night, cameras, configuration, asked=asked)
            await asyncio.sleep(poll_s)


def _open_night(observatory: Observatory, night: Night, cameras: Sequence[str]) -> list[NightRecord]:
    """Open a night in the ledger, as its watch does: whoever comes first."""
    now = datetime.now(UTC)
    times = due_times(night, rule=observatory.night, site=observatory.site, opened_at=now)
    with open_ledger(observatory) as ledger:
        return [
            ledger.open_night(night, camera, midway_due=times.midway, final_due=times.final, now=now.timestamp())
            for camera in cameras
        ]


async def _announce(night: str) -> UUID:
    artifact: Any = await acreate_progress_artifact(progress=0.0, key=artifact_key("night", night))
    return UUID(str(artifact))


async def _show(artifact: UUID, views: Sequence[NightView]) -> None:
    percent = min((view.percent for view in views), default=0.0)
    await aupdate_progress_artifact(artifact, progress=percent, description="; ".join(str(view) for view in views))


async def _show_end(views: Sequence[NightView], night: str) -> None:
    rows = [
        {"camera": view.camera, **{state.value: count for state, count in view.counts.items() if count}}
        for view in views
    ]
    await show_table(rows, key=artifact_key("night", night, "end"), description=f"Night {night}, closed")


def _look(ledger: Ledger, night: Night, camera: str) -> NightView:
    record = ledger.find_night(night, camera)
    if record is None:
        return NightView(camera, None, {}, 0.0)
    percent = 100.0
    if record.is_open:
        whole = record.stage(Stage.FINAL).due.timestamp() - record.opened_at
        passed = datetime.now(UTC).timestamp() - record.opened_at
        # 99: the last percent is the final stage itself
        percent = round(min(99.0, max(0.0, 100.0 * passed / whole if whole > 0 else 99.0)), 1)
    return NightView(camera, record, ledger.counts(night, camera), percent)


def watch_holder(run: Path, cameras: Sequence[str]) -> int | None:
    """Return the process that watches these cameras; None if any of them is not watched."""
    holders = [lock_holder(run, camera) for camera in cameras]
    return None if any(holder is None for holder in holders) else holders[0]


def _start_watch(night: str, configuration: str, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "deployments.cli", "run"]
    command += ["--night", night] if night else []
    command += ["--config", configuration] if configuration else []
    log.parent.mkdir(parents=True, exist_ok=True)
    # what Prefect tells this run about itself is not for the watch
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
    with log.open("ab") as stream:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd="/",
            start_new_session=True,
        )
