from __future__ import annotations

import ccdproc
import numpy as np
import pytest
from astropy import units as u
from astropy.modeling.models import Legendre1D
from astropy.nddata import CCDData

from nightglass.image import AmplifierView, Image
from nightglass.steps.overscan import OverscanSettings, subtract_overscan
from tests.unit.steps.scene import LEVELS, NOISES, Scene, plain

ROWS, DATA, OVER = 300, 80, 32


def made(
    *, level: np.ndarray | float = 1000.0, noise: float = 3.0, across: str = "columns", **amplifier: object
) -> Image:
    """A dark frame whose overscan is to the right (``columns``) or on top (``rows``)."""
    rng = np.random.default_rng(3)
    data = np.rint(rng.normal(0, noise, (ROWS, DATA + OVER)) + np.asarray(level).reshape(-1, 1))
    sections = ((slice(0, ROWS), slice(0, DATA)), (slice(0, ROWS), slice(DATA, DATA + OVER)))
    if across == "rows":
        data, sections = data.T, tuple((columns, rows) for rows, columns in sections)
    view = AmplifierView(data=sections[0], overscan=sections[1], place=sections[0], **amplifier)
    return plain(data, amplifiers=(view,), unit="adu")


def light(image: Image) -> np.ndarray:
    return image.data[image.amplifiers[0].data]


@pytest.mark.parametrize("across", ["columns", "rows"])
@pytest.mark.parametrize("fit", ["smooth", "line", "polynomial"])
def test_follows_a_drifting_level(fit: str, across: str, scene: Scene) -> None:
    drift = 1000 + 12 * np.sin(np.arange(ROWS) / 100) + 5 * np.exp(-np.arange(ROWS) / 40)
    image = made(level=drift, across=across)
    result = light(subtract_overscan(image, scene.context, OverscanSettings(fit=fit, order=7)))
    lines = result.mean(axis=1 if across == "columns" else 0)
    expected = 3 / np.sqrt(DATA) * (1 if fit != "line" else np.sqrt(1 + DATA / OVER))
    assert abs(result.mean()) < 0.05
    assert lines.std() == pytest.approx(expected, rel=0.25)


def test_agrees_with_ccdproc(scene: Scene) -> None:
    image = made(level=1000 + np.arange(ROWS) / 30)
    ccd = CCDData(image.data.astype(float), unit=u.adu)
    for settings, options in (
        (OverscanSettings(method="median", fit="line"), {"median": True}),
        (OverscanSettings(method="mean", fit="line"), {"median": False}),
        (OverscanSettings(method="median", fit="polynomial", sigma=100), {"median": True, "model": Legendre1D(3)}),
    ):
        theirs = ccdproc.subtract_overscan(ccd, overscan=ccd[:, DATA:], overscan_axis=1, **options)
        ours = subtract_overscan(image, scene.context, settings)
        np.testing.assert_allclose(light(ours), theirs.data[:, :DATA], atol=2e-4)


def test_each_amplifier_has_its_own_level_and_noise(scene: Scene) -> None:
    result = subtract_overscan(scene.raw, scene.context, OverscanSettings())
    for number, (level, noise) in enumerate(zip(LEVELS, NOISES, strict=True), start=1):
        assert result.header[f"OSLEV{number}"] == pytest.approx(level, abs=12)
        assert result.header[f"OSRMS{number}"] == pytest.approx(noise, rel=0.1)
    assert result.measured["overscan_noise"] == pytest.approx(max(NOISES), rel=0.1)
    assert result.history[-1].note == ""


def test_outliers_and_masked_lines_do_not_count(scene: Scene) -> None:
    clean = made()
    data, mask = clean.data.copy(), clean.mask.copy()
    data[20:40, DATA + 3] = 60_000
    data[77, DATA:] = 0
    mask[77, DATA:] = 1
    hit = clean.with_(data=data, mask=mask)
    for fit in ("line", "smooth", "polynomial", "constant"):
        settings = OverscanSettings(fit=fit)
        ours, theirs = (subtract_overscan(image, scene.context, settings) for image in (hit, clean))
        np.testing.assert_allclose(light(ours), light(theirs), atol=2.0 if fit == "line" else 0.1)


def test_the_read_noise_is_checked_or_supplied(scene: Scene) -> None:
    unknown = subtract_overscan(made(gain=2.0, read_noise=0.0), scene.context, OverscanSettings())
    assert unknown.amplifiers[0].read_noise == pytest.approx(6.0, rel=0.05)
    assert "from overscan" in unknown.history[-1].note
    wrong = subtract_overscan(made(gain=2.0, read_noise=1.5), scene.context, OverscanSettings())
    assert wrong.amplifiers[0].read_noise == 1.5
    assert "overscan noise 6" in wrong.history[-1].note


def test_a_quiet_camera_in_whole_numbers(scene: Scene) -> None:
    image = made(noise=0.2, level=1000.3)
    result = subtract_overscan(image, scene.context, OverscanSettings())
    assert abs(light(result).mean()) < 0.02


def test_without_overscan_nothing_happens(scene: Scene) -> None:
    image = plain(np.full((20, 20), 7.0))
    result = subtract_overscan(image, scene.context, OverscanSettings())
    assert result.data is image.data
    assert "no overscan" in result.history[-1].note


def test_trailed_charge_can_be_skipped(scene: Scene) -> None:
    image = made()
    data = image.data.copy()
    data[:, DATA : DATA + 2] += 8
    trailed = image.with_(data=data)
    skipping = subtract_overscan(trailed, scene.context, OverscanSettings(skip=2))
    assert abs(light(skipping).mean()) < 0.05
