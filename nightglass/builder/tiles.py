"""Extensions compressed in tiles, several at a time: the kernel releases the GIL, so that threads are enough."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from nightglass.config import Limits
from nightglass.cubes.converting import stored_dtype
from nightglass.cubes.framing import image_planes
from nightglass.cubes.joining import PlaneTiles, join_tiles
from nightglass.cubes.moving import Fault
from nightglass.cubes.placing import scaling_cards
from nightglass.cubes.records import Compression, Encoding, FrameFile, PixelFormat, Plane, Stamp, Survey
from nightglass.cubes.rice import rice_encode
from nightglass.cubes.scanning import scan_file
from nightglass.cubes.squeezing import Method, SqueezeTask, choose_method, fetch_squeezed, tile_rows
from nightglass.cubes.sums import sum_block
from nightglass.errors import Rejected
from nightglass.fitsio.product_cards import CardValue
from nightglass.fitsio.sources import reading

__all__ = ["Part", "Piece", "ReadyHdu", "SqueezePlan", "find_planes", "in_order", "plan_squeeze"]

T = TypeVar("T")
R = TypeVar("R")

_AXES_MAX: Final = 3
_RICE_COLUMNS: Final = (("COMPRESSED_DATA", "1QB"),)


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a data unit, and their sum as if they began at a word."""

    data: bytes
    total: int

    @classmethod
    def of(cls, data: bytes) -> Piece:
        """Sum some bytes."""
        return cls(data, sum_block(data))


@dataclass(frozen=True, slots=True)
class ReadyHdu:
    """An HDU whose data are in memory.

    Attributes
    ----------
    cards : dict
        Structural keywords, but for EXTNAME and checksums.
    pieces : tuple of Piece
        The data, one behind the other.
    """

    cards: dict[str, CardValue]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A run of tiles: the rows of their table, as lengths and places in the heap of this part alone."""

    columns: tuple[tuple[str, str], ...]
    rows: bytes
    tiles: int
    heap: Piece


@dataclass(frozen=True, slots=True)
class SqueezePlan:
    """An image that is to be compressed, divided into jobs that may be done at the same time."""

    path: Path
    shape: tuple[int, ...]
    plane: tuple[int, int]
    pixels: PixelFormat
    method: Method
    jobs: tuple[Callable[[], Part], ...]

    def finish(self, parts: Sequence[Part]) -> ReadyHdu:
        """Put the parts together, in the order of the jobs."""
        nowhere = FrameFile(Stamp(self.path, 0, 0, 0), ())
        tiles = [PlaneTiles(nowhere, part.columns, part.tiles, part.rows, 0, len(part.heap.data)) for part in parts]
        joined = join_tiles(tiles)
        cards = joined.cards(
            bitpix=self.pixels.bitpix,
            shape=self.shape,
            tile=(*(1 for _ in self.shape[2:]), tile_rows(self.plane), self.plane[1]),
            algorithm=self.method.algorithm,
            options=self.method.options,
        )
        if self.method.zquantiz:
            cards["ZQUANTIZ"] = self.method.zquantiz
        pieces = [Piece.of(joined.rows)]
        for segment in joined.segments:  # heaps are kept as they are, unless they have gaps
            heap = parts[segment.plane].heap
            whole = (segment.offset, segment.size) == (0, len(heap.data))
            pieces.append(heap if whole else Piece.of(heap.data[segment.offset : segment.offset + segment.size]))
        return ReadyHdu(cards | scaling_cards(self.pixels), tuple(pieces))


def find_planes(path: Path, hdu: int, limits: Limits) -> tuple[FrameFile, tuple[Plane, ...]]:
    """Find the planes of one HDU; none if it holds no image.

    Raises
    ------
    Rejected
        If the file is malformed.
    Retryable
        If it cannot be read.
    """
    file = scan_file(path, limits)
    found = image_planes(Survey((file,), ()), limits)[0]
    if isinstance(found, Rejected):
        raise found
    return file, tuple(plane for (number, _), plane in sorted(found.items()) if number == hdu)


def plan_squeeze(path: Path, hdu: int, shape: tuple[int, ...], limits: Limits) -> SqueezePlan | None:
    """Plan to compress an image without loss: integers by RICE_1, the rest by GZIP_2; None where that is not done.

    Images with more than three axes are left as they are, and so are integers of 64 bits: FITS 4.0, section 10.4.2, has
    GZIP_2 for them, but cfitsio 4.2, and with it funpack and fitsio, unpacks none, whatever the algorithm (status 410).
    Tiles are those of cubes, so that compressed frames are joined to a cube as they are.

    Raises
    ------
    Rejected
        If the file is malformed.
    Retryable
        If it cannot be read.
    """
    file, planes = find_planes(path, hdu, limits)
    if not planes or planes[0].encoding is Encoding.TILES or not 2 <= len(shape) <= _AXES_MAX:
        return None
    pixels, plane = planes[0].format, planes[0].shape
    if pixels.bitpix == 64:
        return None
    method = choose_method(pixels, Compression())
    jobs: list[Callable[[], Part]] = []
    for number, item in enumerate(planes):
        if method.algorithm == "RICE_1" and item.encoding is Encoding.PLAIN:
            height = tile_rows(plane)
            jobs += [
                partial(_rice, path, item, start, min(height, plane[0] - start)) for start in range(0, plane[0], height)
            ]
        else:
            task = SqueezeTask(path, ((number, file, item),), pixels, method, 0, limits)
            jobs.append(partial(_by_task, task))
    return SqueezePlan(path, shape, plane, pixels, method, tuple(jobs))


def _rice(path: Path, plane: Plane, start: int, rows: int) -> Part:
    """Compress one tile, read on its own: pixels stay in the cache, and large images have many tiles."""
    dtype = stored_dtype(plane.format.bitpix)
    pixels = np.empty((rows, plane.shape[1]), dtype)
    target = pixels.reshape(-1).view(np.uint8).data
    offset = plane.offset + start * plane.shape[1] * dtype.itemsize
    with reading(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            done = 0
            while done < len(target) and (got := os.preadv(descriptor, [target[done:]], offset + done)):
                done += got
        finally:
            os.close(descriptor)
    if done < len(target):
        message = f"{path} ends {len(target) - done} bytes too early"
        raise Rejected(message, remedy="push the extension again")
    heap = rice_encode(pixels).tobytes()
    return Part(_RICE_COLUMNS, np.array([len(heap), 0], ">i8").tobytes(), 1, Piece.of(heap))


def _by_task(task: SqueezeTask) -> Part:
    done = fetch_squeezed(task)
    (result,) = done.results
    if isinstance(result, Fault):
        message = f"{task.fragment}: {result.reason}"
        raise Rejected(message, remedy="push the extension again")
    return Part(result.columns, result.rows, result.tiles, Piece.of(done.heap))


def in_order(function: Callable[[T], R], items: Iterable[T], *, threads: int | None = None) -> Iterator[R]:
    """Yield ``function(item)`` in order, computed by some threads at once; only a few results exist at a time."""
    count = threads or max(len(os.sched_getaffinity(0)), 1)
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="squeeze") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
