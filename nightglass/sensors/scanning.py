"""Walking a directory tree in small bites, as the poller and the search for what events missed."""

from __future__ import annotations

import errno
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from nightglass.sensors.names import NameFilter
from nightglass.sensors.reporting import Report
from nightglass.sensors.tracking import Fingerprint, Tracker

__all__ = ["Listing", "Surveyor", "walk"]

_BITE = 256
"""Entries, wanted or not, between two moments at which the caller can do something else."""
_GRID_S = 0.25
"""Files found within this time come to rest together, so that the older ones among them go first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Some of the wanted files of one directory.

    Attributes
    ----------
    files : list of tuple
        Name and fingerprint.
    last : bool
        The directory has no more: all its listings together name all that it holds.
    error : OSError or None
        Why the directory could not be listed to the end.
    """

    directory: str
    files: list[tuple[str, Fingerprint]] = field(default_factory=list)
    last: bool = False
    error: OSError | None = None


def walk(root: str, names: NameFilter, *, depth: int | None = None) -> Iterator[Listing]:
    """Yield the wanted files below a directory, a bite at a time.

    Parameters
    ----------
    depth : int, optional
        Levels of directories that are entered; 0: only the root; None: all.

    Notes
    -----
    Links to files are followed, links to directories are not: so neither a loop nor a link to ``/`` can lead astray.
    Directories, pipes and devices are not files, whatever their names.
    """
    queue = deque([(root, 0)])
    while queue:
        directory, level = queue.popleft()
        files: list[tuple[str, Fingerprint]] = []
        try:
            with os.scandir(directory) as entries:
                for count, entry in enumerate(entries, start=1):
                    if entry.is_dir(follow_symlinks=False):
                        if (depth is None or level < depth) and names.enters(entry.name):
                            queue.append((entry.path, level + 1))
                    elif names.takes(entry.name) and (fingerprint := _fingerprint(entry)) is not None:
                        files.append((entry.name, fingerprint))
                    if count % _BITE == 0:
                        yield Listing(directory=directory, files=files)
                        files = []
        except OSError as error:
            yield Listing(directory=directory, files=files, last=True, error=error)
        else:
            yield Listing(directory=directory, files=files, last=True)


def _fingerprint(entry: os.DirEntry[str]) -> Fingerprint | None:
    try:
        return Fingerprint.of(entry.stat())
    except (FileNotFoundError, NotADirectoryError):
        return None  # gone since it was listed, or a link that leads nowhere
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise


@dataclass(slots=True)
class _Scan:
    """A walk that is under way."""

    listings: Iterator[Listing]
    whole: bool
    note: Callable[[str, Fingerprint, float], None]
    """How files are told to the tracker: those of which no event told, though it could have, are `Tracker.found`."""
    spent_s: float = 0.0
    names: set[str] = field(default_factory=set)
    """Files found so far in the directory that is being listed."""
    directories: set[str] = field(default_factory=set)


class Surveyor:
    """Goes through the tree a bite at a time, and keeps the tracker in step with what is there.

    Parameters
    ----------
    depth : int or None
        As for `walk`.
    """

    def __init__(self, root: str, names: NameFilter, tracker: Tracker, report: Report, *, depth: int | None) -> None:
        self._root = root
        self._names = names
        self._tracker = tracker
        self._report = report
        self._depth = depth
        self._scans: deque[_Scan] = deque()
        self._surveyed = False

    @property
    def busy(self) -> bool:
        """Whether a scan is under way."""
        return bool(self._scans)

    def begin(self, directory: str) -> None:
        """Look through a directory that is new."""
        listings = walk(directory, self._names, depth=self._depth)
        self._scans.append(_Scan(listings, whole=False, note=self._tracker.appeared))

    def begin_whole(self) -> None:
        """Look through everything."""
        note = self._tracker.found if self._surveyed else self._tracker.appeared
        self._scans.append(_Scan(walk(self._root, self._names, depth=self._depth), whole=True, note=note))

    def clear(self) -> None:
        """Give up what is under way; the next scan of everything is again a first one."""
        self._scans.clear()
        self._surveyed = False

    def go_on(self, until: float) -> float | None:
        """Work until a moment of the monotonic clock.

        Returns
        -------
        float or None
            Seconds of work that a scan of everything took which has just ended.
        """
        while self._scans and (now := time.monotonic()) < until:
            scan = self._scans[0]
            listing = next(scan.listings, None)
            if listing is not None:
                self._absorb(scan, listing)
                scan.spent_s += time.monotonic() - now
                continue
            self._scans.popleft()
            if scan.whole:
                for directory in self._tracker.directories:
                    if directory not in scan.directories and not os.path.lexists(directory):
                        self._tracker.forget_directory(directory)
                self._surveyed = True
                return scan.spent_s
        return None

    def _absorb(self, scan: _Scan, listing: Listing) -> None:
        moment = math.ceil(time.monotonic() / _GRID_S) * _GRID_S
        for name, fingerprint in listing.files:
            scan.names.add(name)
            path = f"{listing.directory}{os.sep}{name}"
            if self._tracker.is_new(path, fingerprint):
                scan.note(path, fingerprint, moment)
        if not listing.last:
            return
        if listing.error is None:
            for path in self._tracker.unlisted(listing.directory, scan.names):
                if not os.path.lexists(path):  # else it came after its directory was listed
                    self._tracker.forget(path)
            self._report.settle(listing.directory)
        elif not isinstance(listing.error, (FileNotFoundError, NotADirectoryError)):
            self._report.complain(listing.directory, f"{listing.directory} cannot be listed: {listing.error}")
        scan.names = set()
        scan.directories.add(listing.directory)
