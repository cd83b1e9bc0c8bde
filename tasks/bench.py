"""What the tasks of a flow run share: ledger, workers, configuration, and the job that the watch handed over.

Flow parameters are plain strings, so that a form can hold them; what cannot be a string waits here, in context
variables, which follow a run through its tasks and threads. The resident runner sets them once for all its runs; a run
by a worker, or by plain Python, opens its own workbench and closes it at its end.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.runtime import flow_run

from nightglass.config import Camera, Observatory, load_camera, load_observatory, validate
from nightglass.errors import Misconfigured
from nightglass.layout import Layout
from nightglass.model import sanitize
from nightglass.watch.jobs import Job, JobPhase
from nightglass.watch.owners import Owner
from nightglass.watch.work import Workbench

if TYPE_CHECKING:
    from nightglass.ledger import Ledger
    from nightglass.pool import Pool

__all__ = [
    "Cameras",
    "Handover",
    "current_bench",
    "current_handover",
    "dead_runs",
    "find_observatory",
    "handed_over",
    "job_file",
    "on_bench",
    "open_bench",
    "open_ledger",
    "read_job",
    "workbench",
]

_BENCH: ContextVar[Workbench | None] = ContextVar("nightglass_workbench", default=None)
_HANDOVER: ContextVar[Handover | None] = ContextVar("nightglass_handover", default=None)


@dataclass(frozen=True, slots=True)
class Handover:
    """A job of the watch in the hands of a flow run.

    Attributes
    ----------
    tell : callable
        Told phase, group id (empty: the job) and error text; the watch hears it.
    cancelled : callable
        Whether the watch took the job back: nothing more of it may begin.
    """

    job: Job
    tell: Callable[[JobPhase, str, str], None]
    cancelled: Callable[[], bool]


class Cameras(Mapping[str, Camera]):
    """Cameras by name: those of the configured sources, and any other that can be found.

    Parameters
    ----------
    observatory : Observatory
        Names sources and camera directories.
    """

    def __init__(self, observatory: Observatory) -> None:
        self._directories = observatory.camera_directories
        self._loaded: dict[str, Camera] = {}
        for text in observatory.camera_texts:
            self._load(text)

    def __getitem__(self, name: str) -> Camera:
        if name in self._loaded:
            return self._loaded[name]
        try:
            return self._load(name)
        except Misconfigured as error:
            raise KeyError(name) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded)

    def __len__(self) -> int:
        return len(self._loaded)

    def _load(self, name: str) -> Camera:
        camera = load_camera(name, directories=self._directories)
        self._loaded[name] = self._loaded[camera.name] = camera
        return camera


def find_observatory(configuration: str = "") -> Observatory:
    """Return the observatory of a file; without one, that of the process which started this one, or the defaults.

    Parameters
    ----------
    configuration : str, optional
        Path of the observatory file. If it is the file that our parent read, what the parent made of it counts:
        the parent may have had a command line that changed this or that.

    Raises
    ------
    Misconfigured
        If the file is missing or does not fit.
    """
    handed = os.environ.get("NIGHTGLASS_OBSERVATORY", "")
    if handed and configuration in ("", os.environ.get("NIGHTGLASS_CONFIG", "")):
        return validate(Observatory, json.loads(handed), where="NIGHTGLASS_OBSERVATORY")
    return load_observatory(Path(configuration) if configuration else None)


def open_ledger(observatory: Observatory) -> Ledger:
    """Open the ledger of an observatory; it is made if there is none.

    Raises
    ------
    NightglassError
        If it can't be opened.
    """
    # heavy, and not needed by a process that only looks at the flows
    from nightglass.ledger import Ledger

    return Ledger.open(observatory.ledger_url or Layout(observatory.root).ledger)


def open_bench(observatory: Observatory, *, pool: Pool | None = None) -> Workbench:
    """Open the ledger and connect to the workers: those of the watch if it runs, or else local ones.

    Raises
    ------
    NightglassError
        If the ledger can't be opened, a camera is wrong, or no worker answers.
    """
    from nightglass.cluster import connect  # heavy, as above

    cameras = Cameras(observatory)
    ledger = open_ledger(observatory)
    return Workbench(
        ledger=ledger,
        pool=pool if pool is not None else connect(observatory.cluster, layout=Layout(observatory.root)),
        observatory=observatory,
        cameras=cameras,
    )


@asynccontextmanager
async def workbench(configuration: str = "") -> AsyncIterator[None]:
    """Hold a workbench open for the tasks within: the one that is there already, or one of the given file.

    Parameters
    ----------
    configuration : str, optional
        Path of the observatory file; empty: ``NIGHTGLASS_CONFIG``, or the defaults.
    """
    if _BENCH.get() is not None:
        yield
        return
    observatory = find_observatory(configuration)
    bench = await asyncio.to_thread(open_bench, observatory)
    token = _BENCH.set(bench)
    mark = _mark_run(Layout(observatory.root))
    try:
        yield
    finally:
        _BENCH.reset(token)
        await asyncio.to_thread(bench.pool.close)
        bench.ledger.close()
        if mark is not None:
            mark.unlink(missing_ok=True)


def _mark_run(layout: Layout) -> Path | None:
    """Write down which process runs this flow run, for those who find it killed; None outside of one."""
    if not flow_run.id:
        return None
    path = layout.run / "flows" / f"{flow_run.id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(Owner.here("flow")))
    return path


def dead_runs(layout: Layout) -> tuple[tuple[Path, Owner], ...]:
    """Return the marks of flow runs of this host whose process is gone, and who that was."""
    marks = []
    for path in (layout.run / "flows").glob("*.json"):
        with suppress(FileNotFoundError, Misconfigured):  # it ended just now, or is being written
            owner = Owner.parse(path.read_text())
            if owner.is_dead:
                marks.append((path, owner))
    return tuple(marks)


@contextmanager
def on_bench(bench: Workbench) -> Iterator[None]:
    """Let all runs within use this workbench, and leave it open at their end."""
    token = _BENCH.set(bench)
    try:
        yield
    finally:
        _BENCH.reset(token)


def current_bench() -> Workbench:
    """Return the open workbench.

    Raises
    ------
    Misconfigured
        If a task is called outside of a flow that opened one.
    """
    bench = _BENCH.get()
    if bench is None:
        message = "a task of Nightglass was called without an open workbench"
        raise Misconfigured(message, remedy="call it within `async with workbench(configuration):`")
    return bench


@contextmanager
def handed_over(handover: Handover) -> Iterator[None]:
    """Let the runs within find the job that they are for."""
    token = _HANDOVER.set(handover)
    try:
        yield
    finally:
        _HANDOVER.reset(token)


def job_file(layout: Layout, job_id: str) -> Path:
    """Return where a job is written down for a run in another process, on this host or another."""
    return layout.run / "jobs" / f"{sanitize(job_id)}.json"  # the id may come out of a form


def current_handover(job_id: str) -> Handover | None:
    """Return the job of that id: handed over in this process, or written down for it; None if there is none."""
    if not job_id:
        return None
    handover = _HANDOVER.get()
    if handover is not None and handover.job.job_id == job_id:
        return handover
    layout = Layout(current_bench().observatory.root)
    job = read_job(layout, job_id)
    if job is None:
        return None
    return Handover(job, lambda *_: None, lambda: not job_file(layout, job_id).exists())


def read_job(layout: Layout, job_id: str) -> Job | None:
    """Return a job that was written down; None: the watch took it back, or it was done long ago."""
    if not job_id:
        return None
    try:
        return Job.from_json(json.loads(job_file(layout, job_id).read_text()))
    except FileNotFoundError:
        return None
