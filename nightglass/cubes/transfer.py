"""Bytes of many files moved into one, by the workers of a pool."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from nightglass.config import Limits
from nightglass.cubes.moving import Fault, FetchedRun, Move, MovedRun, MoveTask, Run, fetch_planes, move_planes
from nightglass.cubes.outlets import is_uncached
from nightglass.cubes.working import run_tasks
from nightglass.errors import Retryable
from nightglass.fitsio.checksums import add_sums
from nightglass.fitsio.filling import write_at
from nightglass.pool import Pool

__all__ = ["Placed", "SpoiltFrames", "Target", "creating", "transfer", "written_back"]

_TASK_BYTES: Final = 64 << 20
"""A call of a worker costs as much processor time as moving a fifth of that."""
_GATHERED_BYTES: Final = 8 << 20
"""Of one task whose pixels travel through the cluster."""
_TASK_MOVES: Final = 1024
_TASKS_EACH: Final = 2
"""Tasks for each worker at least, so that none waits long for the last one."""
_SMALL_BYTES: Final = 64 << 20
"""So little is begun here: it is often done before the workers would have heard of it."""
_PATIENCE_S: Final = 0.5
"""After so long the workers do the rest, which take the time of slow disks and networks together."""


class SpoiltFrames(Retryable):
    """Frames changed, or turned out to be damaged, while they were moved: the cube is planned anew without them."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(fault.reason for fault in faults[:3]), remedy="the frame is left out, or sent again")
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Placed:
    """One move, and where it goes.

    Attributes
    ----------
    hdu : int
        Which HDU of the cube.
    start : int
        Bytes from the beginning of the HDU's data.
    """

    hdu: int
    start: int
    move: Move


@dataclass(frozen=True, slots=True)
class Target:
    """A cube that is being written.

    Attributes
    ----------
    descriptor : int
        Of the file, open for writing here.
    data_offsets : tuple of int
        Where the data of each HDU begin.
    gathers : bool
        Whether workers do not see the file: their bytes come here.
    durable : bool
        Whether it will be synced: what is there is sent to the disk while the rest is still moved.
    """

    part: Path
    descriptor: int
    data_offsets: tuple[int, ...]
    gathers: bool
    durable: bool


@contextlib.contextmanager
def creating(part: Path) -> Iterator[int]:
    """Create a file, and yield its descriptor.

    Raises
    ------
    Retryable
        If the file system refuses, here or in the block.
    """
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        message = f"{part} cannot be written: {error.strerror or error}"
        raise Retryable(message, remedy="make room on the disk, and check the rights of the directory") from error


def transfer(
    moves: Iterable[Placed],
    target: Target,
    *,
    size: int,
    pool: Pool,
    limits: Limits,
    on_moved: Callable[[int], None] | None = None,
) -> list[int]:
    """Move bytes into the cube; return the ones'-complement sum of what was moved into each HDU.

    Parameters
    ----------
    moves : iterable of Placed
        In the order of the cube.
    size : int
        Bytes of all moves, about.
    on_moved : callable, optional
        Told the bytes of each task that is done.

    Raises
    ------
    SpoiltFrames
        If sources changed, or are damaged.
    Retryable
        If the cube cannot be written, or the workers died again and again.
    """
    totals = [0] * len(target.data_offsets)
    faults: list[Fault] = []
    share = size // (_TASKS_EACH * max(len(pool.workers()), 1))
    most = _GATHERED_BYTES if target.gathers else _TASK_BYTES
    tasks = _tasks(moves, target, limits, max(min(share, most), 1))
    begins_here = size <= _SMALL_BYTES and not target.gathers
    with written_back(target) as write_back:
        for task, results in _done(tasks, target, pool, begins_here=begins_here):
            for result in results:
                moved = _received(result, target.descriptor)
                totals[moved.hdu] = add_sums(totals[moved.hdu], moved.total)
                faults += moved.faults
            write_back()
            if on_moved is not None:
                on_moved(task.size)
    if faults:
        raise SpoiltFrames(faults)
    return totals


def _done(
    tasks: Iterator[MoveTask], target: Target, pool: Pool, *, begins_here: bool
) -> Iterator[tuple[MoveTask, Sequence[MovedRun | FetchedRun]]]:
    """Do the tasks; yield each with its results."""
    end = time.monotonic() + _PATIENCE_S
    while begins_here and time.monotonic() < end:
        task = next(tasks, None)
        if task is None:
            return
        yield task, move_planes(task)
    function: Callable[[MoveTask], Sequence[MovedRun | FetchedRun]] = fetch_planes if target.gathers else move_planes
    yield from run_tasks(pool, function, tasks, key=f"cube {target.part.name}")


@contextlib.contextmanager
def written_back(target: Target) -> Iterator[Callable[[], None]]:
    """Give what has all that is there sent to the disk, in a thread, while the rest is still moved.

    The sync at the end then has little left to wait for. What workers write past the page cache is there already.
    """
    if not target.durable or (not target.gathers and is_uncached(target.part)):
        yield lambda: None
        return
    running: Future[None] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="write-back") as thread:

        def begin() -> None:
            nonlocal running
            if running is not None:
                if not running.done():
                    return
                running.result()  # the system tells an error of the disk once: the sync at the end would not hear of it
            running = thread.submit(os.fdatasync, target.descriptor)

        yield begin
        if running is not None:
            running.result()


def _received(result: MovedRun | FetchedRun, descriptor: int) -> MovedRun:
    """Write what was gathered."""
    if isinstance(result, MovedRun):
        return result
    write_at(descriptor, result.data, result.offset)
    return result.moved


def _tasks(moves: Iterable[Placed], target: Target, limits: Limits, size: int) -> Iterator[MoveTask]:
    """Divide all moves into tasks of about equal size, in the order of the cube."""
    held: list[Placed] = []
    filled = 0
    for placed in moves:
        held.append(placed)
        filled += placed.move.size
        if filled >= size or len(held) >= _TASK_MOVES:
            yield _task(held, target, limits)
            held, filled = [], 0
    if held:
        yield _task(held, target, limits)


def _task(held: Sequence[Placed], target: Target, limits: Limits) -> MoveTask:
    runs = []
    for hdu, members in groupby(held, key=lambda placed: placed.hdu):
        chosen = tuple(members)
        offset = target.data_offsets[hdu] + chosen[0].start
        runs.append(Run(hdu, chosen[0].start, offset, tuple(placed.move for placed in chosen)))
    return MoveTask(target.part, tuple(runs), limits, target.durable)
