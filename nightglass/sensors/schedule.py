"""Which file is checked next, which is tried again and when, and which has had its time: without threads or clock."""

from __future__ import annotations

import enum
import heapq
import itertools
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from nightglass.model import Sighting

__all__ = ["TransferSchedule", "Verdict"]

_ECHO_S = 10.0


class Verdict(enum.Enum):
    """What becomes of a file after a check."""

    DONE = enum.auto()
    """The result holds, and the file is not kept any more."""
    AGAIN = enum.auto()
    """It is checked again, now or later."""
    OVERDUE = enum.auto()
    """It did not become complete in its time; it keeps its slot until `TransferSchedule.finished`."""


@dataclass(slots=True)
class _Transfer:
    """A file that is not through yet.

    Attributes
    ----------
    state : tuple of int
        Size and time of modification, as last heard of.
    grown_at : float
        When the state last changed.
    tries : int
        Failed checks since it was last offered.
    ticket : int
        Number of its entry in a queue; an entry with another number is void.
    repeated : bool
        It is tried because time went by, not because it was offered.
    running, changed : bool
        It is being checked; it was offered again since that began.
    """

    sighting: Sighting
    state: tuple[int, int]
    grown_at: float
    tries: int = 0
    ticket: int = -1
    repeated: bool = False
    running: bool = False
    changed: bool = False


class TransferSchedule:
    """Bounded slots, offered files before repeated tries, backoff, and a time-out since the last growth.

    Parameters
    ----------
    slots : int
        Checks at once. All but one of them may be taken by repeated tries, so that a file that has just come never
        waits for those that are slow to come; a single slot serves both, offered files first.
    timeout_s : float
        Time without growth after which an incomplete file is given up.
    first_wait_s, longest_wait_s : float
        Wait before the second try; it doubles with each further one up to the longest.

    Notes
    -----
    Times are seconds of any clock that never goes back. Each call takes O(log n) time.
    """

    def __init__(self, *, slots: int, timeout_s: float, first_wait_s: float = 0.2, longest_wait_s: float = 3.0) -> None:
        self._slots = slots
        self._slots_for_repeats = max(1, slots - 1)
        self._timeout_s = timeout_s
        self._first_wait_s = first_wait_s
        self._longest_wait_s = longest_wait_s
        self._transfers: dict[Path, _Transfer] = {}
        self._offered: list[tuple[float, int, Path]] = []
        self._repeats: list[tuple[float, int, Path]] = []
        self._results: OrderedDict[Path, tuple[tuple[int, int], float]] = OrderedDict()
        self._tickets = itertools.count()
        self._running = 0
        self._running_repeats = 0

    def __len__(self) -> int:
        """Return the number of files that are not through yet."""
        return len(self._transfers)

    def offer(self, sighting: Sighting, now: float) -> None:
        """Add a file, or say that it changed: it is then checked at once.

        The echo of a result is passed over: the close event of a file that was found complete just before it came.
        """
        state = (sighting.size, sighting.mtime_ns)
        transfer = self._transfers.get(sighting.path)
        if transfer is None:
            if self._is_echo(sighting.path, state, now):
                return
            transfer = self._transfers[sighting.path] = _Transfer(sighting, state, now)
        transfer.sighting = sighting
        _grow(transfer, state, now)
        if transfer.running:
            transfer.changed = True
        else:
            self._enqueue_offered(transfer, now)

    def take(self, now: float) -> Sighting | None:
        """Return a file to check now; it holds a slot until its outcome is told. None: there is none, or no slot."""
        if self._running >= self._slots:
            return None
        transfer = self._pop(self._offered, now)
        if transfer is None and self._running_repeats < self._slots_for_repeats:
            transfer = self._pop(self._repeats, now)
        if transfer is None:
            return None
        transfer.running, transfer.changed = True, False
        self._running += 1
        self._running_repeats += transfer.repeated
        return transfer.sighting

    def next_due(self) -> float:
        """Return when `take` may next have something; infinity: not before something is offered or a slot gets free."""
        if self._running >= self._slots:
            return float("inf")
        heads = [self._offered] if self._running_repeats >= self._slots_for_repeats else [self._offered, self._repeats]
        return min((queue[0][0] for queue in heads if queue), default=float("inf"))

    def superseded(self, path: Path, state: tuple[int, int]) -> bool:
        """Return whether a file was offered in another state than that whose check has just ended."""
        transfer = self._transfers[path]
        return transfer.changed and transfer.state != state

    def finished(self, path: Path, state: tuple[int, int] | None, now: float) -> Verdict:
        """Free the slot of a file whose check gave a final result, good or bad.

        Parameters
        ----------
        state : tuple of int or None
            Size and time of modification that a good result is about; None: whatever is offered is checked again.
        """
        transfer = self._release(path)
        if transfer.changed and transfer.state != state:
            self._enqueue_offered(transfer, now)
            return Verdict.AGAIN
        del self._transfers[path]
        if state is not None:
            self._results[path] = (state, now)
            self._results.move_to_end(path)
        return Verdict.DONE

    def postponed(self, path: Path, state: tuple[int, int], now: float, *, timeout_s: float | None = None) -> Verdict:
        """Free the slot of a file that is not complete yet, unless it has had its time.

        Parameters
        ----------
        state : tuple of int
            Size and time of modification, as they are now.
        timeout_s : float, optional
            A shorter time-out for this reason.
        """
        transfer = self._transfers[path]
        _grow(transfer, state, now)
        ends_at = transfer.grown_at + min(self._timeout_s, self._timeout_s if timeout_s is None else timeout_s)
        if now >= ends_at and not transfer.changed:
            return Verdict.OVERDUE
        self._release(path)
        if transfer.changed:
            self._enqueue_offered(transfer, now)
        else:
            self._enqueue_repeated(transfer, min(now + self._backoff(transfer), ends_at))
        return Verdict.AGAIN

    def refused(self, path: Path, now: float) -> None:
        """Free the slot of a file whose result nobody took: it is checked again until somebody does."""
        transfer = self._release(path)
        transfer.grown_at = now
        self._enqueue_repeated(transfer, now + self._backoff(transfer))

    def _is_echo(self, path: Path, state: tuple[int, int], now: float) -> bool:
        while self._results:
            oldest, (_, told_at) = next(iter(self._results.items()))
            if now - told_at < _ECHO_S:
                break
            del self._results[oldest]
        return path in self._results and self._results[path][0] == state

    def _backoff(self, transfer: _Transfer) -> float:
        transfer.tries += 1
        # the exponent is bounded, for a file that is refused all night
        return min(self._first_wait_s * 2.0 ** min(transfer.tries - 1, 30), self._longest_wait_s)

    def _enqueue_offered(self, transfer: _Transfer, now: float) -> None:
        transfer.tries, transfer.repeated = 0, False
        self._enqueue(self._offered, transfer, now)

    def _enqueue_repeated(self, transfer: _Transfer, due: float) -> None:
        transfer.repeated = True
        self._enqueue(self._repeats, transfer, due)

    def _enqueue(self, queue: list[tuple[float, int, Path]], transfer: _Transfer, due: float) -> None:
        transfer.ticket = next(self._tickets)
        heapq.heappush(queue, (due, transfer.ticket, transfer.sighting.path))

    def _pop(self, queue: list[tuple[float, int, Path]], now: float) -> _Transfer | None:
        while queue and queue[0][0] <= now:
            _, ticket, path = heapq.heappop(queue)
            transfer = self._transfers.get(path)
            if transfer is not None and transfer.ticket == ticket:
                return transfer
        return None

    def _release(self, path: Path) -> _Transfer:
        transfer = self._transfers[path]
        transfer.running = False
        self._running -= 1
        self._running_repeats -= transfer.repeated
        return transfer


def _grow(transfer: _Transfer, state: tuple[int, int], now: float) -> None:
    if state != transfer.state:
        transfer.state, transfer.grown_at = state, now
