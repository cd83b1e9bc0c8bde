from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.sensors.watched import PATIENCE_S, Watched


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tmp_path / "night" / "raw"


@pytest.fixture
def watch(raw: Path) -> Iterator[Callable[..., Watched]]:
    watched: list[Watched] = []

    def start(directory: Path = raw, **settings: object) -> Watched:
        watched.append(Watched(directory, **settings))
        watched[-1].sensor.start()
        return watched[-1]

    yield start
    for item in watched:
        item.sensor.stop()
        item.sensor.join(PATIENCE_S)
