"""Senders of streams for tests: windows over TCP to whoever connects, readouts as datagrams."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import numpy as np

from nightglass.streams.aartfaac import encode_window, make_header
from nightglass.streams.astropix import encode_readout, make_hits

__all__ = ["sending_readouts", "serving_windows"]


@contextmanager
def _thread(work: Callable[[threading.Event], None]) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(120)


@contextmanager
def serving_windows(*, frequency_hz: float, period_s: float = 0.05, side: int = 64) -> Iterator[int]:
    """Serve images of noise of 2 units with a source in the middle; give the port."""
    rng = np.random.default_rng(int(frequency_hz))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def work(stop: threading.Event) -> None:
            peers: list[socket.socket] = []
            while not stop.is_set():
                with suppress(TimeoutError):
                    peers.append(listener.accept()[0])
                if not peers:
                    continue
                image = rng.normal(scale=2, size=(side, side))
                image[side // 2, side // 2] += 100
                moment = datetime.now(UTC)
                header = make_header(
                    image.shape, timestamp=moment, frequency_hz=frequency_hz, cards={"BUNIT": "Jy/beam"}
                )
                for peer in tuple(peers):
                    try:
                        peer.sendall(encode_window(header, image))
                    except OSError:
                        peers.remove(peer)
                        peer.close()
                stop.wait(period_s)
            for peer in peers:
                peer.close()

        with _thread(work):
            yield int(listener.getsockname()[1])


@contextmanager
def sending_readouts(port: int, *, skip: frozenset[int] = frozenset(), most: int = 1 << 30) -> Iterator[None]:
    """Send readouts of two hits each to a port, a thousand a second."""

    def work(stop: threading.Event) -> None:
        rng = np.random.default_rng(1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            number = 0
            while not stop.wait(0.01) and number < most:
                for number in range(number, min(number + 10, most)):  # noqa: B020
                    hits = make_hits(
                        row=rng.integers(0, 32, 2), column=rng.integers(0, 16, 2), begin=[0, 9], cycles=[2000, 4000]
                    )
                    readout = encode_readout(hits, readout_id=number, timestamp_ns=time.time_ns())
                    if number not in skip:
                        with suppress(OSError):  # nobody listens yet
                            sender.sendto(readout.to_bytes(), ("127.0.0.1", port))
                number += 1

    with _thread(work):
        yield
