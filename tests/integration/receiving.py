"""A watch that receives, and senders for it; for tests of streams."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from nightglass.archive import archive_exposure
from nightglass.config import Camera, Observatory, load_camera
from nightglass.layout import Layout
from nightglass.ledger import Entry, Ledger
from nightglass.model import Content, ProductKind, State
from nightglass.pool import SerialPool
from nightglass.watch import Watch
from nightglass.watch.executor import Executor
from nightglass.watch.heartbeat import Heartbeat, read_heartbeats

LIVE_S = 120.0


def eventually(condition: Callable[[], object], *, what: str) -> None:
    end = time.monotonic() + LIVE_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def product_of(entry: Entry, ledger: Ledger) -> Path:
    """Return the reduced product of an exposure, of which there is one."""
    found = ledger.products_of(entry.exposure_id)
    (product,) = (item for item in found if item.kind is ProductKind.REDUCED)
    return product.path


def cube_of(entry: Entry, ledger: Ledger, settings: Observatory) -> Path:
    """Archive the raw file of an exposure."""
    summary = archive_exposure(
        entry.exposure_id,
        ledger=ledger,
        pool=SerialPool(),
        observatory=settings,
        camera=load_camera(entry.camera),
        content=Content.RAW,
    )
    assert summary.path is not None
    return summary.path


class Sender:
    """Serves bytes to whoever connects, as telescopes do; what is sent before anybody connects waits."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connected: list[socket.socket] = []

    def send(self, data: bytes) -> None:
        if not self._connected:
            self._listener.settimeout(LIVE_S)
            self._connected.append(self._listener.accept()[0])
        self._connected[0].sendall(data)

    def hang_up(self) -> None:
        for connection in self._connected:
            connection.close()
        self._connected.clear()

    def close(self) -> None:
        self.hang_up()
        self._listener.close()


def observatory(root: Path, senders: Sequence[Sender | str], **changes: object) -> Observatory:
    stream = {
        "name": "sky",
        "camera": "aartfaac",
        "protocol": "aartfaac",
        "endpoints": [sender if isinstance(sender, str) else sender.endpoint for sender in senders],
        "reconnect_s": 0.05,
        "wait_s": 0.5,
    }
    values = {
        "root": root,
        "streams": [stream | changes],
        "limits": {"free_disk_gib": 0},
        "reduction": {"quicklook": False},
    }
    return Observatory.model_validate(values)


@contextlib.contextmanager
def live(
    settings: Observatory,
    ledger: Ledger,
    told: list[str] | None = None,
    *,
    cameras: Mapping[str, Camera] | None = None,
    executor: Executor | None = None,
) -> Iterator[Watch]:
    names = cameras or {item.camera: load_camera(item.camera) for item in (*settings.streams, *settings.sources)}
    said = told if told is not None else []
    watch = Watch(
        settings,
        names,
        ledger,
        SerialPool(),
        executor,
        alarm=lambda subject, text: said.append(f"{subject}: {text}"),
    )
    thread = threading.Thread(target=watch.run, name="watch under test")
    thread.start()
    try:
        eventually(lambda: read_heartbeats(Layout(settings.root).run), what="heartbeat")
        yield watch
    finally:
        watch.stop()
        thread.join(LIVE_S)
    assert not thread.is_alive()


def beat(root: Path) -> Heartbeat:
    return read_heartbeats(Layout(root).run)[0]


def entries_of(ledger: Ledger) -> list[Entry]:
    return sorted(ledger.entries(), key=lambda entry: entry.path)


def states(ledger: Ledger) -> list[State]:
    return [entry.state for entry in ledger.entries()]
