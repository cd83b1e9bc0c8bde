"""Masters against ccdproc and against their definition."""

from __future__ import annotations

import subprocess
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.stats import mad_std
from numpy.typing import NDArray

from nightglass.calibrations import CombineSpec, combine_frames
from nightglass.calibrations.combine import FLOOR
from nightglass.calibrations.noise import pixel_noise
from nightglass.config import CalibrationRule
from nightglass.errors import Rejected
from nightglass.fitsio import read_product
from nightglass.image import Image
from nightglass.model import DQ, Kind
from tests.unit.calibrations.products import frame, master, ref

SHAPE = (90, 70)


def _spec(tmp_path: Path, kind: Kind, paths: Sequence[Path], *, seconds: float = 0.0, **changes: object) -> CombineSpec:
    refs = tuple(ref(number, kind, exposure_time_s=seconds) for number in range(1, len(paths) + 1))
    made = master(kind, exposure_time_s=seconds if kind is Kind.DARK else 0.0, inputs=tuple(r.content_id for r in refs))
    spec = CombineSpec(
        master=made,
        refs=refs,
        frames=tuple(paths),
        rule=CalibrationRule(sigma=4.0),
        part=tmp_path / f"{kind}.fits",
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


def _combined(spec: CombineSpec) -> Image:
    combine_frames(spec)
    return read_product(spec.part)[0]


def _noise_frames(count: int, level: float, noise: float, seed: int = 1) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    frames = rng.normal(level, noise, (count, *SHAPE)).astype(np.float32)
    frames[rng.random(frames.shape) < 0.002] += 3000  # cosmic rays
    return frames


def _written(tmp_path: Path, frames: NDArray[np.float32], name: str, **options: object) -> list[Path]:
    return [
        frame(tmp_path / f"{name}{index}.fits", data, **options)  # type: ignore[arg-type]
        for index, data in enumerate(frames)
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_a_bias_is_ccdprocs_clipped_average(tmp_path: Path, count: int) -> None:
    from ccdproc import combine

    frames = _noise_frames(count, 300, 5)
    every = np.ones(SHAPE, np.bool_)
    floor = FLOOR * float(np.median([pixel_noise(data, every) for data in frames]))
    wanted = combine(
        [CCDData(data, unit="electron") for data in frames],
        sigma_clip=True,
        sigma_clip_low_thresh=4,
        sigma_clip_high_thresh=4,
        sigma_clip_func=np.ma.median,
        sigma_clip_dev_func=lambda values, axis=None: np.maximum(mad_std(values, axis=axis), floor),
    )
    image = _combined(_spec(tmp_path, Kind.BIAS, _written(tmp_path, frames, "b")))
    # the noise is measured on every row only in frames of up to 64 rows
    assert np.mean(np.abs(image.data - wanted.data) < 1e-3) > 0.999
    assert float(np.sqrt(np.median(image.variance))) == pytest.approx(5 / count**0.5, rel=0.35)


def test_a_dark_is_frames_less_bias_in_their_exposure_time(tmp_path: Path) -> None:
    pattern = np.linspace(0, 50, SHAPE[1], dtype=np.float32)[None, :] + np.zeros(SHAPE, np.float32)
    bias = frame(tmp_path / "bias.fits", pattern, variance=4.0)
    frames = _noise_frames(5, 12, 2) + pattern
    spec = _spec(tmp_path, Kind.DARK, _written(tmp_path, frames, "d"), seconds=60, bias=master(path=bias))
    image = _combined(spec)
    assert float(np.median(image.data)) == pytest.approx(12, abs=0.1)
    assert image.exposure_time_s == 60
    assert float(np.abs(image.data.mean(axis=0) - 12).max()) < 2
    assert float(image.variance.min()) >= 4 * 0.99  # the bias's error is in every frame


def test_a_flat_is_normalised_whatever_the_lamp_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    response = (1 + 0.2 * np.sin(np.arange(SHAPE[0]) / 9)[:, None] * np.ones(SHAPE)).astype(np.float32)
    response[5, 5] = 0.05
    frames = []
    for level in (20000, 15000, 9000, 30000):
        light = rng.poisson(level * response) + 40.0 + 5 * 0.5  # bias, and dark of 5 s
        frames.append(light)
    bias = frame(tmp_path / "bias.fits", np.full(SHAPE, 40.0))
    dark = frame(tmp_path / "dark.fits", np.full(SHAPE, 30.0))
    spec = _spec(
        tmp_path,
        Kind.FLAT,
        _written(tmp_path, np.array(frames, np.float32), "f"),
        seconds=5.0,
        bias=master(path=bias),
        dark=master(Kind.DARK, path=dark, exposure_time_s=60.0),
    )
    image = _combined(spec)
    good = image.mask == 0
    assert float(image.data[good].mean()) == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(image.data[good], (response / response.mean())[good], rtol=0.04)
    assert image.mask[5, 5] == DQ.LOW_FLAT
    assert (image.mask != 0).sum() == 1
    scatter = float(np.std((image.data / response * response.mean())[good]))
    assert float(np.sqrt(np.median(image.variance))) == pytest.approx(scatter, rel=0.35)


def test_masks_are_honoured_and_what_is_good_nowhere_is_bad(tmp_path: Path) -> None:
    frames = _noise_frames(4, 100, 3)
    frames[1, 20:30] = 9e4
    masks = np.zeros(frames.shape, np.uint16)
    masks[1, 20:30] = DQ.SATURATED
    masks[:, 40, 40] = DQ.SATURATED
    paths = [frame(tmp_path / f"{i}.fits", d, mask=m) for i, (d, m) in enumerate(zip(frames, masks, strict=True))]
    biased = np.zeros(SHAPE, np.uint16)
    biased[60, 60] = DQ.BAD
    bias = frame(tmp_path / "bias.fits", np.zeros(SHAPE), mask=biased)
    image = _combined(_spec(tmp_path, Kind.DARK, paths, seconds=1, bias=master(path=bias)))
    assert float(np.abs(image.data[20:30] - 100).max()) < 15
    assert {tuple(place) for place in np.argwhere(image.mask)} == {(40, 40), (60, 60)}
    assert np.isfinite(image.data).all()


def test_bytes_do_not_depend_on_the_memory_setting(tmp_path: Path) -> None:
    paths = _written(tmp_path, _noise_frames(6, 5000, 70), "f", detectors=("east", "west"))
    bytes_of = []
    for memory in (1, 64):  # 1 MiB: a few rows at a time
        spec = _spec(tmp_path, Kind.FLAT, paths, seconds=1.0, memory_mib=memory)
        assert combine_frames(spec).frames == 6
        bytes_of.append(spec.part.read_bytes())
    assert bytes_of[0] == bytes_of[1]
    east, west = read_product(spec.part)
    assert (east.detector, west.detector) == ("east", "west")
    np.testing.assert_array_equal(east.data, west.data)


def test_the_memory_setting_is_kept(tmp_path: Path) -> None:
    frames = np.random.default_rng(1).normal(500, 5, (30, 700, 700)).astype(np.float32)
    paths = _written(tmp_path, frames, "b")
    combine_frames(_spec(tmp_path, Kind.BIAS, paths[:2]))  # imports and compiles
    del frames
    tracemalloc.start()
    try:
        combine_frames(_spec(tmp_path, Kind.BIAS, paths, memory_mib=24))  # the stack alone would take 70
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * 2**20


def test_frames_that_do_not_fit_are_named(tmp_path: Path) -> None:
    paths = [frame(tmp_path / "a.fits", np.ones(SHAPE)), frame(tmp_path / "b.fits", np.ones((4, 4)))]
    with pytest.raises(Rejected, match=r"b\.fits has other detectors or another shape than .*a\.fits"):
        combine_frames(_spec(tmp_path, Kind.BIAS, paths))
    dark_flats = _written(tmp_path, np.zeros((2, *SHAPE), np.float32), "z")
    with pytest.raises(Rejected, match=r"level 0\.0 e-"):
        combine_frames(_spec(tmp_path, Kind.FLAT, dark_flats))


@pytest.mark.parametrize(
    ("kind", "overscan", "bias", "pedestal"),
    [(Kind.DARK, False, False, True), (Kind.DARK, True, False, False), (Kind.DARK, False, True, False)],
)
def test_a_dark_knows_whether_the_bias_level_is_in_it(
    tmp_path: Path, kind: Kind, *, overscan: bool, bias: bool, pedestal: bool
) -> None:
    paths = _written(tmp_path, _noise_frames(3, 500, 3), "d", overscan=overscan)
    level = frame(tmp_path / "bias.fits", np.full(SHAPE, 500.0))
    spec = _spec(tmp_path, kind, paths, seconds=10, bias=master(path=level) if bias else None)
    assert combine_frames(spec).pedestal is pedestal


@pytest.mark.skipif(which("fitsverify") is None, reason="fitsverify is not installed")
def test_fitsverify_finds_nothing(tmp_path: Path) -> None:
    spec = _spec(tmp_path, Kind.BIAS, _written(tmp_path, _noise_frames(3, 5, 1), "b"))
    combine_frames(spec)
    done = subprocess.run(["fitsverify", "-q", str(spec.part)], capture_output=True, text=True, check=False)
    assert "OK" in done.stdout
    assert done.returncode == 0
