"""The tie between a sensor and its directory: held, lost, found again."""

from __future__ import annotations

import enum
import errno
import logging
import stat
from pathlib import Path

from nightglass.sensors.events import Inbox, Listener
from nightglass.sensors.reporting import Report

__all__ = ["Attachment", "SensorState"]

_log = logging.getLogger(__name__)

_NO_MORE_WATCHES = frozenset({errno.ENOSPC, errno.EMFILE, errno.ENFILE})


class SensorState(enum.StrEnum):
    """What a sensor does now."""

    IDLE = "idle"
    """Not started, or stopped."""
    LISTENING = "listening"
    """Events and periodic scans."""
    POLLING = "polling"
    """Scans only: asked for, or no events can be had."""
    LOST = "lost"
    """The directory is gone; it is looked for."""


class Attachment:
    """Knows whether the directory is there and the same, and keeps a listener on it.

    Parameters
    ----------
    directory : str
        Absolute.
    recursive : bool
        Listen to directories below it too.
    polling : bool
        Do not listen at all.
    """

    def __init__(self, directory: str, inbox: Inbox, report: Report, *, recursive: bool, polling: bool) -> None:
        self._directory = directory
        self._inbox = inbox
        self._report = report
        self._recursive = recursive
        self._polling = polling
        self._listener: Listener | None = None
        self._identity: tuple[int, int] | None = None
        self.state = SensorState.IDLE

    def attach(self) -> None:
        """Take hold of the directory; where no events can be had, it is polled and an alarm raised.

        Raises
        ------
        OSError
            If it is not there or not a directory.
        """
        recovered = self.state is SensorState.LOST
        self.detach()
        self._identity = self._find()
        if not self._polling and not self._listen():
            return
        # the state comes last: whoever sees it finds the rest as it says
        self._report.trouble = ""
        self.state = SensorState.POLLING if self._polling else SensorState.LISTENING
        if recovered:
            _log.warning("%s is back and watched again", self._directory)

    def detach(self) -> None:
        """Let go, and wait for the listener's threads to end."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()
        self.state = SensorState.IDLE

    def check(self) -> bool:
        """Notice that the directory went away, came back, or is another one; return whether it must be scanned."""
        before = self.state
        try:
            if self._find() == self._identity and before is not SensorState.LOST:
                if self._listener is None or self._listener.alive:
                    return False
            elif before is not SensorState.LOST:
                self._report.alarm(f"{self._directory} was replaced by another directory (mounted or unmounted?)")
            self.attach()
        except OSError as error:
            self.detach()
            if before is not SensorState.LOST:
                self._report.alarm(
                    f"{self._directory} cannot be watched any more: {error}; it is looked for until it is back"
                )
            self.state = SensorState.LOST
            return False
        return True

    def renew(self) -> None:
        """Listen anew, because events did not come."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()
        if self._listen():
            self.state = SensorState.LISTENING

    def _listen(self) -> bool:
        listener = Listener(self._directory, self._inbox, recursive=self._recursive)
        try:
            listener.start()
        except OSError as error:
            if error.errno not in _NO_MORE_WATCHES:
                raise
            self._report.alarm(
                f"{self._directory}: no events can be had ({error}), so it is polled; "
                "raise fs.inotify.max_user_instances and max_user_watches"
            )
            self.state = SensorState.POLLING
            return False
        self._listener = listener
        return True

    def _find(self) -> tuple[int, int]:
        status = Path(self._directory).stat()
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", self._directory)
        return status.st_dev, status.st_ino
