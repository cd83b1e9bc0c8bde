"""The picture of a cube: drawn of plain and compressed ones, and refused where there is nothing to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from nightglass.cubes.looking import draw_cube
from nightglass.errors import Rejected


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_the_first_plane_of_each_source_is_drawn(tmp_path: Path, compressed: bool, dtype: type) -> None:
    ramp = np.tile(np.arange(400), (300, 1)).astype(dtype)
    made = fits.CompImageHDU if compressed else fits.ImageHDU
    sources = [made(np.stack([ramp, ramp * 0]), name=f"GUIDE{number}") for number in range(3)]
    path, picture = tmp_path / "cube.fits", tmp_path / "reports" / "cube.png"
    fits.HDUList([fits.PrimaryHDU(), *sources]).writeto(path)
    draw_cube(path, picture, label="guider/20260821/17")
    with Image.open(picture) as drawn:
        grey = np.asarray(drawn.convert("L"))
    assert grey.shape[1] >= 800  # two beside each other
    assert grey[150, 350] > grey[150, 10]  # the first plane, not the one of zeros


def test_what_cannot_be_seen_is_refused(tmp_path: Path) -> None:
    for content, name in ((b"no FITS", "a.fits"), (None, "b.fits")):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(Rejected, match="cannot be drawn"):
            draw_cube(path, tmp_path / "x.png", label="")
    fits.PrimaryHDU().writeto(tmp_path / "c.fits")
    with pytest.raises(Rejected, match="holds no image"):
        draw_cube(tmp_path / "c.fits", tmp_path / "x.png", label="")
