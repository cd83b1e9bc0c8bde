"""The tiles of one image of a compressed cube: found in the frames, or made of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from nightglass.cubes.headers import read_header
from nightglass.cubes.joining import PlaneTiles, difference_of_columns
from nightglass.cubes.making import MadeTiles, Workshop, make_tiles
from nightglass.cubes.moving import Fault, check_unchanged
from nightglass.cubes.plain import lightened
from nightglass.cubes.records import Compression, CubePlan, Encoding, FrameFile, ImagePlan, Plane, Survey, TileLayout
from nightglass.cubes.squeezing import Method, choose_method, tile_rows
from nightglass.cubes.transfer import SpoiltFrames
from nightglass.cubes.working import run_tasks
from nightglass.errors import NightglassError
from nightglass.fitsio.product_cards import CardValue
from nightglass.fitsio.sources import reading
from nightglass.pool import Pool, SerialPool

__all__ = ["TileBin", "collect_tiles", "read_tables", "why_not_joined"]

_TASK_TABLES: Final = 64
_SEEDS: Final = 10_000
_KEPT: Final = ("ZBLANK", "ZSCALE", "ZZERO", "ZMASKCMP")
"""Keywords of a compressed image on which the meaning of its tiles depends, beside those of the layout."""
_NO_VALUE: Final = -(1 << 31)
"""What astropy and cfitsio put for NaN among quantised floats."""


@dataclass(frozen=True, slots=True)
class TileBin:
    """The tiles of an image, plane by plane.

    Attributes
    ----------
    members : tuple of int
        Index into the planes of the survey, for each plane.
    tile : tuple of int
        Rows and columns.
    keywords : dict
        ZQUANTIZ and what belongs to it.
    made : MadeTiles, optional
        Of tiles that were not found in the frames.
    notes : tuple of str
        What was done beyond the plan, and why.
    """

    members: tuple[int, ...]
    tiles: tuple[PlaneTiles, ...]
    tile: tuple[int, int]
    method: Method
    keywords: dict[str, CardValue] = field(default_factory=dict)
    made: MadeTiles | None = None
    notes: tuple[str, ...] = ()


def collect_tiles(
    plan: CubePlan, image: ImagePlan, workshop: Workshop, *, start: Callable[[TileBin], int], wide_heap: int
) -> TileBin:
    """Find the tiles of an image where they can be joined, else compress its planes.

    Parameters
    ----------
    workshop : Workshop
        Where, and by whom, they are compressed; told how many bytes of pixels are done.
    start : callable
        Given all that is known before there are tiles, returns where the table of the image begins in the cube.
    wide_heap : int
        Bytes of heap from which on descriptors are 64 bits wide.

    Raises
    ------
    SpoiltFrames
        If frames changed, or are damaged.
    Retryable
        If the cube or fragments cannot be written, or the workers died again and again.
    """
    reason = why_not_joined(plan.survey, image)
    if reason is None:
        # in the mode gather only workers see the frames
        found = _found_tiles(plan.survey, image, workshop.pool if workshop.target.gathers else SerialPool())
        workshop.on_done(image.plane_size * len(image.planes))
        return found
    method = choose_method(image.format, plan.request.compression or Compression())
    keywords: dict[str, CardValue] = {}
    if method.zquantiz:
        keywords["ZQUANTIZ"] = method.zquantiz
    if method.dithers:
        keywords["ZDITHER0"] = (1, "dithers go on from plane to plane")
    if method.quantize:
        keywords["ZBLANK"] = (_NO_VALUE, "NaN")
    notes = (f"decompressed, and compressed again: {reason}",) if reason else ()
    tile = tile_rows(image.shape), image.shape[1]
    empty = TileBin(image.planes, (), tile, method, keywords, notes=notes)
    made = make_tiles(plan, image, method, workshop, start=lambda: start(empty), wide_heap=wide_heap)
    return replace(empty, tiles=made.tiles, made=made)


def why_not_joined(survey: Survey, image: ImagePlan) -> str | None:
    """Say why planes are not joined as they are: None if they can be, empty if none of them is compressed."""
    planes = [survey.planes[index] for index in image.planes]
    if all(plane.encoding is not Encoding.TILES for plane in planes):
        return ""
    first = planes[0].tiles
    if first is None or any(plane.encoding is not Encoding.TILES or plane.tiles is None for plane in planes):
        return "some planes are compressed in tiles of their own, others are not"
    if any(plane.format != image.format for plane in planes):
        return "their pixels are stored in several ways"
    for plane in planes:
        difference = _difference(survey, planes[0], plane)
        if difference:
            return difference
    difference = difference_of_columns(plane.tiles.columns for plane in planes if plane.tiles is not None)
    if difference:
        return difference
    seeds = [_seed(plane.tiles) for plane in planes if plane.tiles is not None]
    if first.quantize.startswith("SUBTRACTIVE") and any(
        seed != 1 + (seeds[0] - 1 + number * first.rows) % _SEEDS for number, seed in enumerate(seeds)
    ):
        return "their dithers do not go on from plane to plane"
    return None


def _difference(survey: Survey, one: Plane, other: Plane) -> str:
    left, right = one.tiles, other.tiles
    if left is None or right is None:
        return "tiles reach over several planes"
    if (left.algorithm, left.options, left.quantize) != (right.algorithm, right.options, right.quantize):
        return f"{left.algorithm} here, {right.algorithm} there, with other options"
    if left.tile != right.tile:
        return f"tiles of {left.tile} here, of {right.tile} there"
    if _kept(survey, one) != _kept(survey, other):
        return f"{', '.join(_KEPT)} are not the same in all"
    return ""


def _kept(survey: Survey, plane: Plane) -> dict[str, Any]:
    values = read_header(survey.files[plane.file].hdus[plane.hdu].text)
    return {keyword: values[keyword] for keyword in _KEPT if values.get(keyword) is not None}


def _seed(tiles: TileLayout) -> int:
    """Return the dither seed of the first tile of a plane."""
    return 1 + (tiles.dither0 - 1 + tiles.first_row) % _SEEDS


def _found_tiles(survey: Survey, image: ImagePlan, pool: Pool) -> TileBin:
    planes = [survey.planes[index] for index in image.planes]
    members = [
        (index, lightened(survey.files[plane.file]), plane.tiles)
        for index, plane in zip(image.planes, planes, strict=True)
        if plane.tiles
    ]
    tasks = (tuple(members[start : start + _TASK_TABLES]) for start in range(0, len(members), _TASK_TABLES))
    read: dict[int, PlaneTiles] = {}
    faults: list[Fault] = []
    for task, results in run_tasks(pool, read_tables, tasks, key=f"tables of {image.name}"):
        for (index, _, _), result in zip(task, results, strict=True):
            if isinstance(result, Fault):
                faults.append(result)
            else:
                read[index] = result
    if faults:
        raise SpoiltFrames(faults)
    found = tuple(read[index] for index in image.planes)
    first = planes[0].tiles or TileLayout(algorithm="", tile=(0, 0))
    keywords: dict[str, CardValue] = {}
    if first.quantize:
        keywords["ZQUANTIZ"] = first.quantize
    if first.quantize.startswith("SUBTRACTIVE"):
        keywords["ZDITHER0"] = _seed(first)
    keywords |= _kept(survey, planes[0])
    method = Method(first.algorithm, first.options, zquantiz=first.quantize)
    return TileBin(image.planes, found, first.tile, method, keywords)


def read_tables(members: Sequence[tuple[int, FrameFile, TileLayout]]) -> tuple[PlaneTiles | Fault, ...]:
    """Read the rows of tiles, of planes at some index of the survey."""
    found: list[PlaneTiles | Fault] = []
    for index, file, tiles in members:
        path = file.stamp.path
        try:
            check_unchanged(file.stamp)
            with reading(path), path.open("rb", buffering=0) as stream:
                offset = tiles.table_offset + tiles.first_row * tiles.row_size
                rows = os.pread(stream.fileno(), tiles.rows * tiles.row_size, offset)
        except NightglassError as error:
            found.append(Fault(index, path, str(error)))
        else:
            found.append(PlaneTiles(file, tiles.columns, tiles.rows, rows, tiles.heap_offset, tiles.heap_size))
    return tuple(found)
