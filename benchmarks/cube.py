"""Cubes beside ``cat``, astropy, fitsio, fitscube and ``fpack`` on the same frames, interleaved in one run.

``python -m benchmarks.cube [--parts plain,durable,rice,joined,small,memory] [--frames 64] [--size 2048] [--rounds 7]``.
Every round runs all contenders on a warm page cache; the table shows the median, and the median of what each round
gave as the ratio to the first contender; processor time is that of all processes of a contender. A peer that is not
installed is left out, and that is said; ``--fitscube PYTHON`` names the interpreter of an environment that holds it.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from astropy.io import fits
from rich.console import Console
from rich.table import Table

from benchmarks.contests import Contender, Contest, Reach
from benchmarks.memories import peak_memory
from benchmarks.skies import write_frames
from benchmarks.stackers import by_astropy, by_astropy_unscaled, by_fitscube, by_fitsio, installed, listed, shell
from nightglass.cluster import connect
from nightglass.config import Cluster
from nightglass.cubes import Compression, CubeRequest, CubeSummary, assemble_cube
from nightglass.layout import Layout
from nightglass.pool import Pool

PARTS = ("plain", "durable", "rice", "joined", "small", "memory")
SMALL_FRAMES, SMALL_SIZE = 10_000, 50


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
        contest = Contest(scratch, arguments.rounds)
        bench = Bench(scratch, pools[0], pools[1], contest, arguments.fitscube)
        frames = write_frames(scratch / "frames", arguments.frames, arguments.size)
        bench.warm_up(frames, [None, Compression()] if {"rice", "joined", "memory"} & {*parts} else [None])
        for part in parts:
            if part in ("small", "memory"):
                getattr(bench, part)()
            else:
                getattr(bench, part)(frames)


@dataclass(frozen=True, slots=True)
class Bench:
    """The contests."""

    scratch: Path
    one: Pool
    two: Pool
    contest: Contest
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
        self.contest.hold("Plain cube", frames, contenders, reaches)

    def durable(self, frames: Sequence[Path]) -> None:
        """The same with fsync, and read back."""
        contenders = {
            "cat, sync": shell(f"cat {listed(frames)} > $OUT; sync $OUT"),
            "nightglass, synced and read back": self.ours(frames, self.two, durable=True, verify=True),
            "nightglass, synced": self.ours(frames, self.two, durable=True),
        }
        reach = Reach("nightglass, synced and read back", "cat, sync", 2.0, "at most 2 x cat and sync")
        self.contest.hold("Durable cube", frames, contenders, [reach])

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
        self.contest.hold("Rice", frames, contenders, reaches)
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
        self.contest.hold("Frames that are compressed already", compressed, contenders, reaches)
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
        self.contest.hold(f"{SMALL_FRAMES} frames of {SMALL_SIZE} x {SMALL_SIZE}", frames, contenders, [reach])
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


if __name__ == "__main__":
    main()
