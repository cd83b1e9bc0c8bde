"""What waits between receivers and whoever works on messages: bounded in bytes, beyond that by policy, and counted."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from nightglass.config import Overflow, StreamSource
from nightglass.errors import Misconfigured
from nightglass.sensors.received import Received
from nightglass.sensors.spill import Dropped, Spill
from nightglass.streams import find_protocol

__all__ = ["OVERHEAD_BYTES", "Backlog", "BacklogCounts", "open_backlog"]

M = TypeVar("M")

OVERHEAD_BYTES = 256
"""What Python takes for waiting, beside the message itself."""
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class BacklogCounts:
    """How full a backlog is, and what it had to let go.

    Attributes
    ----------
    bytes, messages : int
        What waits, in memory (bytes), in memory and on the disk (messages).
    spilled_bytes : int
        What waits on the disk.
    dropped, dropped_bytes : int
        Messages that were dropped since the start, and what they counted as in memory.
    peak_bytes : int
        The most that waited in memory.
    taken : int
        Messages that were handed on.
    blocked_s : float
        Time for which receivers had to wait.
    """

    bytes: int
    messages: int
    spilled_bytes: int
    dropped: int
    dropped_bytes: int
    peak_bytes: int
    taken: int
    blocked_s: float


class Backlog(Generic[M]):
    """A queue of many producers and one consumer.

    A message that is larger than the limit is let in when nothing else waits.

    Parameters
    ----------
    limit_bytes : int
        What may wait in memory, objects included.
    overflow : Overflow
    spill : Spill, optional
        Needed by the policy of that name; closed together with the backlog.

    Raises
    ------
    Misconfigured
        If spill and policy do not fit.
    """

    def __init__(self, limit_bytes: int, overflow: Overflow, *, spill: Spill[M] | None = None) -> None:
        if (overflow is Overflow.SPILL) != (spill is not None):
            message = f"overflow {overflow.value} {'needs' if spill is None else 'does not take'} a file"
            raise Misconfigured(message, remedy="give a spill to the policy of that name, and to no other")
        self._limit = limit_bytes
        self._overflow = overflow
        self._spill = spill
        self._waiting: deque[Received[M]] = deque()
        self._bytes = self._peak = self._taken = 0
        self._dropped = Dropped()
        self._blocked_s = 0.0
        self._closed = False
        lock = threading.Lock()
        self._filled = threading.Condition(lock)
        self._drained = threading.Condition(lock)

    @property
    def counts(self) -> BacklogCounts:
        """The counts up to now."""
        with self._filled:
            held, spilled = (self._spill.messages, self._spill.bytes) if self._spill else (0, 0)
            return BacklogCounts(
                self._bytes,
                len(self._waiting) + held,
                spilled,
                self._dropped.messages,
                self._dropped.size,
                self._peak,
                self._taken,
                self._blocked_s,
            )

    @property
    def trouble(self) -> str:
        """Why nothing can be spilt; empty when all is well."""
        return self._spill.trouble if self._spill else ""

    def put(self, received: Received[M]) -> None:
        """Add a message; with the policy `block` this waits for room."""
        self.put_all((received,))

    def put_all(self, batch: Sequence[Received[M]], *, hurry: threading.Event | None = None) -> None:
        """Add messages in order; a producer that is in a hurry to end no longer waits, and goes above the limit.

        After `close` messages are dropped, and counted.
        """
        with self._filled:
            for received in batch:
                self._admit(received, hurry)
            self._filled.notify()

    def take(self, *, wait_s: float, most: int) -> list[Received[M]]:
        """Return the oldest messages, up to so many; wait for the first, but no longer than given."""
        with self._filled:
            if not self._waiting and not self._closed:
                self._filled.wait_for(lambda: self._waiting or self._closed, wait_s)
            taken: list[Received[M]] = []
            while self._waiting and len(taken) < most:
                taken.append(self._pop())
                self._refill()
            self._taken += len(taken)
            if taken:
                self._drained.notify_all()
            return taken

    def close(self) -> None:
        """Let nothing in any more, wake whoever waits, and give the disk back; what is in memory can still be taken."""
        with self._filled:
            self._closed = True
            if self._spill is not None:
                while self._spill.messages:
                    received, lost = self._spill.take()
                    self._dropped += lost if received is None else lost + Dropped(1, received.size)
                self._spill.close()
            self._filled.notify_all()
            self._drained.notify_all()

    def _admit(self, received: Received[M], hurry: threading.Event | None) -> None:
        if self._closed:
            self._dropped += Dropped(1, received.size)
        elif self._spill is not None:
            self._admit_or_spill(received, self._spill)
        elif self._has_room(received):
            self._push(received)
        elif self._overflow is Overflow.BLOCK:
            self._wait(received, hurry)
        elif self._overflow is Overflow.DROP_OLDEST:
            self._drop_for(received)
        else:
            self._dropped += Dropped(1, received.size)

    def _admit_or_spill(self, received: Received[M], spill: Spill[M]) -> None:
        # what is on the disk came earlier
        if not spill.messages and self._has_room(received):
            self._push(received)
            return
        written, lost = spill.append(received)
        self._dropped += lost
        if not written:
            self._drop_for(received)

    def _drop_for(self, received: Received[M]) -> None:
        while self._waiting and not self._has_room(received):
            self._dropped += Dropped(1, self._pop().size)
        self._push(received)

    def _wait(self, received: Received[M], hurry: threading.Event | None) -> None:
        # what this producer brought before is there to be taken
        self._filled.notify()
        began = time.monotonic()
        while not (self._has_room(received) or self._closed or (hurry is not None and hurry.is_set())):
            self._drained.wait(_LOOK_S)
        self._blocked_s += time.monotonic() - began
        if self._closed:
            self._dropped += Dropped(1, received.size)
        else:
            self._push(received)

    def _refill(self) -> None:
        """Take from the disk what memory has room for."""
        if self._spill is None:
            return
        while self._spill.messages and (not self._waiting or self._bytes < self._limit // 2):
            received, lost = self._spill.take()
            self._dropped += lost
            if received is not None:
                self._push(received)

    def _has_room(self, received: Received[M]) -> bool:
        return not self._waiting or self._bytes + received.size + OVERHEAD_BYTES <= self._limit

    def _push(self, received: Received[M]) -> None:
        self._waiting.append(received)
        self._bytes += received.size + OVERHEAD_BYTES
        self._peak = max(self._peak, self._bytes)

    def _pop(self) -> Received[M]:
        received = self._waiting.popleft()
        self._bytes -= received.size + OVERHEAD_BYTES
        return received


def open_backlog(source: StreamSource, *, directory: Path) -> Backlog[Any]:
    """Return the backlog that a source asks for; the directory is for what it spills.

    Raises
    ------
    Misconfigured
        If the protocol is not known, or nothing can be written to the directory.
    """
    spill: Spill[Any] | None = None
    if source.overflow is Overflow.SPILL:
        spill = Spill(directory, find_protocol(source.protocol), limit_bytes=source.spill_mib << 20)
    return Backlog(source.backlog_mib << 20, source.overflow, spill=spill)
