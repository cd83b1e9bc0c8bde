"""Stream protocols as state machines: bytes in, messages out, and encoders beside them.

`DECODERS` holds them by name. Nothing here opens a socket, reads a clock or waits: `nightglass.sensors` does that, and
hands over the bytes. What a decoder is, is said in `nightglass.streams.decoding`.
"""

from __future__ import annotations

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


def find_protocol(name: str) -> StreamProtocol[Any]:
    """Return a protocol by its name.

    Raises
    ------
    Misconfigured
        If there is none of that name.
    """
    try:
        return DECODERS[name]
    except KeyError:
        message = f"stream protocol {name!r} is not known"
        raise Misconfigured(message, remedy=f"one of {', '.join(DECODERS)}") from None
