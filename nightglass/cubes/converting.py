"""Pixels of a plane as they are stored, however its file holds them, and their conversion without loss.

Physical value = BZERO + BSCALE x stored value (FITS Standard 4.0, section 4.4.2.5). Integers stay integers; what cannot
be said exactly in the wanted format is refused, never rounded.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from nightglass.config import Limits
from nightglass.cubes.records import Encoding, FrameFile, PixelFormat, Plane
from nightglass.errors import NightglassError, Rejected, Retryable
from nightglass.fitsio.headers import stream_limit
from nightglass.fitsio.sources import ByteSource, open_source, reading

__all__ = ["PlaneReader", "as_bytes", "convert_pixels", "is_moved", "read_plane", "stored_dtype"]

_DTYPES: Final = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_WORDS: Final = 1 << 64
_WIDE: Final = (np.int64, np.uint64)
_SMALL: Final = 1 << 40
"""Up to this BZERO, integers of 32 bits and fewer are exact as floats of 64."""
_PIECE: Final = 1 << 16
"""Pixels converted at a time: wider intermediate types stay in the cache."""
_PLAN_AGAIN: Final = "the plan of the cube does not fit this frame; give it a cube of its own"


def as_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the bytes of numbers, in the order of the file."""
    return np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)


def stored_dtype(bitpix: int) -> np.dtype[Any]:
    """Return the big-endian type of the numbers of an image."""
    return np.dtype(_DTYPES[bitpix])


def is_moved(source: PixelFormat, target: PixelFormat) -> bool:
    """Tell whether the bytes of one format are those of the other.

    They are not where only one of them has a BLANK: a pixel of that value would become undefined, or defined.
    """
    same = (source.bitpix, source.bscale, source.bzero) == (target.bitpix, target.bscale, target.bzero)
    return same and (source.bitpix < 0 or source.blank == target.blank)


def convert_pixels(pixels: NDArray[Any], source: PixelFormat, target: PixelFormat) -> NDArray[Any]:
    """Convert stored numbers from one format to another; any piece of a plane, for each pixel is on its own.

    Parameters
    ----------
    pixels : array
        Of `source`, in any byte order.

    Returns
    -------
    array
        Of `target`, big-endian, of the same shape; the one that was given if it is that already.

    Raises
    ------
    Rejected
        If the new format cannot say a value exactly, or would take it for undefined.
    """
    if is_moved(source, target) and pixels.dtype == stored_dtype(target.bitpix):
        return pixels
    flat = pixels.reshape(-1)
    out = np.empty(flat.size, stored_dtype(target.bitpix))
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        native = piece.astype(piece.dtype.newbyteorder("="), copy=False)
        out[start : start + _PIECE] = _convert(native, source, target)
    return out.reshape(pixels.shape)


def _convert(pixels: NDArray[Any], source: PixelFormat, target: PixelFormat) -> NDArray[Any]:
    if source.bitpix < 0 or target.bitpix < 0:
        return _to_float(pixels, source, target)
    shift = _integer_shift(source, target)
    if shift is None:
        raise _refusal(source, target, "its scaling is another")
    undefined = _undefined(pixels, source)
    low, high = _bounds(target.bitpix)
    _check_range(pixels, undefined, (low - shift, high - shift), source, target)
    # modulo 2^64, which is right since the results are in range
    moved = (pixels.astype(np.int64).view(np.uint64) + np.uint64(shift % _WORDS)).view(np.int64)
    _check_blank(moved, undefined, source, target)
    if undefined is not None and target.blank is not None:
        moved[undefined] = target.blank
    return moved


def _integer_shift(source: PixelFormat, target: PixelFormat) -> int | None:
    """Return what has to be added to stored numbers; None if no integer does it."""
    if (source.bscale, source.bzero) == (target.bscale, target.bzero):
        return 0
    if not source.bscale == target.bscale == 1 or not source.bzero.is_integer() or not target.bzero.is_integer():
        return None
    return int(source.bzero) - int(target.bzero)  # exact also for 2^63, where a difference of floats is not


def _undefined(pixels: NDArray[Any], source: PixelFormat) -> NDArray[np.bool_] | None:
    if source.blank is None or source.bitpix < 0:
        return None
    found = pixels == source.blank
    return found if found.any() else None


def _bounds(bitpix: int) -> tuple[int, int]:
    kind = np.iinfo(stored_dtype(bitpix))
    return int(kind.min), int(kind.max)


def _check_range(
    pixels: NDArray[Any],
    undefined: NDArray[np.bool_] | None,
    bounds: tuple[int, int],
    source: PixelFormat,
    target: PixelFormat,
) -> None:
    possible = _bounds(source.bitpix)
    if bounds[0] <= possible[0] and possible[1] <= bounds[1]:
        return
    defined = pixels if undefined is None else pixels[~undefined]
    if defined.size and not (bounds[0] <= int(defined.min()) and int(defined.max()) <= bounds[1]):
        raise _refusal(source, target, f"stored values are from {defined.min()} to {defined.max()}")


def _check_blank(
    moved: NDArray[np.int64], undefined: NDArray[np.bool_] | None, source: PixelFormat, target: PixelFormat
) -> None:
    if target.blank is None:
        if undefined is not None:
            raise _refusal(source, target, "it has undefined pixels, for which the cube has no BLANK")
        return
    taken = moved == target.blank
    if undefined is not None:
        taken &= ~undefined
    if taken.any():
        raise _refusal(source, target, f"a pixel has the value {target.blank}, which is BLANK there")


def _to_float(pixels: NDArray[Any], source: PixelFormat, target: PixelFormat) -> NDArray[Any]:
    if target.bitpix > 0:
        raise _refusal(source, target, "numbers with fractions do not fit into integers")
    if source.bitpix < 0 and (source.bscale, source.bzero) == (target.bscale, target.bzero):
        # a signalling NaN becomes a quiet one
        with np.errstate(invalid="ignore"):
            return _narrowed(pixels, source, target)
    if (target.bscale, target.bzero) != (1.0, 0.0):
        raise _refusal(source, target, "its scaling is another")
    undefined = _undefined(pixels, source)
    values = _exact_integers(pixels, undefined, source, target)
    if values is None:
        with np.errstate(invalid="ignore", over="ignore"):
            values = pixels.astype(np.float64) * source.bscale + source.bzero
    if undefined is not None:
        values[undefined] = np.nan
    return _narrowed(values, source, target)


def _exact_integers(
    pixels: NDArray[Any], undefined: NDArray[np.bool_] | None, source: PixelFormat, target: PixelFormat
) -> NDArray[np.float64] | None:
    """Return integers as floats if that loses nothing; None where floats are exact anyway, or are the definition."""
    if source.bscale != 1 or not source.bzero.is_integer() or (source.bitpix != 64 and abs(source.bzero) <= _SMALL):
        return None
    shift = int(source.bzero)
    defined = pixels if undefined is None else pixels[~undefined]
    low, high = (int(defined.min()) + shift, int(defined.max()) + shift) if defined.size else (0, 0)
    kind = next((kind for kind in _WIDE if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max), None)
    if kind is None:
        raise _refusal(source, target, f"values are from {low} to {high}")
    words = (pixels.astype(np.int64).view(np.uint64) + np.uint64(shift % _WORDS)).view(kind)
    values = words.astype(np.float64)
    with np.errstate(invalid="ignore"):  # the largest integers round up, out of their range
        same = values.astype(kind) == words
    same &= values < float(np.iinfo(kind).max)  # on some processors a float out of range becomes the largest integer
    if undefined is not None:
        same |= undefined
    if not same.all():
        raise _refusal(source, target, f"an integer as large as {words[~same][0]} has no exact float")
    return values


def _narrowed(values: NDArray[Any], source: PixelFormat, target: PixelFormat) -> NDArray[Any]:
    """Return floats of the wanted size; smaller ones only if all values are kept."""
    wanted = np.dtype(f"f{target.itemsize}")
    if wanted.itemsize >= values.dtype.itemsize:
        return values.astype(wanted, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values.astype(wanted)
    if not np.array_equal(narrow.astype(values.dtype), values, equal_nan=True):
        raise _refusal(source, target, "a value has more digits than that")
    return narrow


def _refusal(source: PixelFormat, target: PixelFormat, reason: str) -> Rejected:
    message = f"pixels of {_describe(source)} do not become {_describe(target)} without loss: {reason}"
    return Rejected(message, remedy=_PLAN_AGAIN)


def _describe(pixels: PixelFormat) -> str:
    scaling = "" if (pixels.bscale, pixels.bzero) == (1, 0) else f", BSCALE {pixels.bscale:g}, BZERO {pixels.bzero:g}"
    blank = "" if pixels.blank is None else f", BLANK {pixels.blank}"
    return f"BITPIX {pixels.bitpix}{scaling}{blank}"


class PlaneReader:
    """Reads planes of any file; the file of the last one stays open, so it is fast in the order of files and offsets.

    Use it as a context. Nothing is opened before the first plane is read.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._resources = contextlib.ExitStack()
        self._path = Path()
        self._descriptor = -1
        self._stream: ByteSource | None = None
        self._fits: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()

    def read(self, file: FrameFile, plane: Plane) -> NDArray[Any]:
        """Return the stored numbers of a plane, big-endian.

        Raises
        ------
        Rejected
            If they cannot be decompressed.
        Retryable
            If the file cannot be read, or ends too early.
        """
        if file.stamp.path != self._path:
            self._close()
            self._path = file.stamp.path
        if plane.encoding is Encoding.TILES:
            return self._decompress(plane)
        pixels = np.empty(plane.shape, stored_dtype(plane.format.bitpix))
        target = pixels.reshape(-1).view(np.uint8).data
        with reading(self._path):
            got = self._expand(plane, target) if plane.encoding is Encoding.GZIP else self._pread(plane, target)
        if got < plane.size:
            message = f"{self._path}: {plane.size - got} bytes are missing at the end of HDU {plane.hdu}"
            raise Retryable(message, remedy="it was cut since its headers were read; transfer it again")
        return pixels

    def _close(self) -> None:
        self._resources.close()
        self._descriptor, self._stream, self._fits = -1, None, None

    def _pread(self, plane: Plane, target: memoryview) -> int:
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self._resources.callback(os.close, self._descriptor)
        done = 0
        while done < len(target) and (got := os.preadv(self._descriptor, [target[done:]], plane.offset + done)):
            done += got
        return done

    def _expand(self, plane: Plane, target: memoryview) -> int:
        """Read from a gzip stream, which only goes forward: it is opened again for what has gone by."""
        if self._stream is None or self._stream.position > plane.offset:
            self._close()
            limit = stream_limit(self._limits)
            self._stream = self._resources.enter_context(open_source(self._path, limit=limit))
        self._stream.skip(plane.offset - self._stream.position)
        return self._stream.read_into(target)

    def _decompress(self, plane: Plane) -> NDArray[Any]:
        from astropy.io import fits

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of cards that are not quite to the standard; the survey judged them
                if self._fits is None:
                    self._fits = self._resources.enter_context(
                        fits.open(self._path, memmap=True, do_not_scale_image_data=True, character_as_bytes=True)
                    )
                hdu = self._fits[plane.hdu]
                leading = np.unravel_index(plane.number, hdu.shape[:-2]) if len(hdu.shape) > 2 else ()
                pixels = np.asarray(hdu.section[(*map(int, leading), ...)] if len(leading) else hdu.section[...])
        except Exception as error:  # astropy's decoders raise all kinds for a damaged heap
            raise self._decoder_error(plane, error) from error
        wanted = stored_dtype(plane.format.bitpix)
        if pixels.size != plane.shape[0] * plane.shape[1] or pixels.dtype.newbyteorder(">") != wanted:
            message = f"{self._path}: HDU {plane.hdu} gave {pixels.shape} {pixels.dtype}, not {plane.shape} {wanted}"
            raise Rejected(message, remedy="transfer the file again")
        return pixels.astype(wanted, copy=False).reshape(plane.shape)

    def _decoder_error(self, plane: Plane, error: Exception) -> NightglassError:
        if isinstance(error, OSError) and error.errno is not None:  # without a number it comes from a decoder
            message = f"{self._path} cannot be read: {error}"
            return Retryable(message, remedy="check that it is still there and readable")
        message = f"{self._path}: HDU {plane.hdu} cannot be decompressed: {error}"
        return Rejected(message, remedy="transfer the file again")


def read_plane(file: FrameFile, plane: Plane, limits: Limits | None = None) -> NDArray[Any]:
    """Return the stored big-endian numbers of one plane, of any encoding; see `PlaneReader.read`."""
    with PlaneReader(limits or Limits()) as reader:
        return reader.read(file, plane)
