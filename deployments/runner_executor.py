"""The watch's way to Prefect: an executor whose jobs become flow runs in a resident child.

The watch itself imports no Prefect. One thread here, the keeper, keeps three children alive (embedded server, runner,
serve child), asks the server for its health, and tells the watch when anything changed. The runner is spoken to in
lines of JSON; it is killed and replaced when it hangs, because no time-out inside a process bounds a flow whose API
hangs (237 s were seen).
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from deployments.environment import child_environment, configured_api_url
from deployments.pipe import decode, encode
from deployments.processes import Child, spawn
from deployments.server import EmbeddedServer, HealthCheck
from nightglass.config import Dispatch, Observatory
from nightglass.errors import Misconfigured, NightglassError
from nightglass.layout import Layout
from nightglass.watch.executor import Terms
from nightglass.watch.jobs import Job, JobPhase, JobReport

__all__ = ["PrefectExecutor"]

_log = logging.getLogger(__name__)

_START_S = 3.0
"""Seconds from a job to its first line of work: 0.15 s usually, 1-2 s on a busy host."""
_READY_S = 60.0
"""Seconds for a runner to import everything and open ledger and pool: 3-4 s usually."""
_PONG_S = 5.0
"""Seconds after which a runner that does not answer is replaced; its loop is never busy for longer than 0.2 s."""
_RESPAWN_S = 2.0
_LONGEST_RESPAWN_S = 60.0
_SERVE_AFTER_S = 8.0
"""Seconds of health before the serve child starts: its imports would slow the first exposures down by a second."""
_GRACE_S = 1.0
_SERVE_GRACE_S = 3.0
"""Its runs are cancelled in order, and say so to Prefect and to the ledger."""


class _Patience:
    """When a child may be started again: at once, unless it keeps dying."""

    def __init__(self) -> None:
        self._pause_s = _RESPAWN_S
        self._last = -math.inf

    def allows(self) -> bool:
        """Return whether it may be started now; the caller does so then."""
        since = time.monotonic() - self._last
        if since < self._pause_s:
            return False
        # one that lived for a while is forgiven; one that died young costs imports each time
        self._pause_s = min(2 * self._pause_s, _LONGEST_RESPAWN_S) if since < 2 * self._pause_s else _RESPAWN_S
        self._last = time.monotonic()
        return True


class _Runner:
    """One runner process, with the threads that write to it and read from it."""

    def __init__(self, child: Child, on_line: Callable[[_Runner, str], None], on_end: Callable[[], None]) -> None:
        self.child = child
        self.started_at = time.monotonic()
        self.heard_at = self.started_at
        self.ready = False
        self.jobs: set[str] = set()
        """Those that were given to it and have not ended."""
        self._outbox: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._on_line = on_line
        self._on_end = on_end
        threading.Thread(target=self._write, name="runner-write", daemon=True).start()
        threading.Thread(target=self._read, name="runner-read", daemon=True).start()

    def send(self, line: str) -> None:
        """Queue a line; a runner that does not read holds up its own thread only."""
        self._outbox.put(line)

    def end(self, *, grace_s: float) -> None:
        """Stop the process and the threads."""
        self._outbox.put(None)
        self.child.stop(grace_s=grace_s)

    def silent_for(self) -> float:
        """Seconds since it last said anything."""
        return time.monotonic() - self.heard_at

    def _write(self) -> None:
        stream = self.child.process.stdin
        with contextlib.suppress(BrokenPipeError, ValueError):  # it died; the keeper sees that
            while stream is not None and (line := self._outbox.get()) is not None:
                stream.write(line)
                stream.flush()

    def _read(self) -> None:
        stream = self.child.process.stdout
        with contextlib.suppress(ValueError):  # closed while we read
            for line in stream or ():
                self.heard_at = time.monotonic()
                self._on_line(self, line)
        self._on_end()


class PrefectExecutor:
    """Runs jobs as Prefect flow runs. See `nightglass.watch.executor.Executor`.

    Parameters
    ----------
    observatory : Observatory
        Whose Prefect section says which server, how many runs at once, and which dispatch.
    configuration : Path, optional
        The observatory file, for the children.
    cluster_address : str, optional
        Of the watch's Dask scheduler; empty: the runner finds the published one, or starts its own.
    """

    def __init__(
        self, observatory: Observatory, *, configuration: Path | None = None, cluster_address: str = ""
    ) -> None:
        settings = observatory.prefect
        self._observatory = observatory
        self._configuration = configuration
        self._cluster_address = cluster_address
        self._logs = Layout(observatory.root).run
        self._url = configured_api_url(observatory)
        self._server = None if self._url else EmbeddedServer(observatory.root, port=settings.port)
        self._inline = settings.dispatch is Dispatch.INLINE
        self._terms = Terms(
            capacity=settings.concurrency,
            start_s=_START_S if self._inline else math.inf,
            silence_s=settings.silence_s if self._inline else math.inf,
            visible=True,
        )
        self._wake: Callable[[], None] = lambda: None
        self._reports: queue.SimpleQueue[JobReport] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._runner: _Runner | None = None
        self._discarded: queue.SimpleQueue[_Runner] = queue.SimpleQueue()
        self._serving: Child | None = None
        self._patience = {"runner": _Patience(), "serve": _Patience()}
        self._answers = False
        self._was_healthy = False
        self._healthy_since = math.inf
        self._restart = threading.Event()
        self._stir = threading.Event()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="prefect-keeper", daemon=True)

    @property
    def terms(self) -> Terms:
        """See `Executor`."""
        return self._terms

    @property
    def healthy(self) -> bool:
        """Whether the server answers and the runner is there and awake."""
        runner = self._runner
        return self._answers and runner is not None and runner.ready and not self._restart.is_set()

    @property
    def api_url(self) -> str:
        """Address of the Prefect API; empty while the embedded server has not been started."""
        return self._server.api_url if self._server is not None else self._url

    @property
    def ui_url(self) -> str:
        """Address of the user interface that belongs to the API."""
        return self.api_url.removesuffix("/api")

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the living children: ``server``, ``runner``, ``serve``."""
        found = {
            "server": self._server.pid if self._server is not None else None,
            "runner": self._runner.child.pid if self._runner is not None else None,
            "serve": self._serving.pid if self._serving is not None else None,
        }
        return {name: pid for name, pid in found.items() if pid is not None}

    def attach(self, wake: Callable[[], None]) -> None:
        """See `Executor`; the children are started now."""
        self._wake = wake
        self._keeper.start()

    def submit(self, job: Job) -> None:
        """See `Executor`."""
        with self._lock:
            runner = self._runner
            if runner is not None and runner.ready:
                runner.jobs.add(job.job_id)
                runner.send(encode("job", job.to_json()))
                return
        self._reports.put(JobReport(job_id=job.job_id, phase=JobPhase.ENDED, error="Retryable: there is no runner"))
        self._wake()

    def poll(self) -> Iterable[JobReport]:
        """See `Executor`."""
        reports = []
        while not self._reports.empty():
            reports.append(self._reports.get())
        return reports

    def cancel(self, job_id: str) -> None:
        """See `Executor`."""
        runner = self._runner
        if runner is not None:
            runner.send(encode("cancel", {"job_id": job_id}))

    def restart(self) -> None:
        """See `Executor`."""
        with self._lock:
            self._runner, hanging = None, self._runner
            self._drop_reports()
        if hanging is not None:
            hanging.child.process.kill()
            self._discarded.put(hanging)  # the rest of its family follows in the keeper's time
            self._restart.set()
            self._stir.set()

    def close(self) -> None:
        """See `Executor`."""
        self._closing.set()
        self._stir.set()
        if self._keeper.is_alive():
            self._keeper.join()

    # everything below runs in the keeper's thread, which the kernel takes for the parent of the children

    def _keep(self) -> None:
        period_s = self._observatory.prefect.health_period_s
        with HealthCheck(timeout_s=self._observatory.prefect.health_timeout_s) as check:
            while not self._closing.is_set():
                began = time.monotonic()
                try:
                    self._look_after(check)
                except (NightglassError, OSError) as error:
                    _log.error("looking after the Prefect children: %s", error)
                self._stir.wait(max(0.0, period_s - (time.monotonic() - began)))
                self._stir.clear()
        self._end_children()

    def _look_after(self, check: HealthCheck) -> None:
        if self._server is not None:
            self._server.ensure()
        self._tend_runner()
        self._answers = bool(self.api_url) and check(self.api_url)
        if self._server is not None:
            self._server.note(answered=self._answers)
        healthy = self.healthy
        # compared with the last look, not with the beginning of this one: a runner gets ready in between
        if healthy is not self._was_healthy:
            self._was_healthy = healthy
            self._healthy_since = time.monotonic() if healthy else math.inf
            self._wake()
        self._tend_serving()

    def _tend_runner(self) -> None:
        while not self._discarded.empty():
            self._discarded.get().end(grace_s=0.0)
        runner = self._runner
        if runner is not None:
            limit_s = _PONG_S if runner.ready else _READY_S
            hangs = runner.silent_for() > limit_s
            if runner.child.alive and not hangs:
                runner.send(encode("ping"))
                return
            _log.warning("the runner (process %d) %s", runner.child.pid, "hangs" if hangs else "ended")
            self._lose(runner, f"the runner {'hung' if hangs else 'died'}")
            runner.end(grace_s=0.0)
        if self._patience["runner"].allows() or self._restart.is_set():
            # SIGKILL: one that is stopped would keep a SIGTERM pending for ever, and it has nothing to put in order
            child = self._spawn("runner", "deployments.runner", pipes=True, death_signal=signal.SIGKILL)
            self._runner = _Runner(child, self._hear, self._stir.set)
        self._restart.clear()

    def _lose(self, runner: _Runner, why: str) -> None:
        """End the jobs of a runner that is lost, so that the watch gives their exposures to somebody else at once."""
        with self._lock:
            self._runner = None
            for job_id in sorted(runner.jobs):
                report = JobReport(job_id=job_id, phase=JobPhase.ENDED, error=f"Retryable: {why}", lost=True)
                self._reports.put(report)
        self._wake()

    def _tend_serving(self) -> None:
        if not (self._observatory.prefect.serve and self._answers):
            return
        if self._serving is None and time.monotonic() - self._healthy_since < _SERVE_AFTER_S:
            return
        if self._serving is not None:
            if self._serving.alive:
                return
            _log.warning("the serve child (process %d) ended", self._serving.pid)
            self._serving.stop(grace_s=0.0)
            self._serving = None
        if self._patience["serve"].allows():
            self._serving = self._spawn("serve", "deployments.serving")

    def _spawn(
        self, name: str, module: str, *, pipes: bool = False, death_signal: signal.Signals = signal.SIGTERM
    ) -> Child:
        environment = child_environment(self._observatory, api_url=self.api_url, configuration=self._configuration)
        if self._cluster_address:
            environment["NIGHTGLASS_CLUSTER"] = self._cluster_address
        return spawn(
            name,
            ["python", "-m", module],
            environment=environment,
            log=self._logs / f"{name}.log",
            pipes=pipes,
            pid_file=self._logs / f"{name}.pid",
            death_signal=death_signal,
        )

    def _end_children(self) -> None:
        with self._lock:
            runner, self._runner = self._runner, None
        if runner is not None:
            runner.send(encode("close"))
            runner.end(grace_s=_GRACE_S)
        if self._serving is not None:
            self._serving.stop(grace_s=_SERVE_GRACE_S)
        if self._server is not None:
            self._server.close()

    def _hear(self, runner: _Runner, text: str) -> None:
        """Take a line of a runner; called by its reading thread."""
        try:
            line = decode(text)
            report = JobReport.from_json(line.content) if line.kind == "report" else None
        except Misconfigured as error:
            _log.error("runner: %s", error)
            return
        if line.kind == "ready":
            runner.ready = True
            self._stir.set()
        elif line.kind == "trouble":
            _log.warning("runner: %s", line.content.get("text", ""))
        if report is not None:
            with self._lock:
                if runner is not self._runner:  # the watch took back all that this one had
                    return
                if report.phase is JobPhase.ENDED:
                    runner.jobs.discard(report.job_id)
                self._reports.put(report)
            self._wake()

    def _drop_reports(self) -> None:
        while not self._reports.empty():
            self._reports.get()
