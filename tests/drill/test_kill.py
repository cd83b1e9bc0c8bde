"""SIGKILL of any process, at random seeded moments: nothing lost, nothing twice, no half file."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nightglass.model import State
from nightglass.simulate import NightPlan, write_night
from tests.drill.harness import Observatory, assert_nothing_lost_nothing_twice, running, wait_for

LONG = NightPlan(biases=3, darks=3, flats=3, science=24, dithers=3, filters=("r",), shape=(256, 256))
SHORT = replace(LONG, darks=0, flats=0, science=6)
ROLES = ("watch", "worker", "runner", "server", "serve", "watch", "worker", "runner")
CONFIG = """
[reduction]
lease_s = 15.0
retry_s = 0.5
attempts = 8
calibration_settle_s = 1.0
"""


def _night_under_fire(tmp_path: Path, seed: int, *, kills: int, plan: NightPlan) -> Observatory:
    rng = random.Random(seed)
    config = tmp_path / "observatory.toml"
    config.write_text(CONFIG)
    observatory = Observatory(tmp_path / "root", tmp_path / "raw", ("--config", str(config)))
    with running(observatory):
        written: list[int] = []
        writer = threading.Thread(
            target=lambda: written.append(len(write_night(observatory.raw, plan, seed=seed, pace_s=0.5).paths))
        )
        writer.start()
        wait_for(lambda: observatory.states()[State.REDUCED] > 0, timeout_s=120, what="the first exposure reduced")
        for role in rng.choices(ROLES, k=kills):
            time.sleep(rng.uniform(0.1, 4.0))
            # a process that was killed a moment ago may not be back yet
            wait_for(lambda role=role: observatory.kill(role, rng), timeout_s=120, what=f"a {role} to kill")
        writer.join()
        wait_for(
            lambda: observatory.states()[State.REDUCED] == written[0],
            timeout_s=300,
            what=f"all reduced after {observatory.killed}: {observatory.states()}",
        )
    assert_nothing_lost_nothing_twice(observatory, written[0])
    return observatory


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_two_kills_harm_nothing(tmp_path: Path) -> None:
    observatory = _night_under_fire(tmp_path, seed=3, kills=2, plan=SHORT)
    assert len(observatory.killed) == 2


@pytest.mark.drill
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(100, 110))
def test_many_kills_harm_nothing(tmp_path: Path, seed: int) -> None:
    observatory = _night_under_fire(tmp_path, seed=seed, kills=4, plan=LONG)
    assert len(observatory.killed) == 4
