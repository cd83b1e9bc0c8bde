"""Real frames of every kind as cubes: judged by fitsverify, funpack and astropy, and extracted back."""

from __future__ import annotations

import gzip
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from astropy.io import fits

from nightglass.cubes.assembling import assemble_cube
from nightglass.cubes.extracting import extract_frames
from nightglass.cubes.records import Compression, CubeRequest, CubeSummary
from nightglass.cubes.verifying import verify_cube
from nightglass.pool import SerialPool

pytestmark = [pytest.mark.real, pytest.mark.slow]

SETS = {
    "lsst_guider": ("*.fits", 1, 92),
    "ghost_slitcam": ("*.fits.gz", 8, 53),
    "exotic_hatp32_2017": ("*.FITS", 40, 40),
    "legacypipe_ccds": ("*.fits", 125, 125),
}
"""Pattern of the files, how many there are, and how many planes."""

Assembled = tuple[Path, tuple[Path, ...], CubeSummary]


@pytest.fixture(scope="module", params=[(name, rice) for name in SETS for rice in (False, True)], ids=str)
def assembled(request: pytest.FixtureRequest, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Assembled:
    name, rice = request.param
    pattern, count, _ = SETS[name]
    paths = tuple(sorted((real_data / name).glob(pattern)))
    assert len(paths) == count
    out = tmp_path_factory.mktemp(name) / ("cube.fits.fz" if rice else "cube.fits")
    wanted = CubeRequest(paths=paths, out=out, durable=False, compression=Compression() if rice else None)
    return out, paths, assemble_cube(wanted, pool=SerialPool())


@contextmanager
def opened(path: Path) -> Iterator[fits.HDUList]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd headers of odd cameras
        with fits.open(path, do_not_scale_image_data=True) as hdus:
            yield hdus


def unpacked(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def is_compressed(path: Path) -> bool:
    with opened(path) as hdus:
        return any(isinstance(hdu, fits.CompImageHDU) for hdu in hdus)


def test_every_plane_is_in_the_cube(assembled: Assembled) -> None:
    out, paths, summary = assembled
    planes = next(planes for name, (_, count, planes) in SETS.items() if count == len(paths))
    assert sum(source.frames for source in summary.sources) == planes
    assert summary.problems == ()
    found = verify_cube(out, paths)
    assert found.ok, found.differences
    assert found.planes == planes


@pytest.mark.skipif(which("fitsverify") is None, reason="needs fitsverify")
def test_fitsverify_finds_nothing(assembled: Assembled) -> None:
    said = subprocess.run(["fitsverify", "-q", str(assembled[0])], capture_output=True, text=True, check=False).stdout
    assert said.startswith("verification OK"), said


@pytest.mark.skipif(which("funpack") is None, reason="needs funpack")
def test_funpack_gives_the_plain_cube(assembled: Assembled, tmp_path: Path) -> None:
    out, paths, _ = assembled
    if out.suffix != ".fz":
        pytest.skip("a plain cube")
    plain, other = tmp_path / "plain.fits", tmp_path / "unpacked.fits"
    assemble_cube(CubeRequest(paths=paths, out=plain, durable=False), pool=SerialPool())
    subprocess.run(["funpack", "-O", str(other), str(out)], check=True, capture_output=True)
    with opened(plain) as ours, opened(other) as theirs:
        images = [hdu.name for hdu in ours if hdu.is_image and hdu.data is not None]
        assert images
        for name in images:
            np.testing.assert_array_equal(ours[name].data, theirs[name].data)
            table = f"{name}T"
            assert ours[table].data.tobytes() == theirs[table].data.tobytes()


def test_frames_come_back_with_every_byte(assembled: Assembled, tmp_path: Path) -> None:
    out, paths, _ = assembled
    extracted = {path.name: path for path in extract_frames(out, tmp_path)}
    assert len(extracted) == len(paths)
    for path in paths:
        ours = extracted[path.name.removesuffix(".gz")]
        if is_compressed(path):
            assert_uncompressed(ours, path)
        else:
            assert ours.read_bytes() == unpacked(path), path.name


def assert_uncompressed(ours: Path, theirs: Path) -> None:
    """A tile-compressed file comes back with the pixels of its tiles, and with all cards that are not of the tiles."""
    sums = {"CHECKSUM", "DATASUM"}
    with opened(ours) as plain, opened(theirs) as packed:
        assert len(plain) == len(packed)
        for mine, other in zip(plain, packed, strict=True):
            if other.data is None:
                continue
            assert mine.data.dtype.newbyteorder("=") == other.data.dtype.newbyteorder("=")
            np.testing.assert_array_equal(mine.data, other.data)
            kept = [card.image for card in mine.header.cards if card.keyword not in sums]
            wanted = [card.image for card in other.header.cards if card.keyword not in sums]
            layout = {"XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT"}
            missing = [image for image in wanted if image not in kept and image[:8].strip() not in layout]
            assert missing == []
            rest = [image for image in kept if image[:8].strip() not in layout]
            assert rest == [image for image in wanted if image in rest]
        for hdu in plain:
            assert hdu.verify_datasum() != 0
            assert hdu.verify_checksum() != 0
