from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nightglass.calibrations import build_masters
from nightglass.model import Kind
from nightglass.pool import SerialPool
from nightglass.simulate import NightPlan, write_night
from tests.unit.reduction.material import NIGHT, Site, opened


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("raw")
    plan = NightPlan(night=NIGHT, biases=3, darks=3, flats=3, science=2, dithers=2, filters=("r",), shape=(200, 256))
    write_night(directory, plan, seed=3)
    return directory


@pytest.fixture
def site(tmp_path: Path, raw: Path) -> Iterator[Site]:
    with opened(tmp_path, raw) as site:
        yield site


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, raw: Path) -> Iterator[Site]:
    """The same with masters; shared, so leave its science unclaimed."""
    with opened(tmp_path_factory.mktemp("calibrated"), raw) as site:
        for kind in (Kind.BIAS, Kind.DARK, Kind.FLAT):
            assert not site.run(site.job(*site.refs[kind])).errors
        build_masters(NIGHT, site.camera, ledger=site.ledger, pool=SerialPool(), observatory=site.observatory)
        yield site
