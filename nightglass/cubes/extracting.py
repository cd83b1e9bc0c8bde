"""From a cube back to frames.

A file of which every image is wanted comes back as it was: header blocks byte for byte, pixels byte for byte
(where the cube converted them, converted back), tables too. What comes back otherwise:

- A file that was gzip or tile-compressed comes back uncompressed, and its name loses ``.gz`` or ``.fz``. The
  header of a tile-compressed image becomes that of an image extension: cards that describe the table go, all
  others stay as they were and in order. Its pixels are those that the tiles decode to; for quantised floats these
  are exactly those of the original tiles if the cube joined them.
- Of a file of which only some images are wanted, the others are left out; an image of several planes keeps the
  wanted ones, with NAXIS3, CRPIX3 and checksums corrected.
- Of a cube without card store (``keep_cards`` off), headers are made of the table's columns: valid, and with all
  values, but without comments, HISTORY and order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final

from nightglass.config import Limits
from nightglass.cubes.cardstore import CardStore
from nightglass.cubes.likeness import Pictures
from nightglass.cubes.metadata import column_values, mjd
from nightglass.cubes.names import file_path
from nightglass.cubes.opening import CubeFile, CubeImage, open_cube
from nightglass.cubes.records import Progress
from nightglass.cubes.unpacking import FileJob, MadeHeader, UnpackTask, WantedPlane, write_files
from nightglass.cubes.working import run_tasks
from nightglass.errors import Misconfigured
from nightglass.fitsio.cards import Scalar
from nightglass.pool import Pool, SerialPool

__all__ = ["extract_frames"]

_TASK_BYTES: Final = 32 << 20
_TASK_FILES: Final = 200
_ANY_TIME: Final[tuple[datetime | None, datetime | None]] = (None, None)


def extract_frames(
    cube: Path,
    directory: Path,
    *,
    frames: slice | None = None,
    sources: Sequence[str] = (),
    times: tuple[datetime | None, datetime | None] = _ANY_TIME,
    overwrite: bool = False,
    pool: Pool | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Write the frames of a cube as files again, one for each original file.

    A file appears when it is whole; nothing is synced to disk, since the cube stays.

    Parameters
    ----------
    directory : Path
        Made if it is missing; files of the same name in several directories come back in subdirectories.
    frames : slice, optional
        By number of frame: ``slice(3, 9)`` are frames 3 to 8, whether all of them exist or not.
    sources : sequence of str
        Names of images of the cube, or shell patterns; empty: all.
    times : tuple of datetime or None
        First start that is wanted, and the first one that is not; aware. Frames without a start are in no range.
    overwrite : bool
        Replace files that exist; otherwise they are an error, before anything is written.

    Returns
    -------
    tuple of Path
        Files that were written, in the order of the cube.

    Raises
    ------
    Misconfigured
        If nothing is selected, or a file is there already.
    Rejected
        If the file is no cube of ours, or damaged.
    Retryable
        If it cannot be read, or a file cannot be written.
    """
    limits = limits or Limits()
    opened = open_cube(cube, limits)
    wanted = [(image, index) for image in _images(opened, sources) for index in _chosen(image, frames, times)]
    if not wanted:
        message = f"{cube}: no frame of {_numbers(opened)} is selected"
        raise Misconfigured(message, remedy="choose other frames, sources or times")
    files = _files(opened, wanted, directory)
    if not overwrite:
        _check_free([file.out for file in files])
    total, done = sum(file.size for file in files), 0
    tasks = _tasks(opened, files, limits)
    for task, _ in run_tasks(pool or SerialPool(), write_files, tasks, key=f"extract {cube.name}"):
        done += task.size
        if progress is not None:
            progress(done, total)
    return tuple(file.out for file in files)


def _check_free(outs: Sequence[Path]) -> None:
    if there := [out for out in outs if out.exists()]:
        message = f"{there[0]} exists" + (f", and so do {len(there) - 1} others" if len(there) > 1 else "")
        raise Misconfigured(message, remedy="choose another directory, or allow to overwrite")


def _images(opened: CubeFile, sources: Sequence[str]) -> list[CubeImage]:
    names = [image.name for image in opened.images]
    for pattern in sources:
        if not any(fnmatchcase(name, pattern) for name in names):
            message = f"{opened.file.stamp.path} has no source {pattern!r}"
            raise Misconfigured(message, remedy=f"it has {', '.join(names)}")
    return [
        image for image in opened.images if not sources or any(fnmatchcase(image.name, pattern) for pattern in sources)
    ]


def _chosen(image: CubeImage, frames: slice | None, times: tuple[datetime | None, datetime | None]) -> list[int]:
    """Return the planes of an image that are wanted."""
    chosen = [index for index, frame in enumerate(image.frames) if frames is None or _is_in(frame, frames)]
    begin, end = (None if moment is None else mjd(moment) for moment in times)
    if begin is None and end is None:
        return chosen
    starts = column_values(image.rows, "START_MJD")
    return [
        index
        for index in chosen
        if isinstance(start := starts[index], float)
        and (begin is None or start >= begin)
        and (end is None or start < end)
    ]


def _is_in(frame: int, frames: slice) -> bool:
    start, step = frames.start or 0, frames.step or 1
    if step < 1:
        message = f"frames cannot be counted by {step}"
        raise Misconfigured(message, remedy="give a positive step")
    after_start = frames.start is None or frame >= start
    return after_start and (frames.stop is None or frame < frames.stop) and (frame - start) % step == 0


def _numbers(opened: CubeFile) -> str:
    frames = {frame for image in opened.images for frame in image.frames}
    return f"{min(frames)} to {max(frames)}"


@dataclass(frozen=True, slots=True)
class _File:
    """One file that is to be written, by its name in the cube, and its planes."""

    name: str
    out: Path
    members: tuple[tuple[CubeImage, int], ...]
    size: int


def _files(opened: CubeFile, wanted: Sequence[tuple[CubeImage, int]], directory: Path) -> list[_File]:
    by_file: dict[str, list[tuple[CubeImage, int]]] = {}
    for image, index in wanted:
        by_file.setdefault(image.origins[index].name, []).append((image, index))
    outs: set[Path] = set()
    files = []
    for name, found in by_file.items():
        members = sorted(found, key=lambda item: (item[0].origins[item[1]].hdu, item[0].origins[item[1]].number))
        out = _unused(directory / _plain_name(name, opened.cards), outs)
        outs.add(out)
        size = sum(image.picture.plane_size for image, _ in members)
        files.append(_File(name, out, tuple(members), size))
    return files


def _tasks(opened: CubeFile, files: Sequence[_File], limits: Limits) -> Iterator[UnpackTask]:
    """Cut the work into tasks; headers are put together only when their task is given out."""
    columns = _Columns()
    batch: list[_File] = []
    size = 0
    for file in files:
        if batch and (len(batch) >= _TASK_FILES or size + file.size > _TASK_BYTES):
            yield _task(opened, batch, columns, limits)
            batch, size = [], 0
        batch.append(file)
        size += file.size
    if batch:
        yield _task(opened, batch, columns, limits)


def _task(opened: CubeFile, files: Sequence[_File], columns: _Columns, limits: Limits) -> UnpackTask:
    stored = [() if opened.cards is None else opened.cards.file(file.name).hdus for file in files]
    pictures = Pictures([hdu.text for hdus in stored for hdu in hdus], limits)
    jobs = []
    first = 0
    for file, hdus in zip(files, stored, strict=True):
        planes: dict[int, list[WantedPlane]] = {}
        for image, index in file.members:
            origin = image.origins[index]
            planes.setdefault(origin.hdu, []).append(WantedPlane(image.plane(index), origin.number))
        images = {
            hdu.number: picture
            for place, hdu in enumerate(hdus, start=first)
            if hdu.number in planes and (picture := pictures.find(place, hdu.number)) is not None
        }
        first += len(hdus)
        made = {} if hdus else columns.headers(file.members)
        jobs.append(FileJob(out=file.out, planes=planes, stored=hdus, images=images, made=made))
    return UnpackTask(opened.file.stamp.path, limits, tuple(jobs), sum(file.size for file in files))


class _Columns:
    """Values of the tables of a cube, as columns that are read once."""

    def __init__(self) -> None:
        self._columns: dict[int, dict[str, list[Scalar]]] = {}

    def headers(self, members: Sequence[tuple[CubeImage, int]]) -> dict[int, MadeHeader]:
        """Return what is known of the header of each HDU of a file: that of its first plane."""
        made: dict[int, MadeHeader] = {}
        versions: Counter[str] = Counter()
        for image, index in members:
            hdu = image.origins[index].hdu
            if hdu not in made:
                versions[image.name] += 1
                made[hdu] = MadeHeader(image.name, versions[image.name] if hdu else 0, self._row(image, index))
        return made

    def _row(self, image: CubeImage, index: int) -> dict[str, Scalar]:
        columns = self._columns.get(image.hdu)
        if columns is None:
            keywords = image.rows.keywords.items()
            columns = {keyword: column_values(image.rows, name) for name, keyword in keywords}
            if "FRAME" not in columns:
                columns["FRAME"] = list(image.frames)
            self._columns[image.hdu] = columns
        return {keyword: column[index] for keyword, column in columns.items()}


def _plain_name(name: str, cards: CardStore | None) -> PurePosixPath:
    """Return the name of a file that is compressed no more."""
    path = file_path(name)
    if path.suffix.lower() == ".gz":
        path = path.with_suffix("")
    if path.suffix.lower() == ".fz" and (cards is None or any(hdu.is_compressed for hdu in cards.file(name).hdus)):
        path = path.with_suffix("")
    return path


def _unused(path: Path, taken: Collection[Path]) -> Path:
    """Return a name that no other file of the cube has: ``a.fits`` and ``a.fits.gz`` are the same when unpacked."""
    number, free = 1, path
    while free in taken:
        number += 1
        free = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return free
