"""Which frames are fit to be combined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nightglass.calibrations import FrameStatistics, judge_frames, measure_frame
from nightglass.config import CalibrationRule
from nightglass.model import DQ, Kind
from tests.unit.calibrations.products import frame

RULE = CalibrationRule()


def _like(level: float = 500.0, noise: float = 5.0, **changes: object) -> FrameStatistics:
    plain = FrameStatistics(level=level, noise=noise, pattern=(level,) * 64, shapes=((100, 100),))
    return replace(plain, **changes)  # type: ignore[arg-type]


def _flat(level: float, **changes: object) -> FrameStatistics:
    return _like(level, level**0.5, **changes)


def _biases() -> dict[str, FrameStatistics]:
    return {f"b{index}": _like(500 + index / 2) for index in range(5)}


@pytest.mark.parametrize(
    ("odd", "word"),
    [
        (_like(21000.0, 140.0), "level 21000.0"),
        (_like(440.0), "level 440.0"),
        (_like(noise=30.0), "noise 30.00"),
        (_like(noise=0.0), "noise 0.00"),
        (_like(pattern=(900.0,) * 8 + (500.0,) * 56), "structure"),
        (_like(shapes=((50, 100),)), "100x50, its set has 100x100"),
        (_like(exposure_time_s=30.0), "exposed for 30 s"),
        (_like(saturated=0.3), "30.0 % of the pixels are saturated"),
        (FrameStatistics(problem="no good pixel"), "no good pixel"),
    ],
)
def test_an_odd_bias_is_found_and_the_rest_stays(odd: FrameStatistics, word: str) -> None:
    reasons = judge_frames(_biases() | {"odd": odd}, Kind.BIAS, RULE)
    assert list(reasons) == ["odd"]
    assert word in reasons["odd"]


def test_a_dark_with_light_is_found_though_its_header_is_right() -> None:
    darks = {f"d{index}": _like(12.0 + index) for index in range(3)}
    assert list(judge_frames(darks | {"masquerading": _like(4000.0, 63.0)}, Kind.DARK, RULE)) == ["masquerading"]


def test_two_frames_are_not_compared() -> None:
    assert judge_frames({"a": _like(500.0), "b": _like(21000.0)}, Kind.BIAS, RULE) == {}


def test_flats_may_differ_in_level_but_not_be_saturated_dark_or_shaded() -> None:
    shaded = tuple(20000.0 * (1 - 0.005 * index) for index in range(64))
    frames = {
        "twilight": _flat(30000.0),
        "later": _flat(9000.0),
        "last": _flat(2000.0),
        "burnt": _flat(90000.0, saturated=0.7),
        "closed": _like(-0.5),
        "shaded": _flat(20000.0, pattern=shaded),
    }
    assert set(judge_frames(frames, Kind.FLAT, RULE)) == {"burnt", "closed", "shaded"}


def test_bounds_of_the_camera_file_hold_for_a_single_frame() -> None:
    rule = CalibrationRule(min_level=100.0, max_level=600.0)
    assert "above max_level" in judge_frames({"dark": _like(700.0)}, Kind.DARK, rule)["dark"]
    assert "below min_level" in judge_frames({"dark": _like(7.0)}, Kind.DARK, rule)["dark"]


def test_a_frame_is_measured_from_its_product(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    data = rng.normal(800, 6, (300, 260))
    data[:, 130:] += 40  # structure, which is no noise
    mask = np.zeros(data.shape, np.uint16)
    data[10], mask[10] = 1e6, DQ.BAD
    mask[::2, ::5] |= np.uint16(DQ.SATURATED)
    found = measure_frame(frame(tmp_path / "a.fits", data, mask=mask, detectors=("east", "west")))
    assert found.level == pytest.approx(820, abs=21)
    assert found.noise == pytest.approx(6, rel=0.05)
    assert found.saturated == pytest.approx(0.1, abs=0.03)
    assert len(found.pattern) == 2 * 64
    assert max(found.pattern) - min(found.pattern) == pytest.approx(40, abs=4)
    assert found.shapes == ((300, 260), (300, 260))


def test_noise_of_whole_numbers_is_not_zero(tmp_path: Path) -> None:
    data = np.round(np.random.default_rng(1).normal(100, 0.25, (64, 64)))
    assert 0.1 < measure_frame(frame(tmp_path / "a.fits", data)).noise < 0.5


def test_what_cannot_be_read_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "garbage.fits").write_bytes(b"SIMPLE  = nonsense" * 200)
    statistics = {name: measure_frame(tmp_path / f"{name}.fits") for name in ("garbage", "absent")}
    for reason in judge_frames(statistics, Kind.BIAS, RULE).values():
        assert "cannot be read" in reason
    assert len(statistics) == 2
    masked = frame(tmp_path / "masked.fits", np.ones((20, 20)), mask=np.full((20, 20), DQ.BAD))
    assert measure_frame(masked).problem == "no good pixel"
