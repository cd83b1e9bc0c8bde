"""Compressed planes that are joined as they are, checked against the DATASUM of their own HDUs, on workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from nightglass.cubes.moving import Fault, check_datasum, check_unchanged
from nightglass.cubes.records import ImagePlan, Plane, Stamp, Survey
from nightglass.cubes.transfer import SpoiltFrames
from nightglass.cubes.working import run_tasks
from nightglass.errors import NightglassError
from nightglass.pool import Pool, SerialPool

__all__ = ["SumTask", "check_tiles", "find_spoilt"]

_TASK_BYTES: Final = 32 << 20
_SMALL_BYTES: Final = 64 << 20
"""So little is summed here, before the workers would have heard of it."""


@dataclass(frozen=True, slots=True)
class SumTask:
    """Planes, each with its place in the survey and the file it is in."""

    members: tuple[tuple[int, Stamp, Plane], ...]


def check_tiles(survey: Survey, image: ImagePlan, pool: Pool, *, small_here: bool = True) -> None:
    """Compare the tiles of an image with the sums that their files state.

    Parameters
    ----------
    small_here : bool
        Whether few bytes are read here, not by workers.

    Raises
    ------
    SpoiltFrames
        If some are not what they were.
    """
    stated = [index for index in image.planes if survey.planes[index].datasum is not None]
    size = sum(survey.planes[index].size for index in stated)
    chosen = SerialPool() if small_here and size <= _SMALL_BYTES else pool
    sums = run_tasks(chosen, find_spoilt, _tasks(survey, stated), key=f"check {image.name}")
    faults = tuple(fault for _, found in sums for fault in found)
    if faults:
        raise SpoiltFrames(faults)


def find_spoilt(task: SumTask) -> tuple[Fault, ...]:
    """Return the planes whose bytes have another sum than their HDU states, or that changed."""
    faults = []
    for index, stamp, plane in task.members:
        try:
            check_unchanged(stamp)
            check_datasum(stamp.path, plane, None)
        except NightglassError as error:
            faults.append(Fault(index, stamp.path, str(error)))
    return tuple(faults)


def _tasks(survey: Survey, indices: list[int]) -> Iterator[SumTask]:
    held: list[tuple[int, Stamp, Plane]] = []
    size = 0
    for index in indices:
        plane = survey.planes[index]
        held.append((index, survey.files[plane.file].stamp, plane))
        size += plane.size
        if size >= _TASK_BYTES:
            yield SumTask(tuple(held))
            held, size = [], 0
    if held:
        yield SumTask(tuple(held))
