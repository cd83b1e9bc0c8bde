"""Frames to make cubes of, and what others say about the cubes: fitsverify, astropy, fitsio."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.config import Limits
from nightglass.cubes.records import CubePlan, CubeRequest, ImagePlan, PixelFormat, Survey
from nightglass.cubes.survey import survey_frames

BITPIX = {
    "u1": (8, 0.0),
    "i1": (8, -128.0),
    "i2": (16, 0.0),
    "u2": (16, 32768.0),
    "i4": (32, 0.0),
    "u4": (32, 2.0**31),
    "i8": (64, 0.0),
    "u8": (64, 2.0**63),
    "f4": (-32, 0.0),
    "f8": (-64, 0.0),
}
"""Type of numpy to BITPIX and BZERO."""


def pixels_of(kind: str, shape: tuple[int, ...], seed: int = 0) -> NDArray[Any]:
    """Return pixels over all of the range of a type; floats with NaN and infinities."""
    rng = np.random.default_rng(seed)
    if kind.startswith("f"):
        values = rng.normal(0, 1e6, shape).astype(kind)
        values.flat[:: max(values.size // 3, 1)] = np.nan
        values.flat[-1] = np.inf
        return values
    bounds = np.iinfo(kind)
    values = rng.integers(bounds.min, bounds.max, shape, kind, endpoint=True)
    values.flat[0], values.flat[-1] = bounds.max, bounds.min
    return values


def write_frame(path: Path, images: Sequence[NDArray[Any]] | NDArray[Any], *, checksum: bool = False) -> Path:
    """Write one image into the primary HDU, or several into extensions SCI0, SCI1 and so on."""
    if isinstance(images, np.ndarray):
        hdus = fits.HDUList([fits.PrimaryHDU(images)])
    else:
        extensions = [fits.ImageHDU(image, name=f"SCI{index}") for index, image in enumerate(images)]
        hdus = fits.HDUList([fits.PrimaryHDU(), *extensions])
    hdus.writeto(path, checksum=checksum)
    return path


def frames_in(directory: Path, count: int = 6, shape: tuple[int, int] = (40, 50), kind: str = "u2") -> list[Path]:
    """Write exposures, one a second, into a directory."""
    directory.mkdir(exist_ok=True)
    paths = []
    for index in range(count):
        header = fits.Header([("FRAME", index), ("EXPTIME", 5.0), ("DATE-OBS", f"2026-08-21T20:00:{index:02d}")])
        paths.append(directory / f"{index:03d}.fits")
        fits.PrimaryHDU(pixels_of(kind, shape, index), header).writeto(paths[-1], checksum=True)
    return paths


def left_in(directory: Path) -> list[str]:
    """Return the names of all that is in a directory."""
    return sorted(path.name for path in directory.iterdir())


def survey_of(paths: Iterable[Path]) -> Survey:
    """Survey frames in the order of their names."""
    return survey_frames(request_of(paths), Limits())


def request_of(paths: Iterable[Path], **options: Any) -> CubeRequest:
    """Ask for a cube beside the first frame."""
    chosen = tuple(paths)
    options.setdefault("out", chosen[0].with_name("cube.fits"))
    return CubeRequest(paths=chosen, **options)


def plan_of(survey: Survey, request: CubeRequest, formats: dict[str, PixelFormat] | None = None) -> CubePlan:
    """Plan the images of a cube and nothing else."""
    names = dict.fromkeys(plane.source for plane in survey.planes)
    hdus = []
    for name in names:
        members = tuple(index for index, plane in enumerate(survey.planes) if plane.source == name)
        first = survey.planes[members[0]]
        pixels = (formats or {}).get(name, first.format)
        hdus.append(ImagePlan(name=name, header=fits.Header(), format=pixels, shape=first.shape, planes=members))
    return CubePlan(request, survey, fits.Header([("EXTNAME", "SCIENCE")]), tuple(hdus))


def assert_sound(path: Path) -> None:
    """Let fitsverify and astropy judge a file; a warning is a failure."""
    if which("fitsverify"):
        said = subprocess.run(["fitsverify", "-l", str(path)], capture_output=True, text=True, check=False).stdout
        assert "0 warning" in said, said
        assert "0 error" in said, said
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(path, checksum=True, disable_image_compression=True) as hdus:
            for hdu in hdus:
                assert "DATASUM" in hdu.header
                assert "CHECKSUM" in hdu.header
                assert hdu.verify_datasum() == 1
                assert hdu.verify_checksum() == 1


def assert_planes(path: Path, name: str, wanted: Sequence[NDArray[Any]]) -> None:
    """Let astropy and fitsio read a cube: both must see these planes."""
    cube = np.stack(list(wanted))
    with fits.open(path, memmap=False) as hdus:
        read = hdus[name].data
        assert read.shape == cube.shape
        assert np.array_equal(read, cube, equal_nan=cube.dtype.kind == "f")
    if cube.dtype == np.uint64:
        return  # cfitsio reads them, but fitsio asks it for signed numbers
    fitsio = pytest.importorskip("fitsio")
    with fitsio.FITS(str(path)) as file:
        read = file[name].read()
        assert np.array_equal(read.reshape(cube.shape), cube, equal_nan=cube.dtype.kind == "f")
