"""The peer of the benchmarks: the same steps, called in a plain loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

from benchmarks.accounting import machine_cpu
from nightglass.config import Observatory, load_camera
from nightglass.fitsio import publish
from nightglass.model import ExposureRef, Kind, MasterRef
from nightglass.reduction import ReductionSpec, reduce_exposure
from nightglass.reduction.warm import keep_memory, warm_up

__all__ = ["plain_loop", "plain_spec", "reduce_plainly"]

_PATIENCE_S = 120.0


def plain_spec(ref: ExposureRef, masters: Sequence[MasterRef], root: Path) -> ReductionSpec:
    """Return what the real-time reduction of an exposure is asked to do, with products beside the real ones."""
    camera = load_camera(ref.camera)
    best: dict[Kind, MasterRef] = {}
    for master in masters:
        if master.kind is not Kind.FLAT or master.filter == ref.filter:
            best.setdefault(master.kind, master)
    return ReductionSpec(
        ref=ref,
        camera=camera,
        entries=camera.step_list("realtime", ref.kind),
        product=root / "plain" / f"{ref.name}.fits",
        token="plain",
        masters=tuple(best.values()) if ref.kind is Kind.SCIENCE else (),
        quicklook=root / "plain" / f"{ref.name}.png",
        limits=Observatory().limits,
    )


def reduce_plainly(spec: ReductionSpec) -> float:
    """Reduce one exposure here and now, publish its files, and return the seconds it took."""
    started = time.perf_counter()
    for part in reduce_exposure(spec).parts:
        publish(part.part, part.final)
    return time.perf_counter() - started


def plain_loop(specs: Sequence[ReductionSpec], *, workers: int) -> tuple[float, float, float]:
    """Reduce exposures in a pool of processes that are up and warm.

    The workers are set up as ours are. Returned are seconds on the wall, of processor time of the workers (this process
    only waits), and of processor time that the rest of the machine took meanwhile.
    """
    context = get_context("spawn")
    barrier = context.Barrier(workers)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_set_up, initargs=(barrier,)) as pool:
        list(pool.map(_reduce_together, specs[:workers]))  # each worker has read the masters
        before = sum(pool.map(_cpu_together, range(workers)))
        started, busy = time.perf_counter(), machine_cpu()
        list(pool.map(reduce_plainly, specs))
        wall, busy = time.perf_counter() - started, machine_cpu() - busy
        cpu = sum(pool.map(_cpu_together, range(workers))) - before
        return wall, cpu, busy - cpu


_barriers: list[Barrier] = []
"""In a worker: where it waits for the others, so that each gets one of the calls that are for all of them."""


def _set_up(barrier: Barrier) -> None:
    _barriers.append(barrier)
    keep_memory()
    warm_up()


def _reduce_together(spec: ReductionSpec) -> None:
    _barriers[0].wait(_PATIENCE_S)
    reduce_plainly(spec)


def _cpu_together(_: int) -> float:
    _barriers[0].wait(_PATIENCE_S)
    return time.process_time()
