"""Counting what a numbered stream lost, repeated and reordered."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Continuity", "Losses"]

_MODULUS = 1 << 32
_HALF = 1 << 31
_MOST_GAPS = 4096


@dataclass(frozen=True, slots=True)
class Losses:
    """What became of the numbers of a stream.

    Attributes
    ----------
    received : int
        Messages that came, whatever their numbers.
    lost : int
        Numbers between the first and the last that have not come; those that come late are taken off again.
    gaps : int
        Runs of missing numbers.
    late : int
        Messages that came after a later one.
    duplicates : int
        Messages whose number had come before.
    restarts : int
        Times when the sender began to count anew.
    """

    received: int = 0
    lost: int = 0
    gaps: int = 0
    late: int = 0
    duplicates: int = 0
    restarts: int = 0


class Continuity:
    """Accounts for numbers that count up by one, modulo 2^32, on a way that may lose, repeat and reorder.

    What was sent before the first message is not known, and not counted. A number that lies behind, is not missing, and
    carries a newer time than any before it tells that the sender was started anew. The last 4096 gaps are
    remembered; what comes later than that counts as a duplicate.
    """

    def __init__(self) -> None:
        self._received = self._lost = self._gaps = self._late = self._duplicates = self._restarts = 0
        self._first: int = 0
        self._next: int | None = None
        # numbers are unrolled: they go on beyond 2^32
        self._missing: list[tuple[int, int]] = []
        self._newest_ns = 0

    @property
    def losses(self) -> Losses:
        """The count up to now."""
        return Losses(self._received, self._lost, self._gaps, self._late, self._duplicates, self._restarts)

    def observe(self, ids: NDArray[np.uint32], timestamps_ns: NDArray[np.uint64]) -> Losses:
        """Take note of messages in the order of their arrival, and return what this call added to the count."""
        before = self.losses
        ids = np.asarray(ids, np.uint32)
        stamps = np.asarray(timestamps_ns, np.uint64)
        if ids.size:
            if self._next is None:
                self._first = self._next = int(ids[0])
            if ids[0] == self._next % _MODULUS and (ids[1:] - ids[:-1] == 1).all():
                self._received += ids.size
                self._next += ids.size
                self._newest_ns = max(self._newest_ns, int(stamps.max()))
            else:
                for number, stamp in zip(ids.tolist(), stamps.tolist(), strict=True):
                    self._next = self._one(number, stamp, self._next)
        now = self.losses
        return Losses(*(getattr(now, name) - getattr(before, name) for name in Losses.__slots__))

    def _one(self, number: int, stamp: int, expected: int) -> int:
        """Take note of one message, and return the number that is expected next."""
        self._received += 1
        newer, self._newest_ns = stamp > self._newest_ns, max(self._newest_ns, stamp)
        ahead = (number - expected) % _MODULUS
        if ahead < _HALF:
            if ahead:
                self._lost += ahead
                self._gaps += 1
                self._missing.append((expected, expected + ahead))
                del self._missing[:-_MOST_GAPS]
            return expected + ahead + 1
        place = expected + ahead - _MODULUS
        if self._fill(place):
            return expected
        if newer:
            self._restarts += 1
            self._missing = []
            self._first = number
            return number + 1
        if place < self._first:
            self._late += 1
        else:
            self._duplicates += 1
        return expected

    def _fill(self, place: int) -> bool:
        """Take a number off the missing ones; False if it is none of them."""
        index = bisect_right(self._missing, place, key=lambda gap: gap[0]) - 1
        if index < 0 or place >= self._missing[index][1]:
            return False
        start, stop = self._missing[index]
        rest = [gap for gap in ((start, place), (place + 1, stop)) if gap[0] < gap[1]]
        self._missing[index : index + 1] = rest
        self._lost -= 1
        self._late += 1
        self._gaps += len(rest) - 1
        return True
