"""A message together with what the receiver knows about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

__all__ = ["Received"]

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Received(Generic[M]):
    """One message of a stream.

    Attributes
    ----------
    message : M
    peer : str
        Who sent it: the endpoint that was connected to, or the address that a datagram came from.
    received_at : datetime
        When it was taken from the system; aware, UTC.
    size : int
        Bytes of memory that it is counted as.
    """

    message: M
    peer: str
    received_at: datetime
    size: int
