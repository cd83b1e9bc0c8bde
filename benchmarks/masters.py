"""A sigma-clipped mean of 50 frames of 2048 x 2048, beside ``ccdproc.combine`` on the same files.

``python -m benchmarks.masters [--frames 50] [--size 2048] [--memory 512] [--rounds 1]``. Each round runs both, each
in a fresh process, and prints the seconds and the highest resident memory of that process.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData

from nightglass.calibrations import CombineSpec, clipped_mean, combine_frames
from nightglass.config import CalibrationRule
from nightglass.fitsio import write_product
from nightglass.image import Image
from nightglass.model import ExposureRef, Kind, MasterRef, Night

NIGHT = Night("20260821")
SIGMA = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--memory", type=int, default=512, help="MiB that a combine may use")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nightglass-masters-") as scratch:
        frames = _frames(Path(scratch), arguments.frames, arguments.size)
        _ours(frames[:3], 64, Path(scratch))  # compiles the kernel, once for a machine
        for _ in range(arguments.rounds):
            ours = _apart(_ours, frames, arguments.memory, Path(scratch))
            peer = _apart(_ccdproc, frames, arguments.memory, Path(scratch))
            mean = fits.getdata(Path(scratch, "ours.fits"), "SCI")
            wanted = fits.getdata(Path(scratch, "peer.fits"))
            print(f"{len(frames)} frames of {arguments.size} x {arguments.size}, memory setting {arguments.memory} MiB")
            print(f"  Nightglass: {ours[0]:.2f} s, {ours[1]} MiB above an idle process")
            print(f"  ccdproc:    {peer[0]:.2f} s, {peer[1]} MiB above an idle process")
            difference = np.abs(mean - wanted).max()
            print(f"  {peer[0] / ours[0]:.1f} times as fast; largest difference {difference:.2g} electrons")


def _frames(directory: Path, count: int, size: int) -> list[Path]:
    rng = np.random.default_rng(1)
    paths = []
    for index in range(count):
        data = rng.normal(500, 5, (size, size)).astype(np.float32)
        data.ravel()[rng.integers(0, data.size, data.size // 1000)] += 3000
        path = directory / f"{index:03d}.fits"
        image = Image(
            data=data,
            variance=np.zeros_like(data),
            mask=np.zeros(data.shape, np.uint16),
            header=fits.Header(),
            detector="ccd1",
            amplifiers=(),
            unit="electron",
        )
        write_product(path, [image], cards={}, history=[])
        CCDData(data, unit="electron").write(directory / f"plain-{path.name}")
        paths.append(path)
    return paths


def _apart(
    work: Callable[[list[Path], int, Path], None], frames: list[Path], memory: int, scratch: Path
) -> tuple[float, int]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, work, frames, memory, scratch).result()


def _measured(
    work: Callable[[list[Path], int, Path], None], frames: list[Path], memory: int, scratch: Path
) -> tuple[float, int]:
    import ccdproc  # noqa: F401 - both processes carry it, so that the difference is the work

    clipped_mean(np.zeros((3, 1, 1), np.float32), np.zeros((3, 1, 1), np.bool_), sigma=SIGMA)  # loads the compiler

    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    work(frames, memory, scratch)
    seconds = time.perf_counter() - started
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) // 1024


def _ours(frames: list[Path], memory: int, scratch: Path) -> None:
    refs = tuple(
        ExposureRef(
            exposure_id=f"lynx/{NIGHT}/{index}",
            night=NIGHT,
            camera="lynx",
            kind=Kind.BIAS,
            path=path,
            size=0,
            content_id=str(index),
            started_at=datetime(2026, 8, 21, 20, tzinfo=UTC),
        )
        for index, path in enumerate(frames)
    )
    master = MasterRef(master_id="0", kind=Kind.BIAS, camera="lynx", night=NIGHT, path=scratch / "ours.fits")
    combine_frames(
        CombineSpec(
            master=master,
            refs=refs,
            frames=tuple(frames),
            rule=CalibrationRule(sigma=SIGMA),
            part=scratch / "ours.fits",
            memory_mib=memory,
        )
    )


def _ccdproc(frames: list[Path], memory: int, scratch: Path) -> None:
    from astropy.stats import mad_std
    from ccdproc import combine

    combined = combine(
        [str(scratch / f"plain-{path.name}") for path in frames],
        method="average",
        sigma_clip=True,
        sigma_clip_low_thresh=SIGMA,
        sigma_clip_high_thresh=SIGMA,
        sigma_clip_func=np.ma.median,
        sigma_clip_dev_func=mad_std,
        mem_limit=memory << 20,
        dtype="float32",
    )
    combined.write(scratch / "peer.fits", overwrite=True)


if __name__ == "__main__":
    main()
