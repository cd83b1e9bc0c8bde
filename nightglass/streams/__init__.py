"""Stream protocols as state machines: bytes in, messages out, and encoders beside them.

`DECODERS` holds them by name; other distributions add theirs through entry points of the group ``nightglass.streams``,
each of which names a `StreamProtocol`. Nothing here opens a socket, reads a clock or waits: `nightglass.sensors` does
that, and hands over the bytes. What a decoder is, is said in `nightglass.streams.decoding`.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from nightglass.errors import Misconfigured
from nightglass.streams import aartfaac, astropix
from nightglass.streams.continuity import Continuity, Losses
from nightglass.streams.decoding import BufferedDecoder, DatagramDecoder, Decoder, StreamProtocol, Tally
from nightglass.streams.storage import RecycledStorage

__all__ = [
    "DECODERS",
    "BufferedDecoder",
    "Continuity",
    "DatagramDecoder",
    "Decoder",
    "Losses",
    "RecycledStorage",
    "StreamProtocol",
    "Tally",
    "find_protocol",
    "load_protocols",
]

DECODERS: dict[str, StreamProtocol[Any]] = {
    protocol.name: protocol
    for protocol in (
        aartfaac.PROTOCOL,
        astropix.PROTOCOL,
        astropix.PROTOCOL_V3,
    )
}
"""Name -> protocol."""


@cache
def load_protocols() -> dict[str, StreamProtocol[Any]]:
    """Add the protocols of other distributions to `DECODERS`, and return it.

    Raises
    ------
    Misconfigured
        If an entry point cannot be loaded, is no `StreamProtocol`, or takes a name that is taken.
    """
    for point in entry_points(group="nightglass.streams"):
        try:
            protocol = point.load()
        except (ImportError, AttributeError) as error:
            message = f"stream protocol {point.name!r} ({point.value}) cannot be loaded: {error}"
            raise Misconfigured(message, remedy="repair or remove the distribution that declares it") from error
        if not isinstance(protocol, StreamProtocol) or protocol.name in DECODERS:
            problem = "takes a name that is taken" if isinstance(protocol, StreamProtocol) else "is no StreamProtocol"
            message = f"entry point {point.name!r} ({point.value}) {problem}"
            raise Misconfigured(message, remedy="repair or remove the distribution that declares it")
        DECODERS[protocol.name] = protocol
    return DECODERS


def find_protocol(name: str) -> StreamProtocol[Any]:
    """Return a protocol by its name.

    Raises
    ------
    Misconfigured
        If there is none of that name.
    """
    known = load_protocols()
    try:
        return known[name]
    except KeyError:
        message = f"stream protocol {name!r} is not known"
        raise Misconfigured(message, remedy=f"one of {', '.join(known)}") from None
