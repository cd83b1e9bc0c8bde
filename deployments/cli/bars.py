"""Progress bars of commands that move many bytes, and the words for sizes and rates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

__all__ = ["mebibytes", "progress_bar", "rate"]

_MIB = 2.0**20


@contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that is told bytes done and bytes in all, from any thread; a bar shows it on a terminal."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def mebibytes(size: int) -> str:
    """Return a size as people read it: ``0.09 MiB``, ``512 MiB``."""
    return f"{size / _MIB:.3g} MiB" if size < 1000 * _MIB else f"{size / _MIB / 1024:.3g} GiB"


def rate(size: int, seconds: float) -> str:
    """Return a rate, ``840 MiB/s``; empty where nothing was timed."""
    return f"{size / _MIB / seconds:.3g} MiB/s" if seconds > 0 and size else ""
