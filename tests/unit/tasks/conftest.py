"""A workbench on a small simulated night, without any server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nightglass.config import Observatory, Source, load_camera
from nightglass.ledger import Ledger
from nightglass.model import Night
from nightglass.pool import SerialPool
from nightglass.simulate import NightPlan, SimulatedNight, write_night
from nightglass.watch.work import Workbench
from tasks.bench import on_bench


@pytest.fixture(scope="session")
def small_night(tmp_path_factory: pytest.TempPathFactory) -> SimulatedNight:
    plan = NightPlan(
        night=Night("20260821"), biases=3, darks=0, flats=0, science=2, dithers=2, filters=("g",), shape=(160, 160)
    )
    return write_night(tmp_path_factory.mktemp("raw"), plan, seed=3)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    root = tmp_path / "root"
    observatory = Observatory(root=root, sources=(Source(camera="lynx", directory=str(tmp_path / "raw")),))
    with Ledger.open(root / "ledger.sqlite") as ledger:
        bench = Workbench(
            ledger=ledger, pool=SerialPool(), observatory=observatory, cameras={"lynx": load_camera("lynx")}
        )
        with on_bench(bench):
            yield bench
