"""The sensor for files: says once of each file, and again when it changed, that it is worth a look."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nightglass.config import Source
from nightglass.model import Sighting
from nightglass.sensors.attachment import Attachment, SensorState
from nightglass.sensors.events import Change, Happening, Inbox
from nightglass.sensors.names import NameFilter
from nightglass.sensors.reporting import Report
from nightglass.sensors.scanning import Surveyor
from nightglass.sensors.tracking import Fingerprint, Tracker

__all__ = ["FileSensor", "SensorState", "SensorStatus"]

_log = logging.getLogger(__name__)

_PATIENCE_S = 5.0
"""A file seen being written, whose writer neither writes nor closes for this long, is handed on as it is."""
_GRACE_S = 0.02
"""Time between the close of a file and the look at it, in which its writer may still set its time."""
_LATE_S = 2.0
"""An event may come so long after a scan that found its file: on a busy machine the listener may be the slower one."""
_HEALTH_PERIOD_S = 0.5
_POLL_PERIOD_S = 1.0
_SCAN_SHARE = 20
"""A scan is repeated no sooner than after this many times its own duration: a huge tree is not scanned all the time."""
_BITE_S = 0.01
_EVENTS_A_TURN = 256
_SIGHTINGS_A_TURN = 32
_DEAF_S = 600.0
"""For so long after a file that came without an event scans are as frequent as when polling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorStatus:
    """How a sensor fares.

    Attributes
    ----------
    trouble : str
        What is wrong; empty when all is well.
    sighted : int
        Sightings handed on since the start.
    waiting : int
        Files that must still come to rest.
    known : int
        Files in the memory of the sensor.
    caught_up : bool
        The first scan is over, and nothing waits.
    silent_s : float
        Seconds since the sensor's thread was last known to go round; long when a file system hangs.
    """

    state: SensorState
    trouble: str
    sighted: int
    waiting: int
    known: int
    caught_up: bool
    silent_s: float


class FileSensor:
    """Watches one directory tree.

    A file is sighted as soon as its writer closed it or renamed it into place; a file that appeared in any other way
    (hard link, move from elsewhere, found by a scan) when it kept its size and time for ``settle_s``. A file that
    changes is sighted again. What events miss, or on file systems without events (``polling``), scans find.

    Parameters
    ----------
    source : Source
        Patterns, periods and mode.
    directory : Path
        What is watched; made if it is missing when the sensor starts.
    on_sighting : callable
        Called in the sensor's thread, one file at a time; it should be quick. If it raises, the file is
        offered again by the next scan.
    on_alarm : callable, optional
        Called in the sensor's thread with a text when the directory is lost or cannot be listened to.
    clock : callable, optional
        Gives the aware moment for `Sighting.seen_at`.

    Notes
    -----
    It runs in one thread of its own beside those of watchdog. A file that is moved *out* of the tree holds back the
    events behind it for up to half a second (watchdog waits for the other half of the move).
    """

    def __init__(
        self,
        source: Source,
        directory: Path,
        *,
        on_sighting: Callable[[Sighting], None],
        on_alarm: Callable[[str], None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._source = source
        self._directory = str(directory.absolute())
        self._on_sighting = on_sighting
        self._report = Report(on_alarm)
        self._clock = clock
        self._names = NameFilter(source.patterns, source.ignore)
        self._tracker = Tracker(settle_s=source.settle_s, patience_s=_PATIENCE_S, grace_s=_GRACE_S, late_s=_LATE_S)
        self._surveyor = Surveyor(
            self._directory, self._names, self._tracker, self._report, depth=None if source.recursive else 0
        )
        self._inbox = Inbox()
        self._ready: deque[tuple[str, Fingerprint]] = deque()
        self._attachment = Attachment(
            self._directory, self._inbox, self._report, recursive=source.recursive, polling=source.polling
        )
        self._sighted = 0
        self._deaf_until = 0.0
        self._first_scan_over = self._caught_up = False
        self._next_scan = self._next_health = self._turned_at = time.monotonic()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def directory(self) -> Path:
        """The directory that is watched."""
        return Path(self._directory)

    def start(self) -> None:
        """Make the directory if it is missing, begin to listen, and scan what is there.

        Raises
        ------
        OSError
            If the directory cannot be made or is not a directory.
        RuntimeError
            If the sensor was started before.
        """
        if self._thread is not None:
            message = f"the sensor of {self._directory} was started already; make a new one"
            raise RuntimeError(message)
        Path(self._directory).mkdir(parents=True, exist_ok=True)
        self._attachment.attach()
        self._thread = threading.Thread(target=self._run, name=f"sensor {self._directory}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the sensor to stop; `join` waits for it."""
        self._stopping.set()
        self._inbox.wake()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the sensor's threads ended, at most for so many seconds."""
        if self._thread is not None:
            self._thread.join(timeout)

    def rescan(self) -> None:
        """Look through the whole directory now; safe from any thread."""
        self._next_scan = time.monotonic()
        self._inbox.wake()

    @property
    def status(self) -> SensorStatus:
        """How the sensor fares; safe from any thread."""
        return SensorStatus(
            state=self._attachment.state,
            trouble=self._report.trouble,
            sighted=self._sighted,
            waiting=self._tracker.waiting + len(self._ready),
            known=self._tracker.known,
            caught_up=self._caught_up and self._inbox.empty,
            silent_s=time.monotonic() - self._turned_at,
        )

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._turn()
                except Exception as error:  # noqa: BLE001 - a boundary: whatever one file or callback does, the night goes on
                    _log.exception("sensor of %s: a turn failed", self._directory)
                    self._report.complain(self._directory, f"{self._directory}: the sensor met an error: {error!r}")
                    self._next_scan = time.monotonic()  # events that were at hand may be lost
                    self._stopping.wait(_HEALTH_PERIOD_S)
        finally:
            self._surveyor.clear()
            self._attachment.detach()

    def _turn(self) -> None:
        """Go round once: events first, so that a new file does not wait for a long scan."""
        self._turned_at = time.monotonic()
        for happening in self._inbox.take(wait_s=self._time_to_wait(), most=_EVENTS_A_TURN):
            self._caught_up = False
            self._take(happening)
        now = time.monotonic()
        if now >= self._next_health:
            self._next_health = now + _HEALTH_PERIOD_S
            if self._attachment.check():
                self._surveyor.clear()
                self._next_scan = now
        if self._attachment.state is SensorState.LOST:
            return
        if self._inbox.overflowed() or now >= self._next_scan:
            self._next_scan = float("inf")
            self._surveyor.begin_whole()
        self._settle(now)
        self._notice_deafness()
        for _ in range(min(_SIGHTINGS_A_TURN, len(self._ready))):
            self._hand_on(*self._ready.popleft())
        duration_s = self._surveyor.go_on(time.monotonic() + _BITE_S)
        if duration_s is not None:
            self._next_scan = time.monotonic() + max(self._scan_period(), _SCAN_SHARE * duration_s)
            self._first_scan_over = True
        self._caught_up = self._first_scan_over and not (self._ready or self._surveyor.busy or self._tracker.waiting)

    def _scan_period(self) -> float:
        deaf = time.monotonic() < self._deaf_until
        often = deaf or self._attachment.state is SensorState.POLLING
        return min(_POLL_PERIOD_S, self._source.rescan_s) if often else self._source.rescan_s

    def _notice_deafness(self) -> None:
        """When scans find what events did not tell, scan more often for a while, and listen anew."""
        now = time.monotonic()
        if not self._tracker.take_unheard(now) or self._attachment.state is not SensorState.LISTENING:
            return
        if now >= self._deaf_until:
            self._report.complain(
                self._directory,
                f"{self._directory}: files came without an event (from another host?), so it is scanned every "
                f"{_POLL_PERIOD_S:g} s for now; set polling = true if it is on a network file system",
            )
            self._attachment.renew()
        self._deaf_until = now + _DEAF_S
        self._next_scan = min(self._next_scan, now + self._scan_period())

    def _time_to_wait(self) -> float:
        now = time.monotonic()
        if self._attachment.state is SensorState.LOST:
            return max(0.0, self._next_health - now)
        if self._ready or self._surveyor.busy:
            return 0.0
        return max(0.0, min(self._next_health, self._next_scan, self._tracker.next_due) - now)

    def _take(self, happening: Happening) -> None:
        path = happening.path
        match happening.change:
            case Change.WAKE:
                pass
            case Change.FILE_GONE:
                self._tracker.forget(path)
            case Change.DIRECTORY_GONE:
                self._tracker.forget_directory(path)
            case Change.DIRECTORY_APPEARED:
                if self._is_entered(path):
                    self._surveyor.begin(path)  # files made in it before it was listened to caused no event
            case change if self._is_wanted(path):
                self._take_file(change, path)

    def _take_file(self, change: Change, path: str) -> None:
        if change is Change.FILE_WRITTEN:
            self._tracker.written(path, time.monotonic())
            return
        fingerprint = self._fingerprint(path)
        if fingerprint is None:
            return
        if change is Change.FILE_APPEARED:
            self._tracker.appeared(path, fingerprint, time.monotonic())
        else:
            self._tracker.closed(path, fingerprint, time.monotonic())

    def _settle(self, now: float) -> None:
        for path in self._tracker.due(now, most=_EVENTS_A_TURN):
            self._caught_up = False
            fingerprint = self._fingerprint(path)
            if fingerprint is None:
                self._tracker.forget(path)
            elif self._tracker.rested(path, fingerprint, now):
                self._ready.append((path, fingerprint))

    def _hand_on(self, path: str, fingerprint: Fingerprint) -> None:
        """Sight a file that rested, unless it changed or was sighted while it stood in the queue."""
        current = self._fingerprint(path)
        if current is None or not self._tracker.is_new(path, current):
            return
        if current == fingerprint:
            self._sight(path, fingerprint)
        else:
            self._tracker.appeared(path, current, time.monotonic())

    def _sight(self, path: str, fingerprint: Fingerprint) -> None:
        if not _is_text(path):
            self._report.complain(path, f"{path!r}: the name is not UTF-8, so it cannot be recorded; rename the file")
            self._tracker.sighted(path, fingerprint)
            return
        sighting = Sighting(
            path=Path(path),
            size=fingerprint.size,
            mtime_ns=fingerprint.mtime_ns,
            inode=fingerprint.inode,
            seen_at=self._clock(),
        )
        try:
            self._on_sighting(sighting)
        except Exception as error:  # noqa: BLE001 - a boundary: one file that nobody takes must not stop the others
            _log.exception("%s was sighted, but nobody took it", path)
            self._report.complain(path, f"{path} was sighted, but nobody took it: {error!r}; it is offered again")
            return
        self._report.settle(path)
        self._tracker.sighted(path, fingerprint)
        self._sighted += 1

    def _is_wanted(self, path: str) -> bool:
        parts = Path(path).relative_to(self._directory).parts
        return bool(parts) and self._names.takes(parts[-1]) and self._names.reaches(parts)

    def _is_entered(self, path: str) -> bool:
        if not self._source.recursive or Path(path).is_symlink():
            return False
        parts = Path(path).relative_to(self._directory).parts
        return bool(parts) and self._names.enters(parts[-1]) and self._names.reaches(parts)

    def _fingerprint(self, path: str) -> Fingerprint | None:
        try:
            return Fingerprint.of(Path(path).stat())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                self._report.complain(path, f"{path} cannot be examined: {error}")
            return None


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
