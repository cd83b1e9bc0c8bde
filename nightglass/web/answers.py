"""What the interface of an image builder answers: records as plain JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tarfile import BLOCKSIZE, TarInfo
from typing import Any

from astropy.io.fits.card import Undefined
from pydantic import BaseModel

from nightglass.builder.records import ExposureView, ExtensionRecord, FrameView, SendReport

__all__ = [
    "ExposureAnswer",
    "ExtensionAnswer",
    "Files",
    "FrameAnswer",
    "Sends",
    "describe_exposure",
    "describe_extension",
    "describe_frame",
    "describe_sends",
    "tar_of",
]

_CHUNK = 1 << 20


class ExtensionAnswer(BaseModel):
    """One extension."""

    name: str
    source: str
    shape: list[int]
    bitpix: int
    size: int
    sha256: str
    received_at: float
    compressed: bool
    duplicate: bool = False
    """Whether the same bytes were there already."""


class FrameAnswer(BaseModel):
    """One frame as it stands."""

    expid: int
    frame: int
    state: str
    """``open``, ``built`` or ``partial``."""
    expected: list[str]
    missing: list[str]
    extensions: list[ExtensionAnswer]
    primary: dict[str, Any]
    times: dict[str, float]
    """Seconds since 1970 of what happened."""
    deadline: float | None
    files: list[str]
    published: str | None
    revision: int
    purged: bool
    notes: list[str]


class ExposureAnswer(BaseModel):
    """One exposure as it stands."""

    expid: int
    night: str
    state: str
    """``open``, ``complete`` or ``archived``."""
    frames: list[int]
    saved: list[int]
    archive: str | None


class Files(BaseModel):
    """Files that were written."""

    files: list[str]


class Sends(BaseModel):
    """What became of what was sent."""

    reports: list[dict[str, Any]]


def describe_extension(record: ExtensionRecord, *, duplicate: bool = False) -> ExtensionAnswer:
    """Return an extension as it is answered."""
    return ExtensionAnswer(
        name=record.name,
        source=record.source,
        shape=list(record.shape),
        bitpix=record.bitpix,
        size=record.size,
        sha256=record.sha256,
        received_at=record.received_at,
        compressed=record.compressed,
        duplicate=duplicate,
    )


def describe_frame(view: FrameView) -> FrameAnswer:
    """Return a frame as it is answered."""
    return FrameAnswer(
        expid=view.expid,
        frame=view.frame,
        state=view.state.value,
        expected=list(view.expected),
        missing=list(view.missing),
        extensions=[describe_extension(record) for record in view.extensions],
        primary={card.keyword: _plain(card.value) for card in view.primary_header.cards if card.keyword},
        times=dict(view.times),
        deadline=view.deadline if math.isfinite(view.deadline) else None,
        files=[str(path) for path in view.files],
        published=str(view.published) if view.published else None,
        revision=view.revision,
        purged=view.purged,
        notes=list(view.notes),
    )


def describe_exposure(view: ExposureView) -> ExposureAnswer:
    """Return an exposure as it is answered."""
    return ExposureAnswer(
        expid=view.expid,
        night=view.night.label,
        state=view.state.value,
        frames=list(view.frames),
        saved=sorted(view.saved),
        archive=str(view.archive) if view.archive else None,
    )


def describe_sends(reports: Iterable[SendReport]) -> Sends:
    """Return what became of what was sent."""
    names = ("receiver", "expid", "frame", "delivered", "attempts", "error")
    return Sends(reports=[{name: getattr(report, name) for name in names} for report in reports])


def tar_of(files: Sequence[Path]) -> Iterator[bytes]:
    """Give files as one tar archive, and delete each afterwards; nothing is kept in memory.

    Format: POSIX.1-1988 ustar, by `tarfile.TarInfo`.
    """
    try:
        for path in files:
            entry = TarInfo(path.name)
            entry.size = path.stat().st_size
            yield entry.tobuf()
            with path.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk
            yield bytes(-entry.size % BLOCKSIZE)
        yield bytes(2 * BLOCKSIZE)
    finally:
        for path in files:
            path.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """Return the value of a card; what JSON cannot hold, and what is undefined, is null."""
    if isinstance(value, Undefined) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
