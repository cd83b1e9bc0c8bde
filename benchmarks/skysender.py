"""An emulated telescope in a process of its own, for benchmarks: what it sends costs it next to nothing."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection

import numpy as np

from nightglass.simulate.emulator import StreamEmulator
from nightglass.simulate.streams import FREQUENCIES_HZ, SkyBands, synthetic_sky
from nightglass.streams.aartfaac import encode_window, make_header

__all__ = ["Sender", "Sky", "emulated"]

SPAWN = multiprocessing.get_context("spawn")
_CYCLE = 4
"""Images of a sub-band that take turns: a sender that draws noise for every window would have a core for itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sky:
    """What is sent: so many sub-bands of square images."""

    bands: int
    size: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Sender:
    """The emulator's process, seen from here."""

    endpoints: tuple[str, ...]
    pipe: Connection

    def begin(self) -> None:
        """Accept clients, and send."""
        self.pipe.send("begin")

    def end(self) -> list[datetime]:
        """Send no further step; return the moments of those that were sent, which are their time stamps."""
        self.pipe.send("end")
        sent: list[datetime] = self.pipe.recv()
        return sent


@contextlib.contextmanager
def emulated(sky: Sky) -> Iterator[Sender]:
    """Start an emulator that does not yet accept anybody: all sub-bands shall begin with the same step."""
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=_emulate, args=(there, sky), daemon=True)
    process.start()
    try:
        yield Sender(tuple(f"127.0.0.1:{port}" for port in here.recv()), here)
    finally:
        process.terminate()
        process.join()


def _emulate(pipe: Connection, sky: Sky) -> None:
    windows = _Windows(sky)
    emulator = StreamEmulator("127.0.0.1", [0] * sky.bands, windows, period_s=sky.period_s)
    pipe.send(emulator.ports)
    pipe.recv()
    windows.began = datetime.now(UTC)
    with emulator:
        pipe.recv()
        pipe.send(windows.end())


class _Windows:
    """Makes the window of a sub-band and step, until it is told to end."""

    def __init__(self, sky: Sky) -> None:
        shape = (sky.size, sky.size)
        made = SkyBands(synthetic_sky(shape), period_s=sky.period_s, seed=1)
        # column by column, as they are sent
        self._planes = [
            [np.asfortranarray(made.plane(band, step)) for step in range(_CYCLE)] for band in range(sky.bands)
        ]
        self._period_s = sky.period_s
        self._steps: list[list[int]] = [[] for _ in range(sky.bands)]
        self._ended = threading.Event()
        self._over = threading.Event()
        self.began = datetime.now(UTC)

    def __call__(self, band: int, step: int) -> bytes:
        if self._ended.is_set():
            self._over.wait()
            return b""
        self._steps[band].append(step)
        pixels = self._planes[band][step % _CYCLE]
        header = make_header(pixels.shape, timestamp=self._moment(step), frequency_hz=FREQUENCIES_HZ[band])
        return encode_window(header, pixels)

    def end(self) -> list[datetime]:
        """Have no window begun any more; return the moments of the steps before, when they are out."""
        self._ended.set()
        time.sleep(1.5 * self._period_s)
        sent = sorted(set().union(*self._steps))
        self._over.set()
        return [self._moment(step) for step in sent]

    def _moment(self, step: int) -> datetime:
        return self.began + timedelta(seconds=step * self._period_s)
