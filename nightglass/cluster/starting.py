"""Starting a cluster, and finding one that runs."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import logging
import os
import signal
import socket
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightglass.cluster.daskpool import DaskPool
from nightglass.errors import Misconfigured, Retryable
from nightglass.layout import Layout
from nightglass.pool import Pool

if TYPE_CHECKING:
    import distributed

    from nightglass.config import Cluster

__all__ = ["connect", "published_address", "start"]

_log = logging.getLogger(__name__)

_PRELOAD = "nightglass.reduction"
"""Imported by workers as they start, so that the first exposure does not pay for it."""
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}
_SETTINGS = {
    "distributed.scheduler.allowed-failures": 1,
    "distributed.nanny.pre-spawn-environ": _ENVIRONMENT,
    # results are small, so there is nothing to spill; a worker that grows is ended, not paused for ever
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.memory.monitor-interval": "500ms",
    # watching itself is for Dask's dashboard, which nobody sees here, and takes time from the pixels: each worker
    # would look at its own stack 100 times a second and at its event loop 50 times
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.system-monitor.disk": False,
    "distributed.client.scheduler-info-interval": "10s",
    "distributed.scheduler.active-memory-manager.start": False,
}
_NEVER = "365 days"
_CONNECT_S = 20.0
_WORKERS_S = 120.0


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
    pool.withdraw_at_end(_publish(layout, pool.address))
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
            _log.info("the cluster that was published is gone, a local one is started: %s", error)
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


def _attach(address: str) -> DaskPool:
    import distributed

    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        # asked first, because a client tries again and again until its time is out
        if port.isdigit():
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S / 4).close()
        client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        message = f"no Dask scheduler answers at {address}: {error}"
        raise Retryable(message, remedy="start it, or leave cluster.address empty for a local one") from error
    return _with_workers(client, address)


def _with_workers(client: distributed.Client, where: str, cluster: Any = None) -> DaskPool:
    try:
        client.wait_for_workers(1, timeout=_WORKERS_S)
    except TimeoutError:
        client.close()
        message = f"the Dask cluster {where} has no workers after {_WORKERS_S:g} s"
        raise Retryable(message) from None
    return DaskPool(client, cluster)


def _start_cluster(config: Cluster) -> DaskPool:
    import dask.config
    import distributed

    with dask.config.set(_SETTINGS), _signals_kept_from_children():
        cluster = _from_factory(config) if config.factory else _local(config)
        client = distributed.Client(cluster, timeout=_WORKERS_S, set_as_default=False)
    return _with_workers(client, config.factory or "on this host", cluster)


def _local(config: Cluster) -> Any:
    import dask.config
    import distributed

    # Dask would never replace a worker that, 15 s after it died, is only just coming back from having died again;
    # set for as long as this process lives, because it is looked up at each death
    dask.config.set({"distributed.deploy.lost-worker-timeout": _NEVER})
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
