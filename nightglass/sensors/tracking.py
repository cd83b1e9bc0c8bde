"""Which files were sighted already and which must first come to rest: decided without a file system or a clock."""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

__all__ = ["Fingerprint", "Tracker"]

_HANDED_OUT = float("inf")
"""Due time of a file that `Tracker.due` named: a second entry of the agenda must not name it again."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells one state of a file from another without reading it.

    Attributes
    ----------
    mode : int
        Permissions count: a file that becomes readable is worth another look.
    """

    size: int
    mtime_ns: int
    inode: int
    mode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self | None:
        """Return the fingerprint of a regular file; None for a directory, a pipe, a socket or a device."""
        if not stat.S_ISREG(status.st_mode):
            return None
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_mode)


@dataclass(slots=True)
class _Restless:
    """A file that is waited for.

    Attributes
    ----------
    fingerprint : Fingerprint or None
        As last seen; None when a write was reported since.
    due : float
        When it is looked at next.
    closed : bool
        Its writer is done.
    unheard : bool
        A scan found it, and no event told of it.
    """

    fingerprint: Fingerprint | None
    due: float
    closed: bool = False
    unheard: bool = False


class Tracker:
    """The sensor's memory. Times are seconds of any clock that never goes back.

    Parameters
    ----------
    grace_s : float
        A file whose writer closed it must keep its fingerprint for this long: many copy programs set its time just
        after that, which would otherwise look like a change.
    settle_s : float
        A file that appeared without being written under our eyes must keep its fingerprint for this long.
    patience_s : float
        The same for a file that was seen being written and whose close event is expected, and for an empty one.
    late_s : float
        How long after a file of which a scan told came to rest its event may still come.

    Notes
    -----
    Of a sighted file only a hash is kept (about 200 bytes with its name), in one table a directory; what is gone from
    the disk is to be dropped with `forget` and `forget_directory`, so that the memory is bounded by what is there.
    """

    def __init__(self, *, settle_s: float, patience_s: float, grace_s: float, late_s: float) -> None:
        self._settle_s = settle_s
        self._patience_s = max(patience_s, settle_s)
        self._grace_s = min(grace_s, settle_s)
        self._late_s = late_s
        self._known: dict[str, dict[str, int]] = {}
        self._restless: dict[str, _Restless] = {}
        self._agenda: list[tuple[float, int, str]] = []  # due, time of modification, path
        self._unheard: dict[str, float] = {}  # path, when it came to rest; in this order

    @property
    def known(self) -> int:
        """Number of files that were sighted and are still there."""
        return sum(len(names) for names in self._known.values())

    @property
    def waiting(self) -> int:
        """Number of files that must still come to rest."""
        return len(self._restless)

    @property
    def next_due(self) -> float:
        """When `due` may next have something; infinity: nothing is waited for."""
        return self._agenda[0][0] if self._agenda else float("inf")

    def is_new(self, path: str, fingerprint: Fingerprint) -> bool:
        """Return whether a file was never sighted in this state."""
        directory, name = os.path.split(path)
        return self._known.get(directory, {}).get(name) != hash(fingerprint)

    def appeared(self, path: str, fingerprint: Fingerprint, now: float) -> None:
        """Note a file that an event told of; nothing happens if it was sighted in this state."""
        self._unheard.pop(path, None)
        self._see(path, fingerprint, now)
        if path in self._restless:
            self._restless[path].unheard = False

    def found(self, path: str, fingerprint: Fingerprint, now: float) -> None:
        """Note a file that a scan came upon; nothing happens if it was sighted in this state."""
        heard_of = path in self._restless
        self._see(path, fingerprint, now)
        if not heard_of and path in self._restless:
            self._restless[path].unheard = True

    def written(self, path: str, now: float) -> None:
        """Note that somebody writes to a file: its close event is the moment to look, unless it never comes."""
        self._unheard.pop(path, None)
        self._wait(path, None, now + self._patience_s)
        self._restless[path].closed = self._restless[path].unheard = False

    def due(self, now: float, *, most: int) -> list[str]:
        """Return files to look at now, older ones first; each must be given to `rested` or `forget` afterwards."""
        paths: list[str] = []
        while self._agenda and self._agenda[0][0] <= now and len(paths) < most:
            _, mtime_ns, path = heapq.heappop(self._agenda)
            waiting = self._restless.get(path)
            if waiting is None or waiting.due == _HANDED_OUT:
                continue
            if waiting.due > now:
                heapq.heappush(self._agenda, (waiting.due, mtime_ns, path))
            else:
                waiting.due = _HANDED_OUT
                paths.append(path)
        return paths

    def rested(self, path: str, fingerprint: Fingerprint, now: float) -> bool:
        """Return whether a file that was due is to be sighted now; if it changed meanwhile, it waits once more."""
        waiting = self._restless.get(path)
        if waiting is not None and waiting.fingerprint != fingerprint:
            self._wait(path, fingerprint, now + self._rest(fingerprint, waiting))
            return False
        self._restless.pop(path, None)
        is_new = self.is_new(path, fingerprint)
        if is_new and waiting is not None and waiting.unheard:
            self._unheard.setdefault(path, now)
        return is_new

    def take_unheard(self, now: float) -> int:
        """Return how many files came to rest of which scans alone told, and no event since; each is counted once."""
        count = 0
        while self._unheard and now - next(iter(self._unheard.values())) >= self._late_s:
            del self._unheard[next(iter(self._unheard))]
            count += 1
        return count

    def closed(self, path: str, fingerprint: Fingerprint, now: float) -> None:
        """Note a file whose writer is done, by close or rename: it is due after the grace."""
        self._unheard.pop(path, None)
        if not self.is_new(path, fingerprint):
            self._restless.pop(path, None)
            return
        done = _Restless(fingerprint, now, closed=True)
        self._wait(path, fingerprint, now + self._rest(fingerprint, done))
        self._restless[path].closed, self._restless[path].unheard = True, False

    def sighted(self, path: str, fingerprint: Fingerprint) -> None:
        """Remember that a file was handed on in this state."""
        directory, name = os.path.split(path)
        self._known.setdefault(directory, {})[name] = hash(fingerprint)

    def forget(self, path: str) -> None:
        """Drop a file."""
        directory, name = os.path.split(path)
        self._restless.pop(path, None)
        self._unheard.pop(path, None)
        self._known.get(directory, {}).pop(name, None)

    def forget_directory(self, path: str) -> None:
        """Drop a directory with all below it."""
        below = path + os.sep
        for key in [key for key in self._known if key == path or key.startswith(below)]:
            del self._known[key]
        for key in [key for key in self._restless if key.startswith(below)]:
            del self._restless[key]
        for key in [key for key in self._unheard if key.startswith(below)]:
            del self._unheard[key]

    def unlisted(self, directory: str, names: Collection[str]) -> list[str]:
        """Return the sighted files of a directory that are not among the names found there; they may be new or gone."""
        return [f"{directory}{os.sep}{name}" for name in self._known.get(directory, {}) if name not in names]

    @property
    def directories(self) -> list[str]:
        """The directories in which files were sighted."""
        return list(self._known)

    def _see(self, path: str, fingerprint: Fingerprint, now: float) -> None:
        waiting = self._restless.get(path)
        if waiting is None:
            if self.is_new(path, fingerprint):
                self._wait(path, fingerprint, now + self._rest(fingerprint))
        elif waiting.fingerprint not in (None, fingerprint):
            self._wait(path, fingerprint, now + self._rest(fingerprint, waiting))

    def _rest(self, fingerprint: Fingerprint, waiting: _Restless | None = None) -> float:
        if not fingerprint.size:
            return self._patience_s  # somebody just made it and will write: taking it for whole is rarely right
        return self._grace_s if waiting is not None and waiting.closed else self._settle_s

    def _wait(self, path: str, fingerprint: Fingerprint | None, due: float) -> None:
        waiting = self._restless.get(path)
        self._restless[path] = (
            _Restless(fingerprint, due) if waiting is None else replace(waiting, fingerprint=fingerprint, due=due)
        )
        if waiting is None or waiting.due == _HANDED_OUT or due < waiting.due:
            heapq.heappush(self._agenda, (due, fingerprint.mtime_ns if fingerprint else 0, path))
        # else its entry comes up too early and is put off then: a busy writer does not fill the agenda
