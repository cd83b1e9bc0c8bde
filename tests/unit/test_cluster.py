"""The pool of workers: the same promises by threads and by Dask, and what happens when workers die."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from nightglass import cluster
from nightglass.cluster import Pool, SerialPool
from nightglass.config import Cluster
from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.layout import Layout

CONFIG = Cluster(workers=2, memory_mib=512)
PATIENCE_S = 120.0


def double(value: int) -> int:
    return 2 * value


def die() -> None:
    os._exit(3)


def refuse(path: str) -> None:
    message = f"{path}: no EXPTIME"
    raise Rejected(message, remedy="add it")


def mark(path: str, seconds: float = 0.0) -> int:
    time.sleep(seconds)
    with Path(path).open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    return os.getpid()


def environment() -> dict[str, str]:
    return {name: os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}


def workers_of_this_process() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]


def block(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return Layout(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def dask_pool(layout: Layout) -> Iterator[Pool]:
    others = set(workers_of_this_process())  # of clusters that other tests keep
    with cluster.start(CONFIG, layout=layout) as pool:
        yield pool
    assert not set(workers_of_this_process()) - others
    assert not (layout.run / "cluster.json").exists()


def test_a_serial_pool_keeps_the_promises_of_a_future() -> None:
    with SerialPool() as pool:
        assert pool.submit(double, 4, key="x", priority=3).result(0) == 8
        assert pool.map_small(double, range(3)) == [0, 2, 4]
        assert isinstance(pool.submit(refuse, "a.fits").exception(), Rejected)
        assert pool.address == ""
        assert pool.workers()[0].pid == os.getpid()


@pytest.mark.cluster
def test_results_and_errors_come_back(dask_pool: Pool, tmp_path: Path) -> None:
    future = dask_pool.submit(double, 21)
    assert concurrent.futures.wait([future], timeout=PATIENCE_S).done == {future}
    assert future.result() == 42
    error = dask_pool.submit(refuse, "a.fits").exception(PATIENCE_S)
    assert isinstance(error, Rejected)
    assert (error.message, error.remedy) == ("a.fits: no EXPTIME", "add it")
    assert dask_pool.map_small(double, range(20), timeout=PATIENCE_S) == [2 * i for i in range(20)]
    late = dask_pool.submit(block, str(tmp_path / "gate"))
    with pytest.raises(concurrent.futures.TimeoutError):
        late.result(0.01)
    (tmp_path / "gate").touch()
    late.result(PATIENCE_S)


@pytest.mark.cluster
def test_workers_are_other_processes_with_one_thread_each(dask_pool: Pool, tmp_path: Path) -> None:
    pids = {worker.pid for worker in dask_pool.workers()}
    assert len(pids) == CONFIG.workers
    futures = [dask_pool.submit(mark, str(tmp_path / "marks"), 0.2) for _ in range(10)]
    assert {future.result(PATIENCE_S) for future in futures} == pids
    assert dask_pool.submit(environment).result(PATIENCE_S) == {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


@pytest.mark.cluster
def test_the_same_key_is_computed_anew_each_time(dask_pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    for _ in range(3):
        dask_pool.submit(mark, str(path), key="lynx/20260821/7").result(PATIENCE_S)
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.cluster
def test_processes_that_share_a_cluster_get_each_its_own_results(dask_pool: Pool, layout: Layout) -> None:
    shared = Cluster(address=dask_pool.address)
    with cluster.connect(shared, layout=layout) as one, cluster.connect(shared, layout=layout) as other:
        pools = (one, other, one, other)
        futures = [pool.submit(double, value) for value, pool in enumerate(pools)]
        assert [future.result(PATIENCE_S) for future in futures] == [0, 2, 4, 6]


@pytest.mark.cluster
def test_higher_priorities_overtake_what_waits(dask_pool: Pool, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    blockers = [dask_pool.submit(block, str(first)) for _ in range(CONFIG.workers)]
    low = [dask_pool.submit(block, str(second)) for _ in range(2 * CONFIG.workers)]
    high = dask_pool.submit(double, 1, priority=10)
    time.sleep(0.5)  # until the scheduler knows of all
    first.touch()
    try:
        assert high.result(PATIENCE_S) == 2
        assert not any(future.done() for future in low)
    finally:
        second.touch()
    concurrent.futures.wait([*blockers, *low], timeout=PATIENCE_S)


@pytest.mark.cluster
@pytest.mark.slow
def test_a_poison_exposure_is_named_and_harms_no_other(dask_pool: Pool) -> None:
    poison = dask_pool.submit(die, key="lynx/20260821/13")
    others = [dask_pool.submit(time.sleep, 0.1, key=f"lynx/20260821/{number}") for number in range(20, 26)]
    with pytest.raises(Retryable, match=r"lynx/20260821/13: 2 workers died"):
        poison.result(PATIENCE_S)
    assert [other.result(PATIENCE_S) for other in others] == [None] * 6


@pytest.mark.cluster
@pytest.mark.slow
def test_a_cancelled_call_gives_its_worker_back(dask_pool: Pool) -> None:
    hung = [dask_pool.submit(time.sleep, 300, key="hung") for _ in range(CONFIG.workers)]
    waiting = dask_pool.submit(double, 3)
    time.sleep(0.3)
    assert not waiting.done()
    assert all(one.cancel() for one in hung)
    assert waiting.result(PATIENCE_S) == 6
    assert all(one.cancelled() for one in hung)


@pytest.mark.cluster
def test_a_second_process_finds_the_published_cluster(dask_pool: Pool, layout: Layout) -> None:
    before = {worker.address for worker in dask_pool.workers()}
    with cluster.connect(CONFIG, layout=layout) as second:
        assert second.address == dask_pool.address
        assert {worker.address for worker in second.workers()} == before
        assert second.submit(double, 5).result(PATIENCE_S) == 10
    assert dask_pool.submit(double, 6).result(PATIENCE_S) == 12


@pytest.mark.cluster
@pytest.mark.slow
def test_a_dead_address_is_not_believed(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with pytest.raises(Retryable, match="no Dask scheduler answers"):
        cluster.connect(Cluster(address="tcp://127.0.0.1:9"), layout=layout)
    layout.run.mkdir()
    (layout.run / "cluster.json").write_text('{"address": "tcp://127.0.0.1:9", "pid": 1}')
    threads = {thread.name for thread in threading.enumerate()}
    with cluster.connect(Cluster(workers=1, memory_mib=512), layout=layout) as pool:
        assert pool.submit(double, 2).result(PATIENCE_S) == 4
        late = pool.submit(time.sleep, 300, key="lynx/20260821/99")
        started = time.monotonic()
    assert time.monotonic() - started < 20
    with pytest.raises(Retryable, match="lynx/20260821/99"):
        late.result(0)
    with pytest.raises(Retryable, match="closed"):
        pool.submit(double, 1)
    pool.close()
    lasting = {"Dask-Offload_0", "Dask-Callback-Thread_0"}
    assert {thread.name for thread in threading.enumerate()} - threads <= lasting


@pytest.mark.parametrize("factory", ["nowhere:Thing", "pathlib:NoSuch", "pathlib:Path"])
def test_a_factory_that_cannot_be_called_is_named(factory: str, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=factory):
        cluster.connect(Cluster(factory=factory, options={"no_such_option": 1}), layout=Layout(tmp_path))


SCRIPT = """
import sys, time
from pathlib import Path
from nightglass import cluster
from nightglass.config import Cluster
from nightglass.layout import Layout
if __name__ == "__main__":
    pool = cluster.start(Cluster(workers=1, memory_mib=512), layout=Layout(Path(sys.argv[1])))
    future = pool.submit(time.sleep, 1.0)
    sys.stdout.write("ready\\n"); sys.stdout.flush()
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        future.result(200)
        pool.close()
        sys.stdout.write("drained\\n")
"""


@pytest.mark.cluster
@pytest.mark.slow
def test_ctrl_c_reaches_the_owner_and_spares_its_workers(tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(SCRIPT)
    owner = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert owner.stdout is not None
    with owner:
        assert owner.stdout.readline() == "ready\n"
        children = psutil.Process(owner.pid).children(recursive=True)
        time.sleep(0.3)
        os.killpg(owner.pid, signal.SIGINT)
        assert owner.communicate(timeout=PATIENCE_S)[0] == "drained\n"
    assert owner.returncode == 0
    assert not psutil.wait_procs(children, timeout=10)[1]


@pytest.mark.cluster
@pytest.mark.slow
def test_a_worker_that_dies_again_and_again_comes_back(tmp_path: Path) -> None:
    with cluster.start(Cluster(workers=1, memory_mib=512), layout=Layout(tmp_path)) as pool:
        for pause_s in (14.3, 0.0):  # at its second death Dask is about to look whether it is back from the first
            assert wait_until(lambda: any(worker.pid for worker in pool.workers()), 30)
            os.kill(pool.workers()[0].pid, signal.SIGKILL)
            time.sleep(pause_s)
        time.sleep(2.0)
        assert wait_until(lambda: bool(pool.workers()), 30), "the worker was given up"
        assert pool.submit(double, 4).result(PATIENCE_S) == 8


@pytest.mark.cluster
@pytest.mark.slow
def test_workers_die_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(SCRIPT)
    owner = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert owner.stdout is not None
    with owner:
        assert owner.stdout.readline() == "ready\n"
        children = psutil.Process(owner.pid).children(recursive=True)
        owner.kill()
    assert not psutil.wait_procs(children, timeout=10)[1]
