"""Frames of a made-up sky, to write cubes of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

__all__ = ["write_frames"]


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
