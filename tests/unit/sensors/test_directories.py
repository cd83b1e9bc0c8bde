"""Directories that are links, get lost, come back, or are replaced while they are watched."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from nightglass.sensors import SensorState
from tests.unit.sensors.watched import CONTENT, Watch


@pytest.mark.timed
def test_a_link_to_a_directory_can_be_watched(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    watched = watch(tmp_path / "link")
    watched.rest()
    (tmp_path / "real" / "a.fits").write_bytes(CONTENT)
    watched.until(lambda: watched.names == ["a.fits"], seconds=1.0)


def test_a_directory_that_is_lost_is_told_and_found_again(watch: Watch, raw: Path) -> None:
    watched = watch()
    (raw / "a.fits").write_bytes(CONTENT)
    watched.rest()
    raw.rename(raw.with_name("elsewhere"))
    watched.until(lambda: watched.sensor.status.state is SensorState.LOST)
    assert "cannot be watched any more" in watched.alarms[0]
    assert str(raw) in watched.sensor.status.trouble
    raw.with_name("elsewhere").rename(raw)
    watched.until(lambda: watched.sensor.status.state is SensorState.LISTENING)
    assert watched.sensor.status.trouble == ""
    (raw / "b.fits").write_bytes(CONTENT)
    watched.until(lambda: len(watched.names) == 2)
    watched.rest()
    assert watched.names == ["a.fits", "b.fits"], "what was sighted before it was lost is not sighted again"
    shutil.rmtree(raw)
    watched.until(lambda: watched.sensor.status.state is SensorState.LOST)
    raw.mkdir()
    (raw / "c.fits").write_bytes(CONTENT)
    watched.until(lambda: watched.names == ["a.fits", "b.fits", "c.fits"])


@pytest.mark.timed
def test_another_directory_in_its_place_is_watched(watch: Watch, raw: Path) -> None:
    watched = watch()
    watched.rest()
    other = raw.with_name("other")
    other.mkdir()
    (other / "a.fits").write_bytes(CONTENT)
    raw.rename(raw.with_name("gone"))
    other.rename(raw)
    watched.until(lambda: watched.names == ["a.fits"])
    assert watched.alarms
    (raw / "b.fits").write_bytes(CONTENT)
    watched.until(lambda: len(watched.names) == 2, seconds=1.0)


def test_the_log_names_a_lost_directory(watch: Watch, raw: Path, caplog: pytest.LogCaptureFixture) -> None:
    watched = watch()
    with caplog.at_level(logging.WARNING):
        shutil.rmtree(raw)
        watched.until(lambda: bool(watched.alarms))
    assert str(raw) in caplog.text
