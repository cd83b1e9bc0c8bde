"""Planes compressed in tiles, on a worker: handed on one by one, or into a fragment beside the cube.

Integers of 8, 16 and 32 bits go through our own RICE_1; everything else through astropy's compressed images. Floats are
compressed by GZIP_2 without loss, unless quantisation is asked for.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.config import Limits
from nightglass.cubes.converting import PlaneReader, convert_pixels
from nightglass.cubes.joining import PlaneTiles
from nightglass.cubes.moving import Fault, check_datasum, check_unchanged
from nightglass.cubes.records import Compression, FrameFile, PixelFormat, Plane, Stamp
from nightglass.cubes.rice import BLOCK_PIXELS, largest_code, rice_encode
from nightglass.errors import NightglassError, Retryable
from nightglass.fitsio.filling import append

__all__ = [
    "Method",
    "SqueezeTask",
    "Squeezed",
    "append_all",
    "choose_method",
    "fetch_squeezed",
    "keep_fragment",
    "largest_heap",
    "squeeze_all",
    "squeeze_planes",
    "tile_rows",
]

_TILE_PIXELS: Final = 1 << 22
"""Of a tile at most: a whole plane of 2048 x 2048. Readers unpack whole tiles."""
_DITHERS: Final = {"none": -1, "subtractive_1": 1, "subtractive_2": 2}
_DITHER_SEEDS: Final = 10_000
_GZIP_HEADER: Final = 10


@dataclass(frozen=True, slots=True)
class Method:
    """How the planes of one image are compressed.

    Attributes
    ----------
    algorithm : str
        ZCMPTYPE.
    options : tuple of pairs
        ZNAME and ZVAL.
    quantize : float
        0: without loss.
    dither : str
        As `Compression.dither`.
    zquantiz : str
        ZQUANTIZ; empty for integers.
    """

    algorithm: str
    options: tuple[tuple[str, int], ...] = ()
    quantize: float = 0.0
    dither: str = "none"
    zquantiz: str = ""

    @property
    def dithers(self) -> bool:
        """Whether tiles depend on their place in the image."""
        return self.zquantiz.startswith("SUBTRACTIVE")


@dataclass(frozen=True, slots=True)
class SqueezeTask:
    """Planes of one image, one after the other.

    Attributes
    ----------
    fragment : Path
        Where their heaps are written.
    members : tuple
        Index into the planes of the survey, file, plane.
    first_tile : int
        How many tiles of the image come before.
    """

    fragment: Path
    members: tuple[tuple[int, FrameFile, Plane], ...]
    target: PixelFormat
    method: Method
    first_tile: int
    limits: Limits


def choose_method(pixels: PixelFormat, wanted: Compression) -> Method:
    """Choose how images of a format are compressed, without loss unless quantisation is asked for."""
    if pixels.bitpix in (8, 16, 32) and wanted.algorithm == "rice":
        return Method("RICE_1", (("BLOCKSIZE", BLOCK_PIXELS), ("BYTEPIX", pixels.itemsize)))
    if pixels.bitpix > 0:
        return Method("GZIP_2")
    if not wanted.quantize:
        return Method("GZIP_2", zquantiz="NONE")
    name = {"none": "NO_DITHER", "subtractive_1": "SUBTRACTIVE_DITHER_1", "subtractive_2": "SUBTRACTIVE_DITHER_2"}
    options = (("BLOCKSIZE", BLOCK_PIXELS), ("BYTEPIX", 4)) if wanted.algorithm == "rice" else ()
    algorithm = "RICE_1" if wanted.algorithm == "rice" else "GZIP_2"
    return Method(algorithm, options, wanted.quantize, wanted.dither, name[wanted.dither])


def tile_rows(shape: tuple[int, int]) -> int:
    """Return how many rows of a plane make a tile: all of them, unless that is too large a tile."""
    return max(min(shape[0], _TILE_PIXELS // max(shape[1], 1)), 1)


def largest_heap(pixels: PixelFormat, shape: tuple[int, int]) -> int:
    """Return how many bytes the tiles of a plane take at most, compressed by RICE_1 without loss."""
    height = tile_rows(shape)
    sizes = (min(height, shape[0] - start) * shape[1] for start in range(0, shape[0], height))
    return sum(largest_code(size, pixels.itemsize) for size in sizes)


@dataclass(frozen=True, slots=True)
class Squeezed:
    """What became of a task.

    Attributes
    ----------
    results : tuple of PlaneTiles or Fault
        For each member; heaps count from the beginning of the fragment.
    heap : bytes
        What the fragment holds, where it was not written by the worker.
    """

    results: tuple[PlaneTiles | Fault, ...]
    heap: bytes = b""


def squeeze_planes(task: SqueezeTask) -> Squeezed:
    """Compress planes into a fragment, which is there already.

    Raises
    ------
    Retryable
        If the fragment cannot be written.
    """
    try:
        with _reopened(task.fragment) as stream:
            results = tuple(squeeze_all(task, lambda heap: append(stream, heap)))
    except OSError as error:
        raise _cannot_write(task.fragment, error) from error
    return Squeezed(_stamped(results, task.fragment))


def append_all(fragment: Path, heaps: Iterable[bytes | memoryview]) -> None:
    """Write heaps into a fragment, which is there already.

    Raises
    ------
    Retryable
        If it cannot be written.
    """
    try:
        with _reopened(fragment) as stream:
            for heap in heaps:
                append(stream, heap)
    except OSError as error:
        raise _cannot_write(fragment, error) from error


def _reopened(fragment: Path) -> FileIO:
    """Open a fragment, and empty it."""
    # not created here: a worker whose archiver died must not leave a fragment behind the next one's sweep
    stream = fragment.open("r+b", buffering=0)
    stream.truncate()
    return stream


def fetch_squeezed(task: SqueezeTask) -> Squeezed:
    """Compress planes, and return their heaps: for a cube that workers do not see."""
    heap = bytearray()
    results = tuple(squeeze_all(task, heap.extend))
    return Squeezed(results, bytes(heap))


def keep_fragment(task: SqueezeTask, squeezed: Squeezed) -> tuple[PlaneTiles | Fault, ...]:
    """Write a fragment that was fetched; one that the worker wrote is left alone.

    Raises
    ------
    Retryable
        If it cannot be written.
    """
    if not squeezed.heap:
        return squeezed.results
    try:
        task.fragment.write_bytes(squeezed.heap)
    except OSError as error:
        raise _cannot_write(task.fragment, error) from error
    return _stamped(squeezed.results, task.fragment)


def squeeze_all(task: SqueezeTask, write: Callable[[bytes | memoryview], None]) -> Iterator[PlaneTiles | Fault]:
    """Compress planes one by one, and hand their heaps on; yield what became of each."""
    tile, start = task.first_tile, 0
    with PlaneReader(task.limits) as reader:
        for index, file, plane in task.members:
            try:
                check_unchanged(file.stamp)
                stored = reader.read(file, plane)
                check_datasum(file.stamp.path, plane, stored)
                pixels = convert_pixels(stored, plane.format, task.target)
            except NightglassError as error:
                yield Fault(index, file.stamp.path, str(error))
                continue
            columns, rows, heap = _squeeze(pixels, task.method, tile)
            write(heap)
            count = -(-plane.shape[0] // tile_rows(plane.shape))
            yield PlaneTiles(FrameFile(Stamp(task.fragment, 0, 0, 0), ()), columns, count, rows, start, len(heap))
            tile += count
            start += len(heap)


def _stamped(results: Sequence[PlaneTiles | Fault], fragment: Path) -> tuple[PlaneTiles | Fault, ...]:
    found = fragment.stat()
    file = FrameFile(Stamp(fragment, found.st_size, found.st_mtime_ns, found.st_ino), ())
    return tuple(replace(result, file=file) if isinstance(result, PlaneTiles) else result for result in results)


def _cannot_write(fragment: Path, error: OSError) -> Retryable:
    message = f"{fragment} cannot be written: {error.strerror or error}"
    return Retryable(message, remedy="make room on the disk, and check the rights of the directory")


_Parts = tuple[tuple[tuple[str, str], ...], bytes, bytes | memoryview]
"""Columns, rows and heap of one plane."""


def _squeeze(pixels: NDArray[Any], method: Method, first_tile: int) -> _Parts:
    if method.algorithm == "RICE_1" and not method.zquantiz:
        return _rice(pixels)
    return _by_astropy(pixels, method, first_tile)


def _rice(pixels: NDArray[Any]) -> _Parts:
    native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    tiles = [rice_encode(tile) for tile in _tiles(native)]
    sizes = np.array([tile.size for tile in tiles])
    rows = np.stack([sizes, np.cumsum(sizes) - sizes], axis=1).astype(">i8")
    heap = tiles[0].data if len(tiles) == 1 else b"".join(tile.data for tile in tiles)
    return (("COMPRESSED_DATA", "1QB"),), rows.tobytes(), heap


def _tiles(pixels: NDArray[Any]) -> Iterator[NDArray[Any]]:
    height = tile_rows(pixels.shape)
    for start in range(0, pixels.shape[0], height):
        yield pixels[start : start + height]


def _by_astropy(pixels: NDArray[Any], method: Method, first_tile: int) -> _Parts:
    """Compress a plane as an image of its own, and take table and heap out of the file that this makes."""
    options: dict[str, Any] = {}
    if method.zquantiz:
        options |= {"quantize_level": method.quantize, "quantize_method": _DITHERS[method.dither]}
    if method.dithers:
        options["dither_seed"] = 1 + first_tile % _DITHER_SEEDS
    native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    height = tile_rows(pixels.shape)
    shape = (min(height, pixels.shape[0]), pixels.shape[1])
    image = fits.CompImageHDU(native, compression_type=method.algorithm, tile_shape=shape, **options)
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(buffer)
    whole = buffer.getvalue()
    with fits.open(io.BytesIO(whole), disable_image_compression=True) as hdus:
        header = hdus[1].header
        start = int(hdus[1].fileinfo()["datLoc"])
        layout = hdus[1].columns.dtype.newbyteorder(">")
    table = int(header["NAXIS1"]) * int(header["NAXIS2"])
    data = whole[start : start + table + int(header["PCOUNT"])]
    columns = tuple(
        (str(header[f"TTYPE{number}"]), str(header[f"TFORM{number}"])) for number in range(1, header["TFIELDS"] + 1)
    )
    heap = bytearray(data[int(header.get("THEAP", table)) :])
    _take_times_out(np.frombuffer(data[:table], layout), heap)
    return columns, data[:table], bytes(heap)


def _take_times_out(rows: NDArray[Any], heap: bytearray) -> None:
    """Put zeros for the time in each gzip header (RFC 1952), so that the same frames always give the same bytes."""
    for name in rows.dtype.names or ():
        if not name.endswith("COMPRESSED_DATA"):
            continue
        for count, place in rows[name].tolist():
            if count >= _GZIP_HEADER and heap[place : place + 3] == b"\x1f\x8b\x08":
                heap[place + 4 : place + 8] = bytes(4)
