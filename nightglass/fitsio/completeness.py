"""Is a file whole? Its headers, its size, its tail and its checksums tell; silence alone does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nightglass.config import Camera, Limits
from nightglass.errors import Rejected, Retryable
from nightglass.fitsio.checksums import add_sums, sum_bytes
from nightglass.fitsio.detectors import expected_hdus
from nightglass.fitsio.headers import HduInfo, card_value, growing, next_header, stream_limit
from nightglass.fitsio.sources import ByteSource, open_source

__all__ = ["QUIET_S", "Completeness", "Inspection", "check_complete", "inspect"]

QUIET_S = 10.0
"""A file that did not change for this long is no longer being written: doubts are then decided, not retried."""
_TAIL = 512
"""Bytes at the end of the data that are not all zeros in a written image; files are filled in larger pieces."""
_ALL_ONES = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """What is known of a file that is whole.

    Attributes
    ----------
    size : int
        Bytes on disk.
    headers : tuple of HduInfo
        One for each HDU.
    checksums : int
        How many HDUs were proven by a checksum.
    notes : tuple of str
        Oddities that do no harm.
    """

    size: int
    headers: tuple[HduInfo, ...]
    checksums: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A whole file: size in bytes, hash of its bytes, its headers, and oddities that do no harm."""

    size: int
    content_id: str
    headers: tuple[HduInfo, ...]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Doubts:
    """Collects what decides differently in a file that may still be written."""

    path: Path
    quiet: bool
    notes: list[str]

    def doubt(self, what: str) -> None:
        """Retry while the file is young, go on with a note when it is not."""
        if not self.quiet:
            message = f"{self.path}: perhaps still growing, {what}"
            raise Retryable(message, remedy=f"accepted when it has not changed for {QUIET_S:g} s")
        self.notes.append(what)

    def wrong(self, what: str) -> Rejected | Retryable:
        """Make the error for contents that are wrong, unless they are still being written."""
        message = f"{self.path}: {what}"
        if self.quiet:
            return Rejected(message, remedy="transfer the file again")
        return Retryable(message, remedy=f"rejected when it has not changed for {QUIET_S:g} s")


_Expectation = Callable[[Sequence[HduInfo]], Sequence[str | int]]


def check_complete(
    path: Path, limits: Limits, *, expected: Sequence[str | int] = (), now: float | None = None
) -> Completeness:
    """Prove that a file is whole.

    Parameters
    ----------
    expected : sequence of str or int
        HDUs that must be there, by EXTNAME or number; instead of what NEXTEND says.
    now : float, optional
        Seconds since 1970, instead of the clock.

    Raises
    ------
    Retryable
        If it is shorter than its headers say, an expected HDU is missing, it changes, or it is young and ends in zeros.
    Rejected
        If it is malformed, beyond the limits, or a checksum is wrong.
    """
    with open_source(path, limit=stream_limit(limits)) as source:
        return _check(source, limits, lambda _: expected, now=now)


def inspect(path: Path, camera: Camera, limits: Limits, *, now: float | None = None) -> Inspection:
    """Prove that a file is whole, hash it, and return its headers, reading it once.

    Raises
    ------
    Retryable, Rejected
        As `check_complete`.
    """
    with open_source(path, limit=stream_limit(limits), hashing=True) as source:
        whole = _check(source, limits, lambda headers: expected_hdus(headers, camera), now=now)
        return Inspection(size=whole.size, content_id=source.content_id, headers=whole.headers, notes=whole.notes)


def _check(source: ByteSource, limits: Limits, expectation: _Expectation, *, now: float | None) -> Completeness:
    before = source.path.stat()
    moment = time.time() if now is None else now
    # a clock that is off (network file systems) must not keep a file waiting for ever: any distance counts
    doubts = _Doubts(path=source.path, quiet=abs(moment - before.st_mtime) > QUIET_S, notes=[])
    headers: list[HduInfo] = []
    proven = 0
    last_proven = False
    while (info := next_header(source, len(headers), limits)) is not None:
        headers.append(info)
        last_proven = _data(source, info, doubts)
        proven += last_proven
    _expected(headers, expectation(headers), doubts)
    _rest(source, headers, doubts)
    if not last_proven and not source.compressed:
        _zero_tail(source, headers[-1], doubts)
    source.drain()
    after = source.path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        message = (
            f"{source.path}: still growing, it changed while it was read ({before.st_size} to {after.st_size} bytes)"
        )
        raise Retryable(message, remedy="it is tried again when the file changes")
    return Completeness(size=after.st_size, headers=tuple(headers), checksums=proven, notes=tuple(doubts.notes))


def _data(source: ByteSource, info: HduInfo, doubts: _Doubts) -> bool:
    """Pass over the data of an HDU; tells whether a checksum proved them."""
    if not source.compressed and info.data_offset + info.data_size > source.raw_size:
        raise growing(source.path, source, info.end)  # before a slow large file is hashed at each look
    stated = _stated_sum(info)
    checksum = str(card_value(info.header, "CHECKSUM") or "").strip()
    if stated is None and not checksum:
        there = source.skip(info.padded_size)
        _long_enough(source, info, there, doubts)
        return False
    total = 0

    def add(piece: memoryview) -> None:
        nonlocal total
        total = add_sums(total, sum_bytes(piece))

    there = source.consume(info.padded_size, add)
    _long_enough(source, info, there, doubts)
    if stated is not None and stated % _ALL_ONES != total % _ALL_ONES:
        what = f"DATASUM of HDU {info.index} is {stated}, but its data sum up to {total}"
        raise doubts.wrong(what)
    if checksum and add_sums(total, info.header_sum) % _ALL_ONES:
        what = f"CHECKSUM of HDU {info.index} is wrong"
        if stated is None:
            raise doubts.wrong(what)
        doubts.notes.append(f"{what}, its DATASUM is right: the header was edited afterwards")
    return True


def _stated_sum(info: HduInfo) -> int | None:
    text = str(card_value(info.header, "DATASUM") or "").strip()
    return int(text) if text.isdecimal() else None


def _long_enough(source: ByteSource, info: HduInfo, there: int, doubts: _Doubts) -> None:
    if there < info.data_size:
        raise growing(source.path, source, info.end)
    if there < info.padded_size:
        doubts.doubt(f"HDU {info.index} ends {info.padded_size - there} bytes before the end of its block")


def _expected(headers: Sequence[HduInfo], expected: Sequence[str | int], doubts: _Doubts) -> None:
    names = {info.name.upper() for info in headers}
    missing = [
        str(item)
        for item in expected
        if (item >= len(headers) if isinstance(item, int) else item.strip().upper() not in names)
    ]
    if missing:
        message = f"{doubts.path}: still growing or cut, {len(headers)} HDUs are there, {', '.join(missing)} is not"
        raise Retryable(message, remedy="it is tried again when the file changes; else correct the camera file")
    stated = card_value(headers[0].header, "NEXTEND")
    if not expected and isinstance(stated, int) and stated > len(headers) - 1:
        message = f"{doubts.path}: still growing or cut, {len(headers) - 1} of {stated} extensions (NEXTEND) are there"
        raise Retryable(message, remedy="if NEXTEND is wrong, name the detectors in the camera file")


def _rest(source: ByteSource, headers: Sequence[HduInfo], doubts: _Doubts) -> None:
    """Look at what follows the last HDU; the walk has read at most one block of it, and found no extension there."""
    already = source.position - headers[-1].end
    if already <= 0:
        return
    zero = not source.last.strip(b"\0")

    def look(piece: memoryview) -> None:
        nonlocal zero
        zero = zero and not bytes(piece).strip(b"\0")

    count = already + source.consume(1 << 62, look)
    if zero:
        doubts.doubt(f"{count} bytes of zeros follow the last HDU")
    else:
        doubts.notes.append(f"{count} bytes after the last HDU are ignored")


def _zero_tail(source: ByteSource, last: HduInfo, doubts: _Doubts) -> None:
    """Doubt data that end in zeros: a preallocated file has its full size before its pixels are there."""
    length = min(last.data_size, _TAIL)
    if length and not source.peek(last.data_offset + last.data_size - length, length).strip(b"\0"):
        doubts.doubt(f"the last {length} bytes of its data are zeros")
