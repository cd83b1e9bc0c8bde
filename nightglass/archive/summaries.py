"""How the archiving of an exposure ended."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightglass.cubes.records import SourceSummary
from nightglass.model import Content

__all__ = ["ArchiveOutcome", "ArchiveSummary", "Redo"]

_MIB = 2.0**20


class Redo(enum.StrEnum):
    """Which exposures are archived again."""

    CHANGED = "changed"
    """Those whose frames changed, and those that have no cube yet."""
    FAILED = "failed"
    """Those that failed, too: a person asks."""
    ALL = "all"
    """All, also those whose cube is there and current."""


class ArchiveOutcome(enum.StrEnum):
    """What became of one exposure."""

    ARCHIVED = "archived"
    """A cube was written, verified and published."""
    ADOPTED = "adopted"
    """A cube that a process had published, and died before it could say so, was recorded."""
    CURRENT = "current"
    """Its cube is there and holds what it should."""
    ELSEWHERE = "elsewhere"
    """Somebody else is at it."""
    WAITING = "waiting"
    """It is tried again: a file is still coming, or the world was busy."""
    FAILED = "failed"
    """It can't be archived as it is; its frames stay."""

    @property
    def is_good(self) -> bool:
        """Whether the cube is there now."""
        return self in (ArchiveOutcome.ARCHIVED, ArchiveOutcome.ADOPTED, ArchiveOutcome.CURRENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSummary:
    """One exposure after an attempt to archive it.

    Attributes
    ----------
    size, pixel_bytes : int
        Bytes of the cube, and of its pixels uncompressed; 0 where none was written.
    source_count : int
        Image HDUs of the cube.
    sources : tuple of SourceSummary
        The same one by one, of a cube that was written now.
    problems : tuple of str
        Frames, or parts of frames, that are not in the cube, and why.
    error : str
        Class and text of what went wrong; empty: nothing did.
    seconds : float
        From the claim to the commit.
    """

    exposure: str
    content: Content
    outcome: ArchiveOutcome
    path: Path | None = None
    size: int = 0
    pixel_bytes: int = 0
    frames: int = 0
    source_count: int = 0
    sources: tuple[SourceSummary, ...] = ()
    problems: tuple[str, ...] = ()
    error: str = ""
    seconds: float = 0.0

    @property
    def rate_mib_s(self) -> float:
        """MiB of pixels a second; 0 where nothing was written."""
        return self.pixel_bytes / _MIB / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return what a table shows of it, as plain JSON values."""
        return {
            "exposure": self.exposure,
            "outcome": self.outcome.value,
            "sources": self.source_count,
            "frames": self.frames,
            "size_mib": round(self.size / _MIB, 2),
            "seconds": round(self.seconds, 3),
            "rate_mib_s": round(self.rate_mib_s, 1),
            "path": str(self.path or ""),
            "problem": self.error or "; ".join(self.problems),
        }
