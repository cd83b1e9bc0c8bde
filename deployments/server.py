"""The embedded Prefect server: started when none is configured, kept alive, stopped with Nightglass.

One server serves all Nightglass processes of a root. Whoever holds the lock ``<root>/run/server.lock`` supervises it;
the others read its address from ``<root>/run/server.json``, and one of them takes over when the supervisor ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import httpx

from deployments.environment import server_environment
from deployments.processes import Child, running_pid, spawn
from nightglass.errors import Misconfigured, Retryable
from nightglass.layout import Layout

__all__ = ["EmbeddedServer", "HealthCheck", "free_port"]

_HOST = "127.0.0.1"
_LOOPBACK = frozenset({_HOST, "localhost", "::1"})
_MODULE = "deployments.prefect_server"
_START_S = 90.0
"""A first start migrates the database: 10-20 s on two free cores, more on busy ones."""
_HUNG_S = 90.0
_GRACE_S = 5.0
_RESTART_S = 2.0


def free_port(preferred: int = 0) -> int:
    """Return a port of the loopback that is free now: the preferred one if it is, else any."""
    for port in (preferred, 0) if preferred else (0,):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((_HOST, port))
                return int(probe.getsockname()[1])
    message = f"no port of {_HOST} is free"
    raise Retryable(message)


class HealthCheck:
    """Asks ``GET <api>/health``, over a connection that is kept.

    Parameters
    ----------
    timeout_s : float
        An answer that takes longer counts as none: the server hangs.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._outside = httpx.Client(timeout=timeout_s)
        # proxies of the environment are for the world outside
        self._here = httpx.Client(timeout=timeout_s, trust_env=False)

    def __call__(self, api_url: str) -> bool:
        """Return whether the API answers well and in time."""
        client = self._here if httpx.URL(api_url).host in _LOOPBACK else self._outside
        try:
            return client.get(f"{api_url}/health").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._outside.close()
        self._here.close()


@dataclass(frozen=True, slots=True)
class _Address:
    """What ``server.json`` holds."""

    pid: int
    port: int


class EmbeddedServer:
    """The Prefect server of one root.

    Parameters
    ----------
    root : Path
        Its home is ``<root>/prefect``; its log ``<root>/prefect/server.log``.
    port : int, optional
        0: the port that it had last time if that is free, or else any free one.

    Notes
    -----
    Not thread-safe, and its process dies with the thread that called `ensure`: keep it in one long-lived thread.
    """

    def __init__(self, root: Path, *, port: int = 0) -> None:
        layout = Layout(root)
        self._home = layout.prefect_home
        self._run = layout.run
        self._port = port
        self._child: Child | None = None
        self._lock: IO[str] | None = None
        self._last_answer = 0.0
        self._start_after = 0.0

    @property
    def api_url(self) -> str:
        """Address of its API; empty before the first `ensure`."""
        return f"http://{_HOST}:{self._port}/api" if self._port else ""

    @property
    def ui_url(self) -> str:
        """Address of its user interface."""
        return f"http://{_HOST}:{self._port}" if self._port else ""

    @property
    def pid(self) -> int | None:
        """Process id, where this object supervises the server."""
        return self._child.pid if self._child is not None else None

    @property
    def log(self) -> Path:
        """What it says."""
        return self._home / "server.log"

    def ensure(self) -> None:
        """See to it that a server is running or starting; returns within milliseconds.

        A server that died is started again on the same port, so that nobody has to learn a new address. One that
        hangs for longer than 90 s is killed first.

        Raises
        ------
        Misconfigured
            If the root cannot be written.
        """
        if not self._acquire():
            self._follow()
            return
        if self._child is not None and self._child.alive:
            return
        if self._child is not None:
            self._child.stop(grace_s=0.0)
            self._child = None
        if time.monotonic() >= self._start_after:
            # one that dies at once, as on a full disk, is not started again and again without a pause
            self._start_after = time.monotonic() + _RESTART_S
            self._end_stray()
            self._start()

    def note(self, *, answered: bool) -> None:
        """Tell what the last health check said, so that a server that hangs for too long is replaced."""
        now = time.monotonic()
        if answered:
            self._last_answer = now
        elif self._child is not None and self._child.alive and now - self._last_answer > _HUNG_S:
            self._child.kill()
            self._child = None

    def wait(self, *, timeout_s: float = _START_S) -> None:
        """Wait until the server answers.

        Raises
        ------
        Retryable
            If it does not within the time; the message names its log.
        """
        end = time.monotonic() + timeout_s
        with HealthCheck(timeout_s=2.0) as answers:
            while not (self.api_url and answers(self.api_url)):
                if time.monotonic() > end:
                    message = f"the embedded Prefect server did not answer at {self.api_url} within {timeout_s:g} s"
                    raise Retryable(message, remedy=f"read {self.log}")
                self.ensure()
                time.sleep(0.1)
        self._last_answer = time.monotonic()

    def close(self) -> None:
        """Stop the server if this object supervises it."""
        if self._child is not None:
            self._child.stop(grace_s=_GRACE_S)
            self._child = None
            self._address_file.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def _address_file(self) -> Path:
        return self._run / "server.json"

    def _acquire(self) -> bool:
        if self._lock is not None:
            return True
        try:
            self._run.mkdir(parents=True, exist_ok=True)
            self._home.mkdir(parents=True, exist_ok=True)
            lock = (self._run / "server.lock").open("a")
        except OSError as error:
            message = f"the Prefect server cannot keep its files under {self._run.parent}: {error}"
            raise Misconfigured(message, remedy="choose another root, or make it writable") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self._lock = lock
        return True

    def _follow(self) -> None:
        address = self._read_address()
        if address is not None:
            self._port = address.port

    def _read_address(self) -> _Address | None:
        try:
            return _Address(**json.loads(self._address_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _end_stray(self) -> None:
        """End a server that a killed supervisor left behind: it has our database open."""
        if self._read_address() is not None:
            pid = running_pid(self._address_file_pid(), containing=_MODULE)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _address_file_pid(self) -> Path:
        return self._run / "server.pid"

    def _start(self) -> None:
        if not self._port:
            last = self._read_address()
            self._port = free_port(last.port if last else 0)
        command = ["python", "-m", _MODULE, "--host", _HOST, "--port", str(self._port)]
        environment = server_environment(self._home, host=_HOST, port=self._port)
        pid_file = self._address_file_pid()
        self._child = spawn("Prefect server", command, environment=environment, log=self.log, pid_file=pid_file)
        self._last_answer = time.monotonic()
        part = self._address_file.with_suffix(".part")
        part.write_text(json.dumps({"pid": self._child.pid, "port": self._port}))
        part.replace(self._address_file)
