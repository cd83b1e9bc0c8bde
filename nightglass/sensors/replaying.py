"""Serving a recording the way it came: over TCP to whoever connects, or as datagrams."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from nightglass.errors import Misconfigured
from nightglass.sensors.endpoints import Endpoint
from nightglass.sensors.recordings import Piece, Recording
from nightglass.streams import find_protocol

__all__ = ["Replay"]

_TICK_S = 0.2


@dataclass(slots=True)
class _Place:
    """One endpoint that is served, and whoever is connected to it."""

    listener: socket.socket
    connection: socket.socket | None = None


class Replay:
    """Plays a recording.

    Connections are waited for before the first piece, and after each end of a connection that was recorded.

    Parameters
    ----------
    recording : Recording
    endpoints : tuple of Endpoint, optional
        Where to serve or to send; as recorded, on this host.
    speed : float
        1 as it came, 10 ten times faster; 0: as fast as it goes.
    interface : str
        IPv4 address of the interface for groups.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        endpoints: tuple[Endpoint, ...] = (),
        speed: float = 1.0,
        interface: str = "127.0.0.1",
    ) -> None:
        if endpoints and len(endpoints) != len(recording.endpoints):
            message = f"{len(endpoints)} endpoints for {len(recording.endpoints)} that were recorded"
            raise Misconfigured(message, remedy="name one for each")
        self._recording = recording
        self._speed = speed
        self._interface = interface
        self._stopping = threading.Event()
        self._datagrams = find_protocol(recording.protocol).datagrams
        self.pieces = 0
        self.endpoints = endpoints or tuple(
            one if one.multicast else Endpoint("::1" if ":" in one.host else "127.0.0.1", one.port)
            for one in recording.endpoints
        )
        self._places = [] if self._datagrams else [_Place(_listen(one)) for one in self.endpoints]

    def stop(self) -> None:
        """Ask `run` to return."""
        self._stopping.set()

    def run(self) -> int:
        """Play it once; return how many pieces went out.

        Raises
        ------
        Misconfigured
            If the endpoints cannot be served.
        """
        if self._datagrams:
            self._send_datagrams()
        else:
            self._serve()
        return self.pieces

    def _due(self) -> Iterator[Piece]:
        began = time.monotonic()
        first: int | None = None
        for piece in self._recording.pieces():
            first = piece.at_ns if first is None else first
            if self._speed:
                wait = began + (piece.at_ns - first) * 1e-9 / self._speed - time.monotonic()
                if wait > 0:
                    self._stopping.wait(wait)
            if self._stopping.is_set():
                return
            yield piece
            self.pieces += 1

    def _send_datagrams(self) -> None:
        with contextlib.ExitStack() as stack:
            senders = [stack.enter_context(_sender(one, self._interface)) for one in self.endpoints]
            for piece in self._due():
                to = self.endpoints[piece.endpoint]
                with contextlib.suppress(ConnectionRefusedError):  # nobody listened to the one before
                    senders[piece.endpoint].sendto(piece.data, (to.host, to.port))

    def _serve(self) -> None:
        try:
            for place in self._places:
                self._await(place)
            for piece in self._due():
                self._hand_over(self._places[piece.endpoint], piece)
        finally:
            for place in self._places:
                place.listener.close()
                if place.connection is not None:
                    place.connection.close()

    def _hand_over(self, place: _Place, piece: Piece) -> None:
        if not piece.data:
            if place.connection is not None:
                place.connection.close()
            place.connection = None
            return
        if place.connection is None:
            self._await(place)
        view = memoryview(piece.data)
        while len(view) and place.connection is not None and not self._stopping.is_set():
            try:
                view = view[place.connection.send(view) :]
            except TimeoutError:
                continue
            except ConnectionError:  # whoever comes next gets the next piece
                place.connection.close()
                place.connection = None

    def _await(self, place: _Place) -> None:
        while place.connection is None and not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                place.connection, _ = place.listener.accept()
                place.connection.settimeout(_TICK_S)


def _listen(endpoint: Endpoint) -> socket.socket:
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    try:
        listener = socket.create_server((endpoint.host, endpoint.port), family=family)
    except OSError as error:
        message = f"{endpoint} cannot be served: {error.strerror}"
        raise Misconfigured(message, remedy="name another endpoint, or end the program that has it") from error
    listener.settimeout(_TICK_S)
    return listener


def _sender(endpoint: Endpoint, interface: str) -> socket.socket:
    if ":" in endpoint.host:
        return socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
    return sender
