"""Raw files to `Image`: one array a detector, float32 in the byte order of this machine."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.config import Camera, Limits
from nightglass.errors import Rejected
from nightglass.fitsio.amplifiers import Canvas, keyword_number, lay_out
from nightglass.fitsio.cards import BLOCK, CARD, pad_header
from nightglass.fitsio.detectors import DetectorPlan, check_size, plan_detectors, plane_shape
from nightglass.fitsio.headers import HduInfo, card_value, growing, next_header, scan_headers, stream_limit
from nightglass.fitsio.sources import ByteSource, open_source
from nightglass.fitsio.structure import is_structural
from nightglass.image import Image
from nightglass.model import DQ, StepRecord

__all__ = ["image_header", "read_raw"]

_DTYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_PIECE = 1 << 18
"""Pixels decoded at a time, so that wider intermediate types stay in the cache."""
_MINIMAL = ("SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    0")
_EXACT = 1 << 23
"""Integers up to here, and their sums with 16-bit integers, are exact in float32."""


def read_raw(path: Path, camera: Camera, limits: Limits) -> tuple[Image, ...]:
    """Read the detectors of a raw file: plain, gzip or tile-compressed, of any pixel type.

    Parameters
    ----------
    path : Path
        A file that `inspect` found complete.

    Returns
    -------
    tuple of Image
        In ADU, overscan included; variance zero; pixels that are not finite, or BLANK, are 0 and marked BAD.

    Raises
    ------
    Rejected
        If it is malformed, too large, or holds no detector of this camera.
    Retryable
        If it is shorter than its headers say, or cannot be read.
    """
    headers, stored = _scan(path, limits)
    plans = plan_detectors(path, headers, camera)
    check_size(path, plans, limits)
    canvases = [lay_out(path, plan, headers[0], camera) for plan in plans]
    wanted = {tile.info.index for canvas in canvases for tile in canvas.tiles}
    frames = [_Frame.empty(canvas) for canvas in canvases]
    for info, pixels in _stored_planes(path, [info for info in headers if info.index in wanted], stored, limits):
        plane = _decode_plane(path, info, pixels)
        for canvas, frame in zip(canvases, frames, strict=True):
            frame.take(plane, info, canvas)
    return tuple(
        _image(plan, canvas, frame, headers[0], camera)
        for plan, canvas, frame in zip(plans, canvases, frames, strict=True)
    )


_Stored = dict[int, NDArray[np.uint8]]


def _scan(path: Path, limits: Limits) -> tuple[tuple[HduInfo, ...], _Stored]:
    """Walk over the headers; of gzip keep the planes that pass by, within the limit: it is expanded once then."""
    with open_source(path, limit=stream_limit(limits)) as source:
        if not source.compressed:
            return scan_headers(path, limits), {}
        headers: list[HduInfo] = []
        stored: _Stored = {}
        while (info := next_header(source, len(headers), limits)) is not None:
            headers.append(info)
            room = (limits.image_mib << 20) - sum(pixels.nbytes for pixels in stored.values())
            if plane_shape(info) is not None and info.data_size <= room:
                stored[info.index] = _read_bytes(source, info)
            source.skip(info.end - source.position)
            if source.position < info.data_offset + info.data_size:
                raise growing(path, source, info.end)
    return tuple(headers), stored


def _stored_planes(
    path: Path, wanted: Sequence[HduInfo], stored: _Stored, limits: Limits
) -> Iterator[tuple[HduInfo, NDArray[np.uint8]]]:
    if all(info.index in stored for info in wanted):
        for info in wanted:
            yield info, stored.pop(info.index)
        return
    with open_source(path, limit=stream_limit(limits)) as source:
        for info in wanted:
            source.skip(info.data_offset - source.position)
            yield info, _read_bytes(source, info)


def _read_bytes(source: ByteSource, info: HduInfo) -> NDArray[np.uint8]:
    buffer = np.empty(info.data_size, np.uint8)
    if source.read_into(buffer.data) < info.data_size:
        raise growing(source.path, source, info.end)
    return buffer


@dataclass(slots=True)
class _Frame:
    """The arrays of one detector while they fill."""

    data: NDArray[np.float32]
    mask: NDArray[np.uint16]

    @classmethod
    def empty(cls, canvas: Canvas) -> _Frame:
        if len(canvas.tiles) == 1:  # replaced as a whole
            return cls(data=np.empty((0, 0), np.float32), mask=np.empty((0, 0), np.uint16))
        return cls(data=np.zeros(canvas.shape, np.float32), mask=np.full(canvas.shape, DQ.NO_DATA, np.uint16))

    def take(self, plane: _Frame, info: HduInfo, canvas: Canvas) -> None:
        for tile in canvas.tiles:
            if tile.info.index != info.index:
                continue
            if len(canvas.tiles) == 1:
                self.data, self.mask = plane.data, plane.mask
            else:
                self.data[tile.place] = plane.data[tile.turn]
                self.mask[tile.place] = plane.mask[tile.turn]


def _decode_plane(path: Path, info: HduInfo, stored: NDArray[np.uint8]) -> _Frame:
    shape = plane_shape(info)
    if shape is None:
        message = f"{path}: HDU {info.index} is no two-dimensional image"
        raise Rejected(message)
    if info.is_compressed_image:
        return _decode(_decompress(path, info, stored, shape), scale=1.0, zero=0.0, blank=None)
    pixels = stored.view(_DTYPES[info.bitpix]).reshape(shape)
    scale, zero = (_scaling(path, info, keyword, default) for keyword, default in (("BSCALE", 1.0), ("BZERO", 0.0)))
    blank = card_value(info.header, "BLANK") if info.bitpix > 0 else None
    return _decode(pixels, scale=scale, zero=zero, blank=blank if isinstance(blank, int) else None)


def _scaling(path: Path, info: HduInfo, keyword: str, default: float) -> float:
    value = card_value(info.header, keyword)
    if value is None:
        return default
    if isinstance(value, (str, bool)) or not math.isfinite(value) or (keyword == "BSCALE" and value == 0):
        message = f"{path}: {keyword} of HDU {info.index} is {value!r}"
        raise Rejected(message, remedy="the header is malformed")
    return float(value)


def _decode(pixels: NDArray[Any], *, scale: float, zero: float, blank: int | None) -> _Frame:
    """Turn stored pixels into float32 and a mask of those that have no value."""
    data = np.empty(pixels.shape, np.float32)
    mask = np.zeros(pixels.shape, np.uint16)
    plain = scale == 1.0 and zero == int(zero) and abs(zero) < _EXACT
    small = pixels.dtype.kind in "iu" and pixels.dtype.itemsize <= 2
    rows = max(1, _PIECE // pixels.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, pixels.shape[0], rows):
            stored, target = pixels[start : start + rows], data[start : start + rows]
            target[...] = stored if plain and (small or zero == 0) else stored.astype(np.float64) * scale + zero
            if plain and small and zero:
                target += np.float32(zero)
            bad = ~np.isfinite(target)
            if blank is not None:
                bad |= stored == blank
            if bad.any():
                target[bad] = 0
                mask[start : start + rows][bad] = DQ.BAD
    return _Frame(data=data, mask=mask)


def _decompress(path: Path, info: HduInfo, heap: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[Any]:
    """Let astropy decode a tile-compressed image; whatever it stumbles over is the file's fault."""
    _check_tiles(path, info)
    cards = [str(card.image) for card in info.header.cards]
    primary = [f"{text:<30}".ljust(CARD) for text in _MINIMAL]
    stream = io.BytesIO(b"".join((pad_header(primary), pad_header(cards), heap.tobytes(), bytes(-len(heap) % BLOCK))))
    try:
        with warnings.catch_warnings():
            # astropy warns of what other writers do differently; wrong pixels it raises, or they are judged later
            warnings.simplefilter("ignore")
            with fits.open(
                stream, memmap=False, lazy_load_hdus=False, do_not_scale_image_data=_holds_physical(info)
            ) as hdus:
                pixels = np.asarray(hdus[1].data).reshape(shape)
                return pixels.view(np.uint16) if _holds_physical(info) else pixels
    except Exception as error:
        message = f"{path}: HDU {info.index} cannot be decompressed: {type(error).__name__}: {error}"
        raise Rejected(message, remedy="transfer the file again") from error


def _holds_physical(info: HduInfo) -> bool:
    """Tell whether tiles hold unsigned values as they are: cfitsio's PLIO of uint16; astropy adds BZERO again."""
    algorithm, zero = card_value(info.header, "ZCMPTYPE"), card_value(info.header, "BZERO")
    return algorithm == "PLIO_1" and info.bitpix == 16 and zero == 1 << 15


def _check_tiles(path: Path, info: HduInfo) -> None:
    """Compare the tiles with the rows of the table before a codec sees them."""
    count = 1
    for axis, length in enumerate(info.shape[::-1], start=1):
        tile = card_value(info.header, f"ZTILE{axis}")
        tile = (length if axis == 1 else 1) if tile is None else tile
        if not isinstance(tile, int) or isinstance(tile, bool) or tile < 1:
            message = f"{path}: ZTILE{axis} of HDU {info.index} is {tile!r}"
            raise Rejected(message, remedy="the header is malformed")
        count *= -(-length // tile)
    rows = card_value(info.header, "NAXIS2")
    if rows != count:
        message = f"{path}: HDU {info.index} has {rows} rows for {count} tiles"
        raise Rejected(message, remedy="transfer the file again")


def image_header(info: HduInfo, primary: HduInfo) -> fits.Header:
    """Return the header of an image with what it inherits of the primary one, without what describes the file."""
    cards = [card for card in info.header.cards if not is_structural(card.keyword)]
    if info.index != primary.index:
        present = {card.keyword for card in cards}
        cards += [
            card
            for card in primary.header.cards
            if not is_structural(card.keyword)
            and (card.keyword in ("COMMENT", "HISTORY") or card.keyword not in present)
        ]
    while cards and cards[-1].is_blank:
        cards.pop()
    return fits.Header(cards, copy=True)


def _image(plan: DetectorPlan, canvas: Canvas, frame: _Frame, primary: HduInfo, camera: Camera) -> Image:
    info = plan.parts[0][0]
    seconds = keyword_number((info, primary), camera.header.exposure_time, least=0) or 0.0
    note = "; ".join(canvas.notes)
    return Image(
        data=frame.data,
        variance=np.zeros(frame.data.shape, np.float32),
        mask=frame.mask,
        header=image_header(info, primary),
        detector=plan.name,
        amplifiers=canvas.amplifiers,
        exposure_time_s=seconds * camera.header.exposure_time_unit_s,
        history=(StepRecord(step="read", version="1", note=note),) if note else (),
    )
