"""The picture that is current now, between the thread that makes it and all who look at it."""

from __future__ import annotations

import threading
import time

from nightglass.monitor.pictures import Picture

__all__ = ["LivePicture"]


class LivePicture:
    """Holds the newest picture; thread-safe, for one maker and any number of viewers.

    A viewer that is slow misses pictures, and delays nobody: only the newest one is kept.

    Parameters
    ----------
    name : str
        What addresses call it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._changed = threading.Condition()
        self._picture = Picture(title=name, message="waiting for the first picture")
        self._text: str | None = None
        self._reset = False

    def publish(self, picture: Picture) -> None:
        """Replace the picture, and wake those who wait."""
        with self._changed:
            self._picture, self._text = picture, None
            self._changed.notify_all()

    @property
    def newest(self) -> Picture:
        """The picture that is current."""
        with self._changed:
            return self._picture

    def text(self) -> str:
        """Return the picture as a line of JSON, which is made once for all viewers."""
        with self._changed:
            if self._text is None:
                self._text = self._picture.to_text()
            return self._text

    def wait(self, *, after: int, timeout_s: float) -> Picture | None:
        """Return the first picture that is seen with a number other than that, or None when the time is over."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while self._picture.number == after:
                if not self._changed.wait(max(0.0, end - time.monotonic())) and time.monotonic() >= end:
                    return None
            return self._picture

    def ask_reset(self) -> None:
        """Ask the maker to begin anew."""
        with self._changed:
            self._reset = True

    def take_reset(self) -> bool:
        """Tell whether a new beginning was asked for, and forget it."""
        with self._changed:
            asked, self._reset = self._reset, False
            return asked
