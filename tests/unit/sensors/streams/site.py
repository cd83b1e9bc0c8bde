"""Sources, peers and waits for tests of receivers; everything on loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from nightglass.config import Overflow, StreamSource
from nightglass.sensors import Backlog, Received, Receiver, open_receivers
from nightglass.streams.astropix import Readout

__all__ = ["PATIENCE_S", "collect", "listening", "readout", "received", "running", "source", "until"]

PATIENCE_S = 120.0


def source(protocol: str, *endpoints: str, **settings: Any) -> StreamSource:
    values = {"overflow": Overflow.BLOCK, "reconnect_s": 0.05, "reconnect_limit_s": 0.1, **settings}
    return StreamSource(name="test", camera="", protocol=protocol, endpoints=endpoints, **values)


def readout(number: int, data: bytes = b"\xbc") -> Readout:
    return Readout(number, 1_700_000_000_000_000_000 + number, data)


def received(number: int, size: int = 100) -> Received[Readout]:
    return Received(readout(number, bytes([number % 251]) * size), "peer", datetime.now(UTC), size)


def until(condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
    limit = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.005)


def collect(backlog: Backlog[Any], count: int, patience_s: float = PATIENCE_S) -> list[Received[Any]]:
    found: list[Received[Any]] = []
    limit = time.monotonic() + patience_s
    while len(found) < count:
        assert time.monotonic() < limit, f"{len(found)} of {count} messages came"
        found += backlog.take(wait_s=0.2, most=count - len(found))
    return found


@contextlib.contextmanager
def running(wanted: StreamSource, backlog: Backlog[Any], **options: Any) -> Iterator[tuple[Receiver, ...]]:
    receivers = open_receivers(wanted, backlog, **options)
    for receiver in receivers:
        receiver.start()
    try:
        yield receivers
    finally:
        for receiver in receivers:
            receiver.stop()
        assert all(receiver.join(PATIENCE_S) for receiver in receivers)


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket, int], None], host: str = "127.0.0.1") -> Iterator[str]:
    """Serve connections one after another, each with its number; gives the endpoint."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        server.settimeout(0.1)
        ended = threading.Event()

        def accept() -> None:
            number = 0
            while not ended.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                connection.settimeout(PATIENCE_S)
                with connection, contextlib.suppress(OSError):
                    serve(connection, number)
                number += 1

        thread = threading.Thread(target=accept)
        thread.start()
        name = f"[{host}]" if ":" in host else host
        try:
            yield f"{name}:{server.getsockname()[1]}"
        finally:
            ended.set()
            thread.join(PATIENCE_S)
