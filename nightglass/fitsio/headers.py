"""The walk over the headers of a file: what is in it and where, without pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from astropy.io import fits

from nightglass.config import Limits
from nightglass.errors import Rejected, Retryable
from nightglass.fitsio.cards import BLOCK, CARD, Scalar, repair_cards
from nightglass.fitsio.checksums import sum_bytes
from nightglass.fitsio.sources import ByteSource, open_source

__all__ = ["HduInfo", "card_value", "growing", "next_header", "scan_headers", "stream_limit"]

_BITPIX: Final = frozenset({8, 16, 32, 64, -32, -64})
_MAX_AXES: Final = 999
_HEADER_MIB: Final = 64
"""Room for headers in an expanded gzip stream, in addition to the pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HduInfo:
    """One HDU, as its header tells.

    Attributes
    ----------
    ver : int
        EXTVER, 1 where there is none.
    header : Header
        Cards made to conform; structural ones included.
    header_offset, data_offset, data_size, padded_size : int
        Bytes in the uncompressed file; `data_size` without and `padded_size` with the fill of the last block.
    is_image : bool
        Whether it holds an image with at least one pixel, tile-compressed or not.
    shape : tuple of int
        Of the (uncompressed) image, slowest axis first; empty for tables and empty primary HDUs.
    bitpix : int
        Of the (uncompressed) image.
    repaired : int
        How many cards had to be repaired.
    header_sum : int
        Ones'-complement sum of the header as it stands in the file.
    """

    index: int
    name: str
    ver: int
    header: fits.Header
    header_offset: int
    data_offset: int
    data_size: int
    padded_size: int
    is_image: bool
    is_compressed_image: bool
    shape: tuple[int, ...]
    bitpix: int
    repaired: int = 0
    header_sum: int = 0

    @property
    def end(self) -> int:
        """Where the next HDU begins."""
        return self.data_offset + self.padded_size


def stream_limit(limits: Limits) -> int:
    """Return how many bytes a gzip stream may expand to."""
    return (limits.image_mib + _HEADER_MIB) << 20


def scan_headers(path: Path, limits: Limits) -> tuple[HduInfo, ...]:
    """Walk over the headers of a file, plain or gzip.

    Raises
    ------
    Rejected
        If it is not FITS, or malformed, or beyond the limits.
    Retryable
        If it is shorter than its headers say.
    """
    found: list[HduInfo] = []
    with open_source(path, limit=stream_limit(limits)) as source:
        while (info := next_header(source, len(found), limits)) is not None:
            found.append(info)
            skipped = source.skip(info.padded_size)
            if skipped < info.data_size:
                raise growing(path, source, info.data_offset + info.padded_size)
    return tuple(found)


def growing(path: Path, source: ByteSource, wanted: int) -> Retryable:
    """Make the error that says how far a file has come."""
    have = (
        f"{source.position} of {wanted} uncompressed bytes"
        if source.compressed
        else f"{source.raw_size} of {wanted} bytes"
    )
    message = f"{path}: still growing, {have}"
    return Retryable(message, remedy="it is tried again when the file changes")


def next_header(source: ByteSource, index: int, limits: Limits) -> HduInfo | None:
    """Read the header at which the source stands; None if there is no further HDU.

    Raises
    ------
    Rejected, Retryable
        As `scan_headers`.
    """
    offset = source.position
    block = source.read(BLOCK)
    if index and not _begins_extension(block):
        return None
    if not index:
        _check_magic(source, block)
    if index >= limits.hdus:
        message = f"{source.path} has more than {limits.hdus} HDUs"
        raise Rejected(message, remedy="raise limits.hdus if such files are wanted")
    text = b"".join(_header_blocks(source, block, index, limits))
    cards, repaired = repair_cards(text)
    header = fits.Header.fromstring("".join(cards) + "END".ljust(CARD))
    info = _describe(source, header, index=index, offset=offset)
    return replace(info, repaired=repaired, header_sum=sum_bytes(text))


def _begins_extension(block: bytes) -> bool:
    """Tell whether a block, perhaps cut, begins an extension; all else after the last HDU is padding."""
    return bool(block) and (block[:9] == b"XTENSION="[: len(block)])


def _check_magic(source: ByteSource, block: bytes) -> None:
    path = source.path
    if not block:
        message = f"{path} is empty"
        raise Retryable(message, remedy="it is tried again when the file changes")
    if block[:6] == b"SIMPLE"[: len(block)]:
        return
    if not block.strip(b"\0"):
        message = f"{path}: still growing, it begins with zeros"
        raise Retryable(message, remedy="it is tried again when the file changes")
    message = f"{path} is not FITS: it begins with {block[:16]!r}, not with SIMPLE"
    raise Rejected(message, remedy="it is tried again when the file changes")


def _header_blocks(source: ByteSource, block: bytes, index: int, limits: Limits) -> Iterator[bytes]:
    for _ in range(limits.header_blocks):
        if len(block) < BLOCK:
            message = f"{source.path}: still growing, it ends at {source.position} in the header of HDU {index}"
            raise Retryable(message, remedy="it is tried again when the file changes")
        if not block.strip(b"\0"):
            message = f"{source.path}: still growing, the header of HDU {index} goes on with zeros"
            raise Retryable(message, remedy="it is tried again when the file changes")
        yield block
        if _has_end(block):
            return
        block = source.read(BLOCK)
    message = f"{source.path}: the header of HDU {index} has no END within {limits.header_blocks} blocks"
    raise Rejected(message, remedy="raise limits.header_blocks if such headers are wanted")


def _has_end(block: bytes) -> bool:
    if b"END" not in block:
        return False
    cards = (block[start : start + 9] for start in range(0, BLOCK, CARD))
    return any(card[:8].rstrip(b" \0") == b"END" and card[8:] != b"=" for card in cards)


def card_value(header: fits.Header, keyword: str) -> Scalar:
    """Return the value of a keyword, None if it is absent or undefined; numbers that are no number as text."""
    value = header.get(keyword)
    if isinstance(value, (str, bool, int, float)):
        return value
    return None if value is None or isinstance(value, fits.card.Undefined) else str(value)


def _integer(path: Path, header: fits.Header, keyword: str, index: int, default: int | None = None) -> int:
    value = card_value(header, keyword)
    if value is None and default is not None:
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        message = f"{path}: {keyword} of HDU {index} is {value!r}, not an integer"
        raise Rejected(message, remedy="the header is malformed")
    return value


def _axes(path: Path, header: fits.Header, index: int, prefix: str = "") -> tuple[int, ...]:
    """Return the lengths of the axes, fastest first."""
    count = _integer(path, header, f"{prefix}NAXIS", index)
    if not 0 <= count <= _MAX_AXES:
        message = f"{path}: {prefix}NAXIS of HDU {index} is {count}"
        raise Rejected(message, remedy="the header is malformed")
    axes = tuple(_integer(path, header, f"{prefix}NAXIS{axis}", index) for axis in range(1, count + 1))
    if any(length < 0 for length in axes):
        message = f"{path}: HDU {index} has axes of negative length: {axes}"
        raise Rejected(message, remedy="the header is malformed")
    return axes


def _describe(source: ByteSource, header: fits.Header, *, index: int, offset: int) -> HduInfo:
    path = source.path
    bitpix = _bitpix(path, header, "BITPIX", index)
    axes = _axes(path, header, index)
    parameters = _integer(path, header, "PCOUNT", index, 0)
    groups = _integer(path, header, "GCOUNT", index, 1)
    if parameters < 0 or groups < 0:
        message = f"{path}: PCOUNT or GCOUNT of HDU {index} is negative"
        raise Rejected(message, remedy="the header is malformed")
    random_groups = index == 0 and bool(axes) and axes[0] == 0 and card_value(header, "GROUPS") is True
    if random_groups:
        size = abs(bitpix) // 8 * groups * (parameters + math.prod(axes[1:]))
    elif not axes:
        size = 0
    elif index == 0:
        size = abs(bitpix) // 8 * math.prod(axes)
    else:
        size = abs(bitpix) // 8 * groups * (parameters + math.prod(axes))
    kind = "" if index == 0 else str(card_value(header, "XTENSION") or "").strip().upper()
    compressed = kind in ("BINTABLE", "A3DTABLE") and card_value(header, "ZIMAGE") is True
    if compressed:
        axes, bitpix = _axes(path, header, index, "Z"), _bitpix(path, header, "ZBITPIX", index)
    holds_image = compressed or (kind in ("", "IMAGE", "IUEIMAGE") and not random_groups)
    shape = axes[::-1] if holds_image else ()
    if shape and not compressed and size != abs(bitpix) // 8 * math.prod(shape):
        message = f"{path}: image HDU {index} has PCOUNT {parameters} and GCOUNT {groups}"
        raise Rejected(message, remedy="the header is malformed")
    ver = card_value(header, "EXTVER")
    return HduInfo(
        index=index,
        name=str(card_value(header, "EXTNAME") or "").strip(),
        ver=ver if isinstance(ver, int) else 1,
        header=header,
        header_offset=offset,
        data_offset=source.position,
        data_size=size,
        padded_size=-(-size // BLOCK) * BLOCK,
        is_image=bool(shape) and math.prod(shape) > 0,
        is_compressed_image=compressed,
        shape=shape,
        bitpix=bitpix,
    )


def _bitpix(path: Path, header: fits.Header, keyword: str, index: int) -> int:
    bitpix = _integer(path, header, keyword, index)
    if bitpix not in _BITPIX:
        message = f"{path}: {keyword} of HDU {index} is {bitpix}"
        raise Rejected(message, remedy="8, 16, 32, 64, -32 and -64 are known")
    return bitpix
