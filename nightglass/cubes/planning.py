"""The plan of a cube: every header and table of it, and which plane goes where."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from astropy.io import fits

from nightglass.config import Camera
from nightglass.cubes.axes import time_axis
from nightglass.cubes.cardstore import cards_table
from nightglass.cubes.firstcards import FirstCards
from nightglass.cubes.lookup import plane_starts
from nightglass.cubes.metadata import gaps_table, metadata_table
from nightglass.cubes.promoting import common_format, type_name
from nightglass.cubes.records import CubePlan, CubeRequest, ImagePlan, PixelFormat, Plane, Survey, TablePlan
from nightglass.cubes.uncollected import uncollected
from nightglass.errors import Misconfigured
from nightglass.fitsio.product_cards import CardValue, make_cards, raw_cards
from nightglass.fitsio.structure import is_structural

__all__ = ["plan_cube"]

_NUMBER: Final = re.compile(r"\d{1,18}")
_KEYWORD: Final = re.compile(r"[A-Z0-9_-]{1,8}")
_CD: Final = re.compile(r"CD\d_\d")
_PC: Final = re.compile(r"PC\d_\d")
_EPOCH: Final = datetime(1858, 11, 17, tzinfo=UTC)
_MAX_SOURCES: Final = 2000
"""Each has two HDUs; a cube of more is a mistake, and many readers become very slow."""


@uncollected()
def plan_cube(survey: Survey, request: CubeRequest, *, camera: Camera | None = None) -> CubePlan:
    """Decide how the planes of a survey become a cube.

    Parameters
    ----------
    camera : Camera, optional
        Its rules tell the starts of frames.

    Returns
    -------
    CubePlan
        The same for the same frames and request.

    Raises
    ------
    Misconfigured
        If `CubeRequest.extra` cannot stand in a header, or there are thousands of sources.
    """
    starts = plane_starts(survey, camera)
    headers = FirstCards(survey)
    names = _Names(request.role)
    hdus: list[ImagePlan | TablePlan] = []
    for members in _sources(survey):
        for part, (indices, pixels, why) in enumerate(_parts(survey, members)):
            planes = [survey.planes[index] for index in indices]
            times = [starts[index] for index in indices]
            name, notes = names.take(planes[0].source, part), _notes(planes, pixels, why)
            header = _image_header(headers, indices, request.keywords.secondary, times, notes)
            shape, note = planes[0].shape, "; ".join(notes)
            hdus.append(
                ImagePlan(name=name, header=header, format=pixels, shape=shape, planes=tuple(indices), note=note)
            )
            hdus.append(metadata_table(f"{name}T", planes, survey, request.keywords.metadata, times))
    if (gaps := gaps_table(survey)) is not None:
        hdus.append(gaps)
    if request.keep_cards:
        hdus.append(cards_table(survey))
    return CubePlan(request, survey, _primary_header(headers, survey, request, starts), tuple(hdus))


def _sources(survey: Survey) -> list[list[int]]:
    """Return the planes of each source, in the order of the survey."""
    found: dict[str, list[int]] = {}
    for index, plane in enumerate(survey.planes):
        found.setdefault(plane.source, []).append(index)
    if len(found) > _MAX_SOURCES:
        message = f"the frames have {len(found)} sources, more than {_MAX_SOURCES}"
        raise Misconfigured(message, remedy="give frames of one source one EXTNAME, or name them by source_names")
    return list(found.values())


def _parts(survey: Survey, members: Sequence[int]) -> Iterator[tuple[list[int], PixelFormat, str]]:
    """Divide the planes of a source into what can stand in one image: planes, their format, and why they are apart."""
    shapes: dict[tuple[int, int], dict[PixelFormat, list[int]]] = {}
    for index in members:
        plane = survey.planes[index]
        shapes.setdefault(plane.shape, {}).setdefault(plane.format, []).append(index)
    for number, by_format in enumerate(shapes.values()):
        groups: list[list[PixelFormat]] = []
        for pixels in by_format:
            group = next((group for group in groups if common_format([*group, pixels]) is not None), None)
            if group is None:
                groups.append([pixels])
            else:
                group.append(pixels)
        for place, group in enumerate(groups):
            common = common_format(group)
            if common is None:  # cannot be: each group was tried
                raise AssertionError(group)
            why = "apart, for its pixels cannot join the others without loss" if place else ""
            why = why or ("apart, for its shape differs" if number else "")
            # the survey is in the order of frames within a source
            yield sorted(index for pixels in group for index in by_format[pixels]), common, why


def _notes(planes: Sequence[Plane], pixels: PixelFormat, why: str) -> list[str]:
    """Say what is not simply moved, and why."""
    counts = Counter(plane.format for plane in planes)
    notes = [f"{planes[0].source}: {why}"] if why else []
    if len(counts) > 1:
        types = Counter[str]()
        for source, count in counts.items():
            types[_with_blank(source)] += count
        listed = ", ".join(f"{name} ({count})" for name, count in types.items())
        notes.append(f"stored as {_with_blank(pixels)}, which holds all of {listed}")
    return notes


def _with_blank(pixels: PixelFormat) -> str:
    return type_name(pixels) if pixels.blank is None else f"{type_name(pixels)} with BLANK {pixels.blank}"


class _Names:
    """Names of images, so that neither they nor their tables are like any other HDU of the cube."""

    def __init__(self, role: str) -> None:
        self._taken = {role.upper(), "GAPS", "CARDS"}

    def take(self, source: str, part: int) -> str:
        """Return the name of a part of a source: ``NAME``, ``NAME_2``, or a higher number where that is taken."""
        name = source if part == 0 else f"{source}_{part + 1}"
        number = part + 1
        while {name.upper(), f"{name}T".upper()} & self._taken:
            number += 1
            name = f"{source}_{number}"
        self._taken |= {name.upper(), f"{name}T".upper()}
        return name


def _image_header(
    headers: FirstCards,
    indices: Sequence[int],
    keywords: Sequence[str],
    starts: Sequence[datetime | None],
    notes: Sequence[str],
) -> fits.Header:
    """Make the header of an image: the coordinates and chosen keywords of its first frame, time, and notes."""
    raw = _header(headers.cards(indices, keywords, coordinates=True))
    matrix = any(_CD.fullmatch(keyword) for keyword in raw) and not any(_PC.fullmatch(keyword) for keyword in raw)
    ours = time_axis(starts, matrix=matrix)
    unit = headers.value(indices[0], "BUNIT")
    if isinstance(unit, str) and unit.strip():
        ours = {"BUNIT": unit.strip(), **ours}
    # the frame's own come first: WCSAXES has to stand before all other coordinates
    return _header([*raw_cards(raw, ours), *make_cards(ours, notes)])


def _primary_header(
    headers: FirstCards, survey: Survey, request: CubeRequest, starts: Iterable[datetime | None]
) -> fits.Header:
    """Make the primary header: what is true of the exposure as a whole."""
    ours: dict[str, CardValue] = {
        "EXTNAME": (request.role.upper(), "role of this exposure"),
        "EXPID": (_maybe_number(request.exposure), "exposure"),
        "NIGHT": (request.night or None, "night, by the date of its evening"),
        "CAMERA": (request.camera or None, "camera"),
        "FRAMES": (len({plane.frame for plane in survey.planes}), "frames of this exposure"),
    }
    first = min((start for start in starts if start is not None), default=None)
    if first is not None:
        day = (first - _EPOCH) / timedelta(days=1)
        ours["TIMESYS"] = ("UTC", "time scale")
        ours["DATE-BEG"] = (first.astimezone(UTC).replace(tzinfo=None).isoformat(), "start of the first frame")
        ours["MJD-BEG"] = (day, "[d] the same")
    ours = {keyword: value for keyword, value in ours.items() if value[0] is not None}
    own = make_cards(ours | _extra(request, ours))
    order = sorted(range(len(survey.planes)), key=lambda index: survey.planes[index].frame)
    raw = _header(headers.cards(order, request.keywords.primary, coordinates=False))
    return _header([*own, *raw_cards(raw, ours | request.extra)])


def _extra(request: CubeRequest, ours: Mapping[str, CardValue]) -> dict[str, CardValue]:
    """Return the extra cards of a request.

    Raises
    ------
    Misconfigured
        If one is none, or says what only the cube itself can say.
    """
    for keyword in request.extra:
        if not _KEYWORD.fullmatch(keyword) or is_structural(keyword) or keyword in ("FRAMES", "COMMENT", "HISTORY"):
            message = f"{keyword!r} cannot be set in the primary header of {request.out}"
            raise Misconfigured(message, remedy="use another keyword: up to 8 of A-Z, 0-9, - and _")
    return {
        keyword: (value, ours[keyword][1]) if keyword in ours else value for keyword, value in request.extra.items()
    }


def _maybe_number(text: str) -> str | int | None:
    return int(text) if _NUMBER.fullmatch(text) else text or None


def _header(cards: Iterable[str]) -> fits.Header:
    return fits.Header.fromstring("".join(cards))
