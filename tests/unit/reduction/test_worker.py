"""What a worker keeps from one exposure to the next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.errors import Misconfigured
from nightglass.model import MasterRef
from nightglass.reduction.inputs import FileCache, bad_pixels, load_master
from nightglass.reduction.warm import dask_setup
from tests.unit.reduction.material import Site


def test_the_cache_is_bounded_and_sees_changes(tmp_path: Path) -> None:
    cache: FileCache[str] = FileCache(10)
    reads: list[str] = []

    def read(path: Path) -> tuple[str, int]:
        reads.append(path.name)
        return path.read_text(), 4

    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text(path.name)
    for name in "abab":
        cache.get(tmp_path / name, read)
    cache.get(paths[2], read)
    assert (reads, cache.size) == (["a", "b", "c"], 8)
    assert cache.get(paths[0], read) == "a"
    paths[0].write_text("new")
    assert cache.get(paths[0], read) == "new"
    cache.clear()
    assert cache.size == 0


def test_masters_are_shared_and_cannot_be_written(calibrated: Site) -> None:
    master: MasterRef = calibrated.ledger.masters("lynx")[0]
    first, second = load_master(master), load_master(master)
    assert first.images[0].data is second.images[0].data
    with pytest.raises(ValueError, match="read-only"):
        first.images[0].data[0, 0] = 1


def test_bad_pixel_files_are_read_or_named(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "bad.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.eye(5, dtype="i2"))]).writeto(path)
    detector = site.camera.detectors[0].model_copy(update={"bad_pixels": str(path)})
    camera = site.camera.model_copy(update={"detectors": (detector,)})
    assert np.array_equal(bad_pixels(camera)["ccd1"], np.eye(5, dtype=bool))
    fits.PrimaryHDU().writeto(path, overwrite=True)
    for problem in ("no two-dimensional image", "No such file"):
        with pytest.raises(Misconfigured, match=problem):
            bad_pixels(camera)
        path.unlink(missing_ok=True)


def test_a_worker_is_made_ready() -> None:
    dask_setup(None)


def test_importing_reduction_loads_no_scheduler() -> None:
    code = (
        "import sys, nightglass.reduction as r; r.warm_up();"
        "sys.exit(', '.join({'dask', 'distributed', 'prefect', 'watchdog'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
