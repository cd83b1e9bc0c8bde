"""Step ``trim``: keep the pixels that saw light, each amplifier at its place in the detector."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nightglass.config.section import Section
from nightglass.errors import Rejected
from nightglass.image import Image, Slices
from nightglass.model import DQ
from nightglass.steps.step import Step, StepContext, applied

if TYPE_CHECKING:
    from astropy.io.fits import Header

__all__ = ["STEP", "TrimSettings", "trim"]

VERSION = "1"
_SECTIONS = ("BIASSEC", "TRIMSEC", "DATASEC", "AMPSEC", "CCDSEC")
"""Cards that describe the raw frame and would be false in the trimmed one."""


class TrimSettings(Section):
    """Nothing to set: the camera file and the header know the sections."""


def trim(image: Image, context: StepContext, settings: TrimSettings) -> Image:
    """Cut overscan away and put the data sections together.

    Pixels of the detector that no amplifier delivers are 0 and marked NO_DATA. The reference pixel
    of a WCS moves along where all amplifiers move alike; where they do not, the header's
    WCS was that of the assembled detector already, and stays.

    Raises
    ------
    Rejected
        If a data section does not fit its place.
    """
    del context
    amplifiers = image.amplifiers
    for number, amplifier in enumerate(amplifiers, start=1):
        if _shape(amplifier.data) != _shape(amplifier.place):
            message = (
                f"detector {image.detector!r}, amplifier {number}: data section of shape {_shape(amplifier.data)} "
                f"does not fit its place of shape {_shape(amplifier.place)}"
            )
            raise Rejected(message, remedy="correct the sections in the camera file")
    if not amplifiers or (len(amplifiers) == 1 and _shape(amplifiers[0].data) == image.data.shape):
        whole = tuple(replace(item, overscan=None) for item in amplifiers)
        return applied(image, "trim", VERSION, settings, note="nothing to trim", amplifiers=whole)
    shape = (max(item.place[0].stop for item in amplifiers), max(item.place[1].stop for item in amplifiers))
    places = [(item.data, item.place) for item in amplifiers]
    header, note = _trimmed_header(image.header, places)
    return applied(
        image,
        "trim",
        VERSION,
        settings,
        note=note,
        data=_assembled(image.data, places, shape, fill=0),
        variance=_assembled(image.variance, places, shape, fill=0),
        mask=_assembled(image.mask, places, shape, fill=int(DQ.NO_DATA)),
        header=header,
        amplifiers=tuple(replace(item, data=item.place, overscan=None) for item in amplifiers),
    )


def _shape(section: Slices) -> tuple[int, int]:
    return section[0].stop - section[0].start, section[1].stop - section[1].start


def _assembled(
    source: NDArray[Any], places: list[tuple[Slices, Slices]], shape: tuple[int, int], *, fill: int
) -> NDArray[Any]:
    if len(places) == 1 and _shape(places[0][0]) == shape:
        return np.ascontiguousarray(source[places[0][0]])
    target = np.full(shape, fill, dtype=source.dtype)
    for data, place in places:
        target[place] = source[data]
    return target


def _trimmed_header(header: Header, places: list[tuple[Slices, Slices]]) -> tuple[Header, str]:
    changed = header.copy()
    for keyword in _SECTIONS:
        changed.remove(keyword, ignore_missing=True, remove_all=True)
    offsets = {(data[0].start - place[0].start, data[1].start - place[1].start) for data, place in places}
    if len(offsets) != 1:
        return changed, "amplifiers move differently: WCS left as it is" if "CRPIX1" in changed else ""
    down, left = offsets.pop()
    for axis, offset in (("1", left), ("2", down)):
        # LTV: the offset of physical (raw) pixels that ds9 and IRAF show
        for keyword in (f"CRPIX{axis}", f"LTV{axis}"):
            if offset and isinstance(changed.get(keyword), (int, float)):
                changed[keyword] = changed[keyword] - offset
    return changed, ""


STEP = Step(
    name="trim",
    version=VERSION,
    settings=TrimSettings,
    apply=trim,
    doc="Cut overscan away and assemble the amplifiers into the detector.",
)
