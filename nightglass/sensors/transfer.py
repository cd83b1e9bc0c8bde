"""The bench on which arriving files are checked until they are complete, damaged, or too late."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar

from nightglass.errors import NightglassError, Rejected, Retryable
from nightglass.model import Sighting
from nightglass.sensors.schedule import TransferSchedule, Verdict

__all__ = ["TransferBench"]

_log = logging.getLogger(__name__)

_GONE = (-1, 0)
_GONE_TIMEOUT_S = 2.0
"""A file that is not there may be on its way to another name, or the file system may be behind; not for long."""

R = TypeVar("R")
T = TypeVar("T")


class TransferBench(Generic[R]):
    """Checks files in a few threads; one that is slow to come never holds up another.

    Parameters
    ----------
    check : callable
        Looks at a file and returns the result, or raises Retryable while it is incomplete and Rejected if it can never
        be used. An OSError counts as Retryable.
    on_complete : callable
        Takes the sighting, with size and time as they were after the check (a file may have grown since it was
        offered), and the result of `check`; called in a thread of the bench.
    on_failed : callable
        Takes the sighting and the error, a Rejected, once for each state of a file; as above.
    slots : int
        Threads, and so the checks at once.
    transfer_timeout_s : float
        Time without growth after which an incomplete file fails. It is tried again when it is offered again.

    Notes
    -----
    If a callback raises, the file is checked and offered to it again, with backoff, until it is taken.
    """

    def __init__(
        self,
        check: Callable[[Path], R],
        *,
        on_complete: Callable[[Sighting, R], None],
        on_failed: Callable[[Sighting, NightglassError], None],
        slots: int = 2,
        transfer_timeout_s: float = 60.0,
    ) -> None:
        self._check = check
        self._on_complete = on_complete
        self._on_failed = on_failed
        self._timeout_s = transfer_timeout_s
        self._schedule = TransferSchedule(slots=slots, timeout_s=transfer_timeout_s)
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"transfer bench {number}", daemon=True) for number in range(slots)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask the threads to stop after the check they are at; files that wait are dropped. `join` waits."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the threads ended, at most for so many seconds."""
        ends_at = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(None if ends_at is None else max(0.0, ends_at - time.monotonic()))

    def offer(self, sighting: Sighting) -> None:
        """Put a file on the bench, or say that it changed; returns at once, safe from any thread."""
        with self._changed:
            self._schedule.offer(sighting, time.monotonic())
            self._changed.notify()

    @property
    def pending(self) -> int:
        """Number of files that are neither complete nor failed yet."""
        with self._changed:
            return len(self._schedule)

    def _work(self) -> None:
        while (sighting := self._next()) is not None:
            try:
                self._try(sighting)
            except Exception:  # noqa: BLE001 - a boundary: what a callback refused must not be lost
                _log.exception("%s: the outcome of its check was not taken; it is checked again", sighting.path)
                with self._changed:
                    self._schedule.refused(sighting.path, time.monotonic())
                    self._changed.notify()

    def _next(self) -> Sighting | None:
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                sighting = self._schedule.take(now)
                if sighting is not None:
                    self._changed.notify()  # there may be more to do, and another thread that waits for it
                    return sighting
                due = self._schedule.next_due()
                self._changed.wait(None if due == float("inf") else max(0.0, due - now))
        return None

    def _try(self, sighting: Sighting) -> None:
        """Check a file once, and tell what came of it."""
        path = sighting.path
        try:
            result = self._check(path)
        except (Retryable, OSError) as error:
            self._postpone(sighting, error)
        except NightglassError as error:
            self._conclude(sighting, self._on_failed, error)
        except Exception as error:  # noqa: BLE001 - a boundary: one file must not keep the others from being read
            _log.exception("%s: its check failed in an unforeseen way", path)
            message = f"{path}: its check failed with {error!r}"
            rejection = Rejected(message, remedy="this is a fault of Nightglass: keep the file and report it")
            self._conclude(sighting, self._on_failed, rejection)
        else:
            self._conclude(sighting, self._on_complete, result)

    def _conclude(self, sighting: Sighting, tell: Callable[[Sighting, T], None], what: T) -> None:
        current = _look_again(sighting)
        state = (current.size, current.mtime_ns)
        with self._changed:
            superseded = self._schedule.superseded(sighting.path, state)
        if not superseded:
            tell(current, what)
        with self._changed:
            good = not isinstance(what, NightglassError)
            self._schedule.finished(sighting.path, state if good else None, time.monotonic())
            self._changed.notify()

    def _postpone(self, sighting: Sighting, error: Retryable | OSError) -> None:
        current = _look_again(sighting)
        gone = isinstance(error, FileNotFoundError)
        state = _GONE if gone else (current.size, current.mtime_ns)
        with self._changed:
            verdict = self._schedule.postponed(
                sighting.path, state, time.monotonic(), timeout_s=_GONE_TIMEOUT_S if gone else None
            )
            self._changed.notify()
        if verdict is not Verdict.OVERDUE:
            return
        self._on_failed(current, _gone(sighting) if gone else self._too_late(current, error))
        with self._changed:
            self._schedule.finished(sighting.path, None, time.monotonic())
            self._changed.notify()

    def _too_late(self, current: Sighting, error: Retryable | OSError) -> Rejected:
        reason = error.message if isinstance(error, Retryable) else f"{type(error).__name__}: {error}"
        place = "" if str(current.path) in reason else f"{current.path}: "
        message = f"{place}{reason}; {current.size} bytes came and nothing more for {self._timeout_s:g} s"
        return Rejected(message, remedy="transfer it again; it is looked at again as soon as it changes")


def _gone(sighting: Sighting) -> Rejected:
    message = f"{sighting.path}: it was removed or renamed before it could be read, at {sighting.size} bytes"
    return Rejected(message, remedy="nothing to do if that was meant, else put it back")


def _look_again(sighting: Sighting) -> Sighting:
    """Return the sighting with size, time and inode as they are now; as they were, if the file is out of reach."""
    try:
        status = sighting.path.stat()
    except OSError:
        return sighting
    return replace(sighting, size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino)
