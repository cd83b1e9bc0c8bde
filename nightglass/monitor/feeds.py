"""Where a monitor's messages come from: anything that gives out arrivals, as a receiver's backlog does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

__all__ = ["Arrival", "Feed", "FeedState"]

MessageT_co = TypeVar("MessageT_co", covariant=True)


class Arrival(Protocol[MessageT_co]):
    """A message, and how it came."""

    @property
    def message(self) -> MessageT_co:
        """What the decoder made."""
        ...

    @property
    def peer(self) -> str:
        """Who sent it."""
        ...

    @property
    def received_at(self) -> datetime:
        """When it came; aware, UTC."""
        ...

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        ...


class Feed(Protocol[MessageT_co]):
    """Gives out arrivals in order; has one taker."""

    def take(self, *, wait_s: float, most: int) -> Sequence[Arrival[MessageT_co]]:
        """Return what is there, up to a number; wait for a first one no longer than that."""
        ...


@dataclass(frozen=True, slots=True)
class FeedState:
    """How the way to the monitor is doing.

    Attributes
    ----------
    losses : mapping
        What was lost or damaged -> how often, since the start; zeros included.
    alarms : tuple of str
        What a person ought to know now: a peer that is away, a full backlog.
    peers : tuple of (str, str)
        Each peer and its state.
    """

    losses: Mapping[str, int] = field(default_factory=dict)
    alarms: tuple[str, ...] = ()
    peers: tuple[tuple[str, str], ...] = ()
