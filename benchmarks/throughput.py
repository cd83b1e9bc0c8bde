"""A backlog of 200 exposures of 1024 x 1024: what orchestration costs.

``python -m benchmarks.throughput [--exposures 200]`` starts the watch, drops the backlog, and compares the time in
which it is worked off with the same steps in a plain loop over a process pool of as many workers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.peer import reduce_plainly
from nightglass.ledger import Entry
from nightglass.model import Kind, MasterRef, Night, State
from nightglass.simulate import NightPlan, write_night
from tests.drill.harness import CAMERA, Observatory, running, wait_for

NIGHT = Night("20260821")
WORKERS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exposures", type=int, default=200)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--dark", action="store_true", help="without Prefect")
    arguments = parser.parse_args()
    shape = (arguments.size, arguments.size)
    calibrations = NightPlan(night=NIGHT, biases=3, darks=3, flats=3, science=0, filters=("r",), shape=shape)
    science = NightPlan(
        night=NIGHT,
        biases=0,
        darks=0,
        flats=0,
        science=arguments.exposures,
        dithers=1,
        filters=("r",),
        shape=shape,
        first_number=100,
    )
    with tempfile.TemporaryDirectory(prefix="nightglass-throughput-") as scratch:
        observatory = Observatory(
            Path(scratch, "root"), Path(scratch, "raw"), ("--no-prefect",) if arguments.dark else ()
        )
        staging = Path(scratch, "staging")
        paths = write_night(staging, science, seed=1).paths
        with running(observatory):
            write_night(observatory.raw, calibrations, seed=1)
            wait_for(lambda: _masters(observatory) >= 3, timeout_s=180, what="the masters")
            started = time.time()
            for path in paths:
                path.rename(observatory.raw / path.name)
            wait_for(lambda: observatory.states()[State.REDUCED] == 9 + len(paths), timeout_s=900, what="the backlog")
            with observatory.ledger() as ledger:
                entries = [entry for entry in ledger.entries(camera=CAMERA) if entry.kind is Kind.SCIENCE]
                masters = ledger.masters(CAMERA)
        ours = max(entry.times["reduced"] for entry in entries) - started
        plain = _plain_loop(entries, masters, observatory.root)
    print(f"{len(entries)} exposures of {arguments.size} x {arguments.size}, {WORKERS} workers")
    print(f"  Nightglass: {ours:.1f} s, {len(entries) / ours:.2f} a second")
    print(f"  plain loop: {plain:.1f} s, {len(entries) / plain:.2f} a second")
    print(f"  orchestration costs {100 * (ours / plain - 1):.0f} %")


def _masters(observatory: Observatory) -> int:
    with observatory.ledger() as ledger:
        return len(ledger.masters(CAMERA))


def _plain_loop(entries: list[Entry], masters: tuple[MasterRef, ...], root: Path) -> float:
    refs = [entry.ref for entry in entries if entry.ref]
    count = len(refs)
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        list(pool.map(reduce_plainly, refs[:WORKERS], [masters] * WORKERS, [root] * WORKERS))  # imports and masters
        started = time.perf_counter()
        list(pool.map(reduce_plainly, refs, [masters] * count, [root] * count))
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
