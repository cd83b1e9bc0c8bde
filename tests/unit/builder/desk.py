"""Image builders for tests, what is pushed to them, and sources that they fetch from."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from nightglass.builder.cubeaccounts import CubeAccount
from nightglass.builder.delivering import CameraOutputs
from nightglass.builder.presets import options_of
from nightglass.builder.records import FrameView
from nightglass.builder.service import Builder
from nightglass.config import BuilderSource, Site, load_camera
from nightglass.layout import Layout

PATIENCE_S = 120.0
HERE = "tests.unit.builder.desk"


def builder(
    root: Path,
    *,
    outputs: bool = False,
    alarms: list[str] | None = None,
    on_frame: Callable[[Path, FrameView], None] | None = None,
    on_cube: Callable[[CubeAccount], None] | None = None,
    **settings: Any,
) -> Builder:
    """Make a builder, not started; with outputs only where they are wanted, for they cost a second."""
    source = BuilderSource(name="guider", camera="generic", **settings)
    options, layout, camera = options_of(source), Layout(root), load_camera("generic")
    made = CameraOutputs("guider", options, layout=layout, camera=camera, site=Site()) if outputs else None
    return Builder(
        "guider",
        options,
        layout=layout,
        camera=camera,
        site=Site(),
        outputs=made,
        on_frame=on_frame,
        on_alarm=None if alarms is None else alarms.append,
        on_cube=on_cube,
    )


def image(value: int, shape: tuple[int, ...] = (4, 6), **cards: Any) -> bytes:
    """Make a FITS file of equal pixels."""
    stream = io.BytesIO()
    fits.PrimaryHDU(np.full(shape, value, np.uint16), fits.Header(cards)).writeto(stream)
    return stream.getvalue()


def pixels(content: bytes | Path) -> Any:
    """Return the value of the first pixel."""
    with fits.open(io.BytesIO(content) if isinstance(content, bytes) else content) as hdus:
        return int(next(hdu.data for hdu in hdus if hdu.data is not None).flat[0])


def wait_done(made: Builder, expid: int, frame: int) -> FrameView:
    """Wait until a frame is through all stages."""
    view = made._engine.holdings.wait(expid, frame, lambda item: "done" in item.times, PATIENCE_S)
    assert "done" in view.times
    return view


def wait_for(made: Builder, name: str, what: str, after: int = 0) -> Mapping[str, Any]:
    """Wait for an event."""
    while True:
        events = made.wait_event(after, PATIENCE_S)
        assert events, f"no event {name} {what} came"
        for event in events:
            if event.name == name and event.data.get("what", "") == what:
                return event.data
        after = events[-1].number


@contextmanager
def camera_server(answers: Mapping[str, list[bytes | int]]) -> Iterator[tuple[str, list[str]]]:
    """Serve images by path, each answer in turn, the last for ever; a number is a status. Yield address, requests."""
    asked: list[str] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with lock:
                asked.append(self.path)
                listed = answers.get(self.path.partition("?")[0], [404])
                answer = listed.pop(0) if len(listed) > 1 else listed[0]
            body = answer if isinstance(answer, bytes) else b""
            self.send_response(200 if isinstance(answer, bytes) else answer)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


CALLS: list[tuple[int, int, str]] = []
"""How the functions below were called; a test empties it first."""


def give_array(expid: int, frame: int, source: str) -> Any:
    """Return an array and a header at the third call, as a camera that still reads out."""
    CALLS.append((expid, frame, source))
    if len(CALLS) < 3:
        return None
    return np.full((4, 6), 1000 + frame, "<u2"), {"EXPTIME": 2.0, "SOURCE": source}


def give_bytes(expid: int, frame: int, source: str) -> bytes:
    """Return a FITS file."""
    return image(expid + frame)


def fail(expid: int, frame: int, source: str) -> Any:
    """Do what must not hurt."""
    raise ZeroDivisionError(source)
