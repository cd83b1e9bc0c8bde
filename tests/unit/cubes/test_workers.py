"""Cubes by workers of a cluster; assemblers and workers that are killed: what is there is whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from astropy.io import fits

from nightglass import cluster
from nightglass.config import Cluster
from nightglass.cubes import Compression, assemble_cube, verify_cube
from nightglass.cubes.extracting import extract_frames
from nightglass.layout import Layout
from nightglass.pool import SerialPool
from tests.unit.cubes.nights import cube_of
from tests.unit.cubes.oracles import (
    assert_planes,
    assert_sound,
    frames_in,
    left_in,
    pixels_of,
    request_of,
    write_frame,
)

SHAPE = (400, 401)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with cluster.start(Cluster(workers=2, memory_mib=1024), layout=Layout(tmp_path_factory.mktemp("root"))) as pool:
        yield pool


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("compression", [None, Compression()], ids=["plain", "rice"])
def test_killed_workers_of_a_cluster(tmp_path, pool, compression, monkeypatch):
    monkeypatch.setattr("nightglass.cubes.transfer._SMALL_BYTES", 0)  # written by the workers, as a large cube is
    paths = frames_in(tmp_path / "frames", 24, SHAPE)
    out = tmp_path / "cube.fits"
    victims = [worker.pid for worker in pool.workers()]
    assert len(victims) == 2

    def kill(done: int, whole: int) -> None:
        if victims:
            os.kill(victims.pop(), signal.SIGKILL)

    summary = assemble_cube(request_of(paths, out=out, compression=compression), pool=pool, progress=kill)
    assert not victims
    assert summary.frames == 24
    assert_sound(out)
    assert_planes(out, "SCIENCE0", [pixels_of("u2", SHAPE, index) for index in range(24)])
    assert left_in(tmp_path) == ["cube.fits", "frames"]


@pytest.mark.cluster
@pytest.mark.slow
def test_workers_verify_and_extract_too(tmp_path, pool):
    (tmp_path / "in").mkdir()
    paths = [write_frame(tmp_path / "in" / f"{n}.fits", [pixels_of("u2", (90, 70), n)] * 2) for n in range(6)]
    cube = cube_of(*paths)
    assert verify_cube(cube, paths, pool=pool).ok
    out = extract_frames(cube, tmp_path / "out", pool=pool)
    assert [path.read_bytes() for path in out] == [path.read_bytes() for path in paths]
    with fits.open(paths[2], mode="update") as hdus:
        hdus[1].data[4, 2] += 1
    assert not verify_cube(cube, paths, pool=pool).ok


KILLED = """
import sys
from pathlib import Path
from nightglass.cubes import Compression, CubeRequest, assemble_cube
from nightglass.pool import SerialPool
compression = Compression() if sys.argv[3] == "rice" else None
request = CubeRequest(
    paths=tuple(Path(sys.argv[1]).iterdir()), out=Path(sys.argv[2]), compression=compression, overwrite=True
)
assemble_cube(request, pool=SerialPool())
print("ready", flush=True)
while True:
    request.out.unlink()
    assemble_cube(request, pool=SerialPool())
"""


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.drill)])
@pytest.mark.parametrize("compression", ["plain", "rice"])
def test_killed_at_any_moment(tmp_path, compression, kills):
    paths = frames_in(tmp_path / "frames", 24, (300, 301))
    out = tmp_path / "archive" / "cube.fits"
    chance = random.Random(5)
    for _ in range(kills):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "frames"), str(out), compression]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
        if out.exists():
            assert_sound(out)
            assert verify_cube(out, paths).ok
    request = request_of(paths, out=out, overwrite=True, compression=Compression() if compression == "rice" else None)
    assert assemble_cube(request, pool=SerialPool()).frames == 24
    assert left_in(out.parent) == ["cube.fits"]
    assert verify_cube(out, paths).ok
