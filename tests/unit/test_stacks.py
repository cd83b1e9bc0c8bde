"""Stacks of a small sky that the tests know."""

from __future__ import annotations

import subprocess
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from numpy.typing import NDArray

from nightglass.errors import Rejected
from nightglass.fitsio import read_product, write_product
from nightglass.image import Image
from nightglass.model import DQ, Quality
from nightglass.stacks import NoMatch, Sketch, StackMember, StackResult, StackSpec, align, combine_group

SHAPE = (150, 180)
NOISE = 4.0


@dataclass
class Sky:
    """Stars of one field, and exposures of it as products."""

    directory: Path
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux: NDArray[np.float64]

    def member(
        self,
        name: str,
        *,
        shift: tuple[float, float] = (0.0, 0.0),
        angle: float = 0.0,
        width: float = 1.6,
        wcs_error: float | None = None,
        stars: bool = True,
        seconds: float = 60.0,
        sky: float = 200.0,
        quality: Quality = Quality.OK,
        hits: int = 0,
    ) -> StackMember:
        """Expose; `shift` moves the stars by (x, y), `wcs_error` puts a WCS that is so many pixels wrong."""
        seed = [len(name), *name.encode()]
        rng = np.random.default_rng(seed)
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        u = cos * self.x - sin * self.y + shift[0]
        v = sin * self.x + cos * self.y + shift[1]
        rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
        light = np.full(SHAPE, sky)
        for place, height, flux in zip(u, v, self.flux, strict=True):
            profile = np.exp(-((columns - place) ** 2 + (rows - height) ** 2) / (2 * width**2))
            light += flux * seconds / 60 / (2 * np.pi * width**2) * profile
        data = (light + rng.normal(0, NOISE, SHAPE)).astype(np.float32)
        for row, column in rng.integers(5, 140, (hits, 2)):
            data[row, column] += 4000
        mask = np.zeros(SHAPE, np.uint16)
        mask[:, 33] = DQ.BAD
        data[:, 33] = -9999
        inside = (u > 3) & (v > 3) & (u < SHAPE[1] - 4) & (v < SHAPE[0] - 4)
        found = {"X": u[inside] + 1, "Y": v[inside] + 1, "FLUX": self.flux[inside]}
        for axis in ("X", "Y"):
            found[axis] = found[axis] + rng.normal(0, 0.05, inside.sum())
        image = Image(
            data=data,
            variance=np.full(SHAPE, NOISE**2, np.float32),
            mask=mask,
            header=_header(shift, wcs_error),
            detector="ccd1",
            amplifiers=(),
            exposure_time_s=seconds,
            unit="electron",
            catalogue=Table(found) if stars else None,
        )
        path = self.directory / f"{name}.fits"
        write_product(path, [image], cards={"EXPID": name, "QUALITY": "ok"})
        return StackMember(exposure_id=f"lynx/20260821/{name}", path=path, content_id=f"c{name}", quality=quality)

    def stack(self, *members: StackMember, **changes: object) -> StackResult:
        values: dict[str, object] = {
            "group_id": "lynx/20260821/dither:1",
            "camera": "lynx",
            "night": "20260821",
            "members": members,
            "part": self.directory / "stack.fits",
        }
        return combine_group(StackSpec(**(values | changes)))  # type: ignore[arg-type]

    @property
    def image(self) -> Image:
        return read_product(self.directory / "stack.fits")[0]


def _header(shift: tuple[float, float], error: float | None) -> fits.Header:
    if error is None:
        return fits.Header({"OBJECT": "field"})
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [90.0 + shift[0] + error, 75.0 + shift[1]]
    wcs.wcs.cdelt = [-2e-4, 2e-4]
    return wcs.to_header()


@pytest.fixture
def sky(tmp_path: Path) -> Sky:
    rng = np.random.default_rng(4)
    x, y = rng.uniform(8, SHAPE[1] - 8, 30), rng.uniform(8, SHAPE[0] - 8, 30)
    return Sky(tmp_path, x, y, rng.uniform(4e3, 6e4, 30))


def _fluxes(image: Image, sky: Sky) -> NDArray[np.float64]:
    """Return aperture sums about the true places that no bad column or edge touches."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    sums = []
    for x, y, flux in zip(sky.x, sky.y, sky.flux, strict=True):
        near = (columns - x) ** 2 + (rows - y) ** 2 < 36
        alone = np.hypot(sky.x - x, sky.y - y)
        if np.sort(alone)[1] > 14 and not image.mask[near].any():
            sums.append(image.data[near].sum() / flux)
    return np.array(sums)


@pytest.mark.parametrize("wcs_error", [None, 0.0, 2.0, 40.0], ids=["no wcs", "good", "nearly", "wrong"])
def test_members_meet_whatever_the_wcs_says(sky: Sky, wcs_error: float | None) -> None:
    members = [
        sky.member("a", wcs_error=0.0 if wcs_error is not None else None, hits=20),
        sky.member("b", shift=(7.4, -3.3), wcs_error=wcs_error, hits=20),
        sky.member("c", shift=(-5.2, 9.7), wcs_error=wcs_error, hits=20, sky=900.0),
        sky.member("d", shift=(12.5, 12.5), wcs_error=wcs_error, seconds=30.0),
    ]
    result = sky.stack(*members)
    assert result.notes == ()
    assert len(result.used) == 4
    fluxes = _fluxes(sky.image, sky)
    assert len(fluxes) > 4
    assert fluxes == pytest.approx(1, abs=0.03)
    inner = sky.image.data[30:120, 40:150]
    assert float(np.median(inner)) == pytest.approx(0, abs=2)
    empty = np.full(SHAPE, True)
    for x, y in zip(sky.x, sky.y, strict=True):
        rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
        empty &= (columns - x) ** 2 + (rows - y) ** 2 > 100
    empty &= sky.image.mask == 0
    assert float(np.abs(sky.image.data[empty]).max()) < 8 * NOISE  # no cosmic ray is left
    assert "stars" in str(fits.getheader(sky.directory / "stack.fits")["HISTORY"])


def test_a_turned_field_meets(sky: Sky) -> None:
    first, second = sky.member("a"), sky.member("b", angle=4.0, shift=(9.0, -2.0))
    sky.stack(first, second)
    assert _fluxes(sky.image, sky) == pytest.approx(1, abs=0.03)


def test_variance_tells_the_scatter_of_sums(sky: Sky) -> None:
    """Of sums, for interpolation makes neighbours alike."""
    dark = Sky(sky.directory, sky.x, sky.y, sky.flux * 0)
    shifts = [(0.0, 0.0), (0.5, 0.5), (-0.5, 0.25), (0.3, -0.4), (0.7, 0.2)]
    members = [dark.member(f"m{n}", shift=shift, wcs_error=0.0, stars=False) for n, shift in enumerate(shifts)]
    dark.stack(*members)
    image = dark.image
    blocks = image.data[5:145, 40:180].reshape(20, 7, 20, 7).sum(axis=(1, 3))
    expected = image.variance[5:145, 40:180].reshape(20, 7, 20, 7).sum(axis=(1, 3))
    assert float(np.std(blocks)) == pytest.approx(float(np.sqrt(np.median(expected))), rel=0.15)
    assert float(np.median(image.variance)) == pytest.approx(NOISE**2 / 5, rel=0.1)


def test_cores_of_stars_survive_changing_seeing(sky: Sky) -> None:
    widths = (1.4, 1.5, 1.6, 1.9)
    sky.stack(*(sky.member(f"m{n}", width=width) for n, width in enumerate(widths)))
    assert _fluxes(sky.image, sky) == pytest.approx(1, abs=0.02)


def test_who_is_left_out_is_said(sky: Sky, tmp_path: Path) -> None:
    good = [sky.member("a"), sky.member("b", shift=(3.0, 4.0))]
    elsewhere = Sky(tmp_path, sky.y * 0.7, sky.x * 0.6, sky.flux[::-1])
    gone = StackMember(exposure_id="lynx/20260821/gone", path=tmp_path / "gone.fits", content_id="x")
    others = [sky.member("bad", quality=Quality.BAD), elsewhere.member("other"), sky.member("blind", stars=False), gone]
    result = sky.stack(*good, *others)
    assert result.used == ("lynx/20260821/a", "lynx/20260821/b")
    said = dict(note.removeprefix("lynx/20260821/").split(": ", 1) for note in result.notes)
    assert said["bad"] == "quality is bad"
    assert "stars" in said["other"]
    assert "0 stars" in said["blind"]
    assert "cannot be read" in said["gone"]
    header = fits.getheader(sky.directory / "stack.fits")
    assert header["NCOMBINE"] == 2
    assert "left out lynx/20260821/bad: quality is bad" in str(header["HISTORY"])
    with pytest.raises(Rejected, match=r"fewer than two of 2 members.*quality is bad"):
        sky.stack(good[0], others[0])


def test_the_first_that_shows_enough_stars_gives_the_pixels(sky: Sky) -> None:
    clouded = sky.member("a", shift=(5.0, 0.0), stars=False)
    result = sky.stack(clouded, sky.member("b"), sky.member("c", shift=(2.0, 2.0)))
    assert result.used == ("lynx/20260821/b", "lynx/20260821/c")
    assert _fluxes(sky.image, sky) == pytest.approx(1, abs=0.03)


def test_the_bytes_depend_on_members_alone(sky: Sky) -> None:
    members = [sky.member("a"), sky.member("b", shift=(3.3, 4.4)), sky.member("c", shift=(-2.2, 1.1), angle=1.0)]
    checksums = {sky.stack(*members, memory_mib=memory).checksum for memory in (1, 1, 512)}
    assert len(checksums) == 1


@pytest.mark.slow
def test_memory_is_bounded_by_the_setting(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).normal(50, 5, (600, 700)).astype(np.float32)
    members = []
    for number in range(20):
        image = Image(
            data=pixels,
            variance=pixels,
            mask=np.zeros(pixels.shape, np.uint16),
            header=_header((0.37 * number, 0.2), 0.0),
            detector="ccd1",
            amplifiers=(),
        )
        write_product(tmp_path / f"{number}.fits", [image], cards={})
        members.append(StackMember(exposure_id=f"{number}", path=tmp_path / f"{number}.fits", content_id=f"{number}"))
    sky = Sky(tmp_path, *np.empty((3, 0)))
    sky.stack(*members[:3])
    tracemalloc.start()
    try:
        sky.stack(*members, memory_mib=24)  # all members together take 75
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * 2**20


def test_what_is_true_of_one_exposure_is_not_in_the_stack(sky: Sky) -> None:
    sky.stack(sky.member("a", wcs_error=0.0), sky.member("b", wcs_error=0.0, shift=(3.0, 3.0)))
    with fits.open(sky.directory / "stack.fits") as hdus:
        assert "EXPID" not in hdus["SCI"].header
        assert hdus["SCI"].header["EXPTOTAL"] == 120
        assert WCS(hdus["SCI"].header).has_celestial
        assert {"GROUPID", "EXP00001", "CID00002"} <= set(hdus[0].header)


@pytest.mark.skipif(which("fitsverify") is None, reason="fitsverify is not installed")
def test_fitsverify_finds_nothing(sky: Sky) -> None:
    sky.stack(sky.member("a", wcs_error=0.0), sky.member("b", wcs_error=0.0, shift=(3.0, 3.0)))
    path = sky.directory / "stack.fits"
    done = subprocess.run(["fitsverify", "-q", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, "OK" in done.stdout) == (0, True)


def test_another_shape_is_no_match() -> None:
    sketches = [Sketch.of(shape, fits.Header(), None) for shape in ((10, 20), (20, 10))]
    with pytest.raises(NoMatch, match="its shape is 10x20, the first has 20x10"):
        align(*sketches)


@pytest.mark.real
def test_a_real_field_that_drifts_meets(real_data: Path) -> None:
    """Forty frames of one night, an hour and more apart: the stars meet to a tenth of a pixel."""
    import sep

    paths = sorted((real_data / "exotic_hatp32_2017").glob("*.FITS"))
    sketches = []
    for path in paths[:: len(paths) // 5]:
        pixels = np.ascontiguousarray(fits.getdata(path), np.float32)
        background = sep.Background(pixels)
        found = sep.extract(pixels - background, 5, err=background.globalrms, minarea=5)
        table = Table({"X": found["x"] + 1, "Y": found["y"] + 1, "FLUX": found["flux"]})
        sketches.append(Sketch.of(pixels.shape, fits.Header(), table))
    drift = 0.0
    for sketch in sketches[1:]:
        alignment = align(sketches[0], sketch)
        assert (alignment.method, alignment.stars > 30, alignment.rms < 0.15) == ("stars", True, True)
        assert np.hypot(*alignment.affine.offset) > drift
        drift = float(np.hypot(*alignment.affine.offset))
