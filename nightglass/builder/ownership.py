"""One process a spool: a lock that the kernel gives back when its holder dies."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import BinaryIO

from nightglass.errors import Misconfigured, Retryable

__all__ = ["Ownership"]


class Ownership:
    """The right to run an image builder on a directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "lock"
        self._stream: BinaryIO | None = None

    def take(self) -> None:
        """Take it, for as long as this process lives.

        Raises
        ------
        Misconfigured
            If another one has it.
        Retryable
            If the file system refuses.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            stream = self._path.open("a+b")
        except OSError as error:
            message = f"{self._path} cannot be made: {error.strerror}"
            raise Retryable(message, remedy="check the disk and the rights of the directory") from error
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.close()
            message = f"{self._path.parent}: another process runs an image builder there"
            raise Misconfigured(message, remedy="stop it, or give this one another camera or root") from error
        self._stream = stream

    def give_back(self) -> None:
        """Let others have it; twice is once."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
