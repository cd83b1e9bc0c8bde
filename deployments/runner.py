"""The resident runner: a child of the watch that has paid for its imports and makes one flow run of each job.

Reads lines of `deployments.pipe` from standard input and writes them to what was standard output; everything that
Prefect or anybody else prints goes to standard error. It ends when its input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any
from uuid import UUID

import httpx
from prefect import tags
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import AsyncClientContext, SyncClientContext
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from deployments.calls import call_of, problem_of
from deployments.childlogs import log_nights, speaking
from deployments.definitions import load_flow
from deployments.dispatching import Dispatcher
from deployments.keyed import show_keyed
from deployments.late import Orphans, report_late
from deployments.pipe import Line, decode, encode
from deployments.scheduling import StageScheduler
from nightglass.config import Dispatch
from nightglass.errors import NightglassError
from nightglass.layout import Layout
from nightglass.watch.jobs import Job, JobKind, JobPhase, JobReport
from nightglass.watch.owners import Owner
from nightglass.watch.work import Workbench
from tasks.bench import Handover, find_observatory, handed_over, on_bench, open_bench

__all__ = ["Runner"]

_log = logging.getLogger(__name__)
_THREADS = 32
_HOUSEKEEPING_S = 10.0
_LEAVE_S = 0.8
_KNOCK_S = 0.3
_WARM_UP = "warm-up"
_RECORDED_S = 30.0
"""Until the server has surely recorded the tasks of a run that is over."""


@dataclass
class _Running:
    """A job in this runner."""

    job: Job
    flow_run_id: str = ""
    cancelled: bool = False
    told: set[tuple[JobPhase, str]] = field(default_factory=set)


class Runner:
    """Makes flow runs of jobs.

    Parameters
    ----------
    bench : Workbench
        Open for the life of the runner.
    send : callable
        Takes one line for the watch; called from several threads.
    """

    def __init__(self, bench: Workbench, send: Callable[[str], None]) -> None:
        settings = bench.observatory.prefect
        self._bench = bench
        self._send = send
        self._running: dict[str, _Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # groups never wait here: the watch gives no more than there are places; the others take their turns
        self._places = {
            JobKind.GROUP: asyncio.Semaphore(settings.concurrency),
            JobKind.ARCHIVE: asyncio.Semaphore(1),
            # no work is done in these; they must not wait for masters and stages that take minutes
            JobKind.BUILD: asyncio.Semaphore(1),
            JobKind.CUBE: asyncio.Semaphore(1),
        }
        self._place_for_others = asyncio.Semaphore(1)
        self._dispatcher = Dispatcher(bench) if settings.dispatch is Dispatch.DEPLOYMENT else None
        self._orphans = Orphans(Owner.here("runner"), Layout(bench.observatory.root))
        self._scheduler = StageScheduler(bench)

    async def serve(self, lines: asyncio.Queue[str | None]) -> None:
        """Take lines until there are no more, or one says to close."""
        # one client for all runs: each would otherwise build its own, with a TLS context and a handshake; the one for
        # synchronous calls is asked for by asynchronous flows, too
        async with AsyncClientContext.get_or_create():
            with SyncClientContext.get_or_create(), on_bench(self._bench):
                self._start(self._get_ready())
                while (text := await lines.get()) is not None:
                    line = decode(text)
                    if line.kind == "close":
                        break
                    self._take(line)
            for task in self._tasks:
                task.cancel()

    def _take(self, line: Line) -> None:
        match line.kind:
            case "ping":
                self._send(encode("pong"))
            case "cancel":
                running = self._running.get(line.content["job_id"])
                if running is not None:
                    running.cancelled = True
            case "job":
                self._start(self._do(Job.from_json(line.content)))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, job: Job) -> None:
        running = self._running[job.job_id] = _Running(job)
        self._tell(running, JobPhase.ACCEPTED)
        error = ""
        try:
            async with self._places.get(job.kind, self._place_for_others):
                if running.cancelled:
                    error = "Cancelled: taken back before it began"
                else:
                    error = await self._perform(running)
        except Exception as problem:  # noqa: BLE001 - a boundary: the watch decides what becomes of the job
            _log.exception("%s job %s (%s) failed", job.kind, job.job_id, job.key)
            error = f"{type(problem).__name__}: {problem}"
        finally:
            self._running.pop(job.job_id, None)
            self._orphans.ended(running.flow_run_id, error=error)
            self._tell(running, JobPhase.ENDED, error=error)

    async def _perform(self, running: _Running) -> str:
        """Run the flow of a job; return what went wrong, empty if nothing did."""
        job = running.job
        if job.kind is JobKind.REPORT:
            self._tell(running, JobPhase.WORKING)
            await report_late(self._bench.ledger)
            await self._orphans.end()
            return ""
        if self._dispatcher is not None and job.kind is JobKind.GROUP:
            return await self._dispatcher.run(
                job, lambda phase, run_id: self._heard(running, phase, run_id), lambda: running.cancelled
            )
        call = call_of(job)
        handover = Handover(job, lambda *told: self._work_tells(running, *told), lambda: running.cancelled)
        if job.kind in (JobKind.BUILD, JobKind.CUBE):
            with handed_over(handover):
                running.flow_run_id, problem = await show_keyed(job, call)
            return problem
        with handed_over(handover), tags(*self._orphans.tags):
            state: State[Any] = await load_flow(call.entrypoint)(**call.parameters, return_state=True)
        running.flow_run_id = running.flow_run_id or str(state.state_details.flow_run_id or "")
        return problem_of(state)

    def _heard(self, running: _Running, phase: JobPhase, flow_run_id: str) -> None:
        running.flow_run_id = flow_run_id
        self._tell(running, phase)

    def _work_tells(self, running: _Running, phase: JobPhase, group_id: str, error: str) -> None:
        """Pass on how far the work of a run came; called within the run, in any thread."""
        running.flow_run_id = running.flow_run_id or str(flow_run.id or "")
        self._orphans.began(running.flow_run_id)
        self._tell(running, phase, group_id, error)

    def _tell(self, running: _Running, phase: JobPhase, group_id: str = "", error: str = "") -> None:
        report = JobReport(
            job_id=running.job.job_id, phase=phase, group_id=group_id, error=error, flow_run_id=running.flow_run_id
        )
        self._send(encode("report", report.to_json()))

    async def _get_ready(self) -> None:
        """Make one idle run, then say that we are ready, and keep house.

        The first run costs seconds, here (imports, models) and in a server that just started (statements).
        """
        while True:
            try:
                await self._warm_up()
            except httpx.TransportError:  # the server is not up yet; until it is nobody gives us a job
                await asyncio.sleep(_KNOCK_S)
            except Exception as error:  # noqa: BLE001 - a boundary: a real job will tell what is wrong
                self._send(encode("trouble", {"text": f"warming up: {type(error).__name__}: {error}"}))
                break
            else:
                break
        self._send(encode("ready", {"pid": os.getpid()}))
        await self._keep_house()

    async def _warm_up(self) -> None:
        call = load_flow("flows.realtime.reduce_exposure")
        with tags(*self._orphans.tags):
            state: State[Any] = await call(_WARM_UP, job=_WARM_UP, return_state=True)
        self._start(self._delete(UUID(str(state.state_details.flow_run_id))))

    async def _delete(self, flow_run_id: UUID) -> None:
        """Delete the idle run, not before its tasks were recorded.

        The server records tasks a while after they ran. Where their run is gone it fails, tries again and again, and
        may keep its database locked for a minute.
        """
        await asyncio.sleep(_RECORDED_S)
        with contextlib.suppress(httpx.HTTPError, ObjectNotFound):
            async with get_client() as client:
                await client.delete_flow_run(flow_run_id)

    async def _keep_house(self) -> None:
        """Schedule the stages of open nights, and end runs that were left behind; for ever."""
        while True:
            try:
                await self._scheduler.schedule()
                await self._orphans.end()
            except Exception as error:  # noqa: BLE001 - a boundary: the server may be gone; it is tried again
                self._send(encode("trouble", {"text": f"housekeeping: {type(error).__name__}: {error}"}))
            await asyncio.sleep(_HOUSEKEEPING_S)


async def _run(stream: IO[str], send: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="work"))
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        for line in stream:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        os._exit(0)  # the watch is gone: its leases expire, and what waits for an API that hangs must not linger

    bench = await asyncio.to_thread(open_bench, find_observatory())
    log_nights(bench)
    threading.Thread(target=read, name="lines", daemon=True).start()
    runner = Runner(bench, send)
    await runner.serve(lines)


def _main() -> int:
    # what anybody prints must not get between the lines
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    lock = threading.Lock()

    def send(line: str) -> None:
        with lock:
            output.write(line)
            output.flush()

    try:
        for entrypoint in ("flows.realtime.reduce_exposure", "flows.postprocess.midway_postprocess"):
            load_flow(entrypoint)  # paid for now, not by the first exposure
        with speaking():
            asyncio.run(_run(sys.stdin, send))
    except NightglassError as error:
        send(encode("trouble", {"text": str(error)}))
        return 1
    # Prefect sends its last logs at exit; a server that hangs must not keep us
    threading.Timer(_LEAVE_S, lambda: os._exit(0)).start()
    return 0


if __name__ == "__main__":
    sys.exit(_main())
