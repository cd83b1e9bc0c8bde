"""Compressed planes that are joined as they are, checked against the DATASUM of their own HDUs.

Mostly that is done while they are moved; where their HDUs hold more than is moved, by workers beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from nightglass.cubes.joining import PlaneTiles, Segment
from nightglass.cubes.moving import Fault, check_datasum, check_unchanged
from nightglass.cubes.records import Plane, Stamp, Survey
from nightglass.cubes.sums import sum_block
from nightglass.cubes.transfer import SpoiltFrames
from nightglass.cubes.working import run_tasks
from nightglass.errors import NightglassError
from nightglass.pool import Pool, SerialPool

__all__ = ["SumTask", "check_tiles", "find_spoilt", "sum_beside"]

_TASK_BYTES: Final = 32 << 20
_SMALL_BYTES: Final = 64 << 20
"""So little is summed here, before the workers would have heard of it."""


@dataclass(frozen=True, slots=True)
class SumTask:
    """Planes, each with its place in the survey and the file it is in."""

    members: tuple[tuple[int, Stamp, Plane], ...]


def sum_beside(plane: Plane, found: PlaneTiles, segments: Sequence[Segment]) -> int | None:
    """Return the sum of all that the HDU of a plane holds beside its heap.

    Returns
    -------
    int or None
        None if the heap is not moved whole, in one piece, or is not all there is but the table: then what is moved does
        not tell whether the HDU is what it was.
    """
    whole = [(found.heap_offset, found.heap_size)]
    if [(segment.offset, segment.size) for segment in segments] != whole:
        return None
    if found.heap_offset != plane.offset + len(found.rows) or found.heap_size + len(found.rows) != plane.size:
        return None
    return sum_block(found.rows)


def check_tiles(survey: Survey, name: str, planes: Sequence[int], pool: Pool, *, small_here: bool = True) -> None:
    """Compare tiles with the sums that their files state.

    Parameters
    ----------
    name : str
        Of the image.
    planes : sequence of int
        Index into the planes of the survey.
    small_here : bool
        Whether few bytes are read here, not by workers.

    Raises
    ------
    SpoiltFrames
        If some are not what they were.
    """
    stated = [index for index in planes if survey.planes[index].datasum is not None]
    size = sum(survey.planes[index].size for index in stated)
    chosen = SerialPool() if small_here and size <= _SMALL_BYTES else pool
    sums = run_tasks(chosen, find_spoilt, _tasks(survey, stated), key=f"check {name}")
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
