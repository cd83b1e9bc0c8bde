"""The nouns of a night, as frozen records.

These records cross every border of the system (ledger, Prefect, Dask), so they hold
paths, names and numbers, never pixels, and each converts to and from plain JSON.
"""

from __future__ import annotations

import enum
import hashlib
import os
import re
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from nightglass.errors import Misconfigured

__all__ = [
    "CALIBRATION_KINDS",
    "DQ",
    "Content",
    "ExposureRef",
    "Kind",
    "MasterRef",
    "Night",
    "Product",
    "ProductKind",
    "Quality",
    "Sighting",
    "Stage",
    "State",
    "StepRecord",
    "content_key",
    "sanitize",
]

_NIGHT = re.compile(r"[0-9]{8}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_+-]+")
_NAME_LIMIT = 64


class Kind(enum.StrEnum):
    """What an exposure is for."""

    BIAS = "bias"
    DARK = "dark"
    FLAT = "flat"
    ARC = "arc"
    STANDARD = "standard"
    FOCUS = "focus"
    SCIENCE = "science"


CALIBRATION_KINDS = frozenset({Kind.BIAS, Kind.DARK, Kind.FLAT})
"""The kinds that masters are combined from."""


class State(enum.StrEnum):
    """Where the reduction of an exposure stands; `nightglass.ledger` holds the legal transitions."""

    SEEN = "seen"
    COMPLETE = "complete"
    GROUPED = "grouped"
    RUNNING = "running"
    REDUCED = "reduced"
    WAITING = "waiting"
    REJECTED = "rejected"
    FAILED = "failed"
    SKIPPED = "skipped"


class Quality(enum.StrEnum):
    """The verdict on a reduced exposure."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


class Stage(enum.StrEnum):
    """The scheduled post-processing stages of a night."""

    MIDWAY = "midway"
    FINAL = "final"


class ProductKind(enum.StrEnum):
    """What a written file is."""

    REDUCED = "reduced"
    QUICKLOOK = "quicklook"
    MASTER = "master"
    STACK = "stack"
    REPORT = "report"


class Content(enum.StrEnum):
    """What the cube of an exposure is made of."""

    RAW = "raw"
    REDUCED = "reduced"
    BUILT = "built"
    """What an image builder put together: as its options say, beside the cubes of the night."""


class DQ(enum.IntFlag):
    """Bits of the data-quality mask (HDU ``DQ``, uint16)."""

    BAD = 1
    """Known bad pixel, or a value that is not finite."""
    SATURATED = 2
    """At or above the saturation level."""
    LOW_FLAT = 4
    """Response below the usable limit."""
    COSMIC = 8
    """Hit by a cosmic ray."""
    NO_DATA = 16
    """No exposure covers this pixel."""
    UNCALIBRATED = 32
    """A calibration that was asked for could not be applied here."""


@dataclass(frozen=True, order=True, slots=True)
class Night:
    """One observing night, noon to noon local time, named by the date of its evening.

    Parameters
    ----------
    label : str
        ``YYYYMMDD``.

    Raises
    ------
    Misconfigured
        If the label is not eight digits that make a date.
    """

    label: str

    def __post_init__(self) -> None:
        try:
            if not _NIGHT.fullmatch(self.label):
                raise ValueError(self.label)
            self.date  # noqa: B018 - raises if there is no such day
        except ValueError:
            message = f"night {self.label!r} is not a date"
            raise Misconfigured(message, remedy="write it as YYYYMMDD, the date of the evening") from None

    def __str__(self) -> str:
        return self.label

    @property
    def date(self) -> date:
        """The date of the evening."""
        # not strptime, which takes ten times as long: every row of the ledger has a night
        return date(int(self.label[:4]), int(self.label[4:6]), int(self.label[6:]))

    def shifted(self, days: int) -> Night:
        """Return the night that many days later (negative: earlier)."""
        return Night((self.date + timedelta(days=days)).strftime("%Y%m%d"))


class _Record:
    """JSON conversion that every record below shares."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        return {name: _plain(value) for name, value in asdict(self).items()}  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """Make the record from what `to_json` gave; unknown names are refused."""
        converters = _CONVERTERS
        known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(record) - set(known))
        if unknown:
            message = f"{cls.__name__} has no field {', '.join(unknown)}"
            raise Misconfigured(message, remedy="the record was written by another version")
        return cls(**{name: converters.get(str(known[name].type), _same)(value) for name, value in record.items()})


def _same(value: Any) -> Any:
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        if set(value) == {"label"}:  # a Night, unfolded by asdict
            return value["label"]
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureRef(_Record):
    """The reference to one exposure that crosses Prefect and Dask; pixels stay in the file.

    Attributes
    ----------
    exposure_id : str
        ``<camera>/<night>/<number>``, or a sanitised stem and content hash where there is no number.
    exposure_time_s : float
        Exposure time in seconds.
    started_at : datetime
        Start of the exposure, aware, UTC.
    content_id : str
        Hash of the bytes of the file, see `nightglass.fitsio`.
    group_number, group_count : int
        Position in its dither set (from 1) and the size of the set; 0 when the header gives none.
    parent : str
        Id of the exposure of which the file is only a part, one frame or one detector; empty: it is all of it.
    frame : int or None
        Its number among the frames of `parent`, where each frame is a file of its own.
    """

    exposure_id: str
    night: Night
    camera: str
    kind: Kind
    path: Path
    size: int
    content_id: str
    started_at: datetime
    exposure_time_s: float = 0.0
    filter: str = ""
    target: str = ""
    detector: str = ""
    binning: str = "1x1"
    readout: str = ""
    group_number: int = 0
    group_count: int = 0
    revision: int = 1
    parent: str = ""
    frame: int | None = None

    @property
    def name(self) -> str:
        """The last part of the id: safe as a file name."""
        return self.exposure_id.rsplit("/", 1)[-1]

    def revised(self, revision: int) -> ExposureRef:
        """Return the same reference under another revision number."""
        return replace(self, revision=revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting(_Record):
    """A file as a sensor saw it, before anybody looked inside.

    Attributes
    ----------
    size : int
        Bytes.
    mtime_ns, inode : int
        As `os.stat` gives them.
    seen_at : datetime
        Aware, UTC.
    """

    path: Path
    size: int
    mtime_ns: int
    inode: int
    seen_at: datetime

    @classmethod
    def of(cls, path: Path, status: os.stat_result, seen_at: datetime) -> Self:
        """Return the sighting of a file of which the file system says this."""
        size, mtime_ns, inode = status.st_size, status.st_mtime_ns, status.st_ino
        return cls(path=path, size=size, mtime_ns=mtime_ns, inode=inode, seen_at=seen_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterRef(_Record):
    """One master calibration, as the archive index knows it.

    Attributes
    ----------
    master_id : str
        Hash of kind, settings and input content ids: the same inputs give the same id.
    inputs : tuple of str
        Content ids of the frames that went in, sorted.
    uses : tuple of str
        Ids of the masters that were subtracted from the frames.
    pedestal : bool
        Whether the frames still held their bias level: neither an overscan nor a master bias was subtracted.
    """

    master_id: str
    kind: Kind
    camera: str
    night: Night
    path: Path
    detector: str = ""
    filter: str = ""
    binning: str = "1x1"
    exposure_time_s: float = 0.0
    frames: int = 0
    inputs: tuple[str, ...] = ()
    quality: Quality = Quality.OK
    readout: str = ""
    uses: tuple[str, ...] = ()
    pedestal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord(_Record):
    """What one step did: the provenance that is written into the product."""

    step: str
    version: str
    parameters: dict[str, Any] = field(default_factory=dict)
    calibrations: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product(_Record):
    """A written file.

    Attributes
    ----------
    key : str
        What it is of: an exposure id, a master id, a group id or a night.
    checksum : str
        Hash of the bytes, by the same function as content ids.
    inputs : tuple of str
        Content ids and master ids that went in.
    """

    kind: ProductKind
    key: str
    path: Path
    checksum: str
    size: int
    inputs: tuple[str, ...] = ()


_CONVERTERS: dict[str, Any] = {
    "Night": Night,
    "Kind": Kind,
    "ProductKind": ProductKind,
    "Quality": Quality,
    "Path": Path,
    "datetime": datetime.fromisoformat,
    "tuple[str, ...]": tuple,
}


def sanitize(text: str, *, default: str = "unnamed") -> str:
    """Make text from outside safe as one path component.

    Only letters, digits, ``_``, ``+`` and ``-`` stay, so that neither a separator nor a
    leading dot can come out of a header; at most 64 characters are kept.
    """
    cleaned = _UNSAFE.sub("-", text.strip()).strip("-+")[:_NAME_LIMIT].strip("-+")
    return cleaned or default


def content_key(*parts: str) -> str:
    """Return a short stable hash of text parts, for ids that must be the same on every host."""
    digest = hashlib.blake2b(digest_size=10)
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    return digest.hexdigest()
