"""What a request may ask of an image builder: the bodies of the interface, typed, unknown names refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue

from nightglass.builder.records import LARGEST_EXPID, LARGEST_FRAME
from nightglass.config import Section

__all__ = [
    "Archiving",
    "Assignment",
    "Cards",
    "Configuring",
    "ExposureNumber",
    "ExtensionName",
    "Finalizing",
    "FrameNumber",
    "Getting",
    "HookChange",
    "HookOrder",
    "Plotting",
    "PrimaryCards",
    "Rois",
    "RoisArchiving",
    "Sending",
    "Waiting",
    "Writing",
]

_LONGEST_WAIT_S = 3600.0

ExposureNumber = Annotated[int, Field(ge=0, le=LARGEST_EXPID, description="Exposure id, at most eight digits.")]
FrameNumber = Annotated[int, Field(ge=0, le=LARGEST_FRAME, description="Frame number, at most four digits.")]
ExtensionName = Annotated[str, Field(min_length=1, max_length=32, description="EXTNAME: letters, digits, _ and -.")]

Scalar = str | bool | int | float | None
Cards = dict[str, Scalar | tuple[Scalar, str]]
"""Keyword -> value, or value and comment."""
Names = tuple[Annotated[str, Field(max_length=512)], ...]
Keywords = tuple[Annotated[str, Field(max_length=80)], ...] | Cards
"""Keywords that are taken from the frames, or keywords with the values for those that no frame has."""
Text = Annotated[str, Field(max_length=4096)]


class _Body(Section):
    """A body; what JSON cannot hold (NaN, infinity) is refused."""

    model_config = ConfigDict(allow_inf_nan=False)


class Assignment(_Body):
    """What is expected of a frame."""

    sources: Names | None = None
    """Who delivers; None: as configured. Those that can be pulled are pulled, the others push."""
    extensions: Names | None = None
    """What is expected, where the names of extensions are not those of the sources."""
    timeout_s: float | None = Field(None, gt=0, le=86400.0)
    """After this long it is built without what is missing; None: as configured, and scaled by the exposure time."""
    instructions: dict[str, JsonValue] | None = None
    """The trigger's ``ib_instructions``: image_dir, local_copy, send_to, rois and the like, for this frame."""
    header: Cards | None = None
    """Cards for the primary header."""


class Waiting(Assignment):
    """An assignment, and how long to wait for it."""

    wait_s: float = Field(60.0, ge=0, le=_LONGEST_WAIT_S)


class PrimaryCards(_Body):
    """Cards for the primary header."""

    header: Cards
    clobber: bool = False
    """Whether they may replace cards that are there."""


class Writing(_Body):
    """How frames are written; None: as configured."""

    image_dir: Text | None = None
    image_name: Text | None = None
    extra_headers: Cards = Field(default_factory=dict)
    clobber: bool = False
    """Whether they may replace keywords that are there."""
    overwrite: bool = False
    """Whether a file of that name may be replaced."""
    exclude: Names | None = None
    compress: bool | None = None
    add_on: Text | None = None
    add_frame: bool | None = None


class Getting(_Body):
    """How frames are handed out."""

    dark_subtract: bool = False
    extra_headers: Cards = Field(default_factory=dict)
    clobber: bool = False
    exclude: Names | None = None
    all_fields: bool = False
    """Whether control words and excluded keywords stay in."""


class Sending(Getting):
    """How frames are sent; None: as configured."""

    send_to: Names | None = None
    send_command: Text | None = None


class Plotting(_Body):
    """How pictures are drawn; None: as configured."""

    plot_save_ext: Text | None = None
    plot_save_mode: Literal["EXTENSIONS", "ASSEMBLY"] | None = None
    plot_mark_center: bool | None = None
    plot_title: bool | None = None
    plot_subtitle: bool | None = None
    png_dir: Text | None = None


class Configuring(_Body):
    """With which constants a builder begins anew."""

    constants: Text = "DEFAULT"
    unsaved: Literal["refuse", "discard"] = "refuse"


class Finalizing(_Body):
    """What is handed on with the end of an exposure."""

    notes: dict[str, JsonValue] = Field(default_factory=dict)


class Archiving(_Body):
    """How an exposure becomes a cube."""

    add2primary: Keywords = ()
    add2secondary: Keywords = ()
    add2metadata: Keywords = ()
    compress: bool | None = None
    archive_dir: Text | None = None
    wait: bool = False
    """Whether the answer waits for the cube."""


class Rois(_Body):
    """Regions of interest."""

    rois: tuple[dict[str, Any], ...] = Field(max_length=1024)
    """Each with ``extension``, ``x``, ``y`` (centre) and ``size`` or ``width`` and ``height``, in pixels."""


class RoisArchiving(Archiving):
    """How stamps are archived, written, sent or handed out."""

    frame: FrameNumber | None = None
    image_dir: Text | None = None
    image_name: Text | None = None
    send_to: Names | None = None
    send_command: Text | None = None
    add_on: Text | None = None
    add_frame: bool = True
    overwrite: bool = False


class HookOrder(_Body):
    """A subscription."""

    stage: Literal["built", "saved", "sent", "archived"]
    target: Annotated[str, Field(min_length=1, max_length=2048)]
    """A URL, which gets a JSON body by POST; or a callable that the configuration names."""
    args: tuple[JsonValue, ...] = ()
    enabled: bool = True


class HookChange(_Body):
    """Whether a subscriber is told."""

    enabled: bool
