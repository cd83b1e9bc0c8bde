"""From the closing of a file to its product: 2048 x 2048, one exposure every 3 s, Prefect server running.

``python -m benchmarks.latency [--exposures 40] [--dark]``. The peer, printed beside it, is the same step list called in
one process on the same files, without ledger, watch, Prefect or Dask.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.accounting import wait_until_quiet
from benchmarks.peer import plain_spec, reduce_plainly
from nightglass.model import Kind, Night, State
from nightglass.simulate import NightPlan, write_night
from tests.drill.harness import CAMERA, Observatory, running, wait_for

NIGHT = Night("20260821")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exposures", type=int, default=40)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--pace", type=float, default=3.0)
    parser.add_argument("--dark", action="store_true", help="without Prefect")
    arguments = parser.parse_args()
    options = ("--no-prefect",) if arguments.dark else ()
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
    with tempfile.TemporaryDirectory(prefix="nightglass-latency-") as scratch:
        observatory = Observatory(Path(scratch, "root"), Path(scratch, "raw"), options)
        with running(observatory):
            write_night(observatory.raw, calibrations, seed=1)
            wait_for(lambda: _masters(observatory) >= 3, timeout_s=180, what="the masters")
            wait_until_quiet(observatory, with_prefect=not arguments.dark)
            writer = threading.Thread(
                target=write_night, args=(observatory.raw, science), kwargs={"seed": 1, "pace_s": arguments.pace}
            )
            writer.start()
            writer.join()
            total = 9 + arguments.exposures
            wait_for(lambda: observatory.states()[State.REDUCED] == total, timeout_s=120, what="all reduced")
        _report(observatory, arguments)


def _masters(observatory: Observatory) -> int:
    with observatory.ledger() as ledger:
        return len(ledger.masters(CAMERA))


def _report(observatory: Observatory, arguments: argparse.Namespace) -> None:
    with observatory.ledger() as ledger:
        entries = [entry for entry in ledger.entries(camera=CAMERA) if entry.kind is Kind.SCIENCE]
        masters = ledger.masters(CAMERA)
    latencies = sorted(entry.times["reduced"] - entry.mtime_ns / 1e9 for entry in entries)
    stages = {
        name: statistics.median(entry.times[after] - entry.times[before] for entry in entries)
        for name, before, after in (
            ("seen -> complete", "seen", "complete"),
            ("complete -> running", "complete", "running"),
            ("running -> reduced", "running", "reduced"),
        )
    }
    specs = [plain_spec(entry.ref, masters, observatory.root) for entry in entries[:10] if entry.ref]
    plain = sorted(map(reduce_plainly, specs))
    how = "without Prefect" if arguments.dark else "Prefect server running"
    print(f"{len(entries)} exposures of {arguments.size} x {arguments.size}, one every {arguments.pace:g} s, {how}")
    print(f"  file closed -> product visible: p50 {_at(latencies, 0.5):.3f} s, p95 {_at(latencies, 0.95):.3f} s")
    for name, seconds in stages.items():
        print(f"    {name:<20} {seconds:.3f} s (median)")
    print(f"  the same steps in one plain process: p50 {_at(plain, 0.5):.3f} s")


def _at(values: list[float], fraction: float) -> float:
    return values[min(len(values) - 1, int(fraction * len(values)))]


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"({time.monotonic() - started:.0f} s in all)")
