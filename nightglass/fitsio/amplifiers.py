"""From sections of camera file and header to `AmplifierView`: where pixels lie, and where they go."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nightglass.config import Camera
from nightglass.errors import Rejected
from nightglass.fitsio.detectors import DetectorPlan, checked_section, parse_section, plane_shape
from nightglass.fitsio.headers import HduInfo, card_value
from nightglass.image import AmplifierView, Slices

__all__ = ["Canvas", "Tile", "keyword_number", "lay_out"]

_ENDS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """Where the pixels of one HDU go in the canvas, and which axes are turned round on the way."""

    info: HduInfo
    place: Slices
    turn: tuple[slice, slice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """The array of one detector as it is read, overscan included.

    Attributes
    ----------
    notes : tuple of str
        Sections of the header that could not be used.
    """

    shape: tuple[int, int]
    tiles: tuple[Tile, ...]
    amplifiers: tuple[AmplifierView, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One amplifier in the pixels of its HDU, before it is turned and placed."""

    info: HduInfo
    shape: tuple[int, int]
    data: Slices
    overscan: Slices | None
    place: Slices | None
    turned: tuple[bool, bool]
    gain: float
    read_noise: float
    saturation: float


def lay_out(path: Path, plan: DetectorPlan, primary: HduInfo, camera: Camera) -> Canvas:
    """Decide how the HDUs of a detector make one array, and where its amplifiers lie in it.

    One HDU stays as it is. Several are put at their places if they hold nothing but data, and
    below one another if they have overscan, which the step ``trim`` takes off.

    Raises
    ------
    Rejected
        If a section of the camera file does not fit the frame.
    """
    notes: list[str] = []
    parts = [_part(path, plan, index, primary, camera, notes) for index in range(len(plan.parts))]
    if len(plan.hdus) == 1:
        places = [part.place for part in parts]
        if None in places:
            places = list(_closed_up([part.data for part in parts]))
        views = tuple(
            _view(part, part.data, part.overscan, place) for part, place in zip(parts, places, strict=True) if place
        )
        tile = Tile(info=parts[0].info, place=_whole(parts[0].shape), turn=_turn((False, False)))
        return Canvas(shape=parts[0].shape, tiles=(tile,), amplifiers=views, notes=tuple(notes))
    return _joined(parts, tuple(notes))


def keyword_number(headers: Sequence[HduInfo], keywords: Sequence[str], *, least: float) -> float | None:
    """Return the first finite number that is not below the least, in order of keyword, then of header."""
    for keyword in keywords:
        for info in headers:
            value = card_value(info.header, keyword)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                number = float(value)
                if math.isfinite(number) and number >= least:
                    return number
    return None


def _part(path: Path, plan: DetectorPlan, index: int, primary: HduInfo, camera: Camera, notes: list[str]) -> _Part:
    info, amplifier = plan.parts[index]
    shape = plane_shape(info)
    if shape is None:
        message = f"{path}: HDU {info.index} of detector {plan.name!r} is no two-dimensional image"
        raise Rejected(message)
    what = f"{path}: detector {plan.name!r}, amplifier {index + 1}: section"
    alone = len([other for other, _ in plan.parts if other.index == info.index]) == 1
    data = checked_section(amplifier.data, shape, what=what) if amplifier.data else None
    overscan = checked_section(amplifier.overscan, shape, what=what) if amplifier.overscan else None
    if data is None and alone:
        data = _header_section(info, ("DATASEC", "TRIMSEC"), shape, notes)
        if overscan is None and data is not None:
            overscan = _header_section(info, ("BIASSEC",), shape, notes)
    place_text = amplifier.place or (str(card_value(info.header, "DETSEC") or "") if len(plan.hdus) > 1 else "")
    headers = (info, primary)
    dialect = camera.header
    return _Part(
        info=info,
        shape=shape,
        data=data or _whole(shape),
        overscan=overscan,
        place=parse_section(place_text),
        turned=_reversed(place_text),
        gain=amplifier.gain or keyword_number(headers, dialect.gain, least=1e-6) or camera.gain,
        read_noise=_first(
            amplifier.read_noise, keyword_number(headers, dialect.read_noise, least=0), camera.read_noise
        ),
        saturation=amplifier.saturation or keyword_number(headers, dialect.saturation, least=1) or camera.saturation,
    )


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _whole(shape: tuple[int, int]) -> Slices:
    return slice(0, shape[0]), slice(0, shape[1])


def _size(section: Slices) -> tuple[int, int]:
    return section[0].stop - section[0].start, section[1].stop - section[1].start


def _header_section(info: HduInfo, keywords: Sequence[str], shape: tuple[int, int], notes: list[str]) -> Slices | None:
    for keyword in keywords:
        text = card_value(info.header, keyword)
        if not isinstance(text, str) or not text.strip():
            continue
        section = parse_section(text)
        if section is not None and section[0].stop <= shape[0] and section[1].stop <= shape[1]:
            return section
        notes.append(f"{keyword} {text.strip()} does not fit {shape[1]}x{shape[0]} pixels, not used")
    return None


def _reversed(text: str) -> tuple[bool, bool]:
    """Tell whether the rows and the columns of a section run backwards."""
    ends = [int(item) for item in _ENDS.findall(text)]
    return (ends[2] > ends[3], ends[0] > ends[1]) if len(ends) == 4 else (False, False)


def _closed_up(sections: Sequence[Slices]) -> list[Slices]:
    """Close the gaps that overscan leaves between data sections."""
    rows = _new_starts([section[0] for section in sections])
    columns = _new_starts([section[1] for section in sections])
    return [
        (_moved(section[0], rows[section[0].start]), _moved(section[1], columns[section[1].start]))
        for section in sections
    ]


def _new_starts(intervals: Sequence[slice]) -> dict[int, int]:
    starts: dict[int, int] = {}
    at = end = 0
    for start, stop in sorted({(item.start, item.stop) for item in intervals}):
        if start >= end:  # behind all before: the gap closes
            starts[start] = at
        else:
            starts.setdefault(start, at - (end - start))
        at = max(at, starts[start] + stop - start)
        end = max(end, stop)
    return starts


def _moved(item: slice, start: int) -> slice:
    return slice(start, start + item.stop - item.start)


def _view(part: _Part, data: Slices, overscan: Slices | None, place: Slices) -> AmplifierView:
    return AmplifierView(
        data=data,
        overscan=overscan,
        place=place,
        gain=part.gain,
        read_noise=part.read_noise,
        saturation=part.saturation,
    )


def _joined(parts: Sequence[_Part], notes: tuple[str, ...]) -> Canvas:
    places = _places(parts)
    if all(part.data == _whole(part.shape) for part in parts):
        tiles = tuple(
            Tile(info=part.info, place=place, turn=_turn(part.turned))
            for part, place in zip(parts, places, strict=True)
        )
        views = tuple(_view(part, place, None, place) for part, place in zip(parts, places, strict=True))
        shape = (max(place[0].stop for place in places), max(place[1].stop for place in places))
        return Canvas(shape=shape, tiles=tiles, amplifiers=views, notes=notes)
    tiles_below: list[Tile] = []
    views_below: list[AmplifierView] = []
    down = 0
    for part, place in zip(parts, places, strict=True):
        at = (slice(down, down + part.shape[0]), slice(0, part.shape[1]))
        tiles_below.append(Tile(info=part.info, place=at, turn=_turn(part.turned)))
        data = _lowered(_mirrored(part.data, part), down)
        overscan = _lowered(_mirrored(part.overscan, part), down) if part.overscan else None
        views_below.append(_view(part, data, overscan, place))
        down += part.shape[0]
    shape = (down, max(part.shape[1] for part in parts))
    return Canvas(shape=shape, tiles=tuple(tiles_below), amplifiers=tuple(views_below), notes=notes)


def _places(parts: Sequence[_Part]) -> list[Slices]:
    """Return where the data go: as stated, from the corner of what is stated, or else side by side."""
    stated = [part.place for part in parts if part.place is not None and _size(part.place) == _size(part.data)]
    if len(stated) == len(parts):
        bottom = min(place[0].start for place in stated)
        left = min(place[1].start for place in stated)
        return [
            (_moved(place[0], place[0].start - bottom), _moved(place[1], place[1].start - left)) for place in stated
        ]
    places = []
    at = 0
    for part in parts:
        height, width = _size(part.data)
        places.append((slice(0, height), slice(at, at + width)))
        at += width
    return places


def _turn(turned: tuple[bool, bool]) -> tuple[slice, slice]:
    return slice(None, None, -1 if turned[0] else 1), slice(None, None, -1 if turned[1] else 1)


def _mirrored(section: Slices, part: _Part) -> Slices:
    rows, columns = section
    if part.turned[0]:
        rows = slice(part.shape[0] - rows.stop, part.shape[0] - rows.start)
    if part.turned[1]:
        columns = slice(part.shape[1] - columns.stop, part.shape[1] - columns.start)
    return rows, columns


def _lowered(section: Slices, rows: int) -> Slices:
    return slice(section[0].start + rows, section[0].stop + rows), section[1]
