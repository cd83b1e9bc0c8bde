from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from nightglass.config import Camera, Limits, load_camera
from nightglass.image import AmplifierView, Image

LONG_AGO = 1_000_000_000.0


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture(scope="session")
def generic() -> Camera:
    return load_camera("generic")


@pytest.fixture
def settled() -> Callable[[Path], Path]:
    """Make a file look as if nobody had written to it for years."""

    def settle(path: Path) -> Path:
        os.utime(path, (LONG_AGO, LONG_AGO))
        return path

    return settle


@pytest.fixture
def make_image() -> Callable[..., Image]:
    def make(shape: tuple[int, int] = (20, 30), *, seed: int = 1, **changes: Any) -> Image:
        rng = np.random.default_rng(seed)
        data = rng.normal(1000, 30, shape).astype(np.float32)
        whole = (slice(0, shape[0]), slice(0, shape[1]))
        values: dict[str, Any] = {
            "data": data,
            "variance": np.abs(data),
            "mask": rng.integers(0, 64, shape).astype(np.uint16),
            "header": fits.Header([("OBJECT", "M 13", "what was seen"), ("EXPTIME", 30.0)]),
            "detector": "ccd1",
            "amplifiers": (AmplifierView(data=whole, place=whole),),
            "exposure_time_s": 30.0,
            "unit": "electron",
        }
        return Image(**(values | changes))

    return make


@pytest.fixture
def verified() -> Callable[[Path], None]:
    """Run fitsverify, which must find neither errors nor warnings."""

    def verify(path: Path) -> None:
        try:
            done = subprocess.run(
                ["fitsverify", str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
            )
        except FileNotFoundError:
            pytest.skip("fitsverify is not installed")
        complaints = [line for line in done.stdout.splitlines() if line.startswith("***")]
        assert "found 0 warning(s) and 0 error(s)" in done.stdout, complaints

    return verify
