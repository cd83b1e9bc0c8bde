"""Frames that are compressed in tiles by others, and what others decode of a cube: astropy, fitsio and funpack."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.cubes.assembling import assemble_cube
from nightglass.cubes.records import Compression, CubeSummary
from nightglass.pool import SerialPool
from tests.unit.cubes.oracles import assert_sound, request_of

NAME = "SCIENCE0"


def pack(path: Path, pixels: NDArray[Any], number: int = 0, *, checksum: bool = True, **options: Any) -> Path:
    """Write one frame by astropy."""
    header = fits.Header([("FRAME", number)])
    image = fits.CompImageHDU(pixels, header, name=NAME, **options)
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path, checksum=checksum)
    return path


def fpacked(path: Path, pixels: NDArray[Any], number: int, *options: str) -> Path:
    """Write one frame, and compress it by fpack."""
    if which("fpack") is None:
        pytest.skip("needs fpack")
    image = fits.ImageHDU(pixels, fits.Header([("FRAME", number)]), name=NAME)
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)
    subprocess.run(["fpack", *options, str(path)], check=True, capture_output=True)
    path.unlink()
    return path.with_name(f"{path.name}.fz")


def compress(paths: Sequence[Path], compression: Compression | None = None, **options: Any) -> CubeSummary:
    """Make a compressed cube beside the frames' directory, and let fitsverify and astropy judge it."""
    options.setdefault("out", paths[0].parent.with_name("cube.fits.fz"))
    request = request_of(paths, compression=compression or Compression(), durable=False, **options)
    summary = assemble_cube(request, pool=SerialPool())
    assert_sound(summary.path)
    assert not list(summary.path.parent.glob("*.part"))
    return summary


def table_of(path: Path, hdu: int | str = 1) -> tuple[fits.Header, dict[str, list[bytes]]]:
    """Return the header of a compressed image, and the cells of each column."""
    with fits.open(path, disable_image_compression=True) as hdus:
        data = hdus[hdu].data
        cells = {name: [np.asarray(cell).tobytes() for cell in data[name]] for name in data.names}
        return hdus[hdu].header.copy(), cells


def by_astropy(path: Path, hdu: int | str = NAME) -> NDArray[Any]:
    """Decode an image."""
    with warnings.catch_warnings(), fits.open(path, memmap=False) as hdus:
        warnings.simplefilter("error")
        return np.array(hdus[hdu].data)


def by_fitsio(path: Path, hdu: int | str = NAME) -> NDArray[Any]:
    """Decode an image by cfitsio."""
    fitsio = pytest.importorskip("fitsio")
    with fitsio.FITS(str(path)) as file:
        return np.asarray(file[hdu].read())


def by_funpack(path: Path, hdu: int | str = NAME) -> NDArray[Any]:
    """Decode an image by the program of cfitsio, which may be of another version than fitsio."""
    if which("funpack") is None:
        pytest.skip("needs funpack")
    plain = path.with_name(f"{path.name}.unpacked")
    plain.unlink(missing_ok=True)
    subprocess.run(["funpack", "-O", str(plain), str(path)], check=True, capture_output=True)
    with fits.open(plain, memmap=False) as hdus:
        pixels = np.array(hdus[hdu].data)
    plain.unlink()
    return pixels


DECODERS = {"astropy": by_astropy, "fitsio": by_fitsio, "funpack": by_funpack}


def assert_decoded(path: Path, wanted: NDArray[Any], hdu: int | str = NAME) -> None:
    """Let three decoders read a cube: all must see these pixels, bit for bit."""
    for name, decode in DECODERS.items():
        read = decode(path, hdu).reshape(wanted.shape)
        assert read.dtype.newbyteorder("=") == wanted.dtype, name
        assert np.array_equal(read, wanted, equal_nan=wanted.dtype.kind == "f"), name
