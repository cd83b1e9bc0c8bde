"""The headers of frames as they stand in their files, and where the data are: what a survey begins with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nightglass.config import Limits
from nightglass.cubes.records import FrameFile, Problem

__all__ = ["scan_file", "scan_files"]


def scan_file(path: Path, limits: Limits) -> FrameFile:
    """Read the headers of a file, plain or gzip."""
    raise NotImplementedError


def scan_files(paths: Sequence[Path], limits: Limits) -> tuple[FrameFile | Problem, ...]:
    """Read the headers of many files; one that cannot be read is a `Problem` in its place."""
    raise NotImplementedError
