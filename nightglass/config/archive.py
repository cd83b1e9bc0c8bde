"""How exposures are archived: the `[archive]` sections of the observatory file and of camera files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nightglass.config.section import Section
from nightglass.model import Content

__all__ = ["Archive", "ArchiveKeywords", "Purge"]

Pattern = Annotated[str, Field(min_length=1, max_length=68)]
"""A header keyword, or a shell pattern of keywords, as ``TEL*``."""


class ArchiveKeywords(Section):
    """Which header keywords of a camera's frames go where in its cubes; shell patterns are allowed."""

    primary: tuple[Pattern, ...] = ()
    """Into the primary header, from the first frame that has them."""
    secondary: tuple[Pattern, ...] = ()
    """Into the header of each source's image, from its first frame that has them."""
    metadata: tuple[Pattern, ...] = ("*",)
    """Columns of each source's table; the default is every keyword that any frame has."""
    frame: tuple[Pattern, ...] = ("FRAME", "FRAMENO", "FRAMENUM")
    """Keywords that number a frame; what `header.frame` names goes before them."""


class Purge(Section):
    """When raw frames may be deleted: only those whose cube is archived and verified, and only if something is set.

    A frame goes when any of the rules asks for it; without any rule nothing is deleted.
    """

    age_days: float | None = Field(None, ge=0)
    """Days since the cube was verified, after which its raw frames go."""
    keep_count: int | None = Field(None, ge=0)
    """Exposures of a camera whose raw frames stay, the latest; those of the others go."""
    free_gib: float | None = Field(None, ge=0)
    """The earliest go until this much is free where they lie."""

    @property
    def active(self) -> bool:
        """Whether any rule is set."""
        return any(rule is not None for rule in (self.age_days, self.keep_count, self.free_gib))


class Archive(Section):
    """How exposures become cubes."""

    when: Literal["final", "exposure", "never"] = "final"
    """``final``: all of them before a night is closed; ``exposure``: each as soon as it is finalised, too."""
    what: Literal[Content.RAW, Content.REDUCED] = Content.RAW
    """Raw frames, or the reduced products."""
    compress: Literal["", "rice", "gzip"] = ""
    """Empty: plain cubes, written at the speed of a copy."""
    quantize: float = Field(0.0, ge=0)
    """Noise fraction of a quantisation step of compressed floats, as 4; 0: without loss."""
    keep_cards: bool = True
    """Store every header card of every frame, so that frames come back whole."""
    mode: Literal["shared", "gather"] = "shared"
    """``shared``: workers see frames and archive; ``gather``: they see the frames only."""
    durable: bool = True
    """Sync to disk before a cube gets its name."""
    at_once: int = Field(2, ge=1, le=64)
    """Most exposures of a night that are archived at the same time."""
    memory_mib: int = Field(512, ge=64)
    """Memory that the cubes written at the same time may use, all workers together."""
    free_disk_gib: float = Field(2.0, ge=0)
    """Disk space that is left free: a cube that would need it is not begun."""
    settle_s: float = Field(10.0, ge=0)
    """An exposure is archived when none of its frames came or changed for this long; for ``when = "exposure"``."""
    lease_s: float = Field(120.0, ge=1)
    """Without a sign of life for this long, a cube is begun again by somebody else."""
    attempts: int = Field(3, ge=1)
    retry_s: float = Field(30.0, ge=0)
    """Wait before the second attempt; doubled for each further one."""
    manifest: bool = True
    """Write a JSON file beside each cube: frames, content ids, checksum."""
    purge: Purge = Purge()
