"""What every stream decoder is: bytes in, messages out, everything else counted. No sockets, no clocks."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

__all__ = ["BufferedDecoder", "Bytes", "DatagramDecoder", "Decoder", "StreamProtocol", "Tally"]

Bytes = bytes | bytearray | memoryview

MessageT = TypeVar("MessageT")


@dataclass(slots=True)
class Tally:
    """What went through a decoder since it was made.

    When the stream has ended (`Decoder.finish`), every byte that came in is either part of a message or skipped.

    Attributes
    ----------
    received : int
        Bytes that came in.
    skipped : int
        Bytes that belong to no message: garbage, refused messages, the torn end of a stream.
    messages : int
        Messages that were given out.
    resynchronised : int
        How often the decoder had lost its place, and found the start of a good message again.
    truncated : int
        How often the stream ended inside a message.
    faults : Counter
        What was wrong, by the name of its status bit.
    """

    received: int = 0
    skipped: int = 0
    messages: int = 0
    resynchronised: int = 0
    truncated: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def note(self, status: enum.Flag) -> None:
        """Count each bit of a status."""
        for bit in status:
            self.faults[str(bit.name)] += 1


class Decoder(Protocol[MessageT]):
    """A protocol as a state machine.

    Whoever owns the socket either hands over what came (`feed`), or asks where to put it (`get_buffer`), lets the
    kernel write there, and says how much that was (`buffer_updated`): nothing is copied then. The two names are those
    of `asyncio.BufferedProtocol`. Both ways give the same messages, however the bytes are cut. Nothing that comes in
    raises: what is wrong is counted in the tally, and the decoder goes on at the next message.
    """

    @property
    def tally(self) -> Tally:
        """The running count; the decoder's own object, to be read."""
        ...

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Return where the next bytes belong, at least one; valid until `buffer_updated`."""
        ...

    def buffer_updated(self, count: int) -> list[MessageT]:
        """Take note of bytes that were written to the buffer, and return the messages that are now whole."""
        ...

    def feed(self, data: Bytes) -> list[MessageT]:
        """Take bytes of any length, and return the messages that are now whole."""
        ...

    def finish(self) -> list[MessageT]:
        """Take note that the stream has ended; the decoder is ready for a new one, its tally goes on."""
        ...


class DatagramDecoder(Decoder[MessageT], Protocol[MessageT]):
    """A decoder of a protocol whose messages also travel singly."""

    def datagram(self, data: Bytes) -> list[MessageT]:
        """Take one datagram, which holds one message; a bad one gives none, and is counted."""
        ...


class BufferedDecoder(ABC, Generic[MessageT]):
    """Makes a `Decoder` of the two calls that fill a buffer."""

    def __init__(self) -> None:
        self._tally = Tally()

    @property
    def tally(self) -> Tally:
        """The running count."""
        return self._tally

    @abstractmethod
    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Return where the next bytes belong."""

    @abstractmethod
    def buffer_updated(self, count: int) -> list[MessageT]:
        """Take note of bytes that were written to the buffer."""

    @abstractmethod
    def finish(self) -> list[MessageT]:
        """Take note that the stream has ended."""

    def feed(self, data: Bytes) -> list[MessageT]:
        """Take bytes of any length, and return the messages that are now whole."""
        messages: list[MessageT] = []
        rest = memoryview(data).cast("B")
        while len(rest):
            buffer = self.get_buffer()
            count = min(len(buffer), len(rest))
            buffer[:count] = rest[:count]
            messages += self.buffer_updated(count)
            rest = rest[count:]
        return messages


@dataclass(frozen=True, slots=True)
class StreamProtocol(Generic[MessageT]):
    """One line of the registry.

    Attributes
    ----------
    name : str
        What configuration and command line call it.
    doc : str
        One line for people.
    decoder : callable
        Makes a decoder; what can be set about it are keyword arguments with defaults. It is a `DatagramDecoder` where
        messages travel singly.
    encode : callable
        The bytes of a message as they stand on the wire: the inverse of decoding.
    example : callable
        Makes a message from a seed, the same one every time; for tests and for senders without data of their own.
    datagrams : bool
        Whether messages travel singly.
    size : callable, optional
        Bytes of memory that a message holds; without it, what `encode` gives is counted.
    number : callable, optional
        The number of a message, which counts up by one, and its time in nanoseconds; by these losses are counted.
    settings : mapping
        Keyword arguments of the decoder that a stream source sets: their names -> its fields.
    """

    name: str
    doc: str
    decoder: Callable[..., Decoder[MessageT]]
    encode: Callable[[MessageT], bytes]
    example: Callable[[int], MessageT]
    datagrams: bool = False
    size: Callable[[MessageT], int] | None = None
    number: Callable[[MessageT], tuple[int, int]] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    def held_bytes(self, message: MessageT) -> int:
        """Return the bytes of memory that a message holds."""
        return self.size(message) if self.size is not None else len(self.encode(message))
