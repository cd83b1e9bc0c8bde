"""How fast streams are received and decoded, and whether every loss is counted.

Windows of AARTFAAC come over loopback from another process, to three receivers in turns: a bare loop of `recv_into`
that writes over one buffer of 4 MiB again and again and looks at nothing; ours (receiver, decoder, backlog, and
somebody who takes windows and lets them go); the way of TraP (`recv` until enough, `struct.unpack`, an array of it).
The clock runs from the connection to the last byte, or to the last window taken; a first round of each is not counted.
Readouts of AstroPix are decoded from datagrams by one core. Then 20,000 readouts a second are sent to a receiver whose
buffer is large, and to one whose buffer runs over.

    python -m benchmarks.streams                          about half a minute
    python -m benchmarks.streams --only windows --rounds 15 --windows 1000
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from nightglass.config import Overflow, StreamSource
from nightglass.sensors import Backlog, open_receivers
from nightglass.streams.aartfaac import encode_window, make_header
from nightglass.streams.astropix import HitDecoder, PacketDecoder, encode_readout, make_hits

GIB = 2**30
SHAPE = (1024, 1024)
FORK = multiprocessing.get_context("fork")
READOUT_RATE_HZ = 20_000.0
WANTED_SHARE = 0.75
WANTED_GAIN = 50
WANTED_HITS = 1e6


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be received: windows of so many bytes, from a port of this host."""

    port: int
    windows: int
    window_bytes: int

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self.windows * self.window_bytes


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes, and seconds of the wall and of this process's processors."""

    size: int
    wall_s: float
    cpu_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--windows", type=int, default=500, help="of 4 MiB, in each round of each way")
    parser.add_argument("--seconds", type=float, default=3.0, help="for which readouts are sent")
    parser.add_argument("--only", choices=("windows", "hits", "losses"))
    arguments = parser.parse_args()
    if arguments.only in (None, "windows"):
        compare_windows(arguments.rounds, arguments.windows)
    if arguments.only in (None, "hits"):
        decode_hits()
    if arguments.only in (None, "losses"):
        for buffer_kib, name in ((8192, "large buffer"), (16, "small buffer, held up")):
            count_losses(int(arguments.seconds * READOUT_RATE_HZ), buffer_kib, name)


def compare_windows(rounds: int, windows: int) -> None:
    ways: dict[str, tuple[Callable[[Load], Cost], int]] = {
        "bare recv_into": (bare, windows),
        "nightglass": (ours, windows),
        "TraP's struct.unpack": (old, max(windows // 50, 2)),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    window = make_window()
    with socket.create_server(("127.0.0.1", 0)) as server:
        plan = [count for _, count in ways.values()] * (1 + rounds)
        sender = FORK.Process(target=send, args=(server, window, plan))
        sender.start()
        for _ in range(1 + rounds):
            for name, (receive, count) in ways.items():
                costs[name].append(receive(Load(int(server.getsockname()[1]), count, len(window))))
        sender.join()
    for measured in costs.values():
        del measured[0]
    for name, measured in costs.items():
        wall = statistics.median(cost.size / cost.wall_s for cost in measured) / GIB
        cpu = statistics.median(cost.size / cost.cpu_s for cost in measured) / GIB
        print(f"{name:22s} {wall:7.3f} GiB/s   {cpu:7.3f} GiB per second of processor")
    for which in ("wall_s", "cpu_s"):
        for name, wanted in (("bare recv_into", WANTED_SHARE), ("TraP's struct.unpack", WANTED_GAIN)):
            pairs = zip(costs[name], costs["nightglass"], strict=True)
            shares = [(getattr(one, which) / one.size) / (getattr(two, which) / two.size) for one, two in pairs]
            share = statistics.median(shares)
            print(f"{share:6.2f} times {name}, {which} (wanted {wanted}), {min(shares):.2f}-{max(shares):.2f}")


class Clock:
    """Measures from its making on."""

    def __init__(self) -> None:
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def cost(self, load: Load) -> Cost:
        """Return what it took to receive a load until now."""
        return Cost(load.size, time.perf_counter() - self._began, time.process_time() - self._cpu)


def make_window() -> bytes:
    pixels = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    return encode_window(make_header(SHAPE, timestamp=datetime.now(UTC), frequency_hz=6e6), pixels)


def send(server: socket.socket, window: bytes, plan: Sequence[int]) -> None:
    """Serve one connection after the other, so many windows each."""
    for windows in plan:
        connection, _ = server.accept()
        with connection:
            for _ in range(windows):
                connection.sendall(window)
            connection.recv(1)


def connect(port: int) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192 * 1024)
    connection.connect(("127.0.0.1", port))
    return connection


def bare(load: Load) -> Cost:
    size = load.size
    buffer = memoryview(bytearray(4 << 20))
    clock = Clock()
    with connect(load.port) as connection:
        while size:
            size -= connection.recv_into(buffer)
        return clock.cost(load)


def ours(load: Load) -> Cost:
    wanted = source("aartfaac", load.port, overflow=Overflow.BLOCK)
    backlog: Backlog[Any] = Backlog(wanted.backlog_mib << 20, wanted.overflow)
    (receiver,) = open_receivers(wanted, backlog)
    clock = Clock()
    receiver.start()
    windows = load.windows
    while windows:
        taken = backlog.take(wait_s=1, most=64)
        windows -= len(taken)
        del taken
    cost = clock.cost(load)
    receiver.stop()
    receiver.join()
    return cost


def old(load: Load) -> Cost:
    def getbytes(count: int) -> bytes:
        chunks = []
        while count:
            chunk = connection.recv(count)
            chunks.append(chunk)
            count -= len(chunk)
        return b"".join(chunks)

    clock = Clock()
    with connect(load.port) as connection:
        for _ in range(load.windows):
            _, fits_length, array_length = struct.unpack("=QLL496x", getbytes(512))
            getbytes(fits_length)
            body = getbytes(array_length)
            np.reshape(np.array(struct.unpack(f"{array_length // 4}f", body)), SHAPE)
        return clock.cost(load)


def decode_hits(readouts: int = 20_000, hits: int = 30) -> None:
    """Decode datagrams of readouts as they come, 256 at a time."""
    rng = np.random.default_rng(1)
    packets = [
        encode_readout(
            make_hits(
                row=rng.integers(0, 13, hits),
                column=rng.integers(0, 16, hits),
                begin=rng.integers(0, 1 << 17, hits),
                cycles=rng.integers(20, 4000, hits),
            ),
            readout_id=number,
            timestamp_ns=number,
        ).to_bytes()
        for number in range(readouts // 10)
    ] * 10
    decoder, singles = HitDecoder(), PacketDecoder()
    began, found = time.process_time(), 0
    for start in range(0, len(packets), 256):
        batch = [readout for packet in packets[start : start + 256] for readout in singles.datagram(packet)]
        found += len(decoder.decode(batch).hits)
    rate = found / (time.process_time() - began)
    print(f"AstroPix: {rate / 1e6:.2f} million hits per second of processor (wanted {WANTED_HITS / 1e6:.0f})")


def count_losses(count: int, buffer_kib: int, name: str) -> None:
    """Send numbered readouts, and compare what was sent with what came and what is said to be lost."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    wanted = source("astropix", port, overflow=Overflow.BLOCK, receive_buffer_kib=buffer_kib)
    held_up = threading.Event()
    # a consumer that is slow now and then holds the receiver up, and the system's buffer runs over
    backlog: Backlog[Any] = Backlog(1 << 20 if buffer_kib < 1024 else 256 << 20, wanted.overflow)
    sender = FORK.Process(target=send_readouts, args=(port, count))
    (receiver,) = open_receivers(wanted, backlog)
    sender.start()
    receiver.start()
    found, cpu = 0, time.process_time()
    while sender.is_alive() or backlog.counts.messages:
        found += len(backlog.take(wait_s=0.2, most=10_000))
        if buffer_kib < 1024:
            held_up.wait(0.3)
    cpu_s = time.process_time() - cpu
    receiver.stop()
    receiver.join()
    found += len(backlog.take(wait_s=0, most=count))
    status = receiver.status
    lost = status.losses.lost if status.losses else -1
    exact = found + lost == count + 1 and lost == status.kernel_drops
    print(
        f"UDP, {name}: {count + 1} sent at {READOUT_RATE_HZ:.0f}/s, {found} came, {lost} lost by their numbers, "
        f"{status.kernel_drops} by the system's count: {'exact' if exact else 'WRONG'}; "
        f"{cpu_s / count * 1e6:.1f} us of processor each"
    )
    if not exact:
        raise SystemExit(1)


def send_readouts(port: int, count: int) -> None:
    hits = make_hits(row=[1, 2], column=[3, 4], begin=[5, 6], cycles=[700, 800])

    def packet(number: int) -> bytes:
        return encode_readout(hits, readout_id=number, timestamp_ns=number).to_bytes()

    example = packet(0)
    time.sleep(0.5)
    # the first and the last one have to come, or nobody would know of those before and behind them
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", port))
        began = time.monotonic()
        for number in range(count):
            ahead = began + number / READOUT_RATE_HZ - time.monotonic()
            if ahead > 0.002:
                time.sleep(ahead)
            sender.send(example[:3] + number.to_bytes(4, "little") + example[7:])
        time.sleep(1.5)
        sender.send(packet(count))


def source(protocol: str, port: int, **settings: Any) -> StreamSource:
    return StreamSource(name=protocol, camera="", protocol=protocol, endpoints=(f"127.0.0.1:{port}",), **settings)


if __name__ == "__main__":
    main()
