"""One frame as one FITS file: the HDUs of the spool copied byte by byte, checksummed, or compressed on the way.

Nothing is decoded unless it is compressed, and a clock is in no header: the same frame always gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Final

from astropy.io import fits
from numpy.typing import NDArray

from nightglass.builder.cards import HeaderRules, kept_header
from nightglass.builder.headertext import read_header
from nightglass.builder.records import ExtensionRecord
from nightglass.builder.refusals import Exists
from nightglass.builder.tiles import Part, Piece, ReadyHdu, in_order, plan_squeeze
from nightglass.config import Limits
from nightglass.cubes.placing import header_cards, primary_cards
from nightglass.cubes.publishing import publishing
from nightglass.cubes.records import CubeRequest
from nightglass.cubes.sums import rotated, sum_block
from nightglass.errors import Rejected, Retryable
from nightglass.fitsio import HduInfo, content_id, scan_headers
from nightglass.fitsio.cards import BLOCK
from nightglass.fitsio.checksums import add_sums
from nightglass.fitsio.filling import append
from nightglass.fitsio.product_cards import CardValue, make_cards, raw_cards
from nightglass.fitsio.sealing import seal, sealed_size
from nightglass.fitsio.structure import is_structural

__all__ = ["append_extension", "extension_header", "write_arrays", "write_frame"]

_PIECE: Final = 1 << 19
_NOT_COPIED: Final = frozenset(
    {
        *("SIMPLE", "XTENSION", "EXTEND", "BLOCKED", "GROUPS", "NEXTEND", "LONGSTRN", "INHERIT", "END"),
        *("CHECKSUM", "DATASUM", "CHECKVER", "ZHECKSUM", "ZDATASUM", "EXTNAME", "EXTVER", "EXTLEVEL"),
    }
)
"""Structural keywords that do not come along with a table."""
_SCALING: Final = ("BSCALE", "BZERO", "BLANK")


@dataclass(frozen=True, slots=True)
class _Ready:
    """An extension whose header and size are known."""

    cards: tuple[str, ...]
    source: ExtensionRecord | ReadyHdu


def write_frame(
    extensions: Sequence[ExtensionRecord],
    primary: fits.Header,
    path: Path,
    *,
    rules: HeaderRules | None = None,
    compress: bool = False,
    replace: Sequence[Path] = (),
    overwrite: bool = False,
    durable: bool = False,
    limits: Limits | None = None,
    threads: int | None = None,
) -> Path:
    """Write one multi-extension FITS file, which appears under its name whole, or not at all.

    Parameters
    ----------
    primary : Header
        As `nightglass.builder.cards.compose_primary` gives it.
    compress : bool
        Integers by RICE_1, floats by GZIP_2; without loss. What is compressed already is copied.
    replace : sequence of Path
        Earlier files of this frame, which may be replaced.
    threads : int, optional
        That compress; as many as there are processors.

    Raises
    ------
    Exists
        If another file has that name and is not to be overwritten; one with the same bytes is left as it is.
    Rejected
        If an extension in the spool is damaged.
    Retryable
        If the file system refuses.
    """
    rules, limits = rules or HeaderRules(), limits or Limits()
    ready = _ready(extensions, rules, limits, compress=compress, threads=threads)
    replaces = overwrite or any(item.absolute() == path.absolute() for item in replace)
    return _publish(primary, ready, path, overwrite=replaces, durable=durable)


def append_extension(path: Path, record: ExtensionRecord, *, limits: Limits) -> None:
    """Append an HDU as it is, checksummed, to a file that has not got its final name yet.

    Raises
    ------
    Rejected
        If it is damaged.
    Retryable
        If the file system refuses.
    """
    info, header = extension_header(record, HeaderRules(all_fields=True), limits)
    try:
        with path.open("r+b", buffering=0) as stream:
            stream.seek(0, os.SEEK_END)
            _write_extension(stream, _Ready(_cards(record.name, info, header, None), record))
            os.fsync(stream.fileno())
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror or error}"
        raise Retryable(message, remedy="make room on the disk") from error


def write_arrays(
    images: Iterable[tuple[str, NDArray[Any], fits.Header]],
    primary: fits.Header,
    path: Path,
    *,
    overwrite: bool = False,
    durable: bool = False,
) -> Path:
    """Write images that are in memory, each with its EXTNAME and header, as `write_frame` does.

    Parameters
    ----------
    images : iterable of (str, ndarray, Header)
        Stored numbers (BSCALE and BZERO of the header apply), one array in memory at a time.

    Raises
    ------
    Rejected, Retryable
        As `write_frame`.
    """
    return _publish(primary, (_of_array(*image) for image in images), path, overwrite=overwrite, durable=durable)


def _of_array(name: str, pixels: NDArray[Any], header: fits.Header) -> _Ready:
    stored = pixels.astype(pixels.dtype.newbyteorder(">"), copy=False)
    bitpix = (-1 if stored.dtype.kind == "f" else 1) * 8 * stored.dtype.itemsize
    layout: dict[str, CardValue] = {"XTENSION": ("IMAGE", "image extension"), "BITPIX": bitpix, "NAXIS": stored.ndim}
    layout |= {f"NAXIS{axis}": length for axis, length in enumerate(reversed(stored.shape), start=1)}
    layout |= {"PCOUNT": 0, "GCOUNT": 1} | _scaling(header)
    return _Ready(_all_cards(name, header, layout), ReadyHdu(layout, (Piece.of(stored.tobytes()),)))


def _publish(primary: fits.Header, ready: Iterable[_Ready], path: Path, *, overwrite: bool, durable: bool) -> Path:
    path = path.absolute()
    with publishing(CubeRequest(paths=(), out=path, overwrite=True, durable=durable)) as part:
        with part.open("r+b", buffering=0) as stream:
            append(stream, seal(primary_cards(primary), 0))
            for item in ready:
                _write_extension(stream, item)
            if durable:
                os.fsync(stream.fileno())
        if not overwrite and os.path.lexists(path):
            _refuse_other(path, part)
    return path


def extension_header(record: ExtensionRecord, rules: HeaderRules, limits: Limits) -> tuple[HduInfo, fits.Header]:
    """Return what an HDU of the spool is, and its header with the cards that came beside it, less what is left out.

    Raises
    ------
    Rejected, Retryable
        If it is damaged or gone.
    """
    infos = scan_headers(record.path, limits)
    if record.hdu >= len(infos):
        message = f"{record.path} has no HDU {record.hdu}"
        raise Rejected(message, remedy="push the extension again")
    info = infos[record.hdu]
    return info, kept_header(read_header(record), rules)


def _refuse_other(path: Path, part: Path) -> None:
    """Refuse to replace a file of other contents; the same again is no harm."""
    if path.is_file() and path.stat().st_size == part.stat().st_size and content_id(path) == content_id(part):
        return
    message = f"{path} is there already"
    raise Exists(message, remedy="ask for it to be overwritten, or give it another name by add_on")


def _ready(
    extensions: Sequence[ExtensionRecord],
    rules: HeaderRules,
    limits: Limits,
    *,
    compress: bool,
    threads: int | None,
) -> Iterator[_Ready]:
    found = [(record, *extension_header(record, rules, limits)) for record in extensions]
    if not compress:
        for record, info, header in found:
            yield _Ready(_cards(record.name, info, header, None), record)
        return
    plans = [
        plan_squeeze(record.path, record.hdu, info.shape, limits)
        if info.is_image and not info.is_compressed_image
        else None
        for record, info, _ in found
    ]
    parts = in_order(_call, [job for plan in plans if plan is not None for job in plan.jobs], threads=threads)
    for (record, info, header), plan in zip(found, plans, strict=True):
        made = None if plan is None else plan.finish([next(parts) for _ in plan.jobs])
        yield _Ready(_cards(record.name, info, header, made), made or record)


def _call(job: Callable[[], Part]) -> Part:
    return job()


def _cards(name: str, info: HduInfo, header: fits.Header, made: ReadyHdu | None) -> tuple[str, ...]:
    """Return the cards of an extension, without checksums."""
    if made is not None:
        layout: list[str] = make_cards(made.cards)
        ours: dict[str, CardValue] = dict(made.cards)
    elif info.shape and not info.is_compressed_image:
        ours = _image_layout(info)
        layout = make_cards(ours)
    elif not info.data_size and not _is_table(info):
        ours = {"XTENSION": ("IMAGE", "image extension"), "BITPIX": 8, "NAXIS": 0, "PCOUNT": 0, "GCOUNT": 1}
        layout = make_cards(ours)
    else:
        layout, ours = _table_layout(info.header), {}
    return _all_cards(name, header, ours, layout)


def _all_cards(
    name: str, header: fits.Header, ours: Mapping[str, CardValue], layout: Sequence[str] = ()
) -> tuple[str, ...]:
    named: dict[str, CardValue] = {"EXTNAME": (name, "source")}
    unit = header.get("BUNIT")
    if isinstance(unit, str) and unit.strip():
        named["BUNIT"] = unit.strip()
    return (*(layout or make_cards(ours)), *make_cards(named), *raw_cards(header, {**ours, **named}))


def _is_table(info: HduInfo) -> bool:
    return str(info.header.get("XTENSION", "")).strip().upper() in ("BINTABLE", "TABLE", "A3DTABLE")


def _image_layout(info: HduInfo) -> dict[str, CardValue]:
    cards: dict[str, CardValue] = {
        "XTENSION": ("IMAGE", "image extension"),
        "BITPIX": info.bitpix,
        "NAXIS": len(info.shape),
    }
    cards |= {f"NAXIS{axis}": length for axis, length in enumerate(reversed(info.shape), start=1)}
    cards |= {"PCOUNT": 0, "GCOUNT": 1}
    return cards | _scaling(info.header)


def _scaling(header: fits.Header) -> dict[str, CardValue]:
    return {keyword: header[keyword] for keyword in _SCALING if _is_number(header.get(keyword))}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _table_layout(header: fits.Header) -> list[str]:
    """Return the structural cards of a table, compressed image or not, as they are."""
    kept = [card for card in header.cards if is_structural(card.keyword) and card.keyword not in _NOT_COPIED]
    first = make_cards({"XTENSION": (str(header["XTENSION"]).strip(), "extension")})
    return [*first, *header_cards(fits.Header(kept))]


def _write_extension(stream: FileIO, ready: _Ready) -> None:
    """Write data first, for the header tells their sum."""
    start = stream.tell()
    stream.seek(start + sealed_size(ready.cards))
    if isinstance(ready.source, ReadyHdu):
        total = size = 0
        for piece in ready.source.pieces:
            append(stream, piece.data)
            total = add_sums(total, rotated(piece.total, size))
            size += len(piece.data)
    else:
        total, size = _copy_data(stream, ready.source)
    append(stream, bytes(-size % BLOCK))
    end = stream.tell()
    stream.seek(start)
    append(stream, seal(ready.cards, total))
    stream.seek(end)


def _copy_data(stream: FileIO, record: ExtensionRecord) -> tuple[int, int]:
    """Copy the data of an HDU of the spool; return their sum and size."""
    buffer = memoryview(bytearray(min(_PIECE, max(record.data_size, 1))))
    done = total = 0
    with _opened(record.path) as source:
        while done < record.data_size:
            room = buffer[: min(len(buffer), record.data_size - done)]
            got = os.preadv(source, [room], record.data_offset + done)
            if not got:
                message = f"{record.path} ends {record.data_size - done} bytes too early"
                raise Rejected(message, remedy="push the extension again")
            total = add_sums(total, rotated(sum_block(room[:got]), done))
            append(stream, room[:got])
            done += got
    return total, done


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise Retryable(message, remedy="check that it is still there and readable") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
