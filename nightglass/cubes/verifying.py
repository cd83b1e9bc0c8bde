"""Whether a cube holds what its frames held: planes, table rows, header cards, checksums."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from nightglass.config import Limits
from nightglass.cubes.comparing import FramePlane, PlaneTask, compare_planes, sum_range
from nightglass.cubes.framing import FrameSet, match_frames
from nightglass.cubes.headers import read_header
from nightglass.cubes.metadata import wrong_rows
from nightglass.cubes.opening import CubeFile, CubeImage, open_cube
from nightglass.cubes.records import Problem, Progress, Survey
from nightglass.cubes.scanning import scan_files
from nightglass.cubes.sums import rotated, sum_block
from nightglass.cubes.working import run_tasks
from nightglass.fitsio.checksums import add_sums
from nightglass.pool import Pool, SerialPool

__all__ = ["Verification", "verify_cube"]

_TASK_BYTES: Final = 32 << 20
_TASK_PLANES: Final = 500
_MAX_TOLD: Final = 100
_ZERO: Final = 0xFFFFFFFF
"""In ones' complement another way to write 0."""

_Task = TypeVar("_Task")


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of a verification.

    Attributes
    ----------
    ok : bool
        Whether there are no differences.
    differences : tuple of str
        What differs, and where; the first hundred.
    planes : int
        How many planes the cube has.
    seconds : float
        How long it took.
    left_out : tuple of Path
        Frames that were given, and which the cube says it left out: table GAPS.
    """

    ok: bool
    differences: tuple[str, ...]
    planes: int
    seconds: float
    left_out: tuple[Path, ...] = ()


def verify_cube(
    cube: Path,
    frames: Sequence[Path] | Survey,
    *,
    pool: Pool | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Compare a cube with the frames it was made of.

    Each plane is compared with its frame: as bytes where both are stored alike, else by what the numbers mean, tiles
    decoded by astropy; quantised floats may differ by half a step. Every image of the frames must be in the cube
    once. The rows of the tables are compared with the headers, the card store byte for byte, and DATASUM and CHECKSUM
    of each HDU with its bytes. Works on the workers of the pool, which have to see both cube and frames.

    Parameters
    ----------
    frames : sequence of Path, or Survey
        Of a survey only the headers are taken; files are paired by their names in the cube.

    Raises
    ------
    Rejected
        If the file is no cube, or is damaged so that it cannot be read.
    Retryable
        If the cube cannot be read, or the workers keep dying.
    """
    begun = time.perf_counter()
    limits, pool = limits or Limits(), pool or SerialPool()
    opened = open_cube(cube, limits)
    found, unreadable = _frames(frames, limits)
    matched = match_frames(opened, found, unreadable, limits)
    tally = _Tally(opened.file.stamp.size, progress)
    tally.differences += matched.differences
    tally.differences += _wrong_cards(opened, matched)
    sums = _compare_images(opened, matched, tally, limits, pool)
    tally.differences += _wrong_sums(opened, sums, tally, pool)
    planes = sum(len(image.origins) for image in opened.images)
    return tally.verification(planes, begun, matched.left_out)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Part of the data of an HDU."""

    path: Path
    hdu: int
    offset: int
    size: int


def _sum_piece(piece: _Piece) -> int:
    return sum_range(piece.path, piece.offset, piece.size)


@dataclass(slots=True)
class _Tally:
    """How far a verification is, and what it found."""

    size: int
    progress: Progress | None
    done: int = 0
    differences: list[str] = field(default_factory=list)

    def add(self, count: int) -> None:
        self.done = min(self.done + count, self.size)
        if self.progress is not None:
            self.progress(self.done, self.size)

    def verification(self, planes: int, begun: float, left_out: tuple[Path, ...] = ()) -> Verification:
        told = tuple(self.differences[:_MAX_TOLD])
        return Verification(not told, told, planes, time.perf_counter() - begun, left_out)


def _frames(frames: Sequence[Path] | Survey, limits: Limits) -> tuple[Survey, tuple[Problem, ...]]:
    """Return the files of frames, and those whose headers cannot be read."""
    if isinstance(frames, Survey):
        return frames, frames.problems
    scanned = scan_files(frames, limits)
    files = tuple(item for item in scanned if not isinstance(item, Problem))
    return Survey(files, ()), tuple(item for item in scanned if isinstance(item, Problem))


def _compare_images(
    opened: CubeFile, matched: FrameSet, tally: _Tally, limits: Limits, pool: Pool
) -> dict[int, list[int | None]]:
    """Compare all planes; returns for each HDU the sums of its planes, where they were compared as bytes."""
    tasks: list[PlaneTask] = []
    for image in opened.images:
        pairs = [(index, plane) for index, plane in enumerate(matched.planes[image.hdu]) if plane is not None]
        if len(pairs) == len(image.origins):
            planes = [pair[1].plane for pair in pairs]
            where = f"{opened.file.stamp.path}: table {image.name}T: "
            tally.differences += [where + line for line in wrong_rows(image.rows, planes, matched.survey)]
        for batch in _batches(pairs, lambda pair: pair[1].plane.shape[0] * pair[1].plane.shape[1] * 8):
            tasks.append(_plane_task(opened, image, batch, limits))
    sums: dict[int, list[int | None]] = {image.hdu: [None] * len(image.origins) for image in opened.images}
    for task, comparison in run_tasks(pool, compare_planes, tasks, key=f"verify {opened.file.stamp.path.name}"):
        tally.differences += comparison.differences
        for plane, total in zip(task.planes, comparison.sums, strict=True):
            sums[plane.hdu][plane.number] = total
            tally.add(plane.shape[0] * plane.shape[1] * plane.format.itemsize)
    return sums


def _plane_task(
    opened: CubeFile, image: CubeImage, batch: Sequence[tuple[int, FramePlane]], limits: Limits
) -> PlaneTask:
    return PlaneTask(
        cube=opened.file.stamp.path,
        limits=limits,
        planes=tuple(image.plane(index) for index, _ in batch),
        frames=tuple(frame for _, frame in batch),
    )


def _wrong_cards(opened: CubeFile, matched: FrameSet) -> list[str]:
    """Compare the card store with the headers of the frames, byte for byte."""
    if opened.cards is None:
        return []
    wrong = []
    for name, file in matched.files.items():
        if name not in opened.cards:
            wrong.append(f"{opened.file.stamp.path}: the card store has no headers of {name}")
            continue
        path = matched.survey.files[file].stamp.path
        stored, hdus = opened.cards.file(name).hdus, matched.survey.files[file].hdus
        if [hdu.text for hdu in stored] != [hdu.text for hdu in hdus]:
            wrong.append(f"{opened.file.stamp.path}: the cards of {name} are not those of {path}")
            continue
        wrong += matched.wrong_tables(file, stored)
    return wrong


def _wrong_sums(opened: CubeFile, sums: dict[int, list[int | None]], tally: _Tally, pool: Pool) -> list[str]:
    """Compare DATASUM and CHECKSUM of each HDU with its bytes; those of planes are known already."""
    path = opened.file.stamp.path
    sizes = {image.hdu: image.picture.plane_size for image in opened.images if image.picture.tiles is None}
    totals: dict[int, int] = {}
    pieces: list[_Piece] = []
    for index, hdu in enumerate(opened.file.hdus):
        planes = sums.get(index, [None])
        totals[index] = 0
        if index in sizes and None not in planes:
            totals[index] = add_sums(*(rotated(item or 0, n * sizes[index]) for n, item in enumerate(planes)))
            continue
        for start in range(0, hdu.data_size, _TASK_BYTES):
            pieces.append(_Piece(path, index, hdu.data_offset + start, min(_TASK_BYTES, hdu.data_size - start)))
    for piece, total in run_tasks(pool, _sum_piece, pieces, key=f"sum {path.name}"):
        totals[piece.hdu] = add_sums(totals[piece.hdu], total)
    tally.add(tally.size)
    return [line for index, total in totals.items() for line in _wrong_sum(opened, index, total)]


def _wrong_sum(opened: CubeFile, index: int, total: int) -> Iterator[str]:
    text = opened.file.hdus[index].text
    values = read_header(text)
    where = f"{opened.file.stamp.path}: HDU {index} ({values.get('EXTNAME') or 'no name'})"
    declared = str(values.get("DATASUM") or "").strip()
    if not declared or "CHECKSUM" not in values:
        yield f"{where} has no CHECKSUM and DATASUM"
    elif not declared.isdecimal() or int(declared) % _ZERO != total % _ZERO:
        yield f"{where}: DATASUM is {declared}, the data have {total}"
    elif add_sums(sum_block(text), total) % _ZERO:
        yield f"{where}: CHECKSUM does not fit its header"


def _batches(items: Sequence[_Task], size: Callable[[_Task], int]) -> Iterator[tuple[_Task, ...]]:
    """Cut a sequence into tasks of bounded size."""
    batch: list[_Task] = []
    total = 0
    for item in items:
        if batch and (total + size(item) > _TASK_BYTES or len(batch) >= _TASK_PLANES):
            yield tuple(batch)
            batch, total = [], 0
        batch.append(item)
        total += size(item)
    if batch:
        yield tuple(batch)
