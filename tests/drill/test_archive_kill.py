"""Archivers and workers are killed at random moments, and two archivers work at one night: each exposure ends as one
right cube.

Archivers are started by the command line, as a person starts them, and judged by the ledger and the files they leave.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nightglass import byhand
from nightglass.cluster import start
from nightglass.config import Cluster, load_camera, load_observatory
from nightglass.cubes import verify_cube
from nightglass.fitsio import content_id
from nightglass.layout import Layout
from nightglass.ledger import ArchiveState, Ledger
from nightglass.model import Night
from nightglass.pool import Pool
from nightglass.simulate import NightPlan, write_night

NIGHT = Night("20260821")
PLAN = NightPlan(night=NIGHT, biases=6, darks=0, flats=0, science=10, dithers=2, filters=("g",), shape=(512, 512))
WAYS = {"plain": "", "gathered": 'mode = "gather"', "compressed": 'compress = "rice"'}
"""Small plain cubes are written by the archiver itself; in the other ways workers have a part."""


@dataclass(frozen=True, slots=True)
class Site:
    """A night of simulated frames in a ledger, and the workers that archivers find."""

    root: Path
    config: Path
    frames: dict[str, Path]
    ledger: Ledger
    pool: Pool

    def archiver(self, *options: str) -> subprocess.Popen[bytes]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("NIGHTGLASS_", "PREFECT_"))}
        command = [sys.executable, "-m", "deployments.cli", "archive", "--night", NIGHT.label, *options]
        with (self.root / "console.log").open("ab") as console:
            return subprocess.Popen(
                [*command, "--root", str(self.root), "--config", str(self.config)],
                env=kept,
                stdout=console,
                stderr=console,
            )

    def check_cubes(self) -> int:
        """Check every file that stands under a final name; return how many there are."""
        cubes = [path for path in (self.root / "lynx").rglob("archive/*/*.fits*") if path.suffix in (".fits", ".fz")]
        for cube in cubes:
            found = verify_cube(cube, [self.frames[cube.parent.name]])
            assert found.ok, (cube, found.differences)
        return len(cubes)

    def kill_worker(self, rng: random.Random) -> None:
        with contextlib.suppress(ProcessLookupError, IndexError):  # the one of before may not be replaced yet
            os.kill(rng.choice([worker.pid for worker in self.pool.workers() if worker.pid]), signal.SIGKILL)


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    root = tmp_path / "root"
    root.mkdir()
    config = tmp_path / "observatory.toml"
    config.write_text(f"[archive]\nfree_disk_gib = 0\n{WAYS[request.param]}\n")
    observatory = load_observatory(config, overrides={"root": str(root)}, environment={})
    camera = load_camera("lynx")
    with (
        Ledger.open(root / "ledger.sqlite") as ledger,
        start(Cluster(workers=2), layout=Layout(root)) as pool,
    ):
        for path in write_night(tmp_path / "raw", PLAN, seed=4).paths:
            byhand.take_in(path, camera, ledger=ledger, observatory=observatory)
        frames = {f"{int(entry.exposure_id.rpartition('/')[2]):08d}": entry.path for entry in ledger.entries()}
        yield Site(root, config, frames, ledger, pool)


def _kill_at_random(site: Site, kills: int) -> None:
    rng = random.Random(int(os.environ.get("NIGHTGLASS_DRILL_SEED", "1")))
    for _ in range(kills):
        archivers = [site.archiver("--again"), site.archiver("--again")]
        time.sleep(rng.uniform(0.8, 3.5))
        site.kill_worker(rng)
        time.sleep(rng.uniform(0.0, 0.5))
        for process in archivers:
            process.send_signal(signal.SIGKILL)
            process.wait()
        site.check_cubes()


def _check_end(site: Site) -> None:
    """Check that two archivers more, one of which loses a worker, and at last one alone make everything right."""
    last = [site.archiver("--again"), site.archiver("--again")]
    time.sleep(2.0)
    site.kill_worker(random.Random(2))
    assert all(process.wait(250) == 0 for process in last), (site.root / "console.log").read_text()[-3000:]
    assert site.archiver().wait(250) == 0
    assert site.check_cubes() == len(site.frames)
    assert not list(site.root.rglob("*.part"))
    assert site.ledger.archive_counts(NIGHT)[ArchiveState.ARCHIVED] == len(site.frames)
    for record in site.ledger.archives(NIGHT):
        assert record.is_safe
        assert record.path is not None
        assert content_id(record.path) == record.checksum


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.parametrize("site", ["compressed"], indirect=True)
def test_a_kill_leaves_right_cubes_or_none(site: Site) -> None:
    _kill_at_random(site, 1)
    _check_end(site)


@pytest.mark.drill
@pytest.mark.timeout(600)
@pytest.mark.parametrize("site", WAYS, indirect=True)
def test_many_kills_leave_right_cubes_or_none(site: Site) -> None:
    _kill_at_random(site, 25)
    _check_end(site)
