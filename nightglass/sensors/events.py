"""Events of the operating system, put into the sensor's inbox. The only module that knows watchdog."""

from __future__ import annotations

import contextlib
import enum
import os
import queue
import warnings
from dataclasses import dataclass

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

__all__ = ["Change", "Happening", "Inbox", "Listener"]

_WANTED: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileModifiedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileMovedEvent,
    FileDeletedEvent,
    DirCreatedEvent,
    DirMovedEvent,
    DirDeletedEvent,
]
"""Not opened and closed-without-write: our own reading of each file would wake the sensor again."""
_INBOX_LIMIT = 50_000


class Change(enum.Enum):
    """What happened."""

    FILE_APPEARED = enum.auto()
    """Made, linked, moved in from elsewhere, or given other permissions or another time."""
    FILE_WRITTEN = enum.auto()
    FILE_CLOSED = enum.auto()
    """Closed by a writer, or given its name by a rename: it is meant to be whole."""
    FILE_GONE = enum.auto()
    DIRECTORY_APPEARED = enum.auto()
    DIRECTORY_GONE = enum.auto()
    WAKE = enum.auto()
    """Nothing happened; whoever waits should look around."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One change at one path."""

    change: Change
    path: str = ""


_CHANGES: dict[bool, dict[str, tuple[Change | None, Change | None]]] = {
    False: {
        "created": (Change.FILE_APPEARED, None),
        "modified": (Change.FILE_WRITTEN, None),
        "attrib": (Change.FILE_APPEARED, None),
        "closed": (Change.FILE_CLOSED, None),
        "moved": (Change.FILE_GONE, Change.FILE_CLOSED),
        "deleted": (Change.FILE_GONE, None),
    },
    True: {
        "created": (Change.DIRECTORY_APPEARED, None),
        "moved": (Change.DIRECTORY_GONE, Change.DIRECTORY_APPEARED),
        "deleted": (Change.DIRECTORY_GONE, None),
    },
}
"""By is_directory and type of the event: what happened at its source and at its destination."""


class Inbox:
    """A queue between the threads of the listener and the sensor, bounded: what does not fit is found by a scan."""

    def __init__(self, limit: int = _INBOX_LIMIT) -> None:
        self._queue: queue.SimpleQueue[Happening] = queue.SimpleQueue()
        self._limit = limit
        self._overflowed = False

    def put(self, happening: Happening) -> None:
        """Add a happening, unless there are too many already."""
        if self._queue.qsize() >= self._limit:
            self._overflowed = True
        else:
            self._queue.put(happening)

    def wake(self) -> None:
        """End the wait of the reader."""
        self._queue.put(Happening(Change.WAKE))

    def take(self, *, wait_s: float, most: int) -> list[Happening]:
        """Return what there is, waiting for the first if need be."""
        found: list[Happening] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._queue.get(timeout=wait_s) if wait_s > 0 else self._queue.get_nowait())
            while len(found) < most:
                found.append(self._queue.get_nowait())
        return found

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._queue.empty()

    def overflowed(self) -> bool:
        """Return whether something did not fit since this was last asked."""
        overflowed, self._overflowed = self._overflowed, False
        return overflowed


class Listener:
    """Listens to one directory tree.

    Parameters
    ----------
    directory : str
        Absolute; may be a link. Paths are reported below this name.

    Raises
    ------
    OSError
        From `start`, when the kernel has no more watches or instances to give.
    """

    def __init__(self, directory: str, inbox: Inbox, *, recursive: bool) -> None:
        # the kernel would watch a link itself, not what it leads to
        self._real = os.path.realpath(directory)
        self._handler = _Handler(directory, self._real, inbox)
        self._recursive = recursive
        self._observer: BaseObserver | None = None

    def start(self) -> None:
        """Begin to listen; whatever happens after the return is reported."""
        # watchdog may meet a new directory twice, which does no harm but to the thread that warns of it with -W error
        warnings.filterwarnings("ignore", "Callback with id .* already exists", RuntimeWarning, r"watchdog\.")
        self._observer = Observer()
        try:
            self._observer.schedule(self._handler, self._real, recursive=self._recursive, event_filter=_WANTED)
            self._observer.start()
        except OSError:
            self.stop()
            raise

    @property
    def alive(self) -> bool:
        """Whether all its threads run; some end when the directory is deleted."""
        if self._observer is None:
            return False
        emitters = list(self._observer.emitters)
        return self._observer.is_alive() and bool(emitters) and all(emitter.is_alive() for emitter in emitters)

    def stop(self) -> None:
        """Stop listening and wait for the threads to end."""
        observer, self._observer = self._observer, None
        if observer is None:
            return
        observer.stop()
        if observer.ident is not None:
            observer.join()


class _Handler:
    """Translates events; its method is called in a thread of the observer."""

    def __init__(self, directory: str, real: str, inbox: Inbox) -> None:
        self._directory = directory
        self._real = real
        self._inbox = inbox

    def dispatch(self, event: FileSystemEvent) -> None:
        """Put an event into the inbox."""
        before, after = _CHANGES[event.is_directory][event.event_type]
        if before is not None:
            self._inbox.put(Happening(before, self._path(event.src_path)))
        if after is not None:
            self._inbox.put(Happening(after, self._path(event.dest_path)))

    def _path(self, path: bytes | str) -> str:
        text = os.fsdecode(path)
        if self._real != self._directory and text.startswith(self._real):
            return self._directory + text[len(self._real) :]
        return text
