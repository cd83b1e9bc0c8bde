"""Image builders behind a real port, and a receiver of what they send."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightglass.builder.client import Client
from nightglass.builder.service import Builder
from nightglass.config import BuilderSource, Observatory, load_camera
from nightglass.watch.building import open_builder
from nightglass.web import Site, WebServer


@dataclass(frozen=True)
class Served:
    url: str
    root: Path
    builders: dict[str, Builder]

    @property
    def builder(self) -> Builder:
        return next(iter(self.builders.values()))

    def client(self, name: str = "") -> Client:
        return Client(self.url, builder=name)


@contextmanager
def served(root: Path, *sections: dict[str, Any], token: str = "") -> Iterator[Served]:
    """Serve builders of these sections of an observatory file."""
    chosen = sections or ({"name": "guider"},)
    sources = [BuilderSource.model_validate({"camera": "generic", **section}) for section in chosen]
    observatory = Observatory(root=root)
    builders = {source.name: open_builder(source, load_camera(source.camera), observatory) for source in sources}
    for builder in builders.values():
        builder.start()
    try:
        with WebServer(Site(builders=builders, token=token)) as server:
            yield Served(server.url, root, builders)
    finally:
        for builder in builders.values():
            builder.close()


def guide_pixels(seed: int = 0, shape: tuple[int, int] = (64, 96)) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, 65535, shape, dtype=np.uint16)


@dataclass
class Received:
    url: str
    bodies: list[bytes] = field(default_factory=list)
    came: threading.Event = field(default_factory=threading.Event)


@contextmanager
def receiving() -> Iterator[Received]:
    """Take everything that is posted."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            received.came.set()
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received = Received(f"http://127.0.0.1:{server.server_address[1]}/frames")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()
