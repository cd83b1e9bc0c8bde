"""What a reduction step is, what it is given, and how it says what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nightglass.config.camera import Camera
from nightglass.config.section import Section
from nightglass.errors import Rejected
from nightglass.model import ExposureRef, Kind, MasterRef, StepRecord

if TYPE_CHECKING:
    import numpy as np
    from astropy.io.fits import Header
    from numpy.typing import NDArray

    from nightglass.image import Image

__all__ = [
    "CORRECTED",
    "Apply",
    "Cards",
    "LoadedMaster",
    "Step",
    "StepContext",
    "applied",
    "corrected",
    "not_corrected",
    "same_unit",
    "with_cards",
]

CORRECTED = {Kind.BIAS: "BIASCOR", Kind.DARK: "DARKCOR", Kind.FLAT: "FLATCOR"}
"""Keyword (logical) that says whether a calibration was applied."""


Cards = Mapping[str, tuple[str | int | float | bool, str]]
"""Keyword -> (value, comment)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedMaster:
    """A master calibration with its pixels, one image a detector."""

    ref: MasterRef
    images: tuple[Image, ...]

    def matching(self, image: Image) -> Image:
        """Return the master's image for the detector of an exposure's image.

        Raises
        ------
        Rejected
            If the master has no such detector, or another shape or unit.
        """
        named = [item for item in self.images if item.detector == image.detector]
        candidates = named or (list(self.images) if len(self.images) == 1 else [])
        what = f"master {self.ref.kind} {self.ref.master_id} ({self.ref.path})"
        if not candidates:
            have = ", ".join(item.detector for item in self.images)
            message = f"{what} has no detector {image.detector!r}, only {have}"
            raise Rejected(message, remedy="match masters by detector in the camera file")
        master = candidates[0]
        if master.data.shape != image.data.shape:
            message = f"{what} has shape {master.data.shape}, detector {image.detector!r} has {image.data.shape}"
            raise Rejected(message, remedy="trim before calibrating, and match masters by binning")
        return master


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """What steps may look at beside the image; steps open no files.

    Attributes
    ----------
    masters : mapping of Kind to LoadedMaster
        The chosen masters; a kind that is missing here could not be had.
    bad_pixels : mapping of str to ndarray of bool, (ny, nx)
        For each detector that has one, where its pixels are bad.
    """

    camera: Camera
    ref: ExposureRef
    masters: Mapping[Kind, LoadedMaster] = field(default_factory=dict)
    bad_pixels: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


Apply = Callable[["Image", StepContext, Any], "Image"]
"""A step's function: the image, the context, and the step's own settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One reduction step, as the registry holds it.

    Attributes
    ----------
    version : str
        Raised when the same input gives other pixels; it is written into products.
    settings : type of Section
        What a step list may set.
    apply : callable
        Gives a new image and leaves its input alone; see `applied`.
    prepare : callable, optional
        Run on the raw image before any step of the list, for what later steps make unknowable.
    """

    name: str
    version: str
    settings: type[Section]
    apply: Apply
    doc: str
    prepare: Apply | None = None


def applied(
    image: Image,
    step: str,
    version: str,
    settings: Section,
    *,
    calibrations: tuple[str, ...] = (),
    note: str = "",
    **changes: Any,
) -> Image:
    """Return the image with changes and one more record in its history."""
    record = StepRecord(
        step=step,
        version=version,
        parameters=settings.model_dump(mode="json"),
        calibrations=calibrations,
        note=note,
    )
    return image.with_(history=(*image.history, record), **changes)


def with_cards(header: Header, cards: Cards) -> Header:
    """Return a copy of a header in which the given cards are set."""
    changed = header.copy()
    for keyword, (value, comment) in cards.items():
        changed[keyword] = (value, comment)
    return changed


def same_unit(master: Image, image: Image, loaded: LoadedMaster) -> Image:
    """Return the master if its unit is that of the image.

    Raises
    ------
    Rejected
        If it is not.
    """
    if master.unit == image.unit:
        return master
    message = f"master {loaded.ref.kind} {loaded.ref.master_id} is in {master.unit}, the image in {image.unit}"
    raise Rejected(message, remedy="put the step gain before the calibrations in the step list")


def corrected(header: Header, kind: Kind, loaded: LoadedMaster) -> Header:
    """Return the header with the card that says which master was applied."""
    return with_cards(header, {CORRECTED[kind]: (True, f"master {kind.value} {loaded.ref.master_id[:16]}")})


def not_corrected(image: Image, kind: Kind, version: str, settings: Section) -> Image:
    """Return the image as it is, with the lack of a master stated in header and history.

    The quality of such an exposure is at least ``warning``. Whether it should have waited is decided
    before any pixel is touched, by the camera's rule.
    """
    note = f"no master {kind.value}: not applied"
    header = with_cards(image.header, {CORRECTED[kind]: (False, f"no master {kind.value} was available")})
    return applied(image, kind.value, version, settings, note=note, header=header)
