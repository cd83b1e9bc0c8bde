"""Where a stream comes from: hosts and ports, as people write them."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from nightglass.errors import Misconfigured
from nightglass.streams import find_protocol

__all__ = ["Endpoint", "SourceText", "interface_index", "parse_endpoint", "parse_source"]

_PORTS = range(1, 65536)
_URL = re.compile(r"([a-z0-9][a-z0-9_-]*)://(.+)")
_REMEDY = "write it as host:port, an IPv6 address in brackets: [::1]:6666"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port, or a group and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def multicast(self) -> bool:
        """Whether the host is the address of a group."""
        address = self._address()
        return address is not None and address.is_multicast

    @property
    def loopback(self) -> bool:
        """Whether only this host reaches it; a group is reached by whoever is on the interface."""
        address = self._address()
        return self.host == "localhost" if address is None else address.is_loopback

    def _address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class SourceText:
    """What a person named as a source.

    Attributes
    ----------
    protocol : str
        Name of the protocol; empty for a file, which says itself what it is.
    endpoints : tuple of Endpoint
    path : Path or None
        A recording, or a file of readouts.
    """

    protocol: str
    endpoints: tuple[Endpoint, ...]
    path: Path | None = None


def parse_endpoint(text: str) -> Endpoint:
    """Read ``host:port``.

    Raises
    ------
    Misconfigured
        If it is something else.
    """
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    wrong = not colon or not bare or any(mark in bare for mark in "[]/ ") or (":" in bare) != bracketed
    if wrong or not (port.isascii() and port.isdigit()) or int(port) not in _PORTS:
        message = f"{text!r} is no endpoint"
        raise Misconfigured(message, remedy=_REMEDY)
    return Endpoint(bare, int(port))


def parse_source(text: str) -> SourceText:
    """Read ``aartfaac://host:port,host:port``, ``astropix://group:port``, or the path of a file.

    Raises
    ------
    Misconfigured
        If protocol or endpoints are not known, or there is no such file.
    """
    match = _URL.fullmatch(text.strip())
    if match:
        protocol = find_protocol(match[1])
        return SourceText(protocol.name, tuple(map(parse_endpoint, match[2].split(","))))
    path = Path(text)
    if not path.is_file():
        message = f"{text!r} is neither a source nor a file"
        raise Misconfigured(message, remedy="write protocol://host:port,host:port, or the path of a recording")
    return SourceText("", (), path)


def interface_index(name: str) -> int:
    """Return the number of a network interface; 0, any, for an empty name.

    Raises
    ------
    Misconfigured
        If there is none of that name.
    """
    if not name:
        return 0
    try:
        return socket.if_nametoindex(name)
    except OSError:
        known = ", ".join(found for _, found in socket.if_nameindex())
        message = f"network interface {name!r} does not exist"
        raise Misconfigured(message, remedy=f"one of {known}, or an IPv4 address of this host") from None
