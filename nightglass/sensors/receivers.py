"""The receivers of a stream: one for each endpoint that its source names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nightglass.config import Overflow, StreamSource
from nightglass.errors import Misconfigured
from nightglass.sensors.backlog import Backlog
from nightglass.sensors.endpoints import SourceText, parse_endpoint
from nightglass.sensors.receiver import Receiver, Tap
from nightglass.sensors.tcp import TcpReceiver
from nightglass.sensors.udp import UdpReceiver
from nightglass.streams import DatagramDecoder, Decoder, StreamProtocol, find_protocol

__all__ = ["make_decoder", "make_source", "open_receivers"]


def open_receivers(
    source: StreamSource,
    backlog: Backlog[Any],
    *,
    on_alarm: Callable[[str], None] | None = None,
    tap: Callable[[int], Tap] | None = None,
) -> tuple[Receiver, ...]:
    """Make the receivers of a source, in the order of its endpoints; they are still to be started.

    Parameters
    ----------
    tap : callable, optional
        Takes the number of an endpoint, and returns what is shown its bytes.

    Raises
    ------
    Misconfigured
        If the protocol is not known, an endpoint is none, or other hosts would reach it without permission.
    """
    protocol = find_protocol(source.protocol)
    kind: Callable[..., Receiver] = UdpReceiver if protocol.datagrams else TcpReceiver
    endpoints = [parse_endpoint(text) for text in source.endpoints]
    if len(set(endpoints)) < len(endpoints):
        message = f"stream {source.name}: an endpoint is named twice"
        raise Misconfigured(message, remedy="name each sender once")
    return tuple(
        kind(
            endpoint,
            protocol,
            make_decoder(protocol, source),
            backlog,
            source,
            on_alarm=on_alarm,
            tap=tap(number) if tap else None,
        )
        for number, endpoint in enumerate(endpoints)
    )


def make_decoder(protocol: StreamProtocol[Any], source: StreamSource) -> Decoder[Any] | DatagramDecoder[Any]:
    """Return a decoder as the source wants it."""
    return protocol.decoder(**{name: getattr(source, field) for name, field in protocol.settings.items()})


def make_source(
    named: SourceText, *, camera: str = "", interface: str = "", overflow: Overflow = Overflow.DROP_OLDEST
) -> StreamSource:
    """Return the source that a person named on the command line, with defaults for everything else.

    Who names an interface, or an address that other hosts reach, wants to be reached.
    """
    reached = any(not endpoint.loopback and not endpoint.multicast for endpoint in named.endpoints)
    return StreamSource(
        name=named.protocol,
        camera=camera,
        protocol=named.protocol,
        endpoints=tuple(map(str, named.endpoints)),
        interface=interface,
        bind_any=reached or bool(interface),
        overflow=overflow,
    )
