"""Cubes beside ``cat``, astropy, fitsio, fitscube and ``fpack`` on the same frames, interleaved in one run.

``python -m benchmarks.cube [--parts plain,durable,rice,joined,small,memory] [--frames 64] [--size 2048] [--rounds 7]``.
Every round runs all contenders on a warm page cache; the table shows the median, and the median of what each round
gave as the ratio to the first contender. A peer that is not installed is left out, and that is said;
``--fitscube PYTHON`` names the interpreter of an environment that holds it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from astropy.io import fits
from rich.console import Console
from rich.table import Table

from nightglass.cluster import connect
from nightglass.config import Cluster
from nightglass.cubes import Compression, CubeRequest, CubeSummary, assemble_cube
from nightglass.layout import Layout
from nightglass.pool import Pool

PARTS = ("plain", "durable", "rice", "joined", "small", "memory")
SMALL_FRAMES, SMALL_SIZE = 10_000, 50
SAMPLE_S = 0.01
FITSCUBE = """
import sys, time
from pathlib import Path
from fitscube.combine_fits import combine_fits
started = time.perf_counter()
combine_fits(sorted(Path(sys.argv[1]).glob("*.fits")), Path(sys.argv[2]), time_domain_mode=True, overwrite=True)
print("seconds", time.perf_counter() - started)
"""

Contender = Callable[[Path], float]
"""Writes a cube to a path, and returns the seconds that took."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a contender is to reach, against another: seconds of ours by those of the other."""

    ours: str
    other: str
    most: float
    told: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="which contests, with commas between")
    parser.add_argument("--frames", type=int, default=64, help="of each contest but small and memory; 512 are 4 GiB")
    parser.add_argument("--size", type=int, default=2048, help="rows and columns of a frame")
    parser.add_argument("--rounds", type=int, default=7, help="each with all contenders")
    parser.add_argument("--scratch", type=Path, default=None, help="directory on the disk that is to be measured")
    parser.add_argument("--fitscube", default="", help="Python interpreter of an environment with fitscube")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cubes-", dir=arguments.scratch)))
        pools = [
            stack.enter_context(connect(Cluster(workers=count), layout=Layout(root=scratch / f"run{count}")))
            for count in (1, 2)
        ]
        bench = Bench(scratch, pools[0], pools[1], arguments.rounds, arguments.fitscube)
        frames = write_frames(scratch / "frames", arguments.frames, arguments.size)
        bench.warm_up(frames, [None, Compression()] if {"rice", "joined", "memory"} & {*parts} else [None])
        for part in parts:
            if part in ("small", "memory"):
                getattr(bench, part)()
            else:
                getattr(bench, part)(frames)


def write_frames(directory: Path, count: int, size: int) -> list[Path]:
    """Write frames of a sky: noise of some ten electrons on a bias level, and stars."""
    directory.mkdir()
    rng = np.random.default_rng(1)
    noise = rng.normal(1000, 12, (size, size))
    for _ in range(size):
        y, x = rng.integers(0, size - 8, 2)
        noise[y : y + 5, x : x + 5] += rng.exponential(3000)
    paths = []
    for index in range(count):
        pixels = np.clip(np.roll(noise, 7 * index, axis=0) + rng.integers(0, 4, (size, size)), 0, 65535)
        header = fits.Header(
            [
                ("FRAME", index, "number"),
                ("EXPTIME", 5.0, "[s] exposure time"),
                ("DATE-OBS", f"2026-08-21T20:{index // 60 % 60:02d}:{index % 60:02d}.{index // 3600:03d}", "start"),
                ("TIMESYS", "UTC"),
                ("OBJECT", "Albireo"),
                ("CCDTEMP", -100.0 + index / 100, "[deg C]"),
                *((f"KEY{number}", number * 1.5, "telemetry") for number in range(16)),
            ]
        )
        paths.append(directory / f"frame-{index:05d}.fits")
        fits.PrimaryHDU(pixels.astype(np.uint16), header).writeto(paths[-1])
    return paths


@dataclass(frozen=True, slots=True)
class Bench:
    """The contests."""

    scratch: Path
    one: Pool
    two: Pool
    rounds: int
    fitscube: str

    def warm_up(self, frames: Sequence[Path], compressions: Sequence[Compression | None]) -> None:
        """Let every worker import and compile what it needs."""
        for pool in (self.one, self.two):
            for compression in compressions:
                for _ in range(3):
                    self.ours(frames[:8], pool, compression=compression)(self.scratch / "warm.fits")
        (self.scratch / "warm.fits").unlink()

    def plain(self, frames: Sequence[Path]) -> None:
        """A copy of bytes, DATASUM included, without fsync."""
        contenders = {
            "cat": shell(f"cat {listed(frames)} > $OUT"),
            "nightglass, 2 workers": self.ours(frames, self.two),
            "nightglass, 1 worker": self.ours(frames, self.one),
            "astropy": lambda out: by_astropy(frames, out),
            "astropy, unscaled": lambda out: by_astropy_unscaled(frames, out),
        }
        peers = ["astropy"]
        if installed("fitsio"):
            contenders["fitsio"] = lambda out: by_fitsio(frames, out)
            peers.append("fitsio")
        if self.fitscube:
            contenders["fitscube"] = lambda out: by_fitscube(self.fitscube, frames[0].parent, out)
            peers.append("fitscube")
        ours = "nightglass, 2 workers"
        reaches = [Reach(ours, "cat", 1.3, "at most 1.3 x cat")]
        reaches += [Reach(ours, peer, 1 / 8, f"at least 8 x faster than {peer}") for peer in peers]
        self.contest("Plain cube", frames, contenders, reaches)

    def durable(self, frames: Sequence[Path]) -> None:
        """The same with fsync, and read back."""
        contenders = {
            "cat, sync": shell(f"cat {listed(frames)} > $OUT; sync $OUT"),
            "nightglass, synced and read back": self.ours(frames, self.two, durable=True, verify=True),
            "nightglass, synced": self.ours(frames, self.two, durable=True),
        }
        reach = Reach("nightglass, synced and read back", "cat, sync", 2.0, "at most 2 x cat and sync")
        self.contest("Durable cube", frames, contenders, [reach])

    def rice(self, frames: Sequence[Path]) -> None:
        """Compression without loss."""
        plain = self.scratch / "plain.fits"
        self.ours(frames, self.two)(plain)
        contenders = {
            "nightglass, 2 workers": self.ours(frames, self.two, compression=Compression()),
            "nightglass, 1 worker": self.ours(frames, self.one, compression=Compression()),
        }
        reaches = [Reach("nightglass, 2 workers", "nightglass, 1 worker", 1 / 1.7, "at least 1.7 x one worker")]
        if shutil.which("fpack"):
            contenders = {"fpack": shell(f"fpack -r -O $OUT {plain}"), **contenders}
            reaches.append(Reach("nightglass, 2 workers", "fpack", 1 / 3, "at least 3 x fpack"))
        self.contest("Rice", frames, contenders, reaches)
        plain.unlink()

    def joined(self, frames: Sequence[Path]) -> None:
        """Frames that are compressed already."""
        packed = self.scratch / "packed"
        packed.mkdir()
        for path in frames:
            with fits.open(path, do_not_scale_image_data=True) as hdus:
                hdu = fits.CompImageHDU(hdus[0].data, hdus[0].header)
                fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(packed / path.name)
        compressed = sorted(packed.iterdir())
        contenders = {"nightglass, joined": self.ours(compressed, self.two, compression=Compression())}
        reaches = []
        if shutil.which("fpack"):
            plain = self.scratch / "plain.fits"
            self.ours(frames, self.two)(plain)
            contenders = {"fpack": shell(f"fpack -r -O $OUT {plain}"), **contenders}
            reaches.append(Reach("nightglass, joined", "fpack", 1 / 10, "at least 10 x fpack"))
        self.contest("Frames that are compressed already", compressed, contenders, reaches)
        shutil.rmtree(packed)
        (self.scratch / "plain.fits").unlink(missing_ok=True)

    def small(self) -> None:
        """Very many very small frames."""
        frames = write_frames(self.scratch / "small", SMALL_FRAMES, SMALL_SIZE)
        contenders = {
            "cat > /dev/null": shell(f"cd {frames[0].parent}; cat *.fits > /dev/null; : > $OUT"),
            "nightglass": self.ours(frames, self.two),
        }
        reach = Reach("nightglass", "cat > /dev/null", 10.0, "at most 10 x reading them with cat")
        self.contest(f"{SMALL_FRAMES} frames of {SMALL_SIZE} x {SMALL_SIZE}", frames, contenders, [reach])
        shutil.rmtree(frames[0].parent)

    def memory(self) -> None:
        """Peak of the summed PSS of all our processes, above a new cluster that has imported all."""
        table = Table("cube", "GiB of pixels", "MiB above the idle cluster", "to reach", title="Memory")
        tiny = write_frames(self.scratch / "tiny", 4, 64)
        for count in (64, 512):
            frames = write_frames(self.scratch / "large", count, 2048)
            for name, compression in (("plain", None), ("Rice", Compression())):
                # a new cluster each time: what one cube left in its arenas would hide what the next one takes
                with connect(Cluster(workers=2), layout=Layout(root=self.scratch / "fresh")) as pool:
                    for _ in range(3):
                        self.ours(tiny, pool, compression=compression)(self.scratch / "cube.fits")
                    request = self.ours(frames, pool, compression=compression, durable=True, verify=True)
                    with peak_memory() as peak:
                        request(self.scratch / "cube.fits")
                (self.scratch / "cube.fits").unlink()
                good = "[green]yes[/]" if peak[0] < 150 else "[red]no[/]"
                size = count * 2048 * 2048 * 2 / 2**30
                table.add_row(name, f"{size:.1f}", f"{peak[0]:.0f}", f"less than 150: {good}")
            shutil.rmtree(frames[0].parent)
        shutil.rmtree(tiny[0].parent)
        Console().print(table)

    def ours(
        self,
        frames: Sequence[Path],
        pool: Pool,
        *,
        compression: Compression | None = None,
        durable: bool = False,
        verify: bool = False,
    ) -> Contender:
        """Return the library call."""

        def assemble(out: Path) -> float:
            request = CubeRequest(
                paths=tuple(frames), out=out, compression=compression, durable=durable, verify=verify, overwrite=True
            )
            started = time.perf_counter()
            summary: CubeSummary = assemble_cube(request, pool=pool)
            seconds = time.perf_counter() - started
            if summary.frames != len(frames) or summary.problems:
                message = f"the cube has {summary.frames} frames: {summary.problems[:1]}"
                raise SystemExit(message)
            return seconds

        return assemble

    def contest(
        self, title: str, frames: Sequence[Path], contenders: dict[str, Contender], reaches: Sequence[Reach]
    ) -> None:
        """Run all contenders in every round, and print their medians."""
        size = sum(path.stat().st_size for path in frames)
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(self.rounds):
            order = list(contenders) if number % 2 == 0 else list(reversed(contenders))
            for name in order:
                out = self.scratch / "cube.fits"
                self.settle(frames)
                taken[name].append(contenders[name](out))
                out.unlink(missing_ok=True)  # what is not written to disk yet need not be, in the time of the next
        show(title, size, taken, reaches)

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


def show(title: str, size: int, taken: dict[str, list[float]], reaches: Sequence[Reach]) -> None:
    first = next(iter(taken))
    load = os.getloadavg()[0]
    table = Table(
        "", "s (median)", "s (all)", "MiB/s", f"x {first}", title=f"{title}: {size >> 20} MiB, load {load:.1f}"
    )
    for name, seconds in taken.items():
        middle = statistics.median(seconds)
        each = " ".join(f"{value:.2f}" for value in seconds)
        table.add_row(name, f"{middle:.3f}", each, f"{size / middle / 2**20:.0f}", f"{ratio(taken, name, first):.2f}")
    console = Console(width=140)
    console.print(table)
    for reach in reaches:
        found = ratio(taken, reach.ours, reach.other)
        text = f"{found:.2f} x" if reach.most > 1 else f"{1 / found:.1f} x as fast"
        mark = "[green]reached[/]" if found <= reach.most else "[red]missed[/]"
        console.print(f"  {reach.told}: {text}, {mark}")


def ratio(taken: dict[str, list[float]], name: str, other: str) -> float:
    """Return the median of the ratios of each round: a load that comes and goes hits both."""
    return statistics.median(a / b for a, b in zip(taken[name], taken[other], strict=True))


def listed(paths: Sequence[Path]) -> str:
    return " ".join(map(str, paths))


def shell(command: str) -> Contender:
    def run(out: Path) -> float:
        started = time.perf_counter()
        subprocess.run(["sh", "-ec", command], env=os.environ | {"OUT": str(out)}, check=True)
        return time.perf_counter() - started

    return run


def installed(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        Console().print(f"{name} is not installed, and left out")
        return False
    return True


def by_astropy(frames: Sequence[Path], out: Path) -> float:
    """Read the frames, and write their stack with its DATASUM."""
    started = time.perf_counter()
    hdu = fits.ImageHDU(np.stack([fits.getdata(path) for path in frames]), name="SCIENCE0")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(out, checksum=True)
    return time.perf_counter() - started


def by_astropy_unscaled(frames: Sequence[Path], out: Path) -> float:
    """The same by somebody who knows it well: numbers as they are stored, and the cards that scale them."""
    started = time.perf_counter()
    planes = [fits.getdata(path, do_not_scale_image_data=True) for path in frames]
    hdu = fits.ImageHDU(np.stack(planes), name="SCIENCE0", do_not_scale_image_data=True)
    hdu.header["BZERO"] = 32768
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(out, checksum=True)
    return time.perf_counter() - started


def by_fitsio(frames: Sequence[Path], out: Path) -> float:
    """Write plane after plane into an image that was made before."""
    import fitsio

    started = time.perf_counter()
    with fitsio.FITS(str(out), "rw", clobber=True) as cube:
        first = fitsio.read(str(frames[0]))
        cube.create_image_hdu(dims=[len(frames), *first.shape], dtype=first.dtype, extname="SCIENCE0")
        for index, path in enumerate(frames):
            cube[-1].write(fitsio.read(str(path))[np.newaxis], start=[index, 0, 0])
        cube[-1].write_checksum()
    return time.perf_counter() - started


def by_fitscube(python: str, directory: Path, out: Path) -> float:
    """Run it in its own environment; it tells its seconds, without those of its imports."""
    told = subprocess.run(
        [python, "-c", FITSCUBE, str(directory), str(out)], capture_output=True, text=True, check=True
    )
    return float(told.stdout.rpartition("seconds ")[2])


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


if __name__ == "__main__":
    main()
