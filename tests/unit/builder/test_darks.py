"""Frames without their dark: what comes out is raw times gain less the master, scaled by exposure time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.builder.darks import subtract_darks
from nightglass.builder.writing import write_frame
from nightglass.config import Limits, Site, load_camera
from nightglass.errors import Waiting
from nightglass.fitsio import write_product
from nightglass.image import Image
from nightglass.model import ExposureRef, Kind, MasterRef
from tests.unit.builder.making import NIGHT, extension, noise, verified

PRIMARY = fits.Header([("EXTNAME", "PRIMARY"), ("EXPID", 70965), ("FRAME", 3), ("EXPTIME", 5.0)])
NAMES = ("GUIDE0", "GUIDE5")


def master(path: Path, shape: tuple[int, int]) -> MasterRef:
    """Write a master dark of 10 s: 20 electrons, and 50 in a hot corner."""
    level = np.full(shape, 20, np.float32)
    level[:3, :4] = 50
    images = [
        Image(
            data=level + 10 * index,
            variance=np.ones(shape, np.float32),
            mask=np.zeros(shape, np.uint16),
            header=fits.Header(),
            detector=name,
            amplifiers=(),
            unit="electron",
            exposure_time_s=10.0,
        )
        for index, name in enumerate(NAMES)
    ]
    write_product(path, images, cards={})
    return MasterRef(
        master_id="dada", kind=Kind.DARK, camera="generic", night=NIGHT, path=path, exposure_time_s=10.0, frames=5
    )


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    records = [
        extension(tmp_path, name, noise((20, 30), seed), {"GAIN": 2.0, "DATE-OBS": "2026-08-22T03:00:00"})
        for seed, name in enumerate(NAMES)
    ]
    return write_frame(records, PRIMARY, tmp_path / "raw.fits")


def test_the_scaled_master_is_subtracted(tmp_path: Path, raw: Path) -> None:
    asked: list[ExposureRef] = []

    def masters(ref: ExposureRef) -> dict[Kind, MasterRef]:
        asked.append(ref)
        return {Kind.DARK: master(tmp_path / "master.fits", (20, 30))}

    out = subtract_darks(
        raw,
        tmp_path / "out.fits",
        camera=load_camera("generic"),
        masters=masters,
        site=Site(),
        night=NIGHT,
        limits=Limits(),
    )
    verified(out)
    assert (asked[0].exposure_time_s, asked[0].night) == (5.0, NIGHT)
    with fits.open(out) as hdus:
        assert (hdus[0].header["EXPID"], hdus[0].header["FRAME"]) == (70965, 3)
        assert "dada" in str(hdus[0].header["HISTORY"])
        for index, name in enumerate(NAMES):
            dark = np.full((20, 30), 20 + 10 * index, float)
            dark[:3, :4] += 30
            expected = 2.0 * noise((20, 30), index).astype(float) - dark / 2
            assert hdus[name].data.dtype == np.dtype(">f4")
            assert np.allclose(hdus[name].data, expected, rtol=1e-6)
            assert hdus[name].header["BUNIT"] == "electron"
            assert "dark dada" in str(hdus[name].header["HISTORY"])


def test_without_a_master_it_waits(tmp_path: Path, raw: Path) -> None:
    with pytest.raises(Waiting, match="no master dark"):
        subtract_darks(
            raw,
            tmp_path / "out.fits",
            camera=load_camera("generic"),
            masters=lambda _: {},
            site=Site(),
            night=NIGHT,
            limits=Limits(),
        )
    assert not (tmp_path / "out.fits").exists()
