"""The peers of cubes: what makes one file of many by other means."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits
from rich.console import Console

from benchmarks.contests import Contender

__all__ = ["by_astropy", "by_astropy_unscaled", "by_fitscube", "by_fitsio", "installed", "listed", "shell"]

_FITSCUBE = """
import sys, time
from pathlib import Path
from fitscube.combine_fits import combine_fits
started = time.perf_counter()
combine_fits(sorted(Path(sys.argv[1]).glob("*.fits")), Path(sys.argv[2]), time_domain_mode=True, overwrite=True)
print("seconds", time.perf_counter() - started)
"""


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
        [python, "-c", _FITSCUBE, str(directory), str(out)], capture_output=True, text=True, check=True
    )
    return float(told.stdout.rpartition("seconds ")[2])
