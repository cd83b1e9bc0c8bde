"""Small nights, and cubes of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from astropy.io import fits

from nightglass.cubes.assembling import assemble_cube
from nightglass.pool import SerialPool
from tests.unit.cubes.oracles import pixels_of, request_of

START = datetime(2024, 3, 1, 22, 0, 0, tzinfo=UTC)


def cube_of(*paths: Path, **options: Any) -> Path:
    """Assemble a cube beside the frames, or in their parent directory."""
    options.setdefault("out", paths[0].parent.with_name(f"{paths[0].parent.name}.fits"))
    return assemble_cube(request_of(paths, durable=False, **options), pool=SerialPool()).path


def night(directory: Path, count: int = 5, **cards: Any) -> list[Path]:
    """Write frames of 7x5 pixels, one a minute."""
    directory.mkdir(exist_ok=True)
    paths = []
    for number in range(count):
        hdu = fits.PrimaryHDU(pixels_of("u2", (7, 5), number))
        hdu.header["FRAME"] = number
        hdu.header["DATE-OBS"] = (START + timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%S")
        hdu.header["EXPTIME"] = (1.5, "[s] exposure time")
        hdu.header.update(cards)
        hdu.header["HISTORY"] = f"frame {number}"
        path = directory / f"frame{number}.fits"
        hdu.writeto(path, checksum=True)
        paths.append(path)
    return paths
