"""A cube that a person asks for, from the words of a command line or a form to a request."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nightglass.cubes.records import Compression, CubeRequest, Keywords
from nightglass.errors import Misconfigured

if TYPE_CHECKING:
    from nightglass.config import Camera

__all__ = ["cube_request", "extra_cards", "find_frames", "frame_range", "time_range"]

_KEYWORD = re.compile(r"[A-Z0-9_-]{1,8}")
_RANGE = re.compile(r"(\d*):(\d*)|(\d+)")
_RESERVED = frozenset({"SIMPLE", "BITPIX", "NAXIS", "EXTEND", "EXTNAME", "END", "CHECKSUM", "DATASUM", "FRAMES"})
_WILD = re.compile(r"[*?[]")
_SUFFIXES = (".fits", ".fit", ".fts", ".fz", ".gz")

Card = str | int | float | bool


def cube_request(
    frames: Sequence[str | Path],
    out: Path,
    *,
    camera: Camera | None = None,
    role: str = "",
    compress: str = "",
    quantize: float = 0.0,
    extra: Iterable[str] = (),
    keep_cards: bool = True,
    mode: Literal["shared", "gather"] = "shared",
    overwrite: bool = False,
) -> CubeRequest:
    """Return the request for a cube of these frames.

    Parameters
    ----------
    frames : sequence of str or Path
        Files, shell patterns, or directories, of which the FITS files are meant.
    role : str
        Empty: that of the camera, or ``science``.
    compress : str
        Empty, ``rice`` or ``gzip``.
    extra : iterable of str
        ``KEY=VALUE`` for the primary header.

    Raises
    ------
    Misconfigured
        If no frame is there, or a word does not fit.
    """
    if compress not in ("", "rice", "gzip"):
        message = f"cubes are not compressed by {compress!r}"
        raise Misconfigured(message, remedy="choices: rice, gzip; or leave it out")
    algorithm: Literal["rice", "gzip"] = "gzip" if compress == "gzip" else "rice"
    rules = camera.archive if camera is not None else None
    request = CubeRequest(
        paths=find_frames(frames),
        out=out,
        role=role or (camera.role if camera is not None else "science"),
        camera=camera.name if camera is not None else "",
        compression=Compression(algorithm=algorithm, quantize=quantize) if compress else None,
        keywords=Keywords(rules.primary, rules.secondary, rules.metadata) if rules is not None else Keywords(),
        extra=extra_cards(extra),
        keep_cards=keep_cards,
        mode=mode,
        overwrite=overwrite,
    )
    if out in request.paths:
        message = f"{out} is one of the frames"
        raise Misconfigured(message, remedy="give the cube a name of its own")
    return request


def find_frames(words: Sequence[str | Path]) -> tuple[Path, ...]:
    """Return the files that words mean, each once, in the order of the words; patterns and directories sorted.

    Raises
    ------
    Misconfigured
        If a word means no file.
    """
    found: dict[Path, None] = {}
    for word in words:
        path = Path(word).expanduser().absolute()
        if path.is_dir():
            files = [item for item in sorted(path.iterdir()) if item.name.lower().endswith(_SUFFIXES)]
        elif not path.exists() and _WILD.search(str(word)):
            files = [Path(item) for item in sorted(glob.glob(str(path)))]  # noqa: PTH207 - the pattern is absolute
        else:
            files = [path] if path.exists() else []
        if not files:
            message = f"there is no frame {word}"
            raise Misconfigured(message, remedy="give FITS files, a pattern that fits some, or a directory of them")
        found.update(dict.fromkeys(item for item in files if item.is_file()))
    if not found:
        message = "a cube needs at least one frame"
        raise Misconfigured(message, remedy="give FITS files, patterns or directories")
    return tuple(found)


def extra_cards(words: Iterable[str]) -> dict[str, Card]:
    """Return cards of ``KEY=VALUE``: numbers and T or F are what they look like, anything else is text.

    Raises
    ------
    Misconfigured
        If one is of another form, or the keyword is the writer's own.
    """
    cards: dict[str, Card] = {}
    for word in words:
        keyword, found, value = word.partition("=")
        keyword = keyword.strip().upper()
        if not found or not _KEYWORD.fullmatch(keyword) or keyword in _RESERVED:
            message = f"{word!r} is no card for the primary header"
            raise Misconfigured(message, remedy="write KEY=VALUE, with a keyword of at most 8 letters, digits, - or _")
        cards[keyword] = _value(value.strip())
    return cards


def frame_range(text: str) -> slice | None:
    """Return frames of ``3:9`` (without 9), ``3:``, ``:9`` or ``3``; None for an empty text.

    Raises
    ------
    Misconfigured
        If it is of another form.
    """
    if not text.strip():
        return None
    found = _RANGE.fullmatch(text.strip())
    if found is None:
        message = f"{text!r} is no range of frames"
        raise Misconfigured(message, remedy="write 3:9 for frames 3 to 8, or 3 for one")
    if found[3] is not None:
        return slice(int(found[3]), int(found[3]) + 1)
    return slice(*(int(number) if number else None for number in (found[1], found[2])))


def time_range(text: str) -> tuple[datetime | None, datetime | None]:
    """Return start and end of ``A..B``, ISO times of which one may be empty; without an offset they are UTC.

    Raises
    ------
    Misconfigured
        If it is of another form.
    """
    if not text.strip():
        return None, None
    start, found, end = text.strip().partition("..")
    try:
        if not found or not (start or end):
            raise ValueError(text)
        return _moment(start), _moment(end)
    except ValueError:
        message = f"{text!r} is no range of times"
        raise Misconfigured(message, remedy="write 2026-08-22T03:00:00..2026-08-22T03:05:00") from None


def _moment(text: str) -> datetime | None:
    if not text.strip():
        return None
    moment = datetime.fromisoformat(text.strip())
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _value(text: str) -> Card:
    if text in ("T", "F"):
        return text == "T"
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text.removeprefix("'").removesuffix("'")
