"""Extensions compressed in tiles, several at a time: the kernel releases the GIL, so that threads are enough."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from nightglass.config import Limits
from nightglass.cubes.framing import image_planes
from nightglass.cubes.joining import PlaneTiles, join_tiles
from nightglass.cubes.moving import Fault
from nightglass.cubes.placing import scaling_cards
from nightglass.cubes.records import Compression, Encoding, FrameFile, PixelFormat, Plane, Survey
from nightglass.cubes.scanning import scan_file
from nightglass.cubes.squeezing import Method, SqueezeTask, choose_method, fetch_squeezed, tile_rows
from nightglass.errors import Rejected
from nightglass.fitsio.product_cards import CardValue

__all__ = ["SqueezedHdu", "find_planes", "in_order", "squeeze"]

T = TypeVar("T")
R = TypeVar("R")

_AXES_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class SqueezedHdu:
    """A tile-compressed image, or any other HDU whose data are in memory.

    Attributes
    ----------
    cards : dict
        Structural keywords, but for EXTNAME and checksums.
    rows, heap : bytes
        Table and heap; what comes first and what follows.
    """

    cards: dict[str, CardValue]
    rows: bytes
    heap: bytes = b""


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


def squeeze(path: Path, hdu: int, shape: tuple[int, ...], limits: Limits) -> SqueezedHdu | None:
    """Compress an image without loss: integers by RICE_1, the rest by GZIP_2; None where there is nothing to compress.

    Images with more than three axes are left as they are, and so are integers of 64 bits, which cfitsio cannot unpack.

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
    pixels = planes[0].format
    if pixels.bitpix == 64:
        return None
    method = choose_method(pixels, Compression())
    members = tuple((index, file, plane) for index, plane in enumerate(planes))
    done = fetch_squeezed(SqueezeTask(path, members, pixels, method, 0, limits))
    tiles: list[PlaneTiles] = []
    for result in done.results:
        if isinstance(result, Fault):
            message = f"{path}: {result.reason}"
            raise Rejected(message, remedy="push it again")
        tiles.append(result)
    joined = join_tiles(tiles)
    heap = b"".join(done.heap[part.offset : part.offset + part.size] for part in joined.segments)
    cards = _cards(pixels, method, shape, planes[0].shape)
    table: dict[str, CardValue] = {
        "XTENSION": ("BINTABLE", "tile-compressed image"),
        "BITPIX": 8,
        "NAXIS": 2,
        "NAXIS1": (joined.row_size, "bytes of a row"),
        "NAXIS2": (len(joined.rows) // joined.row_size, "tiles"),
        "PCOUNT": (joined.heap_size, "bytes of the heap"),
        "GCOUNT": 1,
        "TFIELDS": len(joined.columns),
    }
    for number, (name, form) in enumerate(joined.columns, start=1):
        table |= {f"TTYPE{number}": name, f"TFORM{number}": form}
    return SqueezedHdu(table | cards, joined.rows, heap)


def _cards(pixels: PixelFormat, method: Method, shape: tuple[int, ...], plane: tuple[int, int]) -> dict[str, CardValue]:
    """Return the keywords of the compressed image: FITS 4.0, section 10.1."""
    cards: dict[str, CardValue] = {
        "ZIMAGE": (True, "this is a compressed image"),
        "ZTENSION": ("IMAGE", "of an image extension"),
        "ZBITPIX": pixels.bitpix,
        "ZNAXIS": len(shape),
    }
    cards |= {f"ZNAXIS{axis}": length for axis, length in enumerate(reversed(shape), start=1)}
    cards |= {"ZPCOUNT": 0, "ZGCOUNT": 1}
    tile = (plane[1], tile_rows(plane), *(1 for _ in shape[2:]))
    cards |= {f"ZTILE{axis}": length for axis, length in enumerate(tile, start=1)}
    cards["ZCMPTYPE"] = method.algorithm
    for number, (name, value) in enumerate(method.options, start=1):
        cards |= {f"ZNAME{number}": name, f"ZVAL{number}": value}
    if method.zquantiz:
        cards["ZQUANTIZ"] = method.zquantiz
    return cards | scaling_cards(pixels)


def in_order(function: Callable[[T], R], items: Iterable[T], *, threads: int | None = None) -> Iterator[R]:
    """Yield ``function(item)`` in order, computed by some threads at once; only a few results exist at a time."""
    count = threads or max(len(os.sched_getaffinity(0)), 1)
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="squeeze") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
