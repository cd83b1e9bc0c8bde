"""Which frame each image of each file is.

Within a file the images of one source are frames one after the other. Between files the frame keyword counts, else the
start, else the name. Pure: nothing here opens a file.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from nightglass.cubes.geometry import Picture
from nightglass.fitsio.cards import Scalar

__all__ = ["MAX_FRAME", "Found", "Unit", "frame_number", "natural_key", "number_frames"]

MAX_FRAME: Final = 2**31 - 1
"""Largest number of a frame: column FRAME holds 32 bits."""
_DIGITS: Final = re.compile(r"(\d+)")
_SPARSE: Final = 16
"""So many versions may be absent in a file, and more where it holds many; beyond that EXTVER does not count frames."""


@dataclass(slots=True)
class Found:
    """One image of a file.

    Attributes
    ----------
    version : int or None
        EXTVER, if its header has one.
    number : int or None
        Frame keyword of its own header.
    offset : int
        Its first frame, counted within the file; found here.
    """

    hdu: int
    source: str
    picture: Picture
    version: int | None = None
    number: int | None = None
    offset: int = 0


@dataclass(slots=True)
class Unit:
    """The images of one file.

    Attributes
    ----------
    file : int
        Its place among all files, which are in the order of their names.
    number : int or None
        Frame keyword of the file, or the number in its name.
    start : datetime or None
        Of its exposure.
    """

    file: int
    images: list[Found]
    number: int | None = None
    start: datetime | None = None
    span: int = 1
    _sources: frozenset[str] = field(default=frozenset())

    @property
    def sources(self) -> frozenset[str]:
        """The names of its sources."""
        if not self._sources:
            self._sources = frozenset(image.source for image in self.images)
        return self._sources


def natural_key(name: str) -> tuple[str | int, ...]:
    """Return a key that sorts ``a10`` after ``a9``."""
    # split gives text and digits in turn, so that equal places compare equal types
    return tuple(
        int(part) if place % 2 and len(part) < 20 else part.ljust(20) for place, part in enumerate(_DIGITS.split(name))
    )


def frame_number(value: Scalar) -> int | None:
    """Return the value of a frame keyword, None if it is no number of a frame."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        number = int(text) if text.isdecimal() and len(text) < 20 else -1
    else:
        number = int(value) if math.isfinite(value) and value == int(value) else -1
    return number if 0 <= number <= MAX_FRAME else None


def number_frames(units: Sequence[Unit]) -> list[tuple[Unit, Found, int]]:
    """Give every image the number of its (first) frame; in the order of files and HDUs.

    Returns
    -------
    list of (Unit, Found, int)
        Numbers go on where an image has several planes. The same source and frame may occur twice, if frame keywords
        say so.
    """
    for unit in units:
        if len(unit.images) > 1 or unit.images[0].picture.planes > 1:
            _place(unit)
    if all(_is_numbered(unit) for unit in units):
        return [(unit, image, _own(unit, image)) for unit in units for image in unit.images]
    base: dict[int, int] = {}
    first = 0
    for group in _groups(units):
        for unit in group:
            base[unit.file] = first
        first += max(unit.span for unit in group)
    return [(unit, image, base[unit.file] + image.offset) for unit in units for image in unit.images]


def _place(unit: Unit) -> None:
    """Set the offsets of the images within their file, and how many frames it spans."""
    by_source: dict[str, list[Found]] = {}
    for image in unit.images:
        by_source.setdefault(image.source, []).append(image)
    versioned = [images for images in by_source.values() if len(images) > 1 and _has_versions(images)]
    base = min((image.version or 0 for images in versioned for image in images), default=0)
    for images in by_source.values():
        offset = 0
        by_version = any(images is others for others in versioned)
        for image in images:
            image.offset = (image.version or 0) - base if by_version else offset
            offset += image.picture.planes
    unit.span = max((image.offset + image.picture.planes for image in unit.images), default=1)


def _has_versions(images: Sequence[Found]) -> bool:
    """Tell whether EXTVER numbers the frames of a source: each once, and not far apart."""
    versions = [image.version for image in images if image.version is not None and image.picture.planes == 1]
    if len(set(versions)) < len(images):
        return False
    return max(versions) - min(versions) < 4 * len(images) + _SPARSE


def _own(unit: Unit, image: Found) -> int:
    number = image.number if image.number is not None else unit.number
    return image.offset if number is None else number


def _is_numbered(unit: Unit) -> bool:
    """Tell whether keywords say of each image of a file which frame it is."""
    several = len(unit.images) > len(unit.sources)
    for image in unit.images:
        if image.picture.planes > 1 or (image.number is None and (several or unit.number is None)):
            return False
    return not several or len({(image.source, image.number) for image in unit.images}) == len(unit.images)


def _groups(units: Sequence[Unit]) -> Iterable[list[Unit]]:
    """Return the files that begin with the same frame, in order."""
    # the files come in the order of their names, and equal keys leave that order as it is
    numbers = [unit.number for unit in units if unit.number is not None]
    if len(numbers) == len(units):
        return _equal([units[place] for place in sorted(range(len(units)), key=numbers.__getitem__)])
    starts = [unit.start for unit in units if unit.start is not None]
    timed = len(starts) == len(units)
    ordered = [units[place] for place in sorted(range(len(units)), key=starts.__getitem__)] if timed else list(units)
    counts = Counter(source for unit in units for source in unit.sources)
    if len(set(counts.values())) <= 1 or not timed:
        return _turns(ordered)
    return _rounds(ordered)


def _equal(units: Iterable[Unit]) -> list[list[Unit]]:
    groups: dict[int | None, list[Unit]] = {}
    for unit in units:
        groups.setdefault(unit.number, []).append(unit)
    return list(groups.values())


def _turns(units: Iterable[Unit]) -> list[list[Unit]]:
    """Put the n-th files of every source together."""
    groups: list[list[Unit]] = []
    done: Counter[str] = Counter()
    for unit in units:
        turn = max(done[source] for source in unit.sources)
        for source in unit.sources:
            done[source] = turn + 1
        if turn == len(groups):
            groups.append([])
        groups[turn].append(unit)
    return groups


def _rounds(units: Iterable[Unit]) -> list[list[Unit]]:
    """Begin a new frame when a source comes again: where a file is missing, the others stay together."""
    groups: list[list[Unit]] = []
    here: set[str] = set()
    for unit in units:
        if not groups or here & unit.sources:
            groups.append([])
            here = set()
        here |= unit.sources
        groups[-1].append(unit)
    return groups
