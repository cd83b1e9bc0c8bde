"""Senders of streams: a server that serves several clients over TCP, and one that sends datagrams."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from nightglass.errors import Misconfigured
from nightglass.simulate.faults import FaultPlan, FaultyWay

__all__ = ["DatagramEmulator", "StreamEmulator", "Wires", "group_sender"]

_log = logging.getLogger(__name__)

Wires = Callable[[int, int], bytes]
"""Takes the number of a port and that of a step, and returns a message as it stands on the wire."""

_TICK_S = 0.2
_SEND_BYTES = 1 << 20


class StreamEmulator:
    """Serves messages on several ports, a step on all of them at the same time; a context manager.

    Every client gets every step from the one on that is due when it connects. One that reads slowly falls behind
    by itself, and holds up nobody else.

    Parameters
    ----------
    host : str
    ports : sequence of int
        0 takes one that is free.
    wires : callable
    period_s : float
        From step to step; 0: as fast as the client reads.
    plan : FaultPlan
        Each client of each port has faults of its own, always the same ones.
    steps : int
        After so many a client's connection is closed; 0: never.
    """

    def __init__(
        self,
        host: str,
        ports: Sequence[int],
        wires: Wires,
        *,
        period_s: float = 1.0,
        plan: FaultPlan | None = None,
        steps: int = 0,
    ) -> None:
        self._wires = wires
        self._period_s = period_s
        self._plan = plan or FaultPlan()
        self._steps = steps
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._began = time.monotonic()
        self._listeners = [_listen(host, port) for port in ports]
        self.ports = tuple(int(listener.getsockname()[1]) for listener in self._listeners)

    @property
    def counts(self) -> Counter[str]:
        """What was done to messages, over all clients that have gone or are there."""
        with self._lock:
            return Counter(self._counts)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        for number, listener in enumerate(self._listeners):
            self._begin(self._accept, listener, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close everything, and wait for that."""
        self._stopping.set()
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join()
        for listener in self._listeners:
            listener.close()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is stopped; say whether it is."""
        return self._stopping.wait(timeout_s)

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        with self._lock:
            self._threads = [*(one for one in self._threads if one.is_alive() or one.ident is None), thread]
        thread.start()

    def _accept(self, listener: socket.socket, number: int) -> None:
        client = 0
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                connection, address = listener.accept()
                _log.info("port %d: client %s", self.ports[number], address)
                plan = replace(self._plan, seed=self._plan.seed + 1000 * number + client)
                self._begin(self._serve, connection, number, plan)
                client += 1

    def _serve(self, connection: socket.socket, number: int, plan: FaultPlan) -> None:
        way = FaultyWay(plan, datagrams=False)
        told: Counter[str] = Counter()
        connection.settimeout(_TICK_S)
        with connection, contextlib.suppress(ConnectionError):
            for delivery in way.send(self._due(number)):
                if self._stopping.wait(delivery.pause_s) if delivery.pause_s else self._stopping.is_set():
                    break
                self._push(connection, delivery.data)
                with self._lock:
                    self._counts += way.counts - told
                told = Counter(way.counts)
                if delivery.closes:
                    break
        with self._lock:
            self._counts += way.counts - told

    def _due(self, number: int) -> Iterator[bytes]:
        """Yield the message of each step when it is due."""
        first = int((time.monotonic() - self._began) / self._period_s) + 1 if self._period_s else 0
        step = first
        while not self._steps or step < first + self._steps:
            wait = self._began + step * self._period_s - time.monotonic()
            if self._stopping.wait(wait) if wait > 0 else self._stopping.is_set():
                return
            yield self._wires(number, step)
            step += 1

    def _push(self, connection: socket.socket, data: bytes) -> None:
        view = memoryview(data)
        while len(view) and not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                view = view[connection.send(view[:_SEND_BYTES]) :]


class DatagramEmulator:
    """Sends messages as datagrams, to a host or a group.

    Parameters
    ----------
    host, port
        Where to.
    interface : str
        IPv4 address of the interface for groups; loopback unless told otherwise.
    rate_hz : float
        Messages a second; 0: as fast as it goes.
    plan : FaultPlan
    """

    def __init__(
        self, host: str, port: int, *, interface: str = "127.0.0.1", rate_hz: float = 0.0, plan: FaultPlan | None = None
    ) -> None:
        self._address = (host, port)
        self._interface = interface
        self._rate_hz = rate_hz
        self._way = FaultyWay(plan or FaultPlan(), datagrams=True)
        self._stopping = threading.Event()

    @property
    def counts(self) -> Counter[str]:
        """What was done to messages."""
        return Counter(self._way.counts)

    def stop(self) -> None:
        """Ask `run` to return."""
        self._stopping.set()

    def run(self, messages: Iterable[bytes]) -> int:
        """Send messages; return how many datagrams went out."""
        with group_sender(self._address[0], self._interface) as sender:
            number, began = 0, time.monotonic()
            for delivery in self._way.send(messages):
                if delivery.pause_s:
                    self._stopping.wait(delivery.pause_s)
                ahead = began + number / self._rate_hz - time.monotonic() if self._rate_hz else 0.0
                # sleeping takes longer than asked for: many messages share a sleep
                if ahead > 0.002:
                    self._stopping.wait(ahead)
                if self._stopping.is_set():
                    break
                # nobody listens yet, or no more: the system tells that of the datagram before
                with contextlib.suppress(ConnectionRefusedError):
                    sender.sendto(delivery.data, self._address)
                number += 1
            return number


def group_sender(host: str, interface: str) -> socket.socket:
    """Return a socket that sends to a host, or to a group on one interface.

    Raises
    ------
    Misconfigured
        If the interface has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sender = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET:
        try:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
        except OSError as error:
            sender.close()
            message = f"{interface!r} is no address of an interface: {error}"
            raise Misconfigured(message, remedy="give an IPv4 address of this host, as 127.0.0.1") from error
    return sender


def _listen(host: str, port: int) -> socket.socket:
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        message = f"port {port} of {host} cannot be served: {error.strerror}"
        raise Misconfigured(message, remedy="choose another port, or end the program that has it") from error
    listener.settimeout(_TICK_S)
    return listener
