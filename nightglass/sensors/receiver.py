"""What every receiver of a stream is: a thread between a socket and a backlog, and an account of what came."""

from __future__ import annotations

import enum
import logging
import random
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

import numpy as np

from nightglass.config import StreamSource
from nightglass.sensors.backlog import Backlog
from nightglass.sensors.endpoints import Endpoint
from nightglass.sensors.received import Received
from nightglass.sensors.reporting import Report
from nightglass.streams import Continuity, Decoder, Losses, StreamProtocol

__all__ = ["Receiver", "ReceiverState", "ReceiverStatus", "Tap", "ThreadedReceiver", "add_losses"]

_log = logging.getLogger(__name__)

M = TypeVar("M")

Tap = Callable[[memoryview], None]
"""Is shown bytes as they came, before they are decoded, and none where a connection ended; must not keep them."""

_MOST_SENDERS = 64
_JITTER = 0.3


class ReceiverState(enum.StrEnum):
    """How far a receiver is."""

    IDLE = "idle"
    CONNECTING = "connecting"
    RECEIVING = "receiving"
    """Connected, or listening."""
    WAITING = "waiting"
    """Until the next attempt."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverStatus:
    """What a receiver has seen since it was made.

    Attributes
    ----------
    peer : str
        The endpoint.
    state : ReceiverState
    connected_since, last_message_at : datetime or None
        Aware, UTC.
    messages, bytes, skipped, resynchronised, truncated : int
        As in `Tally`.
    faults : mapping
        What was wrong -> how often.
    losses : Losses or None
        By the numbers of messages, over all senders; None where messages have no numbers.
    kernel_drops : int or None
        Datagrams that the system dropped because its buffer was full; None for connections.
    reconnects : int
        Connections that were made after the first.
    buffer_bytes : int
        What the system granted.
    trouble : str
        Why nothing can come; empty when all is well.
    """

    peer: str
    state: ReceiverState
    connected_since: datetime | None
    last_message_at: datetime | None
    messages: int
    bytes: int
    skipped: int
    resynchronised: int
    truncated: int
    faults: Mapping[str, int]
    losses: Losses | None
    kernel_drops: int | None
    reconnects: int
    buffer_bytes: int
    trouble: str


class Receiver(Protocol):
    """Brings messages from somewhere into a backlog, in a thread of its own."""

    @property
    def status(self) -> ReceiverStatus:
        """How it fares; may be asked from any thread."""
        ...

    def start(self) -> None:
        """Begin; what is not there yet is waited for."""
        ...

    def stop(self) -> None:
        """Ask it to end; what it holds goes to the backlog, also above its limit."""
        ...

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it has ended; say whether it has."""
        ...


def add_losses(one: Losses, other: Losses) -> Losses:
    """Return the sum of two counts."""
    return Losses(*(getattr(one, name) + getattr(other, name) for name in Losses.__slots__))


class ThreadedReceiver(ABC, Generic[M]):
    """The part that receivers have in common.

    Parameters
    ----------
    endpoint : Endpoint
    protocol : StreamProtocol
    decoder : Decoder
        This receiver's own.
    backlog : Backlog
    settings : StreamSource
    on_alarm : callable, optional
        Called in the receiver's thread with a text, once for each trouble; must not block.
    clock : callable, optional
        Gives the aware moment for `Received.received_at`.
    tap : callable, optional
    """

    def __init__(
        self,
        endpoint: Endpoint,
        protocol: StreamProtocol[M],
        decoder: Decoder[M],
        backlog: Backlog[M],
        settings: StreamSource,
        *,
        on_alarm: Callable[[str], None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        tap: Tap | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._protocol = protocol
        self._decoder = decoder
        self._backlog = backlog
        self._settings = settings
        self._report = Report(on_alarm)
        self._clock = clock
        self._tap = tap
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"receiver-{endpoint}", daemon=True)
        self._state = ReceiverState.IDLE
        self._connections = 0
        self._connected_since: datetime | None = None
        self._last_message_at: datetime | None = None
        self._buffer_bytes = 0
        self._continuities: OrderedDict[str, Continuity] = OrderedDict()
        self._forgotten = Losses()

    @property
    def status(self) -> ReceiverStatus:
        """How it fares."""
        tally = self._decoder.tally
        return ReceiverStatus(
            peer=str(self._endpoint),
            state=self._state,
            connected_since=self._connected_since,
            last_message_at=self._last_message_at,
            messages=tally.messages,
            bytes=tally.received,
            skipped=tally.skipped,
            resynchronised=tally.resynchronised,
            truncated=tally.truncated,
            faults=dict(tally.faults),
            losses=self._losses(),
            kernel_drops=self._kernel_drops(),
            reconnects=max(self._connections - 1, 0),
            buffer_bytes=self._buffer_bytes,
            trouble=self._report.trouble,
        )

    def start(self) -> None:
        """Begin; what is not there yet is waited for."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end."""
        self._stopping.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it has ended; say whether it has."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @abstractmethod
    def _attend(self) -> str:
        """Receive for as long as that goes; return why it ended, or raise OSError."""

    def _kernel_drops(self) -> int | None:
        return None

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            before, trouble = self._decoder.tally.received, ""
            try:
                trouble = self._attend()
            except OSError as error:
                trouble = error.strerror or str(error)
            except Exception as error:  # noqa: BLE001 - a boundary: one stream's surprise must not end its receiver
                _log.exception("receiver of %s", self._endpoint)
                trouble = f"{type(error).__name__}: {error}"
            self._connected_since = None
            if self._stopping.is_set():
                break
            failures = 0 if self._decoder.tally.received > before else failures + 1
            self._complain(trouble)
            self._state = ReceiverState.WAITING
            self._stopping.wait(self._pause(failures))
        self._state = ReceiverState.STOPPED

    def _pause(self, failures: int) -> float:
        """Return the wait before another attempt; spread, so that many receivers do not come at once."""
        settings = self._settings
        wait = min(settings.reconnect_s * 2.0 ** min(max(failures - 1, 0), 30), settings.reconnect_limit_s)
        return wait * random.uniform(1 - _JITTER, 1 + _JITTER)

    def _complain(self, trouble: str) -> None:
        text = f"{self._settings.name}: {self._endpoint}: {trouble}"
        if text != self._report.trouble:
            self._report.alarm(text)

    def _begun(self, buffer_bytes: int) -> None:
        self._connections += 1
        self._buffer_bytes = buffer_bytes
        self._connected_since = self._clock()
        self._state = ReceiverState.RECEIVING
        self._report.trouble = ""

    def _deliver(self, messages: Sequence[M], peer: str) -> None:
        """Pass on messages of one sender."""
        if not messages:
            return
        self._observe(messages, peer)
        now = self._clock()
        size = self._protocol.held_bytes
        self._backlog.put_all(
            [Received(message, peer, now, size(message)) for message in messages], hurry=self._stopping
        )
        self._last_message_at = now

    def _observe(self, messages: Sequence[M], peer: str) -> None:
        if self._protocol.number is None:
            return
        continuity = self._continuities.get(peer)
        if continuity is None:
            continuity = self._continuities[peer] = Continuity()
            if len(self._continuities) > _MOST_SENDERS:
                self._forgotten = add_losses(self._forgotten, self._continuities.popitem(last=False)[1].losses)
        self._continuities.move_to_end(peer)
        numbers = np.array([self._protocol.number(message) for message in messages], np.uint64)
        continuity.observe(numbers[:, 0].astype(np.uint32), numbers[:, 1])

    def _losses(self) -> Losses | None:
        if self._protocol.number is None:
            return None
        total = self._forgotten
        for continuity in tuple(self._continuities.values()):
            total = add_losses(total, continuity.losses)
        return total
