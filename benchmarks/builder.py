"""The image builder beside its peers, part by part.

``python -m benchmarks.builder [--part write] [--sources 12] [--size 4096] [--rounds 3] [--directory DIR]``.

push, latency: see `benchmarks.building`.

write: one frame of many sources, built and written Rice-compressed, beside ``fpack`` on the same frame, interleaved;
and as it came, beside ``cat``. Seconds of the wall, and of all processors, for a busy machine says little about the
former.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from rich.console import Console
from rich.table import Table

from benchmarks.building import run_latency, run_push
from nightglass.builder.records import ExtensionRecord
from nightglass.builder.writing import write_frame
from nightglass.config import Limits
from nightglass.fitsio import scan_headers

PARTS: dict[str, Callable[[argparse.Namespace], None]] = {}
"""Part -> what runs it."""
WANTED = 3.0
"""Times the speed of fpack."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds of the wall, and of processors: this process and its children."""

    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Taken:
    """Time some work."""
    started, before = time.perf_counter(), _cpu()
    work()
    return Taken(time.perf_counter() - started, _cpu() - before)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in used)


def spooled(directory: Path, sources: int, size: int) -> list[ExtensionRecord]:
    """Make extensions as a spool holds them: sky, noise and stars, in uint16."""
    directory.mkdir(parents=True)
    records = []
    for number in range(sources):
        rng = np.random.default_rng(number)
        pixels = rng.normal(1200, 12, (size, size)).astype(np.float32)
        places = rng.integers(0, size, (2, size // 4))
        pixels[places[0], places[1]] += rng.exponential(5000, size // 4).astype(np.float32)
        path = directory / f"CCD{number}.fits"
        header = fits.Header([("EXPTIME", 30.0), ("GAIN", 1.7)])
        fits.PrimaryHDU(np.clip(pixels, 0, 65535).astype(np.uint16), header).writeto(path)
        info = scan_headers(path, Limits())[0]
        records.append(
            ExtensionRecord(
                name=f"CCD{number}",
                path=path,
                data_offset=info.data_offset,
                data_size=info.data_size,
                shape=info.shape,
                bitpix=info.bitpix,
            )
        )
    return records


def run_write(wanted: argparse.Namespace) -> None:
    """Write one frame, compressed and not."""
    if shutil.which("fpack") is None:
        message = "fpack is not installed"
        raise SystemExit(message)
    with tempfile.TemporaryDirectory(dir=wanted.directory, prefix="nightglass-write-") as scratch:
        place = Path(scratch)
        records = spooled(place / "spool", wanted.sources, wanted.size)
        primary = fits.Header([("EXTNAME", "PRIMARY"), ("EXPID", 1), ("FRAME", 0)])
        plain, ours, theirs, copy = (place / name for name in ("plain.fits", "ours.fits.fz", "fpack.fits.fz", "copy"))
        write_frame(records[:1], primary, ours, compress=True)  # compiles the kernel, once for each machine
        write_frame(records, primary, plain)
        contenders: dict[str, Callable[[], object]] = {
            "nightglass, Rice": lambda: write_frame(records, primary, ours, compress=True, overwrite=True),
            "fpack": lambda: _fpack(plain, theirs),
            "nightglass, as it came": lambda: write_frame(records, primary, plain, overwrite=True),
            "cat": lambda: _cat([record.path for record in records], copy),
        }
        taken: dict[str, list[Taken]] = {name: [] for name in contenders}
        for _ in range(wanted.rounds):
            for name, work in contenders.items():
                taken[name].append(timed(work))
        sizes = {"nightglass, Rice": ours, "fpack": theirs, "nightglass, as it came": plain, "cat": copy}
        mib = sum(record.data_size for record in records) / 2**20
        _show(taken, {name: path.stat().st_size / 2**20 for name, path in sizes.items()}, mib)


PARTS |= {"write": run_write, "push": run_push, "latency": run_latency}


def _fpack(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    subprocess.run(["fpack", "-O", str(target), str(source)], check=True)


def _cat(sources: Sequence[Path], target: Path) -> None:
    with target.open("wb") as stream:
        subprocess.run(["cat", *map(str, sources)], check=True, stdout=stream)


def _show(taken: dict[str, list[Taken]], sizes: dict[str, float], mib: float) -> None:
    table = Table(title=f"one frame of {mib:.0f} MiB, {os.cpu_count()} processors, {len(taken['fpack'])} rounds")
    for heading in ("", "wall s", "MiB/s", "cpu s", "MiB/s a processor", "size MiB"):
        table.add_column(heading, justify="right" if heading else "left")
    middle = {
        name: Taken(statistics.median(one.wall for one in runs), statistics.median(one.cpu for one in runs))
        for name, runs in taken.items()
    }
    for name, one in middle.items():
        table.add_row(
            name,
            f"{one.wall:.2f}",
            f"{mib / one.wall:.0f}",
            f"{one.cpu:.2f}",
            f"{mib / one.cpu:.0f}",
            f"{sizes[name]:.1f}",
        )
    console = Console()
    console.print(table)
    ratios = [theirs.wall / ours.wall for ours, theirs in zip(taken["nightglass, Rice"], taken["fpack"], strict=True)]
    ratio, cpu = statistics.median(ratios), middle["fpack"].cpu / middle["nightglass, Rice"].cpu
    verdict = "reached" if ratio >= WANTED else "missed"
    console.print(
        f"{ratio:.2f} times the speed of fpack (of its processor time {cpu:.2f}); {WANTED:g} wanted: {verdict}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=sorted(PARTS), default="write")
    parser.add_argument("--sources", type=int, default=12, help="of one frame")
    parser.add_argument("--size", type=int, default=4096, help="pixels of a side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bodies", type=int, default=10, help="push: of 32 MiB, in each round of each connection")
    parser.add_argument("--connections", type=int, default=1, help="push: senders at once")
    parser.add_argument("--seconds", type=float, default=300.0, help="latency: for which frames come")
    parser.add_argument("--memory-mib", type=int, default=150, help="latency: what the server may need above idle")
    parser.add_argument("--kept", type=int, default=10, help="latency: frames that are left in the spool")
    parser.add_argument("--directory", type=Path, default=None, help="where files are made")
    wanted = parser.parse_args()
    PARTS[wanted.part](wanted)


if __name__ == "__main__":
    main()
