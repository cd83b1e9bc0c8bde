"""Where log lines go: the terminal, and one file a night.

Every line has its moment (UTC, milliseconds), level and module::

    2026-08-22T03:14:15.926Z INFO    nightglass.watch.loop: lynx/20260821/42 reduced in 0.61 s
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from nightglass.layout import Layout
from nightglass.model import Night
from nightglass.nights import night_of

if TYPE_CHECKING:
    from nightglass.config import Observatory

__all__ = ["NightFiles", "formatter", "logging_to", "night_paths"]

_LOOK_S = 10.0
"""How often it is asked whether the night has changed."""
_SOON_S = 0.5
"""The same while there is no night yet."""
_HELD = 2000
"""Lines that are kept until the first night is known."""
_LOUD = dict.fromkeys(
    ("httpx", "httpcore", "asyncio", "watchdog", "PIL", "matplotlib", "numba", "apprise"), logging.WARNING
)
_LOUD["distributed"] = logging.CRITICAL
"""Libraries, and the level from which their lines say something about the night.

What Dask calls an error is a worker that died, which its pool turns into an error of the exposure.
"""


class _Formatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002
        moment = datetime.fromtimestamp(record.created, UTC)
        return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def formatter() -> logging.Formatter:
    """Return the format of every log line."""
    return _Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")


def night_paths(
    observatory: Observatory, cameras: Iterable[str], night: Night | None
) -> Callable[[], tuple[Path, ...]]:
    """Return a function that names the log files of now: one a camera.

    Parameters
    ----------
    night : Night or None
        None: whatever night it is at the site; the files change at local noon.
    """
    layout, names = Layout(observatory.root), tuple(cameras)

    def paths() -> tuple[Path, ...]:
        current = night or night_of(datetime.now(UTC), observatory.site)
        return tuple(layout.log(camera, current) for camera in names)

    return paths


class NightFiles(logging.Handler):
    """Appends each line to the files that a function names; it is asked now and then, as nights change.

    Parameters
    ----------
    paths : callable
        Returns the files of now; their directories are made. While there are none, lines are kept for the first,
        and once there were some, the last ones stay.
    clock : callable
        Seconds that only go forward.
    """

    def __init__(self, paths: Callable[[], tuple[Path, ...]], *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._paths = paths
        self._clock = clock
        self._look_at = float("-inf")
        self._open: dict[Path, TextIO] = {}
        self._held: deque[str] = deque(maxlen=_HELD)
        self.setFormatter(formatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line to each file, whole and at once."""
        try:
            if self._clock() >= self._look_at:
                self._follow()
            line = self.format(record) + "\n"
            if not self._open:
                self._held.append(line)
            for stream in self._open.values():
                stream.write(line)
        except Exception:  # noqa: BLE001 - logging's own rule: a line that can't be written stops nothing
            self.handleError(record)

    def close(self) -> None:
        """Close the files."""
        with self.lock or contextlib.nullcontext():
            for stream in self._open.values():
                stream.close()
            self._open.clear()
        super().close()

    def _follow(self) -> None:
        # asking may log, and comes back here: not again before this is over
        self._look_at = float("inf")
        try:
            self._turn_to(self._paths() or tuple(self._open))
        finally:
            self._look_at = self._clock() + (_LOOK_S if self._open else _SOON_S)

    def _turn_to(self, wanted: tuple[Path, ...]) -> None:
        for path in set(self._open) - set(wanted):
            self._open.pop(path).close()
        for path in wanted:
            if path not in self._open:
                path.parent.mkdir(parents=True, exist_ok=True)
                # line-buffered: a line is one write, so that processes which share the file do not mix theirs
                self._open[path] = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
                self._open[path].writelines(self._held)
        if self._open:
            self._held.clear()


@contextlib.contextmanager
def logging_to(*handlers: logging.Handler, level: str) -> Iterator[None]:
    """Send all log lines of this process to the handlers, as long as the block lasts.

    Parameters
    ----------
    level : str
        ``DEBUG``, ``INFO``, ``WARNING`` or ``ERROR``.
    """
    root = logging.getLogger()
    before = root.level
    for handler in handlers:
        if handler.formatter is None:
            handler.setFormatter(formatter())
        # a filter, because some libraries set the levels of their loggers as they are imported, later
        handler.addFilter(_says_something)
        root.addHandler(handler)
    root.setLevel(level)
    try:
        yield
    finally:
        root.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


def _says_something(record: logging.LogRecord) -> bool:
    return record.levelno >= _LOUD.get(record.name.partition(".")[0], logging.NOTSET)
