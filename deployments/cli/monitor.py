"""``nightglass monitor``: a stream as a live picture, in the browser or on the terminal."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.cli.registering import registered, running_monitors
from deployments.cli.screen import output
from deployments.cli.session import Session, open_session
from deployments.logs import logging_to
from nightglass.errors import Misconfigured, Retryable
from nightglass.monitor import LivePicture, Monitor, monitor_for

if TYPE_CHECKING:
    from rich.console import Console

    from nightglass.config import StreamSource
    from nightglass.web import Site, WebServer

__all__ = ["MonitorWish", "monitor_command", "open_server", "showing", "token", "until_told"]

_PORTS = range(8151, 8167)
_LINE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorWish:
    """What a person asked for.

    Attributes
    ----------
    source : str
        Name of a stream of the observatory file, ``protocol://host:port``, or a file.
    kind : str
        ``module:Class`` or ``file.py:Class`` of a monitor; empty: the one of the protocol.
    port : int or None
        None: the first that is free of a few.
    """

    source: str
    kind: str = ""
    interface: str = ""
    host: str = "127.0.0.1"
    port: int | None = None
    refresh_s: float = 0.5
    text: bool = False


def monitor_command(wish: MonitorWish, *, config: Path | None, root: Path | None) -> int:
    """Show a stream until interrupted; return the exit code."""
    session = open_session(config, root)
    console = output()
    # a line between two screens would tear them; what it says is among the picture's alarms
    lines = logging.NullHandler() if wish.text and console.is_terminal else logging.StreamHandler(sys.stderr)
    with logging_to(lines, level="WARNING"), until_told() as stop, showing(wish, session) as live:
        if wish.text:
            _on_terminal(console, live, stop, wish.refresh_s)
        else:
            _in_browser(console, session, wish, live, stop)
        last = live.newest
    console.print(last.message, markup=False)
    return 0


@contextmanager
def showing(wish: MonitorWish, session: Session) -> Iterator[LivePicture]:
    """Run the monitor of a source while a block runs."""
    from nightglass.monitor.recorded import FileFeed
    from nightglass.monitor.streaming import monitor_file, monitor_stream

    source, path = _resolve(wish, session)
    if path is not None:
        live, feed = LivePicture(_plain(path.name)), FileFeed(path)
        monitor = _make(wish.kind, feed.protocol.name, path.name)
        with monitor_file(monitor, feed, live, refresh_s=wish.refresh_s):
            yield live
    elif source is not None:
        live = LivePicture(_plain(source.name))
        monitor = _make(wish.kind, source.protocol, f"{source.protocol} {', '.join(source.endpoints)}")
        with monitor_stream(monitor, source, live, refresh_s=wish.refresh_s):
            yield live


def open_server(site: Site, host: str, port: int | None) -> WebServer:
    """Return a server at a port, or at the first that is free of a few.

    Raises
    ------
    Misconfigured, Retryable
        If there is none.
    """
    from nightglass.web import WebServer

    if port is not None:
        return WebServer(site, host=host, port=port)
    for candidate in _PORTS:
        try:
            return WebServer(site, host=host, port=candidate)
        except Retryable:  # another monitor has it
            continue
    message = f"ports {_PORTS.start} to {_PORTS.stop - 1} are all taken"
    raise Retryable(message, remedy="name another one by --port")


def token() -> str:
    """Return what viewers have to know; from the environment, because a command line is there for all to see."""
    return os.environ.get("NIGHTGLASS_TOKEN", "")


@contextmanager
def until_told() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C and SIGTERM set."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_browser(
    console: Console, session: Session, wish: MonitorWish, live: LivePicture, stop: threading.Event
) -> None:
    from nightglass.web import Site

    run = session.layout.run
    site = Site(monitors={live.name: live}, elsewhere=lambda: running_monitors(run), token=token())
    with open_server(site, wish.host, wish.port) as server, ExitStack() as stack:
        address = f"{server.url}/monitor/{live.name}"
        stack.enter_context(registered(run, live.name, address))
        console.print(f"live picture: {address}{'?token=...' if site.token else ''}   (Ctrl-C ends)", markup=False)
        stop.wait()


def _on_terminal(console: Console, live: LivePicture, stop: threading.Event, refresh_s: float) -> None:
    from rich.live import Live

    from deployments.cli.pictures import picture_screen

    if not console.is_terminal:
        while not stop.wait(max(refresh_s, _LINE_S)):
            console.print(f"{time.strftime('%H:%M:%S', time.gmtime())} {live.newest.message}", markup=False)
        return
    with Live(console=console, auto_refresh=False, screen=True) as screen:
        seen = -1
        while not stop.is_set():
            picture = live.wait(after=seen, timeout_s=0.2)
            if picture is not None:
                seen = picture.number
                screen.update(picture_screen(picture, width=console.width), refresh=True)


def _resolve(wish: MonitorWish, session: Session) -> tuple[StreamSource | None, Path | None]:
    """Return the source that is meant, or the file."""
    from nightglass.sensors.endpoints import parse_source
    from nightglass.sensors.receivers import make_source

    named = {stream.name: stream for stream in session.observatory.streams}
    if wish.source in named:
        return named[wish.source], None
    found = parse_source(wish.source)
    if found.path is not None:
        return None, found.path
    return make_source(found, interface=wish.interface), None


def _make(kind: str, protocol: str, address: str) -> Monitor[Any]:
    if not kind:
        return monitor_for(protocol, address)
    place, _, name = kind.rpartition(":")
    try:
        found = getattr(_load(place), name)
    except (ImportError, AttributeError, OSError, ValueError) as error:
        message = f"no monitor {kind!r}: {error}"
        raise Misconfigured(message, remedy="write it as module:Class or file.py:Class") from error
    if not (isinstance(found, type) and issubclass(found, Monitor)):
        message = f"{kind!r} is no monitor"
        raise Misconfigured(message, remedy="name a subclass of nightglass.monitor.Monitor")
    return found()


def _load(place: str) -> Any:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place)
    spec = importlib.util.spec_from_file_location(f"monitor_of_{path.stem}", path)
    if spec is None or spec.loader is None:
        message = f"{place} cannot be loaded"
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for themselves there
    spec.loader.exec_module(module)
    return module


def _plain(name: str) -> str:
    """Return a name that an address can hold as it is."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name) or "monitor"
