"""Plain cubes: every byte has its place before the first one is moved."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Final

from nightglass.config import Limits
from nightglass.cubes.moving import Fault, FetchedRun, Move, MovedRun, MoveTask, Run, fetch_planes, move_planes
from nightglass.cubes.placing import PlacedHdu, place_hdus
from nightglass.cubes.records import CubePlan, FrameFile, HduText, ImagePlan, Progress, SourceSummary, TablePlan
from nightglass.cubes.sums import sum_block
from nightglass.cubes.working import run_tasks
from nightglass.errors import Retryable
from nightglass.fitsio.cards import BLOCK
from nightglass.fitsio.checksums import add_sums
from nightglass.fitsio.sealing import seal
from nightglass.pool import Pool

__all__ = ["SpoiltFrames", "summarise_images", "write_plain"]

_TASK_BYTES: Final = 32 << 20
_GATHERED_BYTES: Final = 8 << 20
"""Of one task whose pixels travel through the cluster."""
_TASK_PLANES: Final = 1024
_TASKS_EACH: Final = 4
"""Tasks for each worker at least, so that none waits long for the last one."""


class SpoiltFrames(Retryable):
    """Frames changed, or turned out to be damaged, while they were moved: the cube is planned anew without them."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(fault.reason for fault in faults[:3]), remedy="the frame is left out, or sent again")
        self.faults = tuple(faults)


def write_plain(
    plan: CubePlan, part: Path, *, pool: Pool, limits: Limits, progress: Progress | None = None
) -> tuple[SourceSummary, ...]:
    """Write a cube without compression, by the workers of a pool; not synced.

    Parameters
    ----------
    part : Path
        Where to write; an existing file is overwritten.

    Raises
    ------
    SpoiltFrames
        If frames changed while they were moved, or are damaged.
    Retryable
        If the file system refuses, or the workers died again and again.
    """
    placed = place_hdus(plan)
    with _writable(part):
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            os.posix_fallocate(descriptor, 0, placed[-1].end)  # a disk that is too small says so now
            totals = _move_all(plan, placed, part, descriptor, pool, limits, progress)
            for index, hdu in enumerate(placed):
                _finish(descriptor, hdu, totals[index])
        finally:
            os.close(descriptor)
    return summarise_images(plan)


def summarise_images(plan: CubePlan) -> tuple[SourceSummary, ...]:
    """Describe the images of a plan."""
    return tuple(
        SourceSummary(
            name=item.name,
            frames=len(item.planes),
            shape=item.shape,
            bitpix=item.format.bitpix,
            stored_bytes=item.plane_size * len(item.planes),
            note=item.note,
        )
        for item in plan.hdus
        if isinstance(item, ImagePlan)
    )


@contextlib.contextmanager
def _writable(part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{part} cannot be written: {error.strerror or error}"
        raise Retryable(message, remedy="make room on the disk, and check the rights of the directory") from error


def _move_all(
    plan: CubePlan,
    placed: Sequence[PlacedHdu],
    part: Path,
    descriptor: int,
    pool: Pool,
    limits: Limits,
    progress: Progress | None,
) -> list[int]:
    """Move all planes; return the sum of the data of each HDU."""
    totals = [0] * len(placed)
    faults: list[Fault] = []
    gathers = plan.request.mode == "gather"
    whole = sum(hdu.data_size for hdu in placed if isinstance(hdu.plan, ImagePlan))
    share = whole // (_TASKS_EACH * max(len(pool.workers()), 1))
    tasks = _tasks(plan, placed, part, limits, max(min(share, _GATHERED_BYTES if gathers else _TASK_BYTES), 1))
    done = 0
    function: Callable[[MoveTask], Sequence[MovedRun | FetchedRun]] = fetch_planes if gathers else move_planes
    for task, results in run_tasks(pool, function, tasks, key=f"cube {part.name}"):
        for result in results:
            moved = _received(result, descriptor)
            totals[moved.hdu] = add_sums(totals[moved.hdu], moved.total)
            faults += moved.faults
        done += task.size
        if progress is not None:
            progress(done, whole)
    if faults:
        raise SpoiltFrames(faults)
    return totals


def _received(result: MovedRun | FetchedRun, descriptor: int) -> MovedRun:
    """Write what was gathered."""
    if isinstance(result, MovedRun):
        return result
    _write(descriptor, result.data, result.offset)
    return result.moved


def _tasks(plan: CubePlan, placed: Sequence[PlacedHdu], part: Path, limits: Limits, size: int) -> Iterator[MoveTask]:
    """Divide all planes into tasks of about equal size, in the order of the cube."""
    held: list[tuple[int, int, Move]] = []
    filled = 0
    for index, hdu in enumerate(placed):
        for start, move in _moves(plan, hdu):
            held.append((index, start, move))
            filled += move.size
            if filled >= size or len(held) >= _TASK_PLANES:
                yield _task(held, placed, part, limits)
                held, filled = [], 0
    if held:
        yield _task(held, placed, part, limits)


def _moves(plan: CubePlan, hdu: PlacedHdu) -> Iterator[tuple[int, Move]]:
    """Yield the planes of an image, with their places in its data."""
    if not isinstance(hdu.plan, ImagePlan):
        return
    files: dict[int, FrameFile] = {}
    for number, index in enumerate(hdu.plan.planes):
        plane = plan.survey.planes[index]
        # planes of one file share one record, without its headers: tasks stay small
        if plane.file not in files:
            files[plane.file] = _lightened(plan.survey.files[plane.file])
        yield number * hdu.plan.plane_size, Move(index, files[plane.file], plane, hdu.plan.format)


def _lightened(file: FrameFile) -> FrameFile:
    """Return a file without the text of its headers; where its data are is needed to unpack it."""
    places = (HduText(b"", hdu.data_offset, hdu.data_size) for hdu in file.hdus)
    return replace(file, hdus=tuple(places) if file.gzip else ())


def _task(held: Sequence[tuple[int, int, Move]], placed: Sequence[PlacedHdu], part: Path, limits: Limits) -> MoveTask:
    runs = []
    for index, members in groupby(held, key=lambda item: item[0]):
        chosen = tuple(members)
        start = chosen[0][1]
        runs.append(Run(index, start, placed[index].data_offset + start, tuple(move for _, _, move in chosen)))
    return MoveTask(part, tuple(runs), limits)


def _finish(descriptor: int, hdu: PlacedHdu, total: int) -> None:
    """Write the header of an HDU, its data if it is a table, and the zeros that fill its last block."""
    if isinstance(hdu.plan, TablePlan):
        total = sum_block(hdu.plan.data)
        _write(descriptor, hdu.plan.data, hdu.data_offset)
    _write(descriptor, seal(hdu.cards, total), hdu.header_offset)
    _write(descriptor, bytes(-hdu.data_size % BLOCK), hdu.data_offset + hdu.data_size)


def _write(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while len(view):
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
