"""One watch for each camera under a root: a lock that the system drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from nightglass.errors import Misconfigured
from nightglass.model import sanitize

__all__ = ["InstanceLock", "lock_holder"]

_LOOKERS_S = 10.0


class InstanceLock:
    """Locks that say: these cameras are watched under this root.

    Parameters
    ----------
    directory : Path
        Where the lock files lie, `nightglass.layout.Layout.run`; made if missing.
    cameras : iterable of str
        Names; one lock each, so that sets which overlap exclude each other.
    """

    def __init__(self, directory: Path, cameras: Iterable[str]) -> None:
        self._directory = directory
        self._cameras = sorted(set(cameras))  # one order for all, or two watches could each hold half
        self._held = ExitStack()

    def acquire(self) -> Self:
        """Take all the locks or none.

        Raises
        ------
        Misconfigured
            Naming the camera and the process that watches it already.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            for camera in self._cameras:
                self._lock(_path(self._directory, camera), camera, stack)
            self._held = stack.pop_all()
        return self

    def release(self) -> None:
        """Give the locks back. The files stay: removing them would let two processes hold two files of one name."""
        self._held.close()

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _lock(self, path: Path, camera: str, stack: ExitStack) -> None:
        stream = stack.enter_context(path.open("a+"))
        if not any(_try_lock(stream, wait_s=wait) for wait in _waits(path)):
            holder = path.read_text().strip() or "unknown"
            message = f"camera {camera} is watched under {self._directory.parent} already, by process {holder}"
            raise Misconfigured(message, remedy=f"stop it with: kill {holder}; or choose another --root")
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()


def lock_holder(directory: Path, camera: str) -> int | None:
    """Return the process that watches a camera, or None if nobody does."""
    path = _path(directory, camera)
    try:
        with path.open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = stream.read().strip()
                return int(text) if text.isdigit() else 0
    except FileNotFoundError:
        pass  # nobody ever watched it
    return None


def _waits(path: Path) -> Iterator[float]:
    """Yield pauses between attempts to get a lock.

    Somebody who only looks holds it for an instant, a watch for a night. But on a busy machine an instant can last:
    where no process that lives is named as the holder, it is only looked at.
    """
    yield from (0.0, 0.05, 0.1, 0.2)
    end = time.monotonic() + _LOOKERS_S
    while time.monotonic() < end and not _lives(path.read_text().strip()):
        yield 0.1


def _lives(holder: str) -> bool:
    return holder.isdigit() and Path("/proc", holder).exists()


def _try_lock(stream: IO[str], *, wait_s: float) -> bool:
    time.sleep(wait_s)
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _path(directory: Path, camera: str) -> Path:
    return directory / f"watch-{sanitize(camera)}.lock"
