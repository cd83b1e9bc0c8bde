"""Where pixels are computed: a pool of Dask workers, or this thread.

`start` makes the cluster that a watch owns and publishes its address under ``<root>/run``; `connect` finds it from
another process, and otherwise makes a local one. Both return a `Pool`, whose futures are those of
`concurrent.futures`, so that nothing outside this module needs to know Dask.

The pool hands the workers no more tasks than they can run at once and keeps the others itself. Dask would assign
them all, and a task that kills its worker would then take those queued behind it down as well.
"""

from __future__ import annotations

import contextlib
import heapq
import importlib
import importlib.util
import itertools
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightglass.errors import Misconfigured, NightglassError, Retryable
from nightglass.layout import Layout
from nightglass.pool import Pool, PoolBase, SerialPool, Worker

if TYPE_CHECKING:
    import distributed

    from nightglass.config import Cluster

__all__ = ["Pool", "SerialPool", "Worker", "connect", "published_address", "start"]

log = logging.getLogger(__name__)

_PRELOAD = "nightglass.reduction"
"""Imported by workers as they start, so that the first exposure does not pay for it."""
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}
_CONNECT_S = 5.0
_WORKERS_S = 60.0
_CLOSE_S = 10.0
_WIDTH_S = 2.0
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


class _DaskPool(PoolBase):
    """A `Pool` over a Dask client."""

    def __init__(self, client: distributed.Client, cluster: Any = None, *, published: Path | None = None) -> None:
        self._client = client
        self._cluster = cluster
        self._published = published
        self._lock = threading.RLock()
        self._count = itertools.count()
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
            self._cluster.close(timeout=_CLOSE_S)

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
        function, *args = entry.call
        number = entry.rank[1]
        # the number makes the key unique: Dask would return the old result of a key that it knows
        remote = self._client.submit(
            function, *args, key=f"{entry.name}-{number}", pure=False, priority=-entry.rank[0], retries=0
        )
        entry.remote = remote
        self._running[number] = entry
        remote.add_done_callback(lambda done: self._arrived(entry, done))

    def _arrived(self, entry: _Entry, remote: Any) -> None:
        """Pass on the outcome of a call; runs in a thread of Dask's for callbacks."""
        with self._lock:
            known = self._running.pop(entry.rank[1], None)
        if known is not None:
            self._feed()
            try:
                result = remote.result(timeout=_RESULT_S)
            except BaseException as error:  # noqa: BLE001 - handed on, to whoever asks for the result
                entry.settle(error=_translate(entry.name, error))
            else:
                entry.settle(result=result)
        entry.remote = None

    def _forget(self, entry: _Entry) -> None:
        """Take the worker back from a call that was cancelled while it ran; runs whenever a future is done."""
        if not entry.future.cancelled():
            return
        entry.settle()
        with self._lock:
            entry = self._running.pop(entry.rank[1], entry)
        if entry.remote is not None:
            threading.Thread(target=self._evict, args=(entry,), name="nightglass-evict", daemon=True).start()

    def _evict(self, entry: _Entry) -> None:
        """Restart the worker that runs an unwanted call: Dask can't interrupt one, and it would block a slot unseen."""
        try:
            key = entry.remote.key
            busy = [address for address, keys in self._client.processing().items() if key in keys]
            entry.remote.cancel(force=True)
            if busy:
                log.warning("%s was cancelled while it ran; its worker %s is restarted", entry.name, busy[0])
                self._client.restart_workers(busy, timeout=_WORKERS_S, raise_for_error=False)
        except (OSError, TimeoutError, RuntimeError, ValueError) as error:
            log.warning("%s was cancelled, but its worker could not be restarted: %s", entry.name, error)
        self._feed()

    def _width(self) -> int:
        """Return how many calls the workers can run at once, by what was known a moment ago."""
        now = time.monotonic()
        if now >= self._width_until:
            with contextlib.suppress(OSError, TimeoutError, RuntimeError):  # a lost scheduler shows in the futures
                workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
                self._known_width = max(1, sum(int(worker["nthreads"]) for worker in workers))
            self._width_until = now + _WIDTH_S
        return self._known_width


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


def start(config: Cluster, *, layout: Layout) -> Pool:
    """Start the cluster that a watch owns, or connect to the configured one, and publish its address.

    Raises
    ------
    Misconfigured
        If the configured factory can't be called.
    Retryable
        If the configured scheduler does not answer.
    """
    pool = _attach(config.address) if config.address else _start_cluster(config)
    pool._published = _publish(layout, pool.address)  # noqa: SLF001 - of this module
    return pool


def connect(config: Cluster, *, layout: Layout) -> Pool:
    """Connect to the configured scheduler, to the one that a running watch published, or start a local cluster.

    Raises
    ------
    Misconfigured
        If the configured factory can't be called.
    Retryable
        If the configured scheduler does not answer.
    """
    if config.address:
        return _attach(config.address)
    if address := published_address(layout):
        try:
            return _attach(address)
        except Retryable as error:
            log.info("the cluster that was published is gone, a local one is started: %s", error)
    return _start_cluster(config)


def published_address(layout: Layout) -> str:
    """Return the address that a process of this host published and that is still alive; else empty."""
    try:
        record = json.loads(_address_file(layout).read_text())
        os.kill(int(record["pid"]), 0)
        return str(record["address"])
    except (OSError, ValueError, KeyError, TypeError):  # none, half written by a crash, or its process is gone
        return ""


def _address_file(layout: Layout) -> Path:
    return layout.run / "cluster.json"


def _publish(layout: Layout, address: str) -> Path:
    path = _address_file(layout)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps({"address": address, "pid": os.getpid()}))
    part.replace(path)
    return path


def _withdraw(path: Path) -> None:
    """Remove a published address if it is still this process's."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        if json.loads(path.read_text())["pid"] == os.getpid():
            path.unlink()


def _attach(address: str) -> _DaskPool:
    import distributed

    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        # asked first, because a client tries again and again until its time is out
        if port.isdigit():
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
        client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        message = f"no Dask scheduler answers at {address}: {error}"
        raise Retryable(message, remedy="start it, or leave cluster.address empty for a local one") from error
    return _with_workers(client, address)


def _with_workers(client: distributed.Client, where: str) -> _DaskPool:
    try:
        client.wait_for_workers(1, timeout=_WORKERS_S)
    except TimeoutError:
        client.close()
        message = f"the Dask cluster {where} has no workers after {_WORKERS_S:g} s"
        raise Retryable(message) from None
    return _DaskPool(client)


def _start_cluster(config: Cluster) -> _DaskPool:
    import dask.config
    import distributed

    settings = {
        "distributed.scheduler.allowed-failures": 1,
        "distributed.nanny.pre-spawn-environ": _ENVIRONMENT,
        # results are small, so there is nothing to spill; a worker that grows is ended, not paused for ever
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": 0.95,
    }
    with dask.config.set(settings), _signals_kept_from_children():
        cluster = _from_factory(config) if config.factory else _local(config)
        client = distributed.Client(cluster, timeout=_WORKERS_S, set_as_default=False)
    pool = _with_workers(client, config.factory or "on this host")
    pool._cluster = cluster  # noqa: SLF001 - of this module
    return pool


def _local(config: Cluster) -> Any:
    import distributed

    preload = [_PRELOAD] if importlib.util.find_spec(_PRELOAD) else []
    return distributed.LocalCluster(
        n_workers=config.workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        # None would still serve on port 8787; what is served is a health page without the dashboard
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        memory_limit=f"{config.memory_mib}MiB",
        silence_logs=logging.CRITICAL,
        preload=preload,
    )


def _from_factory(config: Cluster) -> Any:
    module, _, name = config.factory.partition(":")
    try:
        cluster = getattr(importlib.import_module(module), name)(**config.options)
        if not isinstance(cluster.scheduler_address, str):
            raise TypeError(name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        message = f"cluster.factory {config.factory!r} does not make a cluster: {error}"
        raise Misconfigured(
            message, remedy="write it as module:Class, with its arguments in cluster.options"
        ) from error


@contextlib.contextmanager
def _signals_kept_from_children() -> Iterator[None]:
    """Block SIGINT and SIGTERM in the threads and processes that are started within.

    Ctrl-C and a service manager signal the whole process group. The watch then drains, for which its workers must
    live on; they end with it, because each watches its parent.
    """
    resource_tracker.ensure_running()  # started later, by the thread that spawns, it would unblock both signals there
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
