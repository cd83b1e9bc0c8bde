"""Light curves of a sky whose sources are known: steady ones, one that varies, one that goes out."""

from __future__ import annotations

import math
import os
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.config import Camera, LightCurveRule, load_camera
from nightglass.fitsio import write_product
from nightglass.image import Image
from nightglass.lightcurves import CurveJournal, LightCurves, NoiseHistory, open_frames
from nightglass.lightcurves.curves import CURVE_DTYPE
from nightglass.lightcurves.files import write_light_curves
from nightglass.model import ExposureRef, Kind, Night
from nightglass.steps import StepContext, run_steps

START = datetime(2026, 11, 21, 1, tzinfo=UTC)
SHAPE = (160, 200)
PLACES = [(40.0, 30.0), (60.0, 120.0), (110.0, 70.0), (150.0, 130.0)]
FLUXES = [400.0, 600.0, 500.0, 800.0]
NOISE = 0.5


def sky(fluxes: list[float], seed: int, *, shift: float = 0.0) -> Image:
    """Return an image with Gaussian sources of these fluxes; `shift` moves the pointing, not the sources."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    data = np.random.default_rng(seed).normal(0, NOISE, SHAPE)
    for (column, row), flux in zip(PLACES, fluxes, strict=True):
        square = (x - column - shift) ** 2 + (y - row) ** 2
        data += flux / (2 * np.pi * 2.0**2) * np.exp(-square / (2 * 2.0**2))
    header = fits.Header({"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "RESTFRQ": 60e6})
    header.update(
        {
            "CRVAL1": 0.001,
            "CRVAL2": 52.0,
            "CRPIX1": 100.0 + shift,
            "CRPIX2": 80.0,
            "CDELT1": -0.05,
            "CDELT2": 0.05,
        }
    )
    blank = np.zeros(SHAPE, np.float32)
    image = Image(
        data=data.astype(np.float32),
        variance=blank,
        mask=blank.astype(np.uint16),
        header=header,
        detector="SB0",
        amplifiers=(),
    )
    camera = load_camera("aartfaac")
    steps = tuple(entry for entry in camera.step_list("realtime", Kind.SCIENCE) if entry.step not in ("trim", "gain"))
    return run_steps(image, steps, StepContext(camera=camera, ref=reference(camera)))


def reference(camera: Camera) -> ExposureRef:
    return ExposureRef(
        exposure_id="aartfaac/20261120/1",
        night=Night("20261120"),
        camera=camera.name,
        kind=Kind.SCIENCE,
        path=Path("a.fits"),
        size=1,
        content_id="",
        started_at=START,
    )


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)


class Followed:
    """Light curves with their journal, fed from products as a watch does it."""

    def __init__(self, directory: Path, rule: LightCurveRule | None = None) -> None:
        self.directory = directory
        self.rule = rule or LightCurveRule()
        self.live = LightCurves(self.rule)
        self.journal = CurveJournal(directory / "curves.fits", directory / "images.fits")

    def add(self, number: int | str, *images: Image) -> tuple[str, ...]:
        product = self.directory / "product.fits"
        write_product(product, images, cards={})
        with open_frames(product) as frames:
            began = START + timedelta(seconds=len(self.live.steps))
            additions = self.live.add(f"e{number}", began, frames)
        self.journal.append(additions)
        return additions.outliers

    def restart(self) -> None:
        """Forget everything but the files."""
        self.journal.close()
        self.journal = CurveJournal(self.directory / "curves.fits", self.directory / "images.fits")
        self.live = LightCurves(self.rule)
        self.journal.replay(self.live)

    @property
    def curves(self) -> NDArray[np.void]:
        return self.journal.curves.rows()

    def of_place(self, place: int) -> NDArray[np.void]:
        first = self.curves[self.curves["step"] == 0]
        order = np.argsort(-first["flux"])
        number = first["source"][order[list(np.argsort(-np.array(FLUXES))).index(place)]]
        rows: NDArray[np.void] = self.curves[self.curves["source"] == number]
        return rows


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    made = Followed(tmp_path)
    yield made
    made.journal.close()


def follow(followed: Followed, steps: list[list[float]]) -> None:
    for number, fluxes in enumerate(steps):
        image = sky(fluxes, number, shift=3.0 * number)
        followed.add(number, image)
        followed.add(number, image)  # twice is once


def test_steady_sources_are_steady_and_one_that_varies_stands_out(followed: Followed) -> None:
    changes = [1.0, 1.5, 0.6, 1.2, 0.8]
    follow(followed, [[*FLUXES[:1], FLUXES[1] * change, *FLUXES[2:]] for change in changes])
    assert len(followed.curves) == 4 * len(changes)
    varying = followed.of_place(1)
    enclosed = 1 - math.exp(-(5.0**2) / (2 * 2.0**2))
    np.testing.assert_allclose(varying["flux"], FLUXES[1] * np.array(changes) * enclosed, rtol=0.05)
    assert varying["v"][-1] == pytest.approx(np.std(changes, ddof=1) / np.mean(changes), rel=0.1)
    assert varying["eta"][-1] > 100
    for place in (0, 2, 3):
        steady = followed.of_place(place)
        assert steady["eta"][-1] < 6
        assert steady["v"][-1] < 0.03
        assert steady["detected"].all()


def test_one_that_goes_out_is_measured_where_it_was(followed: Followed) -> None:
    follow(followed, [FLUXES, [*FLUXES[:3], 0.0], FLUXES])
    gone = followed.of_place(3)
    assert gone["detected"].tolist() == [True, False, True]
    assert abs(gone["flux"][1]) < 5 * gone["flux_error"][1]
    assert gone["flux"][2] == pytest.approx(gone["flux"][0], rel=0.05)
    summary = followed.live.summary
    assert sorted(summary["detections"]) == [2, 3, 3, 3]
    assert set(summary["measurements"]) == {3}


@pytest.mark.parametrize("many", [1, 40])
def test_measuring_where_a_source_is_gives_what_finding_it_gives(tmp_path: Path, many: int) -> None:
    """A circle with a ring around it against the step that finds sources; in strips, and in the whole image."""
    image = sky(FLUXES, 5)
    write_product(tmp_path / "p.fits", [image], cards={})
    with open_frames(tmp_path / "p.fits") as (frame,):
        found = frame.detections(LightCurveRule())
        flux, error = frame.measure(np.repeat(found.sky, many, axis=0))
        np.testing.assert_allclose(flux[::many], found.flux, rtol=0.03)
        np.testing.assert_allclose(error[::many], found.flux_error, rtol=0.3)
        assert np.ptp(flux.reshape(-1, many), axis=1).max() < 1e-3
        edge, beyond = frame.measure(np.array([[4.95, 51.9], [120.0, 20.0]]))[0]
        assert math.isfinite(edge)
        assert math.isnan(beyond)


@pytest.mark.parametrize("radius", [0.2, 60.0, 1e5])
def test_circles_of_any_size_are_measured_in_bounded_memory(tmp_path: Path, radius: float) -> None:
    write_product(tmp_path / "p.fits", [sky(FLUXES, 5)], cards={})
    with open_frames(tmp_path / "p.fits") as (frame,):
        frame._aperture = radius
        places = np.repeat(frame.detections(LightCurveRule()).sky, 5, axis=0)
        tracemalloc.start()
        try:
            flux, _ = frame.measure(places)
            assert tracemalloc.get_traced_memory()[1] < 64 << 20
        finally:
            tracemalloc.stop()
        assert np.isfinite(flux).any() == (radius < 100)


def test_images_without_coordinates_are_counted_and_masked_ones_give_no_rows(followed: Followed) -> None:
    image = sky(FLUXES, 1)
    assert image.catalogue is not None
    bare = replace(image, header=fits.Header({"RESTFRQ": 1.0}))
    dark = replace(image, mask=np.ones(SHAPE, np.uint16), catalogue=image.catalogue[:0])
    for number, item in enumerate((image, bare, dark)):
        followed.add(number, item)
    assert (followed.live.left_out, len(followed.curves), followed.live.steps) == (1, 4, ("e0", "e1", "e2"))
    assert followed.journal.images.rows()["trouble"].tolist() == ["", "no coordinates", ""]


def test_noise_is_judged_by_the_last_images_of_its_band() -> None:
    history = NoiseHistory(LightCurveRule(rms_history=20, rms_sigma=3.0))
    rng = np.random.default_rng(2)
    for value in rng.normal(1.0, 0.01, 20):
        assert history.judge("SB0", 9.0) == ""  # nothing to compare it with
        history.note("SB0", value)
    assert history.judge("SB1", 9.0) == ""
    assert history.judge("SB0", 1.01) == ""
    assert "sigma from" in history.judge("SB0", 1.2)
    assert "-" in history.judge("SB0", 0.8)
    assert history.judge("SB0", math.nan) == ""
    for _ in range(8):
        history.note("SB0", 5.0)
    assert history.judge("SB0", 5.0)  # outliers make no room for others
    for _ in range(8):
        history.note("SB0", 5.0)
    assert history.judge("SB0", 5.0) == ""  # what lasts is usual


def test_an_image_whose_noise_is_an_outlier_is_left_out_also_after_a_restart(tmp_path: Path) -> None:
    followed = Followed(tmp_path, LightCurveRule(rms_history=6, rms_sigma=30.0))
    images = [sky(FLUXES, number) for number in range(6)]
    loud = sky(FLUXES, 9)
    loud = replace(loud, measured=loud.measured | {"noise": 20.0})
    assert followed.add(50, loud) == ()  # too early to say
    for number, image in enumerate(images):
        assert followed.add(number, image) == ()
    followed.restart()
    (text,) = followed.add(7, loud)
    assert text.startswith("SB0: noise 20 is +")
    assert followed.add(8, images[0]) == ()
    rows = followed.journal.images.rows()
    assert [bool(trouble) for trouble in rows["trouble"]] == [False] * 7 + [True, False]
    assert not np.isin(rows["step"][7], followed.curves["step"])
    assert set(followed.curves["step"]) == {0, 1, 2, 3, 4, 5, 6, 8}
    followed.journal.close()


def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    """Killed after any step, also in the middle of writing one, or not at all: the same tables."""
    tables = []
    for name in ("steady", "restarted", "torn"):
        (tmp_path / name).mkdir()
        followed = Followed(tmp_path / name)
        for number in range(4):
            follow_one = sky([*FLUXES[: 3 + number % 2], *[0.0] * (1 - number % 2)], number)
            if name == "torn":  # measurements, of which no image tells
                followed.journal.curves.append(np.zeros(3, CURVE_DTYPE))
            if name != "steady":
                followed.restart()
            followed.add(number, follow_one)
        tables.append((followed.curves, followed.journal.images.rows(), followed.live.summary))
        followed.journal.close()
    for table in tables[1:]:
        for one, other in zip(tables[0], table, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("damage", ["garbage", "short", "lost", "rotten", "hollow"])
def test_files_that_do_not_fit_together_are_made_anew(followed: Followed, damage: str) -> None:
    follow(followed, [FLUXES])
    path = followed.journal.curves.path
    if damage == "garbage":
        path.write_bytes(b"x" * path.stat().st_size)
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-2880])
    elif damage == "rotten":
        flip(path, -2800)
    elif damage == "hollow":  # after a power failure: the system kept the length, and not what was written
        size = path.stat().st_size
        os.truncate(path, size - 2880)
        os.truncate(path, size)
    else:
        path.unlink()
    followed.restart()
    assert (followed.live.steps, len(followed.curves)) == ((), 0)
    follow(followed, [FLUXES])
    assert len(followed.curves) == 4


def test_a_table_that_grows_can_be_read_at_any_time(followed: Followed) -> None:
    for number in range(3):
        followed.add(number, sky(FLUXES, number))
        with fits.open(followed.journal.curves.path, checksum=True) as hdus:
            assert "DATASUM" in hdus["CURVES"].header
            np.testing.assert_array_equal(hdus["CURVES"].data["flux"], followed.curves["flux"])
            assert hdus["CURVES"].data["detected"].all()
        with fits.open(followed.journal.images.path, checksum=True) as hdus:
            assert hdus["IMAGES"].data["exposure"].tolist() == [f"e{done}" for done in range(number + 1)]


def test_what_a_kill_left_behind_the_rows_is_cut_off(followed: Followed) -> None:
    follow(followed, [FLUXES])
    for path in (followed.journal.curves.path, followed.journal.images.path):
        flip(path, -1)  # where zeros are
    followed.restart()
    assert len(followed.curves) == 4
    for path in (followed.journal.curves.path, followed.journal.images.path):
        with fits.open(path, checksum=True) as hdus:
            hdus.verify("exception")


def test_long_names_are_the_same_after_a_restart(followed: Followed) -> None:
    image = sky(FLUXES, 0)
    stem = f"aartfaac/20261120/{'s' * 64}-{'0' * 20}"
    one, two, long = (replace(image, detector=name) for name in ("A" * 31 + "1", "A" * 31 + "2", "A" * 33))
    followed.add(f"{stem}1", one, two, long)
    followed.restart()
    followed.add(f"{stem}1", one, two)
    followed.add(f"{stem}2", one)
    images = followed.journal.images.rows()
    assert images["exposure"].tolist() == [f"e{stem}1"] * 3 + [f"e{stem}2"]
    assert [bool(trouble) for trouble in images["trouble"]] == [False, False, True, False]
    assert followed.live.steps == (f"e{stem}1", f"e{stem}2")


def test_a_band_that_comes_late_is_added_to_its_step(followed: Followed) -> None:
    image = sky(FLUXES, 0)
    followed.add(0, image)
    followed.add(1, image)
    followed.add(0, image, replace(image, detector="SB1"))
    assert followed.journal.images.rows()[["step", "band"]].tolist() == [(0, "SB0"), (1, "SB0"), (0, "SB1")]
    assert followed.live.steps == ("e0", "e1")


def test_the_file_is_legal_and_the_same_for_the_same_exposures(tmp_path: Path) -> None:
    paths = [tmp_path / "a.fits", tmp_path / "b.fits"]
    for path in paths:
        (tmp_path / path.stem).mkdir()
        followed = Followed(tmp_path / path.stem)
        follow(followed, [FLUXES, FLUXES[::-1]])
        write_light_curves(path, followed.live, followed.journal, camera="aartfaac", night=Night("20261120"))
        followed.journal.close()
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with fits.open(paths[0], checksum=True) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SOURCES", "CURVES", "IMAGES"]
        assert len(hdus["CURVES"].data) == 8
        assert list(hdus["IMAGES"].data["exposure"]) == ["e0", "e1"]
        assert len(hdus["SOURCES"].data) == 4
