"""Contests: several ways to make one file, each in every round, with what each is to reach."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

__all__ = ["Contender", "Contest", "Reach", "Seconds", "processor_seconds", "ratio", "show", "tell"]

TICK_S = 0.01
"""What the system counts processor time in."""
Contender = Callable[[Path], float]
"""Writes a cube to a path, and returns the seconds that took."""

Seconds = Mapping[str, Sequence[float]]
"""By contender, those of each round."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a contender is to reach, against another: seconds of ours by those of the other."""

    ours: str
    other: str
    most: float
    told: str


@dataclass(frozen=True, slots=True)
class Contest:
    """Where contenders write, and how many rounds there are, each with all of them."""

    scratch: Path
    rounds: int

    def hold(
        self, title: str, frames: Sequence[Path], contenders: dict[str, Contender], reaches: Sequence[Reach]
    ) -> None:
        """Run all contenders in every round, and print their medians."""
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        busy: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(self.rounds):
            order = list(contenders) if number % 2 == 0 else list(reversed(contenders))
            for name in order:
                out = self.scratch / "cube.fits"
                self.settle(frames)
                before = processor_seconds()
                taken[name].append(contenders[name](out))
                busy[name].append(processor_seconds() - before)
                out.unlink(missing_ok=True)  # what is not written to disk yet need not be, in the time of the next
        show(title, sum(path.stat().st_size for path in frames), taken, busy)
        tell(taken, reaches)

    def settle(self, frames: Sequence[Path]) -> None:
        """Give every contender the same machine: an idle disk, free memory that is there, and frames in the cache.

        A virtual machine may hand memory that was not used for some seconds back to its host, and get it again page by
        page, several times slower than memory; who comes after a long contender would pay for that.
        """
        file = self.scratch / "settle"
        block = bytes(1 << 20)
        with file.open("wb", buffering=0) as stream:
            for _ in range(2 * sum(path.stat().st_size for path in frames) >> 20):
                stream.write(block)
        file.unlink()
        os.sync()
        for path in frames:
            path.read_bytes()


def processor_seconds() -> float:
    """Return the processor time of this process and all its children so far, those that have ended included."""
    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return float(total)


def show(title: str, size: int, taken: Seconds, busy: Seconds) -> None:
    first = next(iter(taken))
    table = Table(title=f"{title}: {size >> 20} MiB, load {os.getloadavg()[0]:.1f}")
    for column in ("", "s (median)", "s (all)", "MiB/s", f"x {first}", "processor s", f"x {first}"):
        table.add_column(column)
    for name, seconds in taken.items():
        middle = statistics.median(seconds)
        table.add_row(
            name,
            f"{middle:.3f}",
            " ".join(f"{value:.2f}" for value in seconds),
            f"{size / middle / 2**20:.0f}",
            f"{ratio(taken, name, first):.2f}",
            f"{statistics.median(busy[name]):.2f}",
            f"{ratio(busy, name, first):.2f}",
        )
    Console(width=140).print(table)


def tell(taken: Seconds, reaches: Sequence[Reach]) -> None:
    """Print what was to be reached, and whether it was."""
    for reach in reaches:
        found = ratio(taken, reach.ours, reach.other)
        text = f"{found:.2f} x" if reach.most > 1 else f"{1 / found:.1f} x as fast"
        mark = "[green]reached[/]" if found <= reach.most else "[red]missed[/]"
        Console(width=140).print(f"  {reach.told}: {text}, {mark}")


def ratio(taken: Seconds, name: str, other: str) -> float:
    """Return the median of the ratios of each round: a load that comes and goes hits both."""
    return statistics.median(a / max(b, TICK_S) for a, b in zip(taken[name], taken[other], strict=True))
