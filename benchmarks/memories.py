"""Memory of this process and its children, each page once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

__all__ = ["peak_memory", "pss"]

SAMPLE_S = 0.01


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Sample the summed PSS of this process and its children; gives MiB above what it was at the start, at the end."""
    peak = [0.0]
    idle = pss()
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_S):
            peak[0] = max(peak[0], pss() - idle)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def pss() -> float:
    total = 0
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        try:
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except (OSError, psutil.Error):
            continue  # it has ended
    return total / 1024
