"""A night of a radio sky: sub-bands over TCP, a whole Prefect run for every time step; what is lost, late or grows.

An emulator in a process of its own sends a window of each sub-band at every period. `nightglass stream aartfaac`, with
its Prefect server, runner and Dask workers, groups them, writes time steps and reduces them. The lag of a time step is
the time from when it was due to be sent until its product is in the ledger; it is taken from the ledger afterwards, for
all steps but those of the warming up. Processor seconds are those of all processes but the sender's and this one.

    python -m benchmarks.stream_night                     6 sub-bands of 1024 x 1024, one a second, 300 s
    python -m benchmarks.stream_night --seconds 30 --size 256
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean, median

import httpx
import psutil

from benchmarks.accounting import cpu_by_role, machine_cpu, spent, wait_until_quiet
from benchmarks.skysender import Sky, emulated
from nightglass.ledger import Entry
from nightglass.model import State
from nightglass.watch.heartbeat import read_heartbeats
from tests.drill.harness import Observatory, running, wait_for
from tests.ports import free_port

CAMERA = "aartfaac"
WANTED_LAG_S = 2.0
WANTED_GROWTH = 0.05
PSS_PERIOD_S = 5.0
DRAIN_S = 60.0
SHOWN = 8
"""Moments at which memory is shown."""
STAGES = (
    ("sent -> file", None, "file"),
    ("file -> complete", "file", "complete"),
    ("complete -> running", "complete", "running"),
    ("running -> reduced", "running", "reduced"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="for which time steps are counted")
    parser.add_argument("--warm-up", type=float, default=20.0, help="seconds before")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--bands", type=int, default=6)
    parser.add_argument("--period", type=float, default=1.0)
    parser.add_argument("--dark", action="store_true", help="without Prefect")
    if not measure(parser.parse_args()).good:
        raise SystemExit(1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a night.

    Attributes
    ----------
    whole : bool
        Whether everything that was sent is reduced, and nothing was dropped or cut.
    lags : list of float
        Seconds from sending to product, for each step in turn.
    growth : float
        Of memory: the last quarter against the second, as a share.
    """

    whole: bool
    lags: list[float]
    growth: float

    @property
    def good(self) -> bool:
        """Whether it is as it ought to be."""
        return self.whole and bool(self.lags) and max(self.lags) < WANTED_LAG_S and self.growth < WANTED_GROWTH


def measure(arguments: argparse.Namespace) -> Outcome:
    """Run a night, and print what there is to tell."""
    sky = Sky(bands=arguments.bands, size=arguments.size, period_s=arguments.period)
    with tempfile.TemporaryDirectory(prefix="nightglass-stream-") as scratch, emulated(sky) as sender:
        night = StreamNight(Path(scratch, "root"), sender.endpoints, dark=arguments.dark)
        with running(night):
            wait_until_quiet(night, with_prefect=not arguments.dark)
            sender.begin()
            time.sleep(arguments.warm_up)
            course = follow(night, arguments.seconds)
            sent = sender.end()
            with contextlib.suppress(AssertionError):  # what is missing is told below
                wait_for(lambda: night.reduced() >= len(sent), timeout_s=DRAIN_S, what="all time steps")
            how = "without Prefect" if arguments.dark else "with Prefect"
            print(f"{sky.bands} sub-bands of {sky.size} x {sky.size} every {sky.period_s:g} s, {how}")
            return report(night, sky, course, sent)


class StreamNight(Observatory):
    """An observatory that receives a stream instead of watching a directory."""

    def __init__(self, root: Path, endpoints: tuple[str, ...], *, dark: bool) -> None:
        config = root.parent / "observatory.toml"
        self.port = free_port()
        config.write_text(f"[prefect]\nport = {self.port}\n")
        options = ("--config", str(config), *(("--no-prefect",) if dark else ()))
        super().__init__(root, root.parent / "raw", options)
        self.endpoints = endpoints
        self.prefect = not dark

    def command(self) -> list[str]:
        """Return the command line, but for root and options."""
        return [sys.executable, "-m", "deployments.cli", "stream", "aartfaac", *self.endpoints, "--camera", CAMERA]

    def reduced(self) -> int:
        """Return how many time steps are reduced."""
        with self.ledger() as ledger:
            return ledger.counts()[State.REDUCED]

    def entries(self) -> list[Entry]:
        """Return all time steps."""
        with self.ledger() as ledger:
            return list(ledger.entries(camera=CAMERA))

    def flow_runs(self) -> int:
        """Return how many runs of the flow for one exposure have completed."""
        query = {
            "flows": {"name": {"any_": ["reduce-exposure"]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
        }
        answer = httpx.post(f"http://127.0.0.1:{self.port}/api/flow_runs/count", json=query, timeout=DRAIN_S)
        answer.raise_for_status()
        return int(answer.json())


@dataclass(frozen=True, slots=True)
class Course:
    """What was seen while steps came.

    Attributes
    ----------
    memory : list of dict
        By role, in MiB, every few seconds: what is shared is divided among those who share it.
    cpu : Counter
        Seconds of processor by role.
    others : float
        Those of everybody else on this machine, the sender included.
    """

    began_at: float
    memory: list[dict[str, float]]
    cpu: Counter[str]
    others: float


def follow(night: StreamNight, seconds: float) -> Course:
    """Look at an observatory for so long."""
    before, busy, began, began_at = cpu_by_role(night), machine_cpu(), time.monotonic(), time.time()
    memory = []
    while (left := began + seconds - time.monotonic()) > 0:
        memory.append(memory_by_role(night))
        time.sleep(min(PSS_PERIOD_S, left))
    cpu = spent(before, cpu_by_role(night))
    return Course(began_at, memory, cpu, machine_cpu() - busy - sum(cpu.values()))


def memory_by_role(night: StreamNight) -> dict[str, float]:
    """Return role -> proportional set size of its processes in MiB."""
    found: dict[str, float] = {}
    for role, processes in night.tree().items():
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                found[role] = found.get(role, 0.0) + process.memory_full_info().pss / 2**20
    return found


def report(night: StreamNight, sky: Sky, course: Course, sent: list[datetime]) -> Outcome:
    """Print what was lost, late or grew."""
    entries = {entry.ref.started_at: entry for entry in night.entries() if entry.ref}
    found = [(moment.timestamp(), entries.get(moment)) for moment in sent]
    whole = show_losses(night, sky, [entry for _, entry in found if entry], len(sent))
    steps = [
        (moment, entry)
        for moment, entry in found
        if entry and entry.state is State.REDUCED and moment > course.began_at
    ]
    lags = [entry.times["reduced"] - moment for moment, entry in steps]
    if steps:
        show_lag(lags, steps)
        show_processor(course, len(steps))
    return Outcome(whole, lags, show_memory(course))


def show_processor(course: Course, steps: int) -> None:
    """Print what a time step costs."""
    each = {role: seconds / steps for role, seconds in course.cpu.items() if role != "benchmark"}
    parts = ", ".join(f"{role} {seconds:.3f}" for role, seconds in sorted(each.items(), key=lambda item: -item[1]))
    others = course.others / steps
    print(
        f"  processor seconds for each step: {sum(each.values()):.3f} ({parts}); others, sender included: {others:.3f}"
    )


def show_losses(night: StreamNight, sky: Sky, entries: list[Entry], sent: int) -> bool:
    """Print what became of everything that was sent; return whether it is all there."""
    (beat, *_) = read_heartbeats(night.layout.run)
    (state,) = beat.streams
    reduced = sum(entry.state is State.REDUCED for entry in entries)
    runs = f", {night.flow_runs()} runs completed" if night.prefect else ""
    counts = ", ".join(
        f"{name} {state[name]}" for name in ("messages", "lost", "dropped", "partial", "late", "skipped")
    )
    print(f"  {sent} steps sent, {len(entries)} received, {reduced} reduced{runs}; {counts}; {len(beat.alarms)} alarms")
    for alarm in beat.alarms:
        print(f"    alarm: {alarm['subject']}: {alarm['text']}")
    nothing = not any(state[name] for name in ("lost", "dropped", "partial", "skipped"))
    return reduced == len(entries) == sent and state["messages"] == sent * sky.bands and nothing


def show_lag(lags: list[float], steps: list[tuple[float, Entry]]) -> None:
    """Print how long time steps took, and where."""
    first, last = median(lags[:10]), median(lags[-10:])
    ordered = sorted(lags)
    print(
        f"  lag, sent -> product: p50 {at(ordered, 0.5):.2f} s, p95 {at(ordered, 0.95):.2f} s, "
        f"max {ordered[-1]:.2f} s; median of the first ten {first:.2f} s, of the last ten {last:.2f} s "
        f"(wanted: below {WANTED_LAG_S:g} s)"
    )
    for name, before, after in STAGES:
        taken = [moment_of(entry, after) - (moment_of(entry, before) if before else moment) for moment, entry in steps]
        print(f"    {name:<20} {median(taken):.3f} s (median)")
    names = dict.fromkeys(name for _, entry in steps for name in entry.timings)
    parts = ", ".join(f"{name} {median(entry.timings.get(name, 0.0) for _, entry in steps):.3f}" for name in names)
    print(f"    in the worker: {parts}")


def moment_of(entry: Entry, stage: str) -> float:
    """Return when a time step reached a stage, in epoch seconds."""
    return entry.mtime_ns / 1e9 if stage == "file" else entry.times[stage]


def show_memory(course: Course) -> float:
    """Print memory over the time; return by what share the last quarter is above the second."""
    sums = [sum(found.values()) for found in course.memory]
    stride = max(len(sums) // SHOWN, 1)
    shown = ", ".join(f"{total:.0f}" for total in sums[::stride])
    quarter = max(len(sums) // 4, 1)
    growth = mean(sums[-quarter:]) / mean(sums[quarter : 2 * quarter] or sums) - 1
    roles = course.memory[-1]
    parts = ", ".join(f"{role} {size:.0f}" for role, size in sorted(roles.items(), key=lambda item: -item[1]))
    print(f"  memory (PSS) in MiB over the time: {shown}; at the end {parts}")
    print(f"    last quarter against the second: {100 * growth:+.1f} % (wanted: below {100 * WANTED_GROWTH:g} %)")
    return growth


def at(values: list[float], fraction: float) -> float:
    """Return a quantile of sorted values."""
    return values[min(len(values) - 1, int(fraction * len(values)))]


if __name__ == "__main__":
    main()
