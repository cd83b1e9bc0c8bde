"""Which HDUs of a raw file are detectors, and where their amplifiers lie: from headers alone."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nightglass.config import Amplifier, Camera, Detector, Limits
from nightglass.errors import Misconfigured, Rejected
from nightglass.fitsio.cards import Scalar
from nightglass.fitsio.headers import HduInfo, card_value
from nightglass.image import Slices

__all__ = [
    "DetectorPlan",
    "check_size",
    "checked_section",
    "expected_hdus",
    "find_value",
    "parse_section",
    "plan_detectors",
    "plane_shape",
]

_SECTION = re.compile(r"\s*\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]\s*")
_NO_NAMES = frozenset({"", "PRIMARY", "COMPRESSED_IMAGE", "IMAGE", "SCI", "DATA", "UNNAMED"})
"""EXTNAMEs that say nothing about which detector it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorPlan:
    """One detector of one file.

    Attributes
    ----------
    parts : tuple of (HduInfo, Amplifier)
        The amplifiers in the order of the camera file, each with its HDU.
    """

    name: str
    parts: tuple[tuple[HduInfo, Amplifier], ...]

    @property
    def hdus(self) -> tuple[HduInfo, ...]:
        """The HDUs, each once."""
        return tuple({info.index: info for info, _ in self.parts}.values())


def plane_shape(info: HduInfo) -> tuple[int, int] | None:
    """Return (ny, nx) of an image of one plane, whatever axes of length 1 it has more; None for all else."""
    if not info.is_image or len(info.shape) < 2 or math.prod(info.shape[:-2]) != 1:
        return None
    return info.shape[-2], info.shape[-1]


def find_value(headers: Sequence[HduInfo], keyword: str) -> Scalar:
    """Return a value from the primary header or else from the first image; None if both lack it, or hold empty text."""
    images = [info for info in headers[1:] if info.is_image]
    for info in (*headers[:1], *images[:1]):
        value = card_value(info.header, keyword)
        if value is not None and not (isinstance(value, str) and not value.strip()):
            return value.strip() if isinstance(value, str) else value
    return None


def parse_section(text: str) -> Slices | None:
    """Return the slices of a FITS section ``[x1:x2,y1:y2]``, None if it is none; reversed ends are put in order."""
    found = _SECTION.fullmatch(text)
    if found is None:
        return None
    x1, x2, y1, y2 = (int(item) for item in found.groups())
    if min(x1, x2, y1, y2) < 1:
        return None
    return slice(min(y1, y2) - 1, max(y1, y2)), slice(min(x1, x2) - 1, max(x1, x2))


def expected_hdus(headers: Sequence[HduInfo], camera: Camera) -> tuple[str | int, ...]:
    """Return the HDUs that the camera file says must be in this file."""
    wanted = [
        detector.hdu if amplifier.hdu is None else amplifier.hdu
        for detector in _present(headers, camera)
        for amplifier in detector.amplifiers
    ]
    return tuple(dict.fromkeys(wanted))


def plan_detectors(path: Path, headers: Sequence[HduInfo], camera: Camera) -> tuple[DetectorPlan, ...]:
    """Decide which HDUs are detectors.

    Raises
    ------
    Rejected
        If the file holds none, or not those of the camera file; the message says what it holds.
    """
    if not camera.detectors:
        return _every_image(path, headers, camera)
    plans = []
    for detector in _present(headers, camera):
        parts = tuple((_find(path, headers, detector, amplifier), amplifier) for amplifier in detector.amplifiers)
        for info, _ in parts:
            if plane_shape(info) is None:
                message = f"{path}: detector {detector.name!r} should be in HDU {info.index}, which is {_what(info)}"
                raise Rejected(message, remedy="correct `detectors` in the camera file if this is a raw frame")
        plans.append(DetectorPlan(name=detector.name, parts=parts))
    return tuple(plans)


def _present(headers: Sequence[HduInfo], camera: Camera) -> tuple[Detector, ...]:
    """Return the detectors of this file: where all share one HDU, each has a file of its own and a keyword names it."""
    detectors = camera.detectors
    places = {detector.hdu for detector in detectors}
    if len(detectors) > 1 and len(places) == 1:
        named = _keyword_name(headers, camera)
        mine = tuple(detector for detector in detectors if detector.name.casefold() == named.casefold())
        return mine or detectors
    return detectors


def _keyword_name(headers: Sequence[HduInfo], camera: Camera) -> str:
    for keyword in camera.header.detector:
        value = find_value(headers, keyword)
        if value is not None:
            return str(value)
    return ""


def _every_image(path: Path, headers: Sequence[HduInfo], camera: Camera) -> tuple[DetectorPlan, ...]:
    images = [info for info in headers if plane_shape(info) is not None]
    if not images:
        message = f"{path} holds no two-dimensional image: " + "; ".join(
            f"HDU {info.index} is {_what(info)}" for info in headers[:8]
        )
        raise Rejected(message, remedy="only frames of pixels can be reduced")
    if len(images) == 1:
        name = _keyword_name(headers, camera) or images[0].name
        names = ["ccd1" if name.upper() in _NO_NAMES else name]
    else:
        names = [_extension_name(info, images) for info in images]
    plain = Amplifier.model_validate({})
    return tuple(DetectorPlan(name=name, parts=((info, plain),)) for name, info in zip(names, images, strict=True))


def _extension_name(info: HduInfo, images: Sequence[HduInfo]) -> str:
    if not info.name:
        return f"hdu{info.index}"
    same = [other for other in images if other.name.upper() == info.name.upper()]
    if len(same) == 1:
        return info.name
    by_version = len({other.ver for other in same}) == len(same)
    return f"{info.name}-{info.ver if by_version else info.index}"


def _find(path: Path, headers: Sequence[HduInfo], detector: Detector, amplifier: Amplifier) -> HduInfo:
    wanted = detector.hdu if amplifier.hdu is None else amplifier.hdu
    if isinstance(wanted, int):
        # fpack moves the image of a primary HDU into the first extension
        if wanted == 0 and not headers[0].is_image and len(headers) > 1 and headers[1].is_compressed_image:
            return headers[1]
        if 0 <= wanted < len(headers):
            return headers[wanted]
    else:
        for info in headers:
            if info.name.casefold() == wanted.strip().casefold():
                return info
    names = ", ".join(info.name or str(info.index) for info in headers[:20])
    message = f"{path}: detector {detector.name!r} should be in HDU {wanted!r}, which is not there; HDUs: {names}"
    raise Rejected(message, remedy="correct `detectors` in the camera file if this is a raw frame")


def _what(info: HduInfo) -> str:
    kind = str(card_value(info.header, "XTENSION") or "").strip().upper()
    if kind in ("TABLE", "BINTABLE", "A3DTABLE") and not info.is_compressed_image:
        return "a table"
    if card_value(info.header, "GROUPS") is True and info.index == 0 and card_value(info.header, "NAXIS1") == 0:
        return "made of random groups"
    if not info.shape:
        return "empty" if kind in ("", "IMAGE") else f"of type {kind!r}"
    if not info.is_image:
        return f"an image without pixels (axes {_axes(info)})"
    return f"an image of {len(info.shape)} axes ({_axes(info)})"


def _axes(info: HduInfo) -> str:
    return "x".join(str(length) for length in info.shape[::-1])


def check_size(path: Path, plans: Sequence[DetectorPlan], limits: Limits) -> None:
    """Refuse an exposure that is too large to be held in memory.

    Raises
    ------
    Rejected
        If its pixels, as float32 or as they are, take more than ``limits.image_mib``.
    """
    pixels = {
        info.index: max(math.prod(info.shape) * max(4, abs(info.bitpix) // 8), info.data_size)
        for plan in plans
        for info in plan.hdus
    }
    total = sum(pixels.values())
    if total > limits.image_mib << 20:
        message = f"{path}: its pixels take {total / 2**20:.0f} MiB, more than {limits.image_mib} MiB"
        raise Rejected(message, remedy="raise limits.image_mib if such exposures are wanted")


def checked_section(text: str, shape: tuple[int, int], *, what: str) -> Slices:
    """Return the slices of a section of the camera file.

    Raises
    ------
    Misconfigured
        If it is no section.
    Rejected
        If the array does not hold it.
    """
    section = parse_section(text)
    if section is None:
        message = f"{what} is {text!r}"
        raise Misconfigured(message, remedy="write it as [x1:x2,y1:y2], counted from 1")
    if section[0].stop > shape[0] or section[1].stop > shape[1]:
        message = f"{what} {text} does not fit a frame of {shape[1]}x{shape[0]} pixels"
        raise Rejected(message, remedy="another read-out window needs another camera file")
    return section
