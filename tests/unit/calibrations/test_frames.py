"""Which frames are fit to be combined."""

from __future__ import annotations

from nightglass.calibrations import FrameStatistics, judge_frames
from nightglass.config import CalibrationRule
from nightglass.model import Kind

RULE = CalibrationRule()


def _bias(level: float = 500.0, noise: float = 5.0, saturated: float = 0.0) -> FrameStatistics:
    return FrameStatistics(level=level, noise=noise, structure=1.0, saturated=saturated)


def test_a_flat_among_biases_is_found_and_the_rest_stays() -> None:
    frames = {f"b{index}": _bias(500 + index) for index in range(5)} | {"flat": _bias(21000.0, noise=140.0)}
    assert set(judge_frames(frames, Kind.BIAS, RULE)) == {"flat"}


def test_the_reason_names_value_and_set() -> None:
    frames = {f"b{index}": _bias() for index in range(4)} | {"light": _bias(900.0)}
    reason = judge_frames(frames, Kind.BIAS, RULE)["light"]
    assert "900.0" in reason
    assert "500.0" in reason


def test_two_frames_are_not_compared() -> None:
    assert judge_frames({"a": _bias(500.0), "b": _bias(21000.0)}, Kind.BIAS, RULE) == {}


def test_flats_may_differ_in_level_but_not_be_saturated_or_empty() -> None:
    frames = {
        "twilight": _bias(30000.0, 170.0),
        "later": _bias(9000.0, 95.0),
        "last": _bias(2000.0, 45.0),
        "burnt": _bias(90000.0, 10.0, saturated=0.7),
        "closed": _bias(-0.5),
    }
    assert set(judge_frames(frames, Kind.FLAT, RULE)) == {"burnt", "closed"}


def test_bounds_of_the_camera_file_go_first() -> None:
    rule = CalibrationRule(max_level=600.0)
    assert "max_level" in judge_frames({"dark": _bias(700.0)}, Kind.DARK, rule)["dark"]
