"""Plain cubes: every byte has its place before the first one is moved."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nightglass.config import Limits
from nightglass.cubes.moving import Move
from nightglass.cubes.placing import PlacedHdu, place_hdus
from nightglass.cubes.records import CubePlan, FrameFile, HduText, ImagePlan, Progress, SourceSummary, TablePlan
from nightglass.cubes.sums import sum_block
from nightglass.cubes.transfer import Placed, Target, creating, transfer
from nightglass.fitsio.cards import BLOCK
from nightglass.fitsio.filling import write_at
from nightglass.fitsio.sealing import seal
from nightglass.pool import Pool

__all__ = ["finish_hdu", "lightened", "write_plain"]


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
    whole = sum(hdu.data_size for hdu in placed if isinstance(hdu.plan, ImagePlan))
    done = 0

    def on_moved(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, whole)

    with creating(part) as descriptor:
        os.posix_fallocate(descriptor, 0, placed[-1].end)  # a disk that is too small says so now
        offsets = tuple(hdu.data_offset for hdu in placed)
        target = Target(part, descriptor, offsets, gathers=plan.request.mode == "gather", durable=plan.request.durable)
        totals = transfer(_moves(plan, placed), target, size=whole, pool=pool, limits=limits, on_moved=on_moved)
        for hdu, total in zip(placed, totals, strict=True):
            finish_hdu(descriptor, hdu, total)
    return _summarise(plan)


def lightened(file: FrameFile) -> FrameFile:
    """Return a file without the text of its headers; where its data are is needed to unpack it."""
    places = (HduText(b"", hdu.data_offset, hdu.data_size) for hdu in file.hdus)
    return replace(file, hdus=tuple(places) if file.gzip else ())


def finish_hdu(descriptor: int, hdu: PlacedHdu, total: int) -> None:
    """Write the header of an HDU, its data if it is a table of the plan, and the zeros that fill its last block."""
    if isinstance(hdu.plan, TablePlan):
        total = sum_block(hdu.plan.data)
        write_at(descriptor, hdu.plan.data, hdu.data_offset)
    write_at(descriptor, seal(hdu.cards, total), hdu.header_offset)
    write_at(descriptor, bytes(-hdu.data_size % BLOCK), hdu.data_offset + hdu.data_size)


def _moves(plan: CubePlan, placed: Sequence[PlacedHdu]) -> Iterator[Placed]:
    """Yield the planes of all images, with their places."""
    for index, hdu in enumerate(placed):
        if not isinstance(hdu.plan, ImagePlan):
            continue
        files: dict[int, FrameFile] = {}
        for number, place in enumerate(hdu.plan.planes):
            plane = plan.survey.planes[place]
            # planes of one file share one record: tasks stay small
            if plane.file not in files:
                files[plane.file] = lightened(plan.survey.files[plane.file])
            move = Move(place, files[plane.file], plane, hdu.plan.format)
            yield Placed(index, number * hdu.plan.plane_size, move)


def _summarise(plan: CubePlan) -> tuple[SourceSummary, ...]:
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
