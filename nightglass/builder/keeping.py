"""Files that wait to be sent: linked beside their tickets, so that they are there whatever is purged."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from nightglass.errors import Retryable

__all__ = ["bytes_kept", "keep_file", "made_directory", "pieces_of", "remove_file", "sweep_files"]

_PIECE: Final = 1 << 20


def keep_file(path: Path, kept: Path) -> None:
    """Let a file appear under a second name; copied where it cannot be linked."""
    try:
        os.link(path, kept)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        shutil.copyfile(path, kept)


def bytes_kept(directory: Path) -> int:
    """Return how many bytes wait in a directory."""
    total = 0
    for path in directory.glob("*.fits"):
        with contextlib.suppress(OSError):  # sent just now
            total += path.stat().st_size
    return total


def sweep_files(directory: Path) -> None:
    """Remove files whose ticket was never written."""
    named = set()
    for path in directory.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            named.add(json.loads(path.read_text())["file"])
    for path in directory.glob("*.fits"):
        if str(path) not in named:
            path.unlink(missing_ok=True)


def remove_file(item: Mapping[str, Any]) -> None:
    """Remove the file of a ticket."""
    Path(item["file"]).unlink(missing_ok=True)


def pieces_of(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file."""
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            yield piece


def made_directory(directory: Path) -> Path:
    """Make a directory unless it is there; return it.

    Raises
    ------
    Retryable
        If the file system refuses.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{directory} cannot be made: {error.strerror or error}"
        raise Retryable(message, remedy="check the disk and the rights of the directory") from error
    return directory
