"""The measure of defocus: sharp stars, rings of known size, nothing at all."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nightglass.builder.focusing import measure_defocus, measure_extensions
from tests.unit.builder.making import extension


def sky(*, radius: float = 0.0, sigma: float = 2.0, stars: int = 30, seed: int = 1) -> NDArray[np.float32]:
    """Make stars: Gaussians, or rings with a hole of 0.4 that are a little blurred."""
    rng = np.random.default_rng(seed)
    image = rng.normal(1000, 5, (500, 600))
    rows, columns = np.mgrid[-30:31, -30:31].astype(float)
    for number in range(stars):
        x, y = 60 + 95 * (number % 6), 50 + 95 * (number // 6)
        if y > 450:
            break
        distance = np.hypot(rows - rng.uniform(-0.5, 0.5), columns - rng.uniform(-0.5, 0.5))
        ring = ((distance < radius) & (distance > 0.4 * radius)).astype(float)
        shape = gaussian_filter(ring, 0.7) if radius else np.exp(-(distance**2) / 2 / sigma**2)
        image[y - 30 : y + 31, x - 30 : x + 31] += 10 ** rng.uniform(4.5, 5.2) * shape / shape.sum()
    return image.astype(np.float32)


@pytest.mark.parametrize("sigma", [1.5, 2.5, 4.0])
def test_sharp_stars_have_a_width_and_no_hole(sigma: float) -> None:
    found = measure_defocus(sky(sigma=sigma), name="FOCUS1")
    assert found.extension == "FOCUS1"
    assert found.stars >= 20
    assert found.fwhm == pytest.approx(2.355 * sigma, rel=0.08)
    assert found.donut_radius == 0
    assert found.ellipticity < 0.1


@pytest.mark.parametrize("radius", [8.0, 12.0, 16.0])
def test_rings_have_their_radius(radius: float) -> None:
    found = measure_defocus(sky(radius=radius), obscuration=0.4)
    assert found.stars >= 20
    assert found.hole > 0.5
    assert found.donut_radius == pytest.approx(radius, rel=0.08)


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((100, 100), 1000, np.float32),
        np.random.default_rng(0).normal(1000, 5, (200, 200)).astype(np.float32),
        np.full((100, 100), np.nan, np.float32),
        np.zeros((3, 3), np.float32),
    ],
    ids=["flat", "noise", "undefined", "small"],
)
def test_without_stars_nothing_is_known(pixels: NDArray[np.float32]) -> None:
    found = measure_defocus(pixels)
    assert found.stars == 0
    assert math.isnan(found.fwhm)
    assert found.to_json()["fwhm"] is None


def test_extensions_that_cannot_be_read_have_no_stars(tmp_path: Path) -> None:
    good = extension(tmp_path, "FOCUS1", sky().astype("u2"))
    bad = extension(tmp_path, "FOCUS4", sky().astype("u2"))
    bad.path.write_bytes(b"")
    one, other = measure_extensions([good, bad])
    assert (one.extension, other.extension, other.stars) == ("FOCUS1", "FOCUS4", 0)
    assert one.stars >= 20
