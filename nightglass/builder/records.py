"""What the image builder hands around: exposures, frames and extensions as they stand, and what is asked of them.

Pixels are in files of the spool all the time; these records hold paths, names, numbers and header text.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from astropy.io import fits

from nightglass.model import Night, content_key

__all__ = [
    "LARGEST_EXPID",
    "LARGEST_FRAME",
    "MOST_EXTENSIONS",
    "NO_INSTRUCTIONS",
    "ArchiveOrder",
    "BuilderEvent",
    "ExposureState",
    "ExposureView",
    "ExtensionRecord",
    "FrameState",
    "FrameView",
    "GetOrder",
    "HookStage",
    "Instructions",
    "RoiOrder",
    "SendOrder",
    "SendReport",
    "WriteOrder",
]

LARGEST_EXPID = 99_999_999
"""Exposure ids have at most eight digits."""
LARGEST_FRAME = 9_999
"""Frame numbers have at most four digits."""
MOST_EXTENSIONS = 256
"""Extensions of one frame."""


class FrameState(enum.StrEnum):
    """How far a frame has come."""

    OPEN = "open"
    """Extensions are being collected."""
    BUILT = "built"
    """Everything that was expected is there."""
    PARTIAL = "partial"
    """Built at its deadline, without some of what was expected."""


class ExposureState(enum.StrEnum):
    """How far an exposure has come."""

    OPEN = "open"
    COMPLETE = "complete"
    """Finalised: there will be no further frames."""
    ARCHIVED = "archived"


class HookStage(enum.StrEnum):
    """After what subscribers are told."""

    BUILT = "built"
    SAVED = "saved"
    SENT = "sent"
    ARCHIVED = "archived"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionRecord:
    """One extension in the spool: one HDU of a whole FITS file.

    Attributes
    ----------
    name : str
        EXTNAME under which it goes into products, upper case.
    source : str
        Who delivered it; empty: nobody said so.
    path : Path
        The FITS file in the spool. Its name holds a part of its checksum, so what is replaced gets another path.
    hdu : int
        Which HDU of the file it is.
    header_offset, data_offset, data_size : int
        Bytes; `data_size` is without the fill of the last block.
    shape : tuple of int
        Of the (uncompressed) pixels, slowest axis first; empty: there are none.
    bitpix : int
        Of the (uncompressed) pixels.
    size : int
        Bytes of the file.
    sha256 : str
        Of what was delivered, hexadecimal: the body, and the cards that came beside it.
    received_at : float
        Seconds since 1970.
    compressed : bool
        Whether the HDU is a tile-compressed image.
    cards : str
        Text of cards that came beside the body or later, one a line; they go over those in the file.
    number : int
        Which revision of this extension it is; 1: the first.
    """

    name: str
    source: str = ""
    path: Path
    hdu: int = 0
    header_offset: int = 0
    data_offset: int = 0
    data_size: int = 0
    shape: tuple[int, ...] = ()
    bitpix: int = 8
    size: int = 0
    sha256: str = ""
    received_at: float = 0.0
    compressed: bool = False
    cards: str = ""
    number: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """What a trigger says about one exposure or frame, as its ``ib_instructions``; None: as the options say.

    Every field but the last three is also a control word: found in a header, it is taken for an instruction, and left
    out of what is written. ``ib_send_to`` and ``ib_local_copy`` are other names of `send_to` and `local_copy`.

    Attributes
    ----------
    cb_function, cb_args : str, tuple
        ``module:function`` or URL told when the frame is built, and its arguments.
    exptime_s : float
        Exposure time, by which the deadline is scaled; without it EXPTIME of the header serves.
    rois : tuple of mapping
        Regions of interest of this exposure.
    use_donut : bool
        Whether the focus is measured.
    """

    image_dir: str | None = None
    image_name: str | None = None
    archive_dir: str | None = None
    sub_dir: str | None = None
    local_copy: bool | None = None
    compress: bool | None = None
    send_to: tuple[str, ...] | None = None
    send_command: str | None = None
    cb_function: str | None = None
    cb_args: tuple[Any, ...] | None = None
    archive_primary: tuple[str, ...] | None = None
    archive_secondary: tuple[str, ...] | None = None
    archive_metadata: tuple[str, ...] | None = None
    mem_purge: bool | None = None
    mem_purge_threshold: int | None = None
    frame_purge_threshold: int | None = None
    file_purge: bool | None = None
    file_purge_threshold: int | None = None
    exptime_s: float | None = None
    rois: tuple[Mapping[str, Any], ...] | None = None
    use_donut: bool | None = None


NO_INSTRUCTIONS: Final = Instructions()
"""Everything as the options say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameView:
    """One frame at one moment.

    Attributes
    ----------
    extensions : tuple of ExtensionRecord
        In the order of `expected`, then of arrival; the primary is not among them. Their files are gone when `purged`.
    primary : str
        Cards that were given for the primary header, one a line, as they came; `primary_header` parses them.
    expected, missing : tuple of str
        Sources or extensions that were assigned, and those of them that are not there.
    times : mapping of str to float
        Seconds since 1970 of ``assigned``, ``first``, ``last`` (extension), ``built``, ``saved``, ``sent``,
        ``plotted``, ``archived``, ``published``, of the present revision; ``collected``, when nothing more was
        waited for, and ``done``, when all stages are through.
    deadline : float
        When it is built without what is missing; seconds since 1970, infinite where nothing is awaited.
    directory : Path
        Of the spool, for this frame.
    files : tuple of Path
        Written so far, the last one last.
    claims : tuple of Path
        Names that were free when it was about to be written there: what has such a name is its own, also after a kill.
    published : Path or None
        Where it lies among the raw frames of the night.
    revision : int
        1, and one more for each time it was built again because something came late.
    purged : bool
        Whether the spool gave its pixels back; they are in `files`, in `published` or in the archive.
    sends : mapping of str to str
        Receiver -> ``waiting``, ``delivered`` or ``given up``, of the present revision.
    notes : tuple of str
        What is worth knowing: late extensions, failed pulls.
    """

    expid: int
    frame: int
    state: FrameState
    extensions: tuple[ExtensionRecord, ...] = ()
    primary: str = ""
    missing: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    instructions: Instructions = NO_INSTRUCTIONS
    times: Mapping[str, float] = field(default_factory=dict)
    deadline: float = float("inf")
    directory: Path = Path()
    files: tuple[Path, ...] = ()
    claims: tuple[Path, ...] = ()
    published: Path | None = None
    revision: int = 1
    purged: bool = False
    sends: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def primary_header(self) -> fits.Header:
        """The cards that were given for the primary header."""
        return fits.Header.fromstring(self.primary, sep="\n") if self.primary else fits.Header()

    @property
    def content(self) -> str:
        """What it is known by: a frame of the same number that was pushed anew, or changed, has another."""
        parts = [f"{item.name} {item.sha256} {item.received_at}" for item in self.extensions]
        return content_key(str(self.revision), self.primary, *parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureView:
    """One exposure at one moment.

    Attributes
    ----------
    frames : tuple of int
        Their numbers, in order.
    saved : frozenset of int
        Frames that lie somewhere else than in the spool alone.
    directory : Path
        Of the spool, for this exposure.
    archive : Path or None
        Its cube.
    asked : ArchiveOrder or None
        What was asked for, and is not done yet.
    asked_at, opened_at : float
        When that was asked for last, and when its first frame was opened; seconds since 1970.
    """

    expid: int
    night: Night
    state: ExposureState
    frames: tuple[int, ...] = ()
    saved: frozenset[int] = frozenset()
    instructions: Instructions = NO_INSTRUCTIONS
    directory: Path = Path()
    archive: Path | None = None
    asked: ArchiveOrder | None = None
    asked_at: float = 0.0
    opened_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SendReport:
    """What became of one frame (or archive) at one receiver; `delivered` is false while it is still tried.

    Attributes
    ----------
    night, content : str
        Of the frame that was sent, see `FrameView.content`; empty: not known.
    """

    receiver: str
    expid: int
    frame: int | None
    delivered: bool
    attempts: int = 1
    error: str = ""
    night: str = ""
    content: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOrder:
    """How frames are written; None: as the options say.

    Attributes
    ----------
    extra_headers : mapping
        Keyword -> value, or pair of value and comment, for the primary header.
    clobber : bool
        Whether they may replace keywords that are there.
    overwrite : bool
        Whether a file of that name may be replaced.
    """

    image_dir: str | None = None
    image_name: str | None = None
    extra_headers: Mapping[str, Any] = field(default_factory=dict)
    clobber: bool = False
    overwrite: bool = False
    exclude: tuple[str, ...] | None = None
    compress: bool | None = None
    add_on: str | None = None
    add_frame: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetOrder:
    """How frames are handed out.

    Attributes
    ----------
    all_fields : bool
        Whether control words and excluded keywords stay in.
    """

    dark_subtract: bool = False
    extra_headers: Mapping[str, Any] = field(default_factory=dict)
    clobber: bool = False
    exclude: tuple[str, ...] | None = None
    all_fields: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOrder(GetOrder):
    """How frames are sent; None: as the options say.

    Attributes
    ----------
    key : str
        What the same send has when it is asked for again, as after a kill; empty: it is one of its own.
    """

    send_to: tuple[str, ...] | None = None
    send_command: str | None = None
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveOrder:
    """How an exposure becomes a cube.

    Attributes
    ----------
    add2primary, add2secondary, add2metadata : tuple of str, or mapping
        Keywords that are taken from the frames; a mapping gives values for those that no frame has.
    """

    add2primary: tuple[str, ...] | Mapping[str, Any] = ()
    add2secondary: tuple[str, ...] | Mapping[str, Any] = ()
    add2metadata: tuple[str, ...] | Mapping[str, Any] = ()
    compress: bool | None = None
    archive_dir: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoiOrder(ArchiveOrder):
    """How the stamps of an exposure are archived, written, sent or handed out; `frame` None: all."""

    frame: int | None = None
    image_dir: str | None = None
    image_name: str | None = None
    send_to: tuple[str, ...] | None = None
    send_command: str | None = None
    add_on: str | None = None
    add_frame: bool = True
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuilderEvent:
    """Something that happened.

    Attributes
    ----------
    number : int
        Grows; also from one start of the builder to the next.
    name : str
        ``frame``, ``exposure``, ``archive``, ``status`` or ``alarm``.
    at : float
        Seconds since 1970.
    data : mapping
        Plain JSON values.
    """

    number: int
    name: str
    at: float
    data: Mapping[str, Any] = field(default_factory=dict)
