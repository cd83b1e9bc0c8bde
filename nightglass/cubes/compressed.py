"""Compressed cubes: tiles of all planes, made or found, in one table and one heap for each source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from nightglass.config import Limits
from nightglass.cubes.checking import check_tiles, sum_beside
from nightglass.cubes.gathering import TileBin, collect_tiles
from nightglass.cubes.joining import WIDE_HEAP, DamagedTiles, JoinedTiles, Segment, descriptor_size, join_tiles
from nightglass.cubes.making import Workshop
from nightglass.cubes.moving import Fault, Move
from nightglass.cubes.placing import PlacedHdu, header_cards, primary_cards, scaling_cards, table_cards
from nightglass.cubes.plain import finish_hdu
from nightglass.cubes.records import (
    CubePlan,
    ImagePlan,
    PixelFormat,
    Plane,
    Progress,
    SourceSummary,
    Survey,
    TablePlan,
)
from nightglass.cubes.sums import sum_block
from nightglass.cubes.transfer import Placed, SpoiltFrames, Target, creating, transfer
from nightglass.fitsio.cards import comment_cards
from nightglass.fitsio.checksums import add_sums
from nightglass.fitsio.filling import move_within, write_at
from nightglass.fitsio.product_cards import make_cards
from nightglass.fitsio.sealing import sealed_size
from nightglass.pool import Pool, SerialPool

__all__ = ["write_compressed"]

_BYTES: Final = PixelFormat(8)


@dataclass(frozen=True, slots=True)
class _Squeezed:
    """An image whose tiles are known.

    Attributes
    ----------
    rests : dict
        Of planes that are checked while they are moved: number to the sum of what their HDU holds beside the heap.
    """

    image: ImagePlan
    bin: TileBin
    joined: JoinedTiles
    rests: dict[int, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of table and heap."""
        return len(self.joined.rows) + self.joined.heap_size


def write_compressed(
    plan: CubePlan,
    part: Path,
    *,
    pool: Pool,
    limits: Limits,
    progress: Progress | None = None,
    wide_heap: int = WIDE_HEAP,
) -> tuple[SourceSummary, ...]:
    """Write a compressed cube, by the workers of a pool; not synced.

    Planes that are compressed already, alike and so that their tiles can stand side by side, are joined without being
    decompressed. Integers are compressed into the cube itself; what has a table of unknown size is compressed into
    fragments beside it first, which are gone at the end.

    Parameters
    ----------
    part : Path
        Where to write; an existing file is overwritten.
    wide_heap : int
        Bytes of heap from which on descriptors are 64 bits wide.

    Raises
    ------
    SpoiltFrames
        If frames changed while they were read, or are damaged.
    Retryable
        If the file system refuses, or the workers died again and again.
    """
    whole = sum(item.plane_size * len(item.planes) for item in plan.hdus if isinstance(item, ImagePlan))
    report = _Counter(whole, progress)
    fragments: list[Path] = []
    ready: list[_Squeezed | TablePlan] = []
    with creating(part) as descriptor:
        target = Target(part, descriptor, (), gathers=plan.request.mode == "gather", durable=plan.request.durable)
        workshop = Workshop(target, fragments, pool, limits, report.add)
        try:
            for item in plan.hdus:
                ready.append(item if isinstance(item, TablePlan) else _squeeze(plan, item, ready, workshop, wide_heap))
            _write(plan, ready, target, pool, limits)
        finally:
            for fragment in fragments:
                fragment.unlink(missing_ok=True)
    return tuple(_summary(item) for item in ready if isinstance(item, _Squeezed))


def _squeeze(
    plan: CubePlan,
    image: ImagePlan,
    before: Sequence[_Squeezed | TablePlan],
    workshop: Workshop,
    wide_heap: int,
) -> _Squeezed:
    def start(found: TileBin) -> int:
        """Return where the table begins: the length of a header does not depend on the numbers in it."""
        empty = JoinedTiles((("COMPRESSED_DATA", "1PB(0)"),), descriptor_size(wide=False), b"", ())
        return _place(plan, (*before, _Squeezed(image, found, empty)))[-1].data_offset

    found = collect_tiles(plan, image, workshop, start=start, wide_heap=wide_heap)
    squeezed = _Squeezed(image, found, _join(found, wide_heap))
    if found.made is None:
        return _check(plan.survey, squeezed, workshop)
    if found.made.is_there:
        # it may have been taken for larger or smaller than it became: descriptors are of another width then
        place = _place(plan, (*before, squeezed))[-1].data_offset + len(squeezed.joined.rows)
        move_within(workshop.target.descriptor, found.made.heap_offset, place, squeezed.joined.heap_size)
    return squeezed


def _check(survey: Survey, item: _Squeezed, workshop: Workshop) -> _Squeezed:
    """Check the planes that cannot be checked while they are moved, and note what is needed for the others."""
    gathers = workshop.target.gathers
    segments: dict[int, list[Segment]] = {}
    for segment in item.joined.segments:
        segments.setdefault(segment.plane, []).append(segment)
    rests: dict[int, int] = {}
    for number, index in enumerate(item.bin.members):
        rest = sum_beside(survey.planes[index], item.bin.tiles[number], segments.get(number, ()))
        if rest is not None and not gathers:
            rests[number] = rest
    left = [index for number, index in enumerate(item.bin.members) if number not in rests]
    check_tiles(survey, item.image.name, left, workshop.pool, small_here=not gathers)
    return replace(item, rests=rests)


def _join(found: TileBin, wide_heap: int) -> JoinedTiles:
    try:
        return join_tiles(found.tiles, wide_heap=wide_heap)
    except DamagedTiles as damaged:
        faults = [
            Fault(found.members[number], found.tiles[number].file.stamp.path, reason)
            for number, reason in damaged.reasons.items()
        ]
        raise SpoiltFrames(faults) from damaged


class _Counter:
    """Adds up what is done."""

    def __init__(self, whole: int, progress: Progress | None) -> None:
        self._whole = whole
        self._progress = progress
        self._done = 0

    def add(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(min(self._done, self._whole), self._whole)


def _write(plan: CubePlan, ready: Sequence[_Squeezed | TablePlan], target: Target, pool: Pool, limits: Limits) -> None:
    """Write all but the heaps that are there already."""
    placed = _place(plan, ready)
    squeezed = {index: item for index, item in enumerate(ready, start=1) if isinstance(item, _Squeezed)}
    totals = {index: item.bin.made.total for index, item in squeezed.items() if item.bin.made}
    made = {index: item for index, item in squeezed.items() if item.bin.made and not item.bin.made.is_there}
    found = {index: item for index, item in squeezed.items() if not item.bin.made}
    os.ftruncate(target.descriptor, placed[-1].end)
    os.posix_fallocate(target.descriptor, 0, placed[-1].end)  # a disk that is too small says so now
    target = replace(target, data_offsets=tuple(hdu.data_offset for hdu in placed))
    # fragments of a gathered cube are here, and only here; its frames are where the workers are
    nearby = SerialPool() if target.gathers else pool
    totals |= _transfer(plan.survey, made, replace(target, gathers=False), nearby, limits)
    totals |= _transfer(plan.survey, found, target, pool, limits)
    for index, hdu in enumerate(placed):
        total = totals.get(index, 0)
        if index in squeezed:
            rows = squeezed[index].joined.rows
            write_at(target.descriptor, rows, hdu.data_offset)
            total = add_sums(total, sum_block(rows))
        finish_hdu(target.descriptor, hdu, total)


def _transfer(
    survey: Survey, squeezed: dict[int, _Squeezed], target: Target, pool: Pool, limits: Limits
) -> dict[int, int]:
    """Move heaps; return the sum of each, by the HDU it is in."""
    size = sum(item.joined.heap_size for item in squeezed.values())
    totals = transfer(_moves(survey, squeezed), target, size=size, pool=pool, limits=limits)
    return {index: totals[index] for index in squeezed}


def _moves(survey: Survey, squeezed: dict[int, _Squeezed]) -> Iterator[Placed]:
    """Yield the parts of all heaps: bytes, moved like the planes of a plain cube."""
    for index, item in squeezed.items():
        start = len(item.joined.rows)
        for segment in item.joined.segments:
            plane = item.bin.members[segment.plane]
            move = Move(plane, segment.file, _as_plane(segment), _BYTES)
            if segment.plane in item.rests:
                stated = survey.planes[plane]
                source = replace(move.source, hdu=stated.hdu, datasum=stated.datasum)
                lead = segment.offset - stated.offset
                move = replace(move, source=source, lead=lead, rest=item.rests[segment.plane])
            yield Placed(index, start, move)
            start += segment.size


def _as_plane(segment: Segment) -> Plane:
    return Plane(
        file=0,
        hdu=0,
        source="",
        frame=0,
        shape=(1, segment.size),
        format=_BYTES,
        offset=segment.offset,
        size=segment.size,
    )


def _place(plan: CubePlan, ready: Sequence[_Squeezed | TablePlan]) -> tuple[PlacedHdu, ...]:
    placed: list[PlacedHdu] = []
    for item in (None, *ready):
        offset = placed[-1].end if placed else 0
        if item is None:
            cards, size = primary_cards(plan.primary), 0
        elif isinstance(item, _Squeezed):
            cards, size = _tile_cards(item), item.size
        else:
            cards, size = table_cards(item), len(item.data)
        kept = item.image if isinstance(item, _Squeezed) else item
        placed.append(PlacedHdu(kept, cards, offset, offset + sealed_size(cards), size))
    return tuple(placed)


def _tile_cards(item: _Squeezed) -> tuple[str, ...]:
    """Return the cards of a compressed image: FITS 4.0, section 10.1."""
    image, method = item.image, item.bin.method
    values = item.joined.cards(
        bitpix=image.format.bitpix,
        shape=(len(image.planes), *image.shape),
        tile=(1, *item.bin.tile),
        algorithm=method.algorithm,
        options=method.options,
    )
    values["ZNAXIS3"] = (len(image.planes), "planes, one a frame")
    values |= item.bin.keywords
    values |= {"EXTNAME": (image.name, "source")} | scaling_cards(image.format)
    notes = [card for text in item.bin.notes for card in comment_cards("COMMENT", text)]
    return (*make_cards(values), *header_cards(image.header, without=values), *notes)


def _summary(item: _Squeezed) -> SourceSummary:
    image = item.image
    return SourceSummary(
        name=image.name,
        frames=len(image.planes),
        shape=image.shape,
        bitpix=image.format.bitpix,
        stored_bytes=item.size,
        note="; ".join(text for text in (image.note, *item.bin.notes) if text),
    )
