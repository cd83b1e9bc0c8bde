"""Stacks: the members of a group, aligned and combined by a clipped mean.

Members are aligned by their celestial WCS where all have one, otherwise by their stars (astroalign's triangles; Beroiz,
Cabral & Sanchez 2020), and resampled by linear interpolation onto the pixels of the first. The sky of each is
taken out before, so that the clip sees stars and not clouds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nightglass.calibrations.kernel import clipped_mean
from nightglass.errors import Rejected
from nightglass.fitsio import content_id, read_product, write_product
from nightglass.image import Image
from nightglass.model import DQ, Quality

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from astropy.wcs import WCS

__all__ = ["StackMember", "StackResult", "StackSpec", "combine_group"]

_LEAST_STARS = 4
_BRIGHTEST = 60
_MOST_SHEAR = 0.05
_EDGE = 1e-3
_ROWS = 256

_OF_ONE_EXPOSURE = re.compile(
    r"NG(STEP|PAR|CAL|NOT|GAIN)\d+|OS(LEV|RMS)\d+|MST[A-Z]+|[A-Z]+COR|MEASURED|CFGHASH|RAW(NAME|CID)|EXPID|NSTEPS|NSOURCES|"
    r"SKY[A-Z]+|DETTHRES|APERRAD|SEEING|FWHMPIX|ELONGAT|WCSOK|WCSNOTE|QUALITY|DATE-OBS|DATE-BEG|MJD-OBS|XPOSURE|HISTORY"
)

Affine = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Matrix and offset that take (row, column) of the reference to (row, column) of a member."""


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
        In the order of the group; the first usable one gives the pixels.
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

    Raises
    ------
    Rejected
        If fewer than two members can be used.
    """
    notes = [f"{member.exposure_id}: quality is bad" for member in spec.members if member.quality is Quality.BAD]
    members = [member for member in spec.members if member.quality is not Quality.BAD]
    products = [(member, read_product(member.path)) for member in members]
    if len(products) < 2:
        raise _too_few(spec, notes)
    stacked = []
    used: set[str] = {member.exposure_id for member, _ in products}
    for index, reference in enumerate(products[0][1]):
        detector = [(member, images[index]) for member, images in products if len(images) > index]
        image, left_out = _stack_detector(reference, detector, spec)
        notes += left_out
        used -= {note.split(":", 1)[0] for note in left_out}
        stacked.append(image)
    if len(used) < 2:
        raise _too_few(spec, notes)
    ordered = tuple(member.exposure_id for member in members if member.exposure_id in used)
    write_product(
        spec.part, stacked, cards=_cards(spec, members, ordered), history=[f"left out {note}" for note in notes]
    )
    return StackResult(checksum=content_id(spec.part), size=spec.part.stat().st_size, used=ordered, notes=tuple(notes))


def _too_few(spec: StackSpec, notes: Sequence[str]) -> Rejected:
    message = f"stack of {spec.group_id}: fewer than two of {len(spec.members)} members can be used"
    return Rejected(message, remedy="; ".join(notes) or "reduce the members first")


def _stack_detector(
    reference: Image, members: Sequence[tuple[StackMember, Image]], spec: StackSpec
) -> tuple[Image, list[str]]:
    aligned: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]] = []
    notes, exposure = [], 0.0
    for member, image in members:
        try:
            transform = _align(reference, image)
        except _NoMatch as error:
            notes.append(f"{member.exposure_id}: {error}")
            continue
        aligned.append(_resample(image, transform, reference.data.shape))
        exposure += image.exposure_time_s
    data, variance, mask = _combine(aligned, spec.sigma)
    header = _sky_header(reference)
    header["NCOMBINE"] = (len(aligned), "exposures in this stack")
    header["EXPTOTAL"] = (exposure, "[s] sum of their exposure times")
    stack = Image(
        data=data,
        variance=variance,
        mask=mask,
        header=header,
        detector=reference.detector,
        amplifiers=(),
        exposure_time_s=reference.exposure_time_s,
        unit=reference.unit,
    )
    return stack, notes


def _sky_header(reference: Image) -> Header:
    """Return the header of the reference without what is true of that exposure alone."""
    header = reference.header.copy()
    for keyword in {card.keyword for card in header.cards if _OF_ONE_EXPOSURE.fullmatch(card.keyword)}:
        header.remove(keyword, remove_all=True)
    return header


class _NoMatch(Exception):
    """A member cannot be aligned."""


def _align(reference: Image, image: Image) -> Affine:
    if image is reference:
        return np.eye(2), np.zeros(2)
    if image.data.shape != reference.data.shape:
        message = f"its shape is {image.data.shape}, the first has {reference.data.shape}"
        raise _NoMatch(message)
    first, second = _celestial(reference), _celestial(image)
    if first is not None and second is not None:
        return _by_wcs(first, second, reference.data.shape)
    return _by_stars(reference, image)


def _celestial(image: Image) -> WCS | None:
    import warnings

    from astropy.wcs import WCS, FITSFixedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        try:
            wcs = WCS(image.header, naxis=2)
        except (ValueError, TypeError, KeyError, MemoryError):
            return None
    return wcs if wcs.has_celestial and wcs.wcs.ctype[0] else None


def _by_wcs(first: WCS, second: WCS, shape: tuple[int, ...]) -> Affine:
    """Fit an affine map through a grid of points that both solutions place on the sky."""
    rows, columns = np.meshgrid(np.linspace(0, shape[0] - 1, 9), np.linspace(0, shape[1] - 1, 9), indexing="ij")
    sky = first.pixel_to_world(columns.ravel(), rows.ravel())
    x, y = second.world_to_pixel(sky)
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        message = "its WCS does not cover the field of the first"
        raise _NoMatch(message)
    design = np.column_stack([rows.ravel(), columns.ravel(), np.ones(rows.size)])
    solution, *_ = np.linalg.lstsq(design, np.column_stack([y, x]), rcond=None)
    return _checked(solution[:2].T, solution[2])


def _by_stars(reference: Image, image: Image) -> Affine:
    import astroalign

    points = [_positions(item) for item in (reference, image)]
    if min(len(item) for item in points) < _LEAST_STARS:
        message = f"only {len(points[1])} stars to align by"
        raise _NoMatch(message)
    try:
        found, _ = astroalign.find_transform(points[0], points[1])
    except (astroalign.MaxIterError, ValueError, TypeError) as error:
        message = f"its stars do not match: {error}"
        raise _NoMatch(message) from error
    x_y = np.asarray(found.params, np.float64)
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    return _checked(swap @ x_y[:2, :2] @ swap, x_y[:2, 2][::-1])


def _positions(image: Image) -> NDArray[np.float64]:
    """Return (x, y), counted from 0, of the brightest sources."""
    if image.catalogue is None or len(image.catalogue) == 0:
        return np.empty((0, 2))
    table = image.catalogue
    order = np.argsort(np.asarray(table["FLUX"], np.float64))[::-1][:_BRIGHTEST]
    return np.column_stack([np.asarray(table["X"], np.float64)[order], np.asarray(table["Y"], np.float64)[order]]) - 1.0


def _checked(matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> Affine:
    scale = np.sqrt(abs(np.linalg.det(matrix)))
    if abs(scale - 1) > _MOST_SHEAR:
        message = f"its scale differs by a factor {scale:.3f}"
        raise _NoMatch(message)
    return matrix, offset


def _resample(
    image: Image, transform: Affine, shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Bring a member to the reference's pixels, less its sky; True where it has no good pixel."""
    from scipy.ndimage import affine_transform

    bad = (image.mask & ~np.uint16(DQ.UNCALIBRATED)) != 0
    sky = np.float32(np.median(image.data[~bad])) if not bad.all() else np.float32(0)
    values = np.where(bad, np.float32(0), image.data - sky)
    matrix, offset = transform
    if np.allclose(matrix, np.eye(2)) and np.allclose(offset, 0):
        return values, image.variance, bad
    weight = affine_transform((~bad).astype(np.float32), matrix, offset, tuple(shape), order=1, cval=0.0)
    data = affine_transform(values, matrix, offset, tuple(shape), order=1, cval=0.0)
    variance = affine_transform(np.where(bad, np.float32(0), image.variance), matrix, offset, tuple(shape), order=1)
    hidden = weight < 1 - _EDGE
    return data.astype(np.float32), variance.astype(np.float32), hidden


def _combine(
    aligned: Sequence[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]], sigma: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint16]]:
    shape = aligned[0][0].shape
    data, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
    mask = np.zeros(shape, np.uint16)
    limit = sigma if len(aligned) > 2 else np.inf
    for top in range(0, shape[0], _ROWS):
        rows = slice(top, min(top + _ROWS, shape[0]))
        bad = np.stack([item[2][rows] for item in aligned])
        mean, _, used = clipped_mean(np.stack([item[0][rows] for item in aligned]), bad, sigma=limit)
        total = np.sum([np.where(item[2][rows], 0, item[1][rows]) for item in aligned], axis=0)
        good = np.maximum((~bad).sum(axis=0), 1)
        data[rows] = mean
        variance[rows] = total / good / np.maximum(used, 1)
        mask[rows][used == 0] = np.uint16(DQ.NO_DATA)
    return data, variance, mask


def _cards(
    spec: StackSpec, members: Sequence[StackMember], used: tuple[str, ...]
) -> dict[str, object | tuple[object, str]]:
    cards: dict[str, object | tuple[object, str]] = {
        "GROUPID": (spec.group_id, "group"),
        "CAMERA": spec.camera,
        "NIGHT": spec.night,
        "KIND": ("stack", "what this file is"),
        "COMPLETE": (spec.complete, "whether no member of the group is missing"),
        "NCOMBINE": (len(used), "exposures combined"),
    }
    for index, member in enumerate((item for item in members if item.exposure_id in used), start=1):
        cards[f"EXP{index:05d}"] = (member.exposure_id, "member")
        cards[f"CID{index:05d}"] = (member.content_id, "hash of its raw file")
    return cards
