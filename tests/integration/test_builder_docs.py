"""What ``docs/builder.md`` tells to type works as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from astropy.io import fits
from PIL import Image

from tests.architecture.sources import REPOSITORY
from tests.integration.building import receiving, served

PAGES = [(REPOSITORY / "docs" / name).read_text(encoding="utf-8") for name in ("builder.md", "builder-files.md")]


def blocks(kind: str) -> list[str]:
    return [
        block
        for page in PAGES
        for block in re.findall(rf"^```{kind}\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    ]


@pytest.mark.slow
def test_the_whole_exposure_is_made_by_pasting_it(tmp_path: Path) -> None:
    images = next(block for block in blocks("python") if "guide2.raw" in block)
    subprocess.run([sys.executable, "-c", images], cwd=tmp_path, check=True)
    section = tomllib.loads(next(block for block in blocks("toml") if "[[builders]]" in block))["builders"][0]
    (script,) = (block for block in blocks("bash") if "finalize" in block)
    others = [block for block in blocks("bash") if "$api" in block and block != script and "curl -sSN" not in block]
    assert len(others) == 4  # hooks, options, an archive with more in its header, stamps
    helpers = "\n".join(line for line in script.splitlines() if re.match(r"\w+\(\)|api=", line))
    with receiving() as receiver, served(tmp_path / "root", section) as place:
        places = {
            "http://127.0.0.1:8140": place.url,
            "http://10.0.0.9:9000/frames": receiver.url,
            "http://10.0.0.9:9000/news": receiver.url,
        }
        for text in (script, *(f"{helpers}\n{block}" for block in others)):
            for documented, real in places.items():
                text = text.replace(documented, real)
            done = subprocess.run(
                ["bash", "-eu", "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stderr == ""
        (client,) = (block for block in blocks("python") if "import Client" in block)
        client = client.replace("http://127.0.0.1:8140", place.url).replace("17", "18")
        pixels = "import numpy as np\npixels = np.zeros((8, 9), np.uint16)\n"
        subprocess.run([sys.executable, "-c", pixels + client], cwd=tmp_path, check=True)
        assert place.builder.exposure(18).archive is not None
        assert receiver.bodies
        assert place.builder.options.send_to == (receiver.url,)
    with (
        fits.open(tmp_path / "guide-00000017.fits", checksum=True) as cube,
        fits.open(tmp_path / "image.fits") as image,
    ):
        assert cube["GUIDE2"].data.shape == (2, 1032, 2248)
        assert image[0].header["TILEID"] == 80605
        assert [hdu.name for hdu in image[1:]] == ["GUIDE0", "GUIDE2"]
    with Image.open(tmp_path / "image.png") as picture:
        assert picture.width > picture.height
