"""Planes of finished files, read one after the other: as they are stored, or as the numbers they mean."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.config import Limits
from nightglass.cubes.records import Encoding, PixelFormat, Plane
from nightglass.errors import Rejected, Retryable
from nightglass.fitsio.headers import stream_limit
from nightglass.fitsio.sources import ByteSource, open_source, reading

__all__ = ["PlaneReader", "big_endian", "physical", "stored_as"]

_TYPES: Final = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


def big_endian(bitpix: int) -> np.dtype[Any]:
    """Return the type of stored pixels."""
    return np.dtype(_TYPES[bitpix])


class PlaneReader:
    """Reads planes of one file; quickest in the order of their offsets.

    Tile-compressed planes are decoded by astropy, not by our own decoder, because what is read here is compared with
    what our own code made.
    """

    def __init__(self, path: Path, limits: Limits, *, gzip: bool = False) -> None:
        self.path = path
        self._limits = limits
        self._gzip = gzip
        self._open = contextlib.ExitStack()
        self._descriptor = -1
        self._source: ByteSource | None = None
        self._hdus: fits.HDUList | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill a buffer with uncompressed bytes of the file.

        Raises
        ------
        Retryable
            If there are fewer.
        """
        done = self._from_stream(offset, target) if self._gzip else self._from_disk(offset, target)
        if done < len(target):
            message = f"{self.path} ends at {offset + done}, {len(target) - done} bytes too early"
            raise Retryable(message, remedy="the file was cut off after its headers were read: look at it")

    def stored(self, plane: Plane) -> NDArray[Any]:
        """Return the stored numbers of a plane, big-endian: (rows, columns)."""
        if plane.encoding is Encoding.TILES:
            return self._decoded(plane)
        data = bytearray(plane.shape[0] * plane.shape[1] * plane.format.itemsize)
        self.read_into(plane.offset, memoryview(data))
        return np.frombuffer(data, big_endian(plane.format.bitpix)).reshape(plane.shape)

    def quantum(self, plane: Plane) -> float:
        """Return the largest step of the quantised floats of a plane; 0 if it is stored without loss."""
        if plane.tiles is None or plane.format.bitpix > 0:
            return 0.0
        if all(name != "ZSCALE" for name, _ in plane.tiles.columns):
            return 0.0
        first = plane.number * plane.tiles.rows
        with _quietly(self.path), fits.open(self.path, disable_image_compression=True) as hdus:
            steps = np.abs(np.asarray(hdus[plane.hdu].data["ZSCALE"][first : first + plane.tiles.rows], float))
        return float(steps.max(initial=0.0))

    def _from_disk(self, offset: int, target: memoryview) -> int:
        with reading(self.path):
            if self._descriptor < 0:
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                self._open.callback(os.close, self._descriptor)
            done = 0
            while done < len(target) and (count := os.preadv(self._descriptor, [target[done:]], offset + done)):
                done += count
        return done

    def _from_stream(self, offset: int, target: memoryview) -> int:
        if self._source is None or self._source.position > offset:
            self._source = self._open.enter_context(open_source(self.path, limit=stream_limit(self._limits)))
        self._source.skip(offset - self._source.position)
        return self._source.read_into(target)

    def _astropy(self) -> fits.HDUList:
        if self._hdus is None:
            hdus = fits.open(self.path, memmap=not self._gzip, do_not_scale_image_data=True, lazy_load_hdus=True)
            self._hdus = self._open.enter_context(hdus)
        return self._hdus

    def _decoded(self, plane: Plane) -> NDArray[Any]:
        with _quietly(self.path):
            section = self._astropy()[plane.hdu].section
            axes = section.shape[:-2]
            where = np.unravel_index(plane.number, axes) if axes else ()
            pixels = np.asarray(section[tuple(int(item) for item in where)] if axes else section[...])
        return pixels.reshape(plane.shape).astype(big_endian(plane.format.bitpix), copy=False)


@contextlib.contextmanager
def _quietly(path: Path) -> Iterator[None]:
    """Let astropy neither warn of odd headers nor raise its own errors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (OSError, ValueError, TypeError, KeyError, IndexError, RuntimeError, fits.VerifyError) as error:
        message = f"{path}: a tile-compressed image cannot be decoded: {error}"
        raise Rejected(
            message, remedy="the file is damaged, or compressed in a way that astropy does not know"
        ) from error


def physical(stored: NDArray[Any], pixels: PixelFormat) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return what stored numbers mean, and where they are defined; integers stay exact.

    Offsets of integers are added in extended precision, which holds all 64-bit integers; scaled ones are computed
    as doubles.
    """
    native = stored.astype(stored.dtype.newbyteorder("="))
    if pixels.bitpix < 0:
        defined = ~np.isnan(native)
        if (pixels.bscale, pixels.bzero) == (1.0, 0.0):
            return native.astype(np.float64), defined
        return native.astype(np.float64) * pixels.bscale + pixels.bzero, defined
    defined = np.ones(native.shape, bool) if pixels.blank is None else native != pixels.blank
    if pixels.bscale == 1.0 and pixels.bzero.is_integer():
        # doubles do where no 64-bit number is in play
        wide: Any = np.float64 if pixels.bitpix < 64 and abs(pixels.bzero) < 1 << 52 else np.longdouble
        return native.astype(wide) + wide(pixels.bzero), defined
    return native.astype(np.float64) * pixels.bscale + pixels.bzero, defined


def stored_as(values: NDArray[Any], defined: NDArray[np.bool_], pixels: PixelFormat) -> NDArray[Any]:
    """Return the stored numbers, big-endian, that mean given values: the inverse of `physical`."""
    dtype = big_endian(pixels.bitpix)
    if pixels.bitpix < 0:
        plain = values if (pixels.bscale, pixels.bzero) == (1.0, 0.0) else (values - pixels.bzero) / pixels.bscale
        return np.where(defined, plain, np.nan).astype(dtype)
    nothing = 0 if pixels.blank is None else pixels.blank
    whole = np.where(defined, values, 0)
    scaled = whole - whole.dtype.type(pixels.bzero)
    if pixels.bscale != 1.0:
        scaled = np.rint(scaled / pixels.bscale)
    return np.where(defined, scaled.astype(dtype.newbyteorder("=")), nothing).astype(dtype)
