"""One stack: members aligned on the first, resampled and combined in strips.

Each member is resampled by linear interpolation onto the pixels of the reference, less its sky and in the
reference's exposure time. Its variance is interpolated alike: neighbours are then correlated, and the error of a sum of
pixels, not of one, is right. What is clipped: values further from the median than `StackSpec.sigma` standard
deviations, the deviation never below half of what noise and seeing explain, so that the cores of stars, which differ
from exposure to exposure, stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nightglass.calibrations.kernel import Combined, clipped_mean
from nightglass.errors import NightglassError, Rejected
from nightglass.fitsio import ProductReader, content_id, write_product
from nightglass.image import Image
from nightglass.model import DQ, Quality
from nightglass.stacks.align import Affine, NoMatch, Sketch, align
from nightglass.stacks.resample import Plane, resample

if TYPE_CHECKING:
    from astropy.io.fits import Header

__all__ = ["StackMember", "StackResult", "StackSpec", "combine_group"]

_MIB = 1 << 20
_TILE_ROWS = 32
"""Rows that are resampled together; strips are made of whole tiles, so that the bytes do not depend on memory."""
_MEMBER_BYTES = 9
"""Of one pixel of one member in a strip: value, variance, mask."""
_WORK_BYTES = 80
"""Of one pixel of a strip besides."""
_OUTPUT_BYTES = 10
_SEEING = 0.5
"""Part of the difference between neighbours that seeing may change."""
_NOISE = 0.5
_FEWEST_TO_CLIP = 3

_OF_ONE_EXPOSURE = re.compile(
    r"NG(STEP|PAR|CAL|NOT|GAIN)\d+|OS(LEV|RMS)\d+|MST[A-Z]+|[A-Z]+COR|MEASURED|CFGHASH|RAW(NAME|CID)|EXPID|NSTEPS|NSOURCES|"
    r"SKY[A-Z]+|DETTHRES|APERRAD|SEEING|FWHMPIX|ELONGAT|WCSOK|WCSNOTE|QUALITY|DATE-OBS|DATE-BEG|MJD-OBS|XPOSURE|HISTORY"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StackMember:
    """One reduced exposure."""

    exposure_id: str
    path: Path
    content_id: str
    quality: Quality = Quality.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSpec:
    """One stack to make.

    Attributes
    ----------
    members : tuple of StackMember
        In the order of the group.
    part : Path
        Where the stack is written.
    sigma : float
        Clipping limit, robust standard deviations; with fewer than three members nothing is clipped.
    """

    group_id: str
    camera: str
    night: str
    members: tuple[StackMember, ...]
    part: Path
    complete: bool = True
    sigma: float = 4.0
    memory_mib: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class StackResult:
    """What was written.

    Attributes
    ----------
    used : tuple of str
        Exposure ids.
    notes : tuple of str
        Who was left out, and why.
    """

    checksum: str
    size: int
    used: tuple[str, ...]
    notes: tuple[str, ...]


def combine_group(spec: StackSpec) -> StackResult:
    """Align and combine the members of a group, and write the stack.

    Its pixels are those of the first member, or, if that shows few stars, of the first that shows enough. A member of
    bad quality, one that cannot be read, and one that can be aligned by neither WCS nor stars are left out, and
    the product says so.

    Raises
    ------
    Rejected
        If fewer than two members can be used.
    """
    notes: dict[str, str] = {}
    with _opened(spec, notes) as opened:
        names = list(dict.fromkeys(name for item in opened for name in item.reader.detectors))
        plans = [_Plan.make(name, opened, notes) for name in names]
        plans = [plan for plan in plans if len(plan.members) > 1]
        if not plans:
            message = f"stack of {spec.group_id}: fewer than two of {len(spec.members)} members can be used"
            raise Rejected(message, remedy="; ".join(_lines(notes)) or "reduce the members first")
        images = [_combine(plan, spec) for plan in plans]
        said = [line for plan in plans for line in plan.history]
    in_use = {item.member.exposure_id for plan in plans for item in plan.members}
    used = tuple(member.exposure_id for member in spec.members if member.exposure_id in in_use)
    history = [*said, *(f"left out {line}" for line in _lines(notes))]
    write_product(spec.part, images, cards=_cards(spec, used), history=history)
    return StackResult(
        checksum=content_id(spec.part), size=spec.part.stat().st_size, used=used, notes=tuple(_lines(notes))
    )


def _lines(notes: dict[str, str]) -> list[str]:
    return [f"{name}: {note}" for name, note in notes.items()]


@dataclass(frozen=True, slots=True)
class _Open:
    """A member whose product is open."""

    member: StackMember
    reader: ProductReader


@contextmanager
def _opened(spec: StackSpec, notes: dict[str, str]) -> Iterator[list[_Open]]:
    with ExitStack() as stack:
        opened = []
        for member in spec.members:
            if member.quality is Quality.BAD:
                notes[member.exposure_id] = "quality is bad"
                continue
            try:
                opened.append(_Open(member, stack.enter_context(ProductReader(member.path))))
            except NightglassError as error:
                notes[member.exposure_id] = f"its product cannot be read: {error}"
        yield opened


@dataclass(frozen=True, slots=True)
class _Aligned:
    """One detector of a member, and how it lies on the reference."""

    member: StackMember
    plane: Plane
    affine: Affine


@dataclass(frozen=True, slots=True)
class _Plan:
    """One detector of a stack."""

    reference: Plane
    members: tuple[_Aligned, ...]
    history: tuple[str, ...]
    exposure_s: float

    @classmethod
    def make(cls, name: str, opened: Sequence[_Open], notes: dict[str, str]) -> _Plan:
        """Align a detector of all members that have it."""
        planes = [(item.member, Plane.of(item.reader, name)) for item in opened if name in item.reader.detectors]
        sketches = [plane.sketch() for _, plane in planes]
        first = _reference(sketches)
        members, history = [], []
        for (member, plane), sketch in zip(planes, sketches, strict=True):
            try:
                found = align(sketches[first], sketch)
            except NoMatch as error:
                notes[member.exposure_id] = f"{error}" + (f" (detector {name})" if name else "")
                continue
            members.append(_Aligned(member, plane, found.affine))
            history.append(f"{member.exposure_id} {name} aligned by {found}")
        exposure = sum(item.plane.exposure_time_s for item in members)
        return cls(planes[first][1], tuple(members), tuple(history), exposure)


def _reference(sketches: Sequence[Sketch]) -> int:
    """Return the first image that shows at least half as many stars as the best."""
    most = max(len(sketch.stars) for sketch in sketches)
    return next(index for index, sketch in enumerate(sketches) if 2 * len(sketch.stars) >= most)


def _combine(plan: _Plan, spec: StackSpec) -> Image:
    reference, count = plan.reference, len(plan.members)
    height, width = reference.shape
    data, variance = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    mask = np.zeros((height, width), np.uint16)
    for rows in _strips(spec, height, width, count):
        data[rows], variance[rows], used = _combine_rows(plan, spec.sigma, rows)
        mask[rows][used == 0] = np.uint16(DQ.NO_DATA)
    header = _sky_header(reference.header)
    header["NCOMBINE"] = (count, "exposures in this stack")
    header["EXPTOTAL"] = (plan.exposure_s, "[s] sum of their exposure times")
    return Image(
        data=data,
        variance=variance,
        mask=mask,
        header=header,
        detector=reference.name,
        amplifiers=(),
        exposure_time_s=reference.exposure_time_s,
        unit=reference.unit,
    )


def _combine_rows(plan: _Plan, sigma: float, rows: slice) -> Combined:
    """Return mean, variance and number of values of some rows."""
    seconds, count = plan.reference.exposure_time_s, len(plan.members)
    shape = (count, rows.stop - rows.start, plan.reference.shape[1])
    values, variances = np.empty(shape, np.float32), np.empty(shape, np.float32)
    hidden = np.empty(shape, np.bool_)
    for index, item in enumerate(plan.members):
        scale = seconds / item.plane.exposure_time_s if item.plane.exposure_time_s else 1.0
        for top in range(rows.start, rows.stop, _TILE_ROWS):
            tile = slice(top, min(top + _TILE_ROWS, rows.stop))
            place = (index, slice(tile.start - rows.start, tile.stop - rows.start))
            values[place], variances[place], hidden[place] = resample(item.plane, item.affine, tile, scale=scale)
    if count < _FEWEST_TO_CLIP:
        mean, _, used = clipped_mean(values, hidden, sigma=np.inf)
    else:
        mean, _, used = clipped_mean(values, hidden, sigma=sigma, floor=_floor(values, variances, hidden))
    variances[hidden] = 0
    good = np.maximum(count - hidden.sum(axis=0), 1)
    return mean, variances.sum(axis=0) / good / np.maximum(used, 1), used


def _strips(spec: StackSpec, height: int, width: int, count: int) -> Iterator[slice]:
    left = spec.memory_mib * _MIB - _OUTPUT_BYTES * height * width
    tiles = left // (width * (count * _MEMBER_BYTES + _WORK_BYTES)) // _TILE_ROWS
    rows = int(max(1, tiles)) * _TILE_ROWS
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def _floor(
    values: NDArray[np.float32], variances: NDArray[np.float32], hidden: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the smallest deviation that is believed: half of the noise, and what seeing does where the image is steep.

    The steepness is that of the median image, in which a cosmic ray is not; tile by tile, see `_TILE_ROWS`.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    floor = np.empty(values.shape[1:], np.float32)
    for top in range(0, values.shape[1], _TILE_ROWS):
        rows = slice(top, top + _TILE_ROWS)
        tile = np.where(hidden[:, rows], np.float32(0), values[:, rows])
        middle = np.median(tile, axis=0)
        steepness = (maximum_filter(middle, 3) - minimum_filter(middle, 3)) / 2
        noise = np.sqrt(np.median(variances[:, rows], axis=0))
        floor[rows] = np.hypot(_NOISE * noise, _SEEING * np.maximum(steepness - 3 * noise, 0))
    return floor


def _sky_header(header: Header) -> Header:
    """Return the header of the reference without what is true of that exposure alone."""
    kept = header.copy()
    for keyword in {card.keyword for card in kept.cards if _OF_ONE_EXPOSURE.fullmatch(card.keyword)}:
        kept.remove(keyword, remove_all=True)
    return kept


def _cards(spec: StackSpec, used: tuple[str, ...]) -> dict[str, object | tuple[object, str]]:
    cards: dict[str, object | tuple[object, str]] = {
        "GROUPID": (spec.group_id, "group"),
        "CAMERA": spec.camera,
        "NIGHT": spec.night,
        "KIND": ("stack", "what this file is"),
        "COMPLETE": (spec.complete, "whether no member of the group is missing"),
        "NCOMBINE": (len(used), "exposures combined"),
        "SKYSUB": (True, "the sky of each exposure was subtracted"),
        "SIGMA": (spec.sigma, "clipping limit, robust deviations"),
    }
    members = [member for member in spec.members if member.exposure_id in used]
    for index, member in enumerate(members, start=1):
        cards[f"EXP{index:05d}"] = (member.exposure_id, "member")
        cards[f"CID{index:05d}"] = (member.content_id, "hash of its raw file")
    return cards
