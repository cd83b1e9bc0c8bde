"""Cost of the ledger and of the group engine, exposure by exposure, up to a million.

Every exposure goes the whole way: seen, complete, into a dither set of five, grouped, claimed, committed with two
products. Time stamps and ids are simulated; database, transactions and engine are the real ones. The cost of the
last tenth beside that of the first shows whether a full ledger is slower than an empty one.

    python benchmarks/ledger.py                      one million, about half an hour
    python benchmarks/ledger.py --exposures 20000    the short form
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nightglass.config import GroupRule
from nightglass.groups import GroupEngine, ReadyGroup
from nightglass.ledger import GroupRecord, Ledger
from nightglass.model import ExposureRef, Kind, Night, Product, ProductKind, Quality, Sighting, content_key

SET_SIZE = 5
PER_NIGHT = 20_000
EXPOSURE_S = 3.0
FLAT = 1.5
"""The last tenth may cost this many times the first."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One hundredth of the run: exposures done so far, mean cost in microseconds, resident memory in MiB.

    Processor time is given beside elapsed time, because other work on the machine does not disturb it.
    """

    done: int
    cost_us: float
    cpu_us: float
    memory_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exposures", type=int, default=1_000_000)
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the ledger is made; default: a temporary one"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        samples = watched(run(Path(directory), arguments.exposures), arguments.exposures)
        size_mib = sum(path.stat().st_size for path in Path(directory).iterdir()) / 2**20
    report(samples, size_mib)


def run(directory: Path, exposures: int) -> Iterator[Sample]:
    """Take so many exposures through a new ledger; yield a sample after each hundredth."""
    rule = GroupRule(name="dither")
    engine = GroupEngine([rule])
    with Ledger.open(directory / "ledger.sqlite") as ledger:
        step = max(exposures // 100 // SET_SIZE, 1) * SET_SIZE
        began, cpu_began = time.perf_counter(), time.process_time()
        for number in range(exposures):
            take(ledger, engine, number, directory)
            if (number + 1) % step == 0:
                ended, cpu_ended = time.perf_counter(), time.process_time()
                cost_us, cpu_us = (ended - began) / step * 1e6, (cpu_ended - cpu_began) / step * 1e6
                yield Sample(number + 1, cost_us, cpu_us, resident_mib())
                began, cpu_began = time.perf_counter(), time.process_time()
        counts = ledger.counts()
        if sum(counts.values()) != exposures:
            message = f"{exposures} exposures went in, the ledger counts {counts}"
            raise SystemExit(message)


def take(ledger: Ledger, engine: GroupEngine, number: int, directory: Path) -> None:
    """Take one exposure as far as it goes, and its set to the end when it is the last of it."""
    night = Night("20260821").shifted(number // PER_NIGHT)
    moment = datetime(2026, 8, 22, tzinfo=UTC) + timedelta(
        days=number // PER_NIGHT, seconds=number % PER_NIGHT * EXPOSURE_S
    )
    path = directory / "raw" / night.label / f"lynx-{number:08d}.fits"
    now = moment.timestamp()
    sighting = Sighting(path=path, size=8_391_680, mtime_ns=int(now * 1e9), inode=number, seen_at=moment)
    entry = ledger.see(sighting, camera="lynx", night=night)
    ref = ExposureRef(
        exposure_id=f"lynx/{night}/{number:08d}",
        night=night,
        camera="lynx",
        kind=Kind.SCIENCE,
        path=path,
        size=sighting.size,
        content_id=content_key(str(number)) * 2,  # a hash: random order, as in life
        started_at=moment,
        exposure_time_s=EXPOSURE_S,
        filter="r",
        target=f"field {number // SET_SIZE % 7}",
        group_number=number % SET_SIZE + 1,
        group_count=SET_SIZE,
    )
    entry = ledger.complete(entry.key, ref, revision=entry.revision, now=now)
    if entry.ref is None:
        message = f"{path} is {entry.state}: {entry.reason}"
        raise SystemExit(message)
    for group in (*engine.add(entry.ref, now), *engine.tick(now)):
        finish(ledger, group, now)


def finish(ledger: Ledger, group: ReadyGroup, now: float) -> None:
    """Claim the members of a group and commit each."""
    ledger.group(GroupRecord.of(group), now=now)
    leases = ledger.claim([ref.exposure_id for ref in group.members], owner="host:1:0:watch", lease_s=60, now=now)
    for lease, ref in zip(leases, group.members, strict=True):
        ledger.commit(
            lease,
            products=[product(ref, kind) for kind in (ProductKind.REDUCED, ProductKind.QUICKLOOK)],
            quality=Quality.OK,
            measured={"seeing": 1.21, "background": 312.5, "sources": 143},
            masters=["0123456789abcdef0123", "fedcba9876543210fedc"],
            timings={"bias": 0.01, "flat": 0.02, "sources": 0.2},
            publish=nothing,
            now=now + 0.7,
        )


def product(ref: ExposureRef, kind: ProductKind) -> Product:
    path = ref.path.parents[2] / kind.value / ref.night.label / f"{ref.name}.fits"
    return Product(kind=kind, key=ref.exposure_id, path=path, checksum=ref.content_id, size=1, inputs=(ref.content_id,))


def nothing() -> None:
    """Publish nothing: renames are not what is measured."""


def resident_mib() -> float:
    with Path("/proc/self/statm").open() as stream:
        return int(stream.read().split()[1]) * resource.getpagesize() / 2**20


def watched(samples: Iterator[Sample], exposures: int) -> list[Sample]:
    """Collect the samples, and print each tenth as it comes."""
    print(f"{'exposures':>12} {'cost us':>10} {'cpu us':>10} {'memory MiB':>11}")
    collected: list[Sample] = []
    for sample in samples:
        collected.append(sample)
        if sample.done * 10 // exposures > (sample.done - exposures // 100) * 10 // exposures:
            print(
                f"{sample.done:>12,} {sample.cost_us:>10.0f} {sample.cpu_us:>10.0f} {sample.memory_mib:>11.0f}",
                flush=True,
            )
    return collected


def report(samples: list[Sample], size_mib: float) -> None:
    """Compare the first tenth with the last."""
    tenth = max(len(samples) // 10, 1)
    for name in ("cost_us", "cpu_us"):
        first = sum(getattr(sample, name) for sample in samples[:tenth]) / tenth
        last = sum(getattr(sample, name) for sample in samples[-tenth:]) / tenth
        what = "elapsed" if name == "cost_us" else "processor"
        print(
            f"{what:>9} time per exposure: first 10 % {first:.0f} us, last 10 % {last:.0f} us, "
            f"{last / first:.2f} times (limit {FLAT})"
        )
    growth = samples[-1].memory_mib - samples[tenth - 1].memory_mib
    print(f"memory: {samples[-1].memory_mib:.0f} MiB at the end, {growth:+.0f} MiB since the first tenth")
    print(f"ledger: {size_mib:.0f} MiB on disk, {size_mib * 2**20 / samples[-1].done:.0f} bytes per exposure")


if __name__ == "__main__":
    main()
