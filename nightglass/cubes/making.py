"""Tiles made of the planes of an image, by the workers of a pool: in the cube itself, or in fragments beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nightglass.config import Limits
from nightglass.cubes.joining import PlaneTiles, descriptor_size
from nightglass.cubes.moving import Fault
from nightglass.cubes.outlets import opened_part
from nightglass.cubes.plain import lightened
from nightglass.cubes.records import CubePlan, FrameFile, ImagePlan, Plane
from nightglass.cubes.settling import Home, Settled, SettleTask, settle_planes
from nightglass.cubes.squeezing import (
    Method,
    Squeezed,
    SqueezeTask,
    fetch_squeezed,
    keep_fragment,
    largest_heap,
    squeeze_planes,
    tile_rows,
)
from nightglass.cubes.transfer import SpoiltFrames, Target, written_back
from nightglass.cubes.turns import Turns
from nightglass.cubes.working import run_tasks
from nightglass.pool import Pool

__all__ = ["MadeTiles", "Workshop", "make_tiles"]

_TASK_BYTES: Final = 64 << 20
"""Of pixels: a worker may have to keep what becomes of them until it is its turn."""
_TASKS_EACH: Final = 4


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where tiles are made, and by whom.

    Attributes
    ----------
    target : Target
        The cube; where its data begin need not be known yet.
    fragments : list of Path
        Files that are made on the way are added; the caller removes them, also after an error.
    on_done : callable
        Told how many bytes of pixels are done.
    """

    target: Target
    fragments: list[Path]
    pool: Pool
    limits: Limits
    on_done: Callable[[int], None]

    def fragment(self) -> Path:
        """Create an empty file beside the cube."""
        # the token stays at the end, so that whoever removes stale parts knows whose this was
        part = self.target.part
        path = part.with_name(f"f{len(self.fragments)}.{part.name}")
        self.fragments.append(path)
        path.touch()
        return path


@dataclass(frozen=True, slots=True)
class MadeTiles:
    """Tiles of all planes of an image.

    Attributes
    ----------
    heap_offset : int
        Where their heap begins in the cube, in which it is already; 0: it is in fragments.
    total : int
        Ones'-complement sum of that heap.
    """

    tiles: tuple[PlaneTiles, ...]
    heap_offset: int = 0
    total: int = 0

    @property
    def is_there(self) -> bool:
        """Whether the heap is in the cube."""
        return self.heap_offset > 0


def make_tiles(
    plan: CubePlan,
    image: ImagePlan,
    method: Method,
    workshop: Workshop,
    *,
    start: Callable[[], int],
    wide_heap: int,
) -> MadeTiles:
    """Compress the planes of an image.

    Integers have a table whose size is known beforehand, so their heap is written where it belongs.

    Parameters
    ----------
    start : callable
        Returns where the table begins in the cube.
    wide_heap : int
        Bytes of heap from which on descriptors are 64 bits wide.

    Raises
    ------
    SpoiltFrames
        If frames changed, or are damaged.
    Retryable
        If the cube or fragments cannot be written, or the workers died again and again.
    """
    if method.algorithm != "RICE_1" or method.zquantiz:
        return MadeTiles(_in_fragments(plan, image, method, workshop))
    wide = _will_be_wide(plan, image, method, workshop, wide_heap)
    rows = len(image.planes) * -(-image.shape[0] // tile_rows(image.shape))
    target = workshop.target
    home = Home(target.part, start() + rows * descriptor_size(wide=wide), workshop.fragment(), target.durable)
    return _in_cube(plan, image, method, workshop, home)


def _will_be_wide(plan: CubePlan, image: ImagePlan, method: Method, workshop: Workshop, wide_heap: int) -> bool:
    """Foretell whether descriptors are 64 bits wide; where that is not certain, by what the first plane takes."""
    if largest_heap(image.format, image.shape) * len(image.planes) < wide_heap:
        return False
    member = _member(plan, image.planes[0])
    task = SqueezeTask(workshop.target.part, (member,), image.format, method, 0, workshop.limits)
    ((_, squeezed),) = run_tasks(workshop.pool, fetch_squeezed, (task,), key=f"compress {workshop.target.part.name}")
    return len(squeezed.heap) * len(image.planes) >= wide_heap


def _in_cube(plan: CubePlan, image: ImagePlan, method: Method, workshop: Workshop, home: Home) -> MadeTiles:
    collected = _Collected(image, workshop)
    with opened_part(home.part, durable=home.durable) as part, written_back(workshop.target) as write_back:
        turns = Turns(home, part)
        for task, settled, heap in _settled(_tasks(plan, image, method, workshop), workshop, home):
            collected.add(task.squeeze, settled.results)
            turns.arrive(task, settled, heap)
            write_back()
    return MadeTiles(collected.tiles(), home.heap_offset, turns.total)


def _settled(
    tasks: Iterator[SqueezeTask], workshop: Workshop, home: Home
) -> Iterator[tuple[SettleTask, Settled, bytes]]:
    """Do tasks in the order of the cube; yield each, and what of its heap has not been written yet."""
    key = f"compress {home.part.name}"
    numbered = (SettleTask(task, home, number) for number, task in enumerate(tasks))
    if not workshop.target.gathers:
        for task, settled in run_tasks(workshop.pool, settle_planes, numbered, key=key):
            yield task, settled, b""
        return
    given: dict[Path, SettleTask] = {}

    def given_out() -> Iterator[SqueezeTask]:
        for task in numbered:
            given[task.squeeze.fragment] = task
            yield task.squeeze

    for squeeze, squeezed in run_tasks(workshop.pool, fetch_squeezed, given_out(), key=key):
        yield given.pop(squeeze.fragment), Settled(squeezed.results), squeezed.heap


def _in_fragments(plan: CubePlan, image: ImagePlan, method: Method, workshop: Workshop) -> tuple[PlaneTiles, ...]:
    collected = _Collected(image, workshop)
    tasks = _tasks(plan, image, method, workshop)
    function: Callable[[SqueezeTask], Squeezed] = fetch_squeezed if workshop.target.gathers else squeeze_planes
    for task, squeezed in run_tasks(workshop.pool, function, tasks, key=f"compress {workshop.target.part.name}"):
        collected.add(task, keep_fragment(task, squeezed))
    return collected.tiles()


class _Collected:
    """What tasks found, in whatever order."""

    def __init__(self, image: ImagePlan, workshop: Workshop) -> None:
        self._image = image
        self._workshop = workshop
        self._made: dict[int, PlaneTiles] = {}
        self._faults: list[Fault] = []

    def add(self, task: SqueezeTask, results: Sequence[PlaneTiles | Fault]) -> None:
        """Take what became of a task."""
        for (index, _, _), result in zip(task.members, results, strict=True):
            if isinstance(result, Fault):
                self._faults.append(result)
            else:
                self._made[index] = result
        self._workshop.on_done(self._image.plane_size * len(task.members))

    def tiles(self) -> tuple[PlaneTiles, ...]:
        """Return those of all planes, in the order of the image; raise `SpoiltFrames` if there were faults."""
        if self._faults:
            raise SpoiltFrames(self._faults)
        return tuple(self._made[index] for index in self._image.planes)


def _tasks(plan: CubePlan, image: ImagePlan, method: Method, workshop: Workshop) -> Iterator[SqueezeTask]:
    share = -(-len(image.planes) // (_TASKS_EACH * max(len(workshop.pool.workers()), 1)))
    count = max(min(share, _TASK_BYTES // max(image.plane_size, 1)), 1)
    each = -(-image.shape[0] // tile_rows(image.shape))
    for start in range(0, len(image.planes), count):
        members = tuple(_member(plan, index) for index in image.planes[start : start + count])
        yield SqueezeTask(workshop.fragment(), members, image.format, method, start * each, workshop.limits)


def _member(plan: CubePlan, index: int) -> tuple[int, FrameFile, Plane]:
    plane = plan.survey.planes[index]
    return index, lightened(plan.survey.files[plane.file]), plane
