"""Arrivals and feeds for tests of monitors."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Came:
    message: Any
    peer: str = "127.0.0.1:5007"
    received_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    size: int = 100


class Queue:
    """A feed of what is put into it."""

    def __init__(self, arrivals: Iterable[Came] = ()) -> None:
        self.waiting = deque(arrivals)
        self.taken = 0

    def take(self, *, wait_s: float, most: int) -> list[Came]:
        if not self.waiting:
            time.sleep(min(wait_s, 0.01))
        batch = [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]
        self.taken += len(batch)
        return batch


class Flood:
    """A feed that always has as much as is asked for."""

    def __init__(self, arrival: Came) -> None:
        self.arrival, self.taken = arrival, 0

    def take(self, *, wait_s: float, most: int) -> list[Came]:
        self.taken += most
        return [self.arrival] * most
