"""Image builders behind their port: parts ``push`` and ``latency`` of `benchmarks.builder`.

push: extensions of 32 MiB are pushed over loopback, one after the other, by `connections` senders; beside a bare loop
that receives the same bytes, sums them (SHA-256) and writes them to the same disk. Both take turns; a first round of
each is not counted.

latency: 6 sources push a frame of 1032x2248 uint16 each second, all of them at the same moment; writing and pictures
are off. From a frame's last extension, on the disk, to the frame being built. Every frame is looked at in the end, and
every sum compared.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import multiprocessing
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from nightglass.builder.client import Client
from nightglass.config import BuilderSource, Observatory, load_camera

__all__ = ["run_latency", "run_push"]

MIB = 2**20
BODY = 32 * MIB
WANTED_MIB_S = 300.0
WANTED_S = 0.3
GUIDE_SHAPE = (1032, 2248)
SOURCES = tuple(f"GUIDE{number}" for number in range(6))
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Speed:
    """MiB a second of the wall, and seconds of the server's processors for each GiB."""

    mib_s: float
    cpu_s_per_gib: float


class Server:
    """An image builder in a process of its own."""

    def __init__(self, root: Path, **options: Any) -> None:
        self._pipe, far = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(root, options, far), daemon=True)
        self._process.start()
        self.url: str = self._pipe.recv()
        self.process = psutil.Process(self._process.pid)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send("end")
        self._process.join(60)

    @property
    def cpu_s(self) -> float:
        """Seconds of processors until now."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def run_push(wanted: argparse.Namespace) -> None:
    """Compare pushing with a bare loop."""
    console = Console()
    with tempfile.TemporaryDirectory(dir=wanted.directory, prefix="nightglass-push-") as scratch:
        root, spare = Path(scratch) / "root", Path(scratch) / "bare"
        with Server(root, mem_purge=False) as server:
            ours, bare = [], []
            for number in range(wanted.rounds + 1):
                ours.append(_pushed(server, number, wanted.bodies, wanted.connections))
                bare.append(_received(spare, wanted.bodies))
            ours, bare = ours[1:], bare[1:]
    for name, speeds in (("nightglass", ours), ("bare loop", bare)):
        middle = statistics.median(speed.mib_s for speed in speeds)
        cpu = statistics.median(speed.cpu_s_per_gib for speed in speeds)
        best = max(speed.mib_s for speed in speeds)
        console.print(
            f"{name:<12} {middle:6.0f} MiB/s (best {best:.0f}), {cpu:.2f} s of the receiver's processors a GiB"
        )
    middle = statistics.median(speed.mib_s for speed in ours)
    ratio = statistics.median(one.mib_s / other.mib_s for one, other in zip(ours, bare, strict=True))
    verdict = "reached" if middle >= WANTED_MIB_S else "missed"
    console.print(f"push: {middle:.0f} MiB/s, {ratio:.2f} of the bare loop; {WANTED_MIB_S:g} MiB/s wanted: {verdict}")


def run_latency(wanted: argparse.Namespace) -> None:
    """Push frames at their pace, and look how long each takes to be built."""
    console = Console()
    with tempfile.TemporaryDirectory(dir=wanted.directory, prefix="nightglass-latency-") as scratch:
        root = Path(scratch) / "root"
        limit = wanted.memory_mib * MIB
        with Server(root, sources=list(SOURCES), plot_save=False, local_copy=False, timeout_s=30.0) as server:
            pixels = {
                name: np.random.default_rng(number).integers(0, 60000, GUIDE_SHAPE, dtype=np.uint16)
                for number, name in enumerate(SOURCES)
            }
            with Client(server.url) as client:
                client.push(0, 0, SOURCES[0], pixels[SOURCES[0]], source=SOURCES[0])
            before, peak = server.process.memory_full_info().pss, 0
            frames = int(wanted.seconds)
            result = _Frames()
            gate = threading.Barrier(len(SOURCES) + 1)
            for name in SOURCES:
                threading.Thread(
                    target=_source, args=(server.url, name, pixels[name], frames, gate, result), daemon=True
                ).start()
            with Client(server.url) as client:
                began = time.monotonic()
                for frame in range(frames):
                    client.assign(1, frame, sources=list(SOURCES))
                    time.sleep(max(began + frame - time.monotonic(), 0.0))
                    gate.wait()
                    peak = max(peak, server.process.memory_full_info().pss)
                    if frame >= wanted.kept:
                        result.take(client, frame - wanted.kept)
                gate.wait()
                for frame in range(max(frames - wanted.kept, 0), frames):
                    result.take(client, frame)
    cuts = statistics.quantiles(result.seconds, n=20, method="inclusive") if len(result.seconds) > 1 else [0.0] * 19
    grown = peak - before
    console.print(
        f"{frames} frames of {len(SOURCES)} sources, {GUIDE_SHAPE[0]}x{GUIDE_SHAPE[1]} uint16, one a second: built "
        f"{statistics.median(result.seconds) * 1e3:.1f} ms after the last extension, p95 {cuts[18] * 1e3:.1f} ms, "
        f"longest {max(result.seconds) * 1e3:.1f} ms"
    )
    console.print(
        f"pushes: median {statistics.median(result.pushes) * 1e3:.0f} ms, longest {max(result.pushes) * 1e3:.0f} ms; "
        f"lost or wrong: {len(result.wrong)} {result.wrong[:5]}; memory of the server {peak / MIB:.0f} MiB at most, "
        f"{grown / MIB:.0f} MiB above idle"
    )
    reached = cuts[18] <= WANTED_S and not result.wrong and grown <= limit
    verdict = "reached" if reached else "missed"
    console.print(f"latency: p95 {WANTED_S:g} s, nothing lost, {wanted.memory_mib} MiB wanted: {verdict}")


class _Frames:
    """What became of frames."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.pushes: list[float] = []
        self.sums: dict[str, str] = {}
        self.wrong: list[str] = []

    def take(self, client: Client, frame: int) -> None:
        """Look at a frame, and have it cleared: the disk of a benchmark is not for ever."""
        view = client.frame(1, frame)
        sums = {record["name"]: record["sha256"] for record in view["extensions"]}
        if view["state"] != "built" or sums != self.sums:
            self.wrong.append(f"frame {frame}: {view['state']}, {len(sums)} extensions")
        if "built" in view["times"]:
            self.seconds.append(view["times"]["built"] - view["times"]["last"])
        client.clear(1, frame, unsaved="discard")


def _source(url: str, name: str, pixels: Any, frames: int, gate: threading.Barrier, result: _Frames) -> None:
    with Client(url) as client:
        for frame in range(frames):
            gate.wait()
            began = time.monotonic()
            answer = client.push(1, frame, name, pixels, source=name)
            result.pushes.append(time.monotonic() - began)
            # all frames have the same pixels, so they have the same sums
            if result.sums.setdefault(name, answer["sha256"]) != answer["sha256"]:
                result.wrong.append(f"{name} of frame {frame}")
        gate.wait()


def _pushed(server: Server, number: int, bodies: int, connections: int) -> Speed:
    header = b"".join(
        card.ljust(80)
        for card in (
            b"SIMPLE  =                    T",
            b"BITPIX  =                   16",
            b"NAXIS   =                    2",
        )
    ) + b"".join(
        card.ljust(80) for card in (b"NAXIS1  =                 4096", b"NAXIS2  =                 4096", b"END")
    )
    body = memoryview(header.ljust(2880) + os.urandom(BODY) + bytes(-BODY % 2880))

    def send(lane: int) -> None:
        host = http.client.HTTPConnection(server.url.removeprefix("http://"))
        for each in range(bodies):
            host.putrequest("PUT", f"/v1/exposures/{number}/frames/{lane}/extensions/E{each}")
            host.putheader("X-Nightglass", "benchmark")
            host.putheader("Content-Type", "application/fits")
            host.putheader("Content-Length", str(len(body)))
            host.endheaders()
            host.sock.sendall(body)
            answer = host.getresponse()
            text = answer.read()
            assert answer.status == 201, text

    before = server.cpu_s
    seconds = _together(send, connections)
    cpu = server.cpu_s - before
    with Client(server.url) as client:
        client.clear(number, unsaved="discard")
    gib = connections * bodies * len(body) / 2**30
    return Speed(gib * 1024 / seconds, cpu / gib)


def _received(place: Path, bodies: int) -> Speed:
    """Receive, sum and write as little code can, in a process of its own."""
    near, far = SPAWN.Pipe()
    process = SPAWN.Process(target=_receive, args=(place, bodies, far), daemon=True)
    process.start()
    body = memoryview(os.urandom(BODY))
    with socket.create_connection(("127.0.0.1", near.recv())) as connection:
        began = time.perf_counter()
        for _ in range(bodies):
            connection.sendall(body)
            connection.recv(1)
        seconds = time.perf_counter() - began
    cpu: float = near.recv()
    process.join(60)
    gib = bodies * BODY / 2**30
    return Speed(gib * 1024 / seconds, cpu / gib)


def _receive(place: Path, bodies: int, pipe: Connection) -> None:
    buffer = memoryview(bytearray(MIB))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        connection, _ = listener.accept()
        before = time.process_time()
        for number in range(bodies):
            digest, left = hashlib.sha256(), BODY
            path = place.with_name(f"{place.name}{number}")
            with path.open("wb", buffering=0) as stream:
                while left:
                    count = connection.recv_into(buffer, min(left, len(buffer)))
                    stream.write(buffer[:count])
                    digest.update(buffer[:count])
                    left -= count
            connection.sendall(b".")
        pipe.send(time.process_time() - before)
        for number in range(bodies):
            place.with_name(f"{place.name}{number}").unlink()


def _together(work: Callable[[int], None], count: int) -> float:
    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def _serve(root: Path, options: dict[str, Any], pipe: Connection) -> None:
    from nightglass.watch.building import open_builder
    from nightglass.web import Site, WebServer

    source = BuilderSource.model_validate({"name": "guider", "camera": "generic", **options})
    builder = open_builder(source, load_camera("generic"), Observatory(root=root))
    with builder, WebServer(Site(builders={"guider": builder})) as server:
        pipe.send(server.url)
        pipe.recv()
