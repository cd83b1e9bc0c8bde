"""An HTTP receiver that does what a test tells it, and functions that are named as targets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PATIENCE_S = 120.0


@dataclass
class Receiver:
    """What came, and what is answered: the statuses in turn, the last one for ever."""

    url: str = ""
    answers: list[int] = field(default_factory=lambda: [200])
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        with self.changed:
            self.paths.append(path)
            self.headers.append(headers)
            self.bodies.append(body)
            self.changed.notify_all()
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def wait(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.bodies) >= count, PATIENCE_S)


@contextmanager
def receiver(*answers: int) -> Iterator[Receiver]:
    """Serve on some port until the block ends."""
    state = Receiver(answers=list(answers) or [200])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = state.take(self.path, dict(self.headers), body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


TAKEN: list[tuple[Any, ...]] = []
"""What the functions below got; a test empties it."""


def take_file(path: Path, about: dict[str, Any]) -> None:
    """Take a frame, as a receiver in another package would."""
    TAKEN.append((path.read_bytes(), about))


def take_news(event: dict[str, Any], *args: Any) -> None:
    """Take news, as a subscriber in another package would."""
    TAKEN.append((event, *args))


def fail(*_: Any) -> None:
    """Break."""
    message = "this receiver is broken"
    raise RuntimeError(message)
