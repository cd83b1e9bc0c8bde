"""A backlog of 200 exposures of 1024 x 1024: what orchestration costs.

``python -m benchmarks.throughput [--exposures 200] [--rounds 1] [--dark]`` starts the watch, drops the backlog, and
compares the time in which it is worked off with the same steps in a plain loop over a process pool of as many workers.

Both sides begin when their processes are up, warm and at rest, have as many workers, the same specifications, masters,
memory setting, products and quick looks, and sync the same files and directories. Beside the time on the wall stands
the processor time of all processes of a side: on a machine that does other things, too, that is the one to compare.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accounting import cpu_by_role, describe, machine_cpu, spent, wait_until_quiet
from benchmarks.peer import plain_loop, plain_spec
from nightglass.model import Night, State
from nightglass.simulate import NightPlan, write_night
from tests.drill.harness import CAMERA, Observatory, running, wait_for

NIGHT = Night("20260821")
WORKERS = 2
_FIRST = 2 * WORKERS
"""Exposures before the backlog, from which each worker has the masters; those of the plain loop have them, too."""


@dataclass(frozen=True, slots=True)
class _Figures:
    """What one side took: seconds on the wall, and of processor time by role; and what others took meanwhile."""

    wall: float
    cpu: Counter[str]
    others: float

    @property
    def total(self) -> float:
        return sum(self.cpu.values()) - self.cpu["benchmark"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exposures", type=int, default=200)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=1, help="of both sides, one after the other")
    parser.add_argument("--dark", action="store_true", help="without Prefect")
    arguments = parser.parse_args()
    ours, plain = [], []
    with tempfile.TemporaryDirectory(prefix="nightglass-throughput-") as scratch:
        observatory = Observatory(
            Path(scratch, "root"), Path(scratch, "raw"), ("--no-prefect",) if arguments.dark else ()
        )
        write_night(observatory.raw, _calibrations(arguments), seed=1)
        for number in range(arguments.rounds):
            paths = write_night(Path(scratch, "staging"), _science(arguments, number), seed=1 + number).paths
            with running(observatory):
                wait_for(lambda: _masters(observatory) >= 3, timeout_s=180, what="the masters")
                wait_until_quiet(observatory, with_prefect=not arguments.dark)
                _work_off(observatory, paths[:_FIRST])
                wait_until_quiet(observatory, with_prefect=not arguments.dark)
                ours.append(_work_off(observatory, paths[_FIRST:]))
            plain.append(_plain(observatory, paths[_FIRST:]))
    print(f"{arguments.exposures} exposures of {arguments.size} x {arguments.size}, {WORKERS} workers")
    for pair in zip(ours, plain, strict=True):
        _show(arguments.exposures, *pair)
    if arguments.rounds > 1:
        print("all rounds together")
        _show(arguments.exposures * arguments.rounds, _sum(ours), _sum(plain))


def _show(count: int, ours: _Figures, plain: _Figures) -> None:
    for name, side in (("Nightglass", ours), ("plain loop", plain)):
        print(f"  {name}: {side.wall:.1f} s, {count / side.wall:.2f} a second")
        print(f"    processor time {side.total:.1f} s: {describe(side.cpu)}; others {side.others:.1f} s")
    print(f"  orchestration costs {100 * (ours.wall / plain.wall - 1):.0f} %", end="")
    print(f" ({100 * (ours.total / plain.total - 1):.0f} % in processor time)")


def _sum(sides: list[_Figures]) -> _Figures:
    cpu = sum((side.cpu for side in sides), Counter())
    return _Figures(sum(side.wall for side in sides), cpu, sum(side.others for side in sides))


def _calibrations(arguments: argparse.Namespace) -> NightPlan:
    shape = (arguments.size, arguments.size)
    return NightPlan(night=NIGHT, biases=3, darks=3, flats=3, science=0, filters=("r",), shape=shape)


def _science(arguments: argparse.Namespace, number: int) -> NightPlan:
    return NightPlan(
        night=NIGHT,
        biases=0,
        darks=0,
        flats=0,
        science=_FIRST + arguments.exposures,
        dithers=1,
        filters=("r",),
        shape=(arguments.size, arguments.size),
        first_number=100 + number * (_FIRST + arguments.exposures),
    )


def _masters(observatory: Observatory) -> int:
    with observatory.ledger() as ledger:
        return len(ledger.masters(CAMERA))


def _work_off(observatory: Observatory, paths: tuple[Path, ...]) -> _Figures:
    """Drop a backlog, and wait until it is reduced; only the counters of the ledger are asked, which costs little."""
    with observatory.ledger() as ledger:
        aim = ledger.counts()[State.REDUCED] + len(paths)
        before, busy, started = cpu_by_role(observatory), machine_cpu(), time.time()
        for path in paths:
            path.rename(observatory.raw / path.name)
        wait_for(lambda: ledger.counts()[State.REDUCED] == aim, timeout_s=900, what="the backlog")
        cpu, busy = spent(before, cpu_by_role(observatory)), machine_cpu() - busy
        ended = max(entry.times["reduced"] for entry in ledger.entries(camera=CAMERA))
    return _Figures(ended - started, cpu, busy - sum(cpu.values()))


def _plain(observatory: Observatory, paths: tuple[Path, ...]) -> _Figures:
    names = {path.name for path in paths}
    with observatory.ledger() as ledger:
        refs = [entry.ref for entry in ledger.entries(camera=CAMERA) if entry.ref and entry.path.name in names]
        masters = ledger.masters(CAMERA)
    specs = [plain_spec(ref, masters, observatory.root) for ref in refs]
    wall, cpu, others = plain_loop(specs, workers=WORKERS)
    return _Figures(wall, Counter({"workers": cpu}), others)


if __name__ == "__main__":
    main()
