"""What goes wrong on the way from a sender: decided by rates and a seed, counted, and told apart from sockets."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

from nightglass.errors import Misconfigured

__all__ = ["Delivery", "FaultPlan", "FaultyWay"]

_LATEST = 4
_MARK_BYTES = 3
_PIECES = 5
_PIECE_PAUSE_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """How often each fault befalls a message, 0 to 1.

    Attributes
    ----------
    late : float
        Sent after one to four later ones.
    missing : float
        Not sent.
    duplicate : float
        Sent twice.
    corrupt : float
        Bits are flipped in the first bytes, by which readers know a message; no format here has a checksum.
    torn : float
        Only its first part is sent, as by a program that does not look at what `send` returns.
    stalled : float
        Sent after a silence.
    dribbled : float
        Sent in several pieces with pauses between them; over TCP only.
    disconnected : float
        The connection is closed in the middle of it; over TCP only.
    stall_s : float
        Length of a silence.
    seed : int
    """

    late: float = 0.0
    missing: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    torn: float = 0.0
    stalled: float = 0.0
    dribbled: float = 0.0
    disconnected: float = 0.0
    stall_s: float = 1.0
    seed: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("stall_s", "seed") and not 0 <= value <= 1:
                message = f"fault {field.name} = {value} is no rate"
                raise Misconfigured(message, remedy="give the share of messages, 0 to 1")


@dataclass(frozen=True, slots=True)
class Delivery:
    """Bytes to send, after a pause; the connection may end with them."""

    data: bytes
    pause_s: float = 0.0
    closes: bool = False


class FaultyWay:
    """Takes messages in order, and says what of them is sent, and how.

    Attributes
    ----------
    counts : Counter
        What was done -> to how many messages; ``sent`` are those that went out whole, repetitions not counted.
    """

    def __init__(self, plan: FaultPlan, *, datagrams: bool) -> None:
        self._plan = plan
        self._datagrams = datagrams
        self._random = random.Random(plan.seed)
        self._held: list[tuple[int, bytes]] = []
        self._number = 0
        self.counts: Counter[str] = Counter()

    def send(self, messages: Iterable[bytes]) -> Iterator[Delivery]:
        """Yield deliveries; at the end those that are still held back."""
        for message in messages:
            yield from self.one(message)
        self._number += _LATEST
        yield from self._overdue()

    def one(self, message: bytes) -> Iterator[Delivery]:
        """Yield what is to be sent when it is a message's turn."""
        self._number += 1
        if self._falls("missing"):
            pass
        elif self._falls("late"):
            self._held.append((self._number + self._random.randint(1, _LATEST), message))
        else:
            yield from self._send(message)
        yield from self._overdue()

    def _send(self, message: bytes) -> Iterator[Delivery]:
        pause_s = self._plan.stall_s if self._falls("stalled") else 0.0
        if self._falls("corrupt"):
            place = self._random.randrange(_MARK_BYTES)
            changed = message[place] ^ self._random.randint(1, 255)
            yield Delivery(message[:place] + bytes([changed]) + message[place + 1 :], pause_s)
        elif self._falls("torn"):
            yield Delivery(message[: self._cut(message)], pause_s)
        elif not self._datagrams and self._falls("disconnected"):
            yield Delivery(message[: self._cut(message)], pause_s, closes=True)
        else:
            self.counts["sent"] += 1
            yield from self._whole(message, pause_s)
            if self._falls("duplicate"):
                yield Delivery(message)

    def _whole(self, message: bytes, pause_s: float) -> Iterator[Delivery]:
        if self._datagrams or not self._falls("dribbled"):
            yield Delivery(message, pause_s)
            return
        cuts = sorted(self._random.randrange(1, len(message)) for _ in range(_PIECES - 1))
        for start, stop in zip([0, *cuts], [*cuts, len(message)], strict=True):
            yield Delivery(message[start:stop], pause_s if start == 0 else _PIECE_PAUSE_S)

    def _overdue(self) -> Iterator[Delivery]:
        due = [message for number, message in self._held if number <= self._number]
        self._held = [item for item in self._held if item[0] > self._number]
        for message in due:
            self.counts["sent"] += 1
            yield Delivery(message)

    def _cut(self, message: bytes) -> int:
        return self._random.randrange(_MARK_BYTES, len(message))

    def _falls(self, fault: str) -> bool:
        rate = getattr(self._plan, fault)
        hit = bool(rate) and self._random.random() < rate
        self.counts[fault] += hit
        return hit
