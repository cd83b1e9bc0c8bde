"""The pool over a Dask client.

It hands the workers no more calls than they can run at once and keeps the others itself. Dask would assign them all,
and a call that kills its worker would then take those queued behind it down as well.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightglass.errors import NightglassError, Retryable
from nightglass.pool import PoolBase, Worker

if TYPE_CHECKING:
    import distributed

__all__ = ["DaskPool"]

_log = logging.getLogger(__name__)

_CLOSE_S = 20.0
_WIDTH_S = 2.0
_REPLACE_S = 30.0
_LOST = (OSError, TimeoutError, RuntimeError, ValueError, KeyError)
"""What a client raises when its scheduler is gone."""
_RESULT_S = 60.0
"""Time to fetch a result that is known to be there: results are small."""


@dataclass(order=True)
class _Entry:
    """One submitted call: waiting in the pool's heap, or handed to Dask."""

    rank: tuple[int, int]
    name: str = field(compare=False)
    call: tuple[Any, ...] = field(compare=False)
    future: Future[Any] = field(compare=False, default_factory=Future)
    remote: Any = field(compare=False, default=None)
    evicting: bool = field(compare=False, default=False)
    settling: threading.Lock = field(compare=False, default_factory=threading.Lock)

    def settle(self, *, result: Any = None, error: BaseException | None = None) -> None:
        """Give the future its outcome, once: its end, its cancellation and the pool's closing may coincide."""
        if not self.settling.acquire(blocking=False):
            return
        if not self.future.set_running_or_notify_cancel():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class DaskPool(PoolBase):
    """A `Pool` over a Dask client.

    Parameters
    ----------
    cluster : cluster of Dask, optional
        Closed with the pool.
    """

    def __init__(self, client: distributed.Client, cluster: Any = None) -> None:
        self._client = client
        self._cluster = cluster
        self._published: Path | None = None
        self._lock = threading.RLock()
        self._evictions = threading.Lock()
        self._count = itertools.count()
        self._tag = secrets.token_hex(4)
        self._waiting: list[_Entry] = []
        self._running: dict[int, _Entry] = {}
        self._known_width = 1
        self._width_until = 0.0
        self._closed = False

    @property
    def address(self) -> str:
        """Address of the scheduler."""
        return str(self._client.scheduler.address) if self._client.scheduler else ""

    def submit(
        self, function: Callable[..., Any], *args: Any, key: str | None = None, priority: int = 0
    ) -> Future[Any]:
        """See `Pool.submit`."""
        number = next(self._count)
        name = key or str(getattr(function, "__name__", "call"))
        entry = _Entry((-priority, number), name, (function, *args))
        with self._lock:
            if self._closed:
                message = f"{name}: the pool of workers is closed"
                raise Retryable(message)
            heapq.heappush(self._waiting, entry)
        entry.future.add_done_callback(lambda _: self._forget(entry))
        self._feed()
        return entry.future

    def workers(self) -> tuple[Worker, ...]:
        """See `Pool.workers`."""
        pids = {nanny.worker_address: nanny.pid or 0 for nanny in getattr(self._cluster, "workers", {}).values()}
        addresses = self._client.scheduler_info(n_workers=-1)["workers"]
        return tuple(Worker(address, pids.get(address, 0)) for address in sorted(addresses))

    def close(self) -> None:
        """Stop the client, and the cluster if this pool started it; calls that are not done fail as retryable."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            left = [*self._waiting, *self._running.values()]
            self._waiting.clear()
            self._running.clear()
        for entry in left:
            message = f"{entry.name}: the pool of workers was closed before it was done"
            entry.settle(error=Retryable(message))
        if self._published is not None:
            _withdraw(self._published)
        # a scheduler that is gone already must not keep the watch from ending
        with contextlib.suppress(OSError, TimeoutError):
            self._client.close(timeout=_CLOSE_S)
        if self._cluster is not None:
            _close_cluster(self._cluster)

    def withdraw_at_end(self, published: Path) -> None:
        """Remove the file in which the address was published when the pool is closed."""
        self._published = published

    def _feed(self) -> None:
        """Hand waiting calls to Dask, as many as its workers can run at once."""
        failed: list[tuple[_Entry, BaseException]] = []
        with self._lock:
            width = self._width()
            while self._waiting and len(self._running) < width and not self._closed:
                entry = heapq.heappop(self._waiting)
                if entry.future.cancelled():
                    continue
                try:
                    self._hand_over(entry)
                except Exception as error:  # noqa: BLE001 - of this call: its future carries it
                    failed.append((entry, _translate(entry.name, error)))
        for entry, cause in failed:
            entry.settle(error=cause)

    def _hand_over(self, entry: _Entry) -> None:
        from distributed.protocol.pickle import dumps

        number = entry.rank[1]
        # the number and the name of this pool make the key unique: Dask would return the old result of a key that it
        # knows, from whichever client
        remote = self._client.submit(
            _call,
            dumps(entry.call),
            key=f"{entry.name}-{self._tag}-{number}",
            pure=False,
            priority=-entry.rank[0],
            retries=0,
        )
        entry.remote = remote
        self._running[number] = entry
        remote.add_done_callback(lambda done: self._arrived(entry, done))

    def _arrived(self, entry: _Entry, remote: Any) -> None:
        """Pass on the outcome of a call; runs in a thread of Dask's for callbacks."""
        with self._lock:
            known = None if entry.evicting else self._running.pop(entry.rank[1], None)
        if known is not None:
            self._feed()
            try:
                result = remote.result(timeout=_RESULT_S)
            except BaseException as error:  # noqa: BLE001 - handed on, to whoever asks for the result
                entry.settle(error=_translate(entry.name, error))
            else:
                entry.settle(result=result)
            entry.remote = None  # lets Dask forget the result

    def _forget(self, entry: _Entry) -> None:
        """Take the worker back from a call that was cancelled while it ran; runs whenever a future is done."""
        if not entry.future.cancelled():
            return
        entry.settle()
        with self._lock:
            entry.evicting = entry.rank[1] in self._running and not self._closed
        if entry.evicting:
            threading.Thread(target=self._evict, args=(entry,), name="nightglass-evict", daemon=True).start()

    def _evict(self, entry: _Entry) -> None:
        """Kill the worker that runs an unwanted call: Dask can't interrupt one, and it would block a slot unseen.

        The nanny starts another in its place, as after a crash. Asking Dask to restart it is no substitute: on a
        busy host that gave up half-way and left no worker at all. The slot stays taken until the worker is gone,
        so that no other call is sent to die with it.
        """
        with self._evictions:
            try:
                key = entry.remote.key
                busy = [address for address, keys in self._client.processing().items() if key in keys]
                entry.remote.cancel(force=True)
                if busy:
                    _log.warning("%s was cancelled while it ran; its worker %s is replaced", entry.name, busy[0])
                    self._client.run(_kill_worker, workers=busy, nanny=True, on_error="return")
                    self._wait_until_gone(busy[0])
            except _LOST as error:
                _log.warning("%s was cancelled, but its worker could not be replaced: %s", entry.name, error)
            with self._lock:
                self._running.pop(entry.rank[1], None)
                entry.remote = None
        self._feed()

    def _wait_until_gone(self, address: str) -> None:
        end = time.monotonic() + _REPLACE_S
        while address in self._client.scheduler_info(n_workers=-1)["workers"] and time.monotonic() < end:
            time.sleep(0.02)

    def _width(self) -> int:
        """Return how many calls the workers can run at once, by what was known a moment ago."""
        now = time.monotonic()
        if now >= self._width_until:
            with contextlib.suppress(*_LOST):  # shows in the futures
                workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
                self._known_width = max(1, sum(int(worker["nthreads"]) for worker in workers))
            self._width_until = now + _WIDTH_S
        return self._known_width


def _call(sealed: bytes) -> Any:
    """Make a call in a worker. It comes as bytes, or the scheduler would unpack it and pack it anew."""
    from distributed.protocol.pickle import loads

    function, *args = loads(sealed)
    return function(*args)


def _close_cluster(cluster: Any) -> None:
    """Close a cluster; on a host too busy for an orderly end its worker processes are killed."""
    nannies = list(getattr(cluster, "workers", {}).values())
    try:
        cluster.close(timeout=_CLOSE_S)
    except TimeoutError:
        _log.warning("the Dask workers did not end within %g s and are killed", _CLOSE_S)
        for nanny in nannies:
            with contextlib.suppress(ProcessLookupError):
                _kill_worker(nanny)


def _kill_worker(dask_worker: Any = None) -> None:
    """Kill the worker process of a nanny; Dask fills in the nanny by the name of the parameter."""
    if dask_worker.pid:
        os.kill(dask_worker.pid, signal.SIGKILL)


def _translate(name: str, error: BaseException) -> BaseException:
    """Turn the ways in which a cluster fails into `Retryable`; errors of the function itself stay."""
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError

    if isinstance(error, NightglassError):
        return error
    if isinstance(error, KilledWorker):
        message = f"{name}: {error.allowed_failures + 1} workers died while they ran it"
        return Retryable(
            message, remedy="look at its input; a worker dies of too little memory or of a crash in a codec"
        )
    if isinstance(error, (CommClosedError, FutureCancelledError)):
        message = f"{name}: the cluster was lost while it ran ({type(error).__name__}: {error})"
        return Retryable(message)
    return error


def _withdraw(path: Path) -> None:
    """Remove a published address if it is still this process's."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        if json.loads(path.read_text())["pid"] == os.getpid():
            path.unlink()
