"""What the ledger says about cubes: frozen records of what was asked for, is being written, and is archived."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from nightglass.model import Content, Night

__all__ = ["ArchiveLease", "ArchiveRecord", "ArchiveState", "ArchivedFile"]


class ArchiveState(enum.StrEnum):
    """How far the archiving of an exposure came; it stands beside the state of its reduction, not after it."""

    PENDING = "pending"
    RUNNING = "running"
    ARCHIVED = "archived"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """One file of an exposure, as it was when its cube was made.

    Attributes
    ----------
    content : str
        Content id of the file; size and time of change where it was never complete.
    problem : str
        Why it, or a part of it, is not in the cube; empty: all of it is.
    """

    path: Path
    content: str
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRecord:
    """The archive of one exposure; times are epoch seconds.

    Attributes
    ----------
    key : str
        ``<night>/<camera>/<exposure>/<content>``.
    exposure : str
        Id of the exposure of which all files are in the cube.
    wanted : tuple of str
        Contents that the cube should hold, sorted.
    held : tuple of str
        Contents that `wanted` was when the cube was made; empty: there is no cube.
    path : Path or None
        Of the cube that is there, which after a failed renewal is the former one.
    files : tuple of ArchivedFile
        What the cube was made of, problems included.
    verified_at : float or None
        When planes, tables and checksums were compared with the frames; None: the cube was not verified.
    purged_at : float or None
        When raw frames of it were last deleted.
    """

    key: str
    exposure: str
    camera: str
    night: Night
    content: Content
    state: ArchiveState
    owner: str
    token: str
    lease_until: float | None
    attempts: int
    retry_at: float | None
    wanted: tuple[str, ...]
    held: tuple[str, ...]
    path: Path | None
    checksum: str
    size: int
    sources: int
    frames: int
    files: tuple[ArchivedFile, ...]
    reason: str
    cause: str
    requested_at: float
    archived_at: float | None
    verified_at: float | None
    purged_at: float | None

    @property
    def is_current(self) -> bool:
        """Whether the cube holds what it should hold."""
        return self.state is ArchiveState.ARCHIVED and self.held == self.wanted

    @property
    def is_safe(self) -> bool:
        """Whether the cube was verified and is current, so that the frames in it may be deleted."""
        return self.is_current and self.verified_at is not None and self.path is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLease:
    """The right to write the cube of one exposure until a moment (epoch seconds)."""

    key: str
    exposure: str
    content: Content
    token: str
    until: float
    attempts: int
    wanted: tuple[str, ...]
