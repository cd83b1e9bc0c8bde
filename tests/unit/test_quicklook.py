from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from nightglass.image import Image
from nightglass.model import DQ, Quality
from nightglass.quicklook import LONGEST_SIDE, label, picture, stretch, write_quicklook
from tests.unit.steps.scene import REF, plain, stars


def field(shape: tuple[int, int] = (300, 420)) -> Image:
    rng = np.random.default_rng(1)
    light = 500 + stars(shape, np.array([100.0]), np.array([40.0]), np.array([2e5]))
    return plain(light + rng.normal(0, 20, shape))


@pytest.mark.parametrize("shape", [(3, 5), (100, 100), (700, 1100), (3000, 200), (1, 4000)])
def test_every_shape_gives_a_small_png(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = tmp_path / "deep" / "look.png.part"
    write_quicklook(path, [plain(np.random.default_rng(0).normal(100, 9, shape))], label="x", quality=Quality.BAD)
    with Pillow.open(path) as found:
        found.load()
        assert found.format == "PNG"
        assert found.width <= max(LONGEST_SIDE, 320)
        assert found.height <= LONGEST_SIDE + 40


def test_the_first_row_is_at_the_bottom_and_stars_are_bright() -> None:
    grey = picture([field()])
    assert np.unravel_index(grey.argmax(), grey.shape) == pytest.approx((300 - 1 - 40, 100), abs=4)
    assert 10 < np.median(grey) < 90, "the sky is dark grey"
    assert 3 < grey[:100].std() < 40, "and its noise can be seen"


def test_pixels_are_averaged_in_squares() -> None:
    data = np.arange(2050 * 8.0).reshape(8, 2050)
    image = plain(data)
    small = picture([image])
    assert small.shape == (2, 683)
    image.mask[0, 0] = DQ.BAD
    assert picture([image]).shape == small.shape


def test_bad_pixels_are_not_shown() -> None:
    image = field()
    data = image.data.copy()
    data[200, 200] = 1e6
    mask = image.mask.copy()
    mask[200, 200] = DQ.BAD
    grey = picture([image.with_(data=data, mask=mask)])
    assert grey[300 - 1 - 200, 200] < 90


def test_detectors_stand_side_by_side() -> None:
    assert picture([field((100, 80)), field((100, 80)), field((90, 80))]).shape == (204, 164)


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, -3e30])
def test_images_without_contrast_are_drawn(value: float) -> None:
    grey = stretch(np.full((50, 60), value, np.float32))
    assert grey.shape == (50, 60)


def test_the_label_tells_what_and_how_good() -> None:
    image = field()
    image.header["SEEING"] = (1.234, "[arcsec] median FWHM of 50 stars")
    assert label(REF, [image]) == "made/20260821/7   r   30 s   FWHM 1.23''"
    image.header["SEEING"] = (3.0, "[pixel] median FWHM of 50 stars")
    assert "3.00 px" in label(REF, [image])


def test_strange_text_and_repeated_drawing(tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        write_quicklook(tmp_path / name, [field()], label="M\x0031 \u2605 " + "long " * 200, quality=Quality.WARNING)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    with Pillow.open(io.BytesIO(written[0])) as found:
        assert (240, 170, 50) in {colour for _, colour in found.convert("RGB").getcolors(1 << 24)}
