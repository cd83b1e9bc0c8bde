"""Who reads the files of which frame, so that nobody deletes them meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

__all__ = ["Lending"]


class Lending:
    """Frames that are lent to readers, or withdrawn by who deletes; never both.

    Whoever asks here holds no lock of a frame: readers change the frames that they read.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lent: Counter[tuple[int, int]] = Counter()
        self._going: Counter[tuple[int, int]] = Counter()

    @contextlib.contextmanager
    def lent(self, expid: int, frame: int) -> Iterator[None]:
        """Keep the files of a frame while the block runs; first wait for who is just deleting them."""
        key = expid, frame
        with self._changed:
            self._changed.wait_for(lambda: not self._going[key])
            self._lent[key] += 1
        try:
            yield
        finally:
            with self._changed:
                _less(self._lent, key)
                self._changed.notify_all()

    @contextlib.contextmanager
    def withdrawn(self, expid: int, frame: int, *, wait_s: float = 0.0) -> Iterator[bool]:
        """Lend a frame to nobody any more while the block runs; tell whether nobody reads it, after so long a wait."""
        key = expid, frame
        with self._changed:
            self._going[key] += 1  # before the wait: else the next reader comes before the last has gone
            free = self._changed.wait_for(lambda: not self._lent[key], wait_s)
            if not free:
                _less(self._going, key)
                self._changed.notify_all()
        try:
            yield free
        finally:
            with self._changed:
                if free:
                    _less(self._going, key)
                    self._changed.notify_all()


def _less(counts: Counter[tuple[int, int]], key: tuple[int, int]) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
