"""Builders that are killed while frames are pushed, built, written, published and archived."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.builder.records import ExposureState
from nightglass.config import Limits
from nightglass.fitsio import scan_headers
from tests.architecture.sources import REPOSITORY
from tests.unit.builder.desk import PATIENCE_S, builder, image, pixels, wait_done

FRAMES, NAMES = 4, ("GUIDE0", "GUIDE2")
SETTINGS = {"preset": "guider", "local_copy": True, "archive": "finalized", "mem_purge_threshold": 1}
WORK = f"""
import sys
from pathlib import Path
from tests.unit.builder.desk import builder, image

made = builder(Path(sys.argv[1]), outputs=True, on_frame=lambda path, view: None, **{SETTINGS})
made.start()
print("started", flush=True)
for number in range(int(sys.argv[2]), 400):
    expid, frame = 1 + number // {FRAMES}, number % {FRAMES}
    try:
        made.assign(expid, frame, extensions={NAMES}, timeout_s=1000)
    except Exception as error:  # finalised before the kill, or built
        assert type(error).__name__ in ("Complete",), error
    for name in {NAMES}:
        made.accept(expid, frame, name, image(number, (60, 80), EXPTIME=1.0))
    print(number, flush=True)
    if frame == {FRAMES - 1}:
        made.finalize(expid)
"""


@pytest.mark.slow
def test_what_was_acknowledged_is_written_and_archived_after_kills(tmp_path: Path) -> None:
    chance, acknowledged = random.Random(3), -1
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WORK, str(tmp_path), str(acknowledged + 1)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        wanted = acknowledged + chance.randint(4, 12)
        for line in process.stdout:
            if line != "started\n":
                acknowledged = int(line)
            if acknowledged >= wanted:
                break
        time.sleep(chance.random())  # into the stages and the archive
        process.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in process.stdout if line.endswith("\n"))])
        process.wait()
        process.stdout.close()
    check(tmp_path, acknowledged)


def check(root: Path, acknowledged: int) -> None:
    told: dict[tuple[int, int], Path] = {}
    made = builder(
        root, outputs=True, on_frame=lambda path, view: told.setdefault((view.expid, view.frame), path), **SETTINGS
    )
    with made:
        for expid in range(1, (acknowledged + 1) // FRAMES + 1):
            made.finalize(expid)
        assert made._engine.line.wait_idle(PATIENCE_S)
        for number in range(acknowledged + 1):
            expid, frame = 1 + number // FRAMES, number % FRAMES
            view = made.frame(expid, frame)
            assert {"saved", "published", "done"} <= set(view.times), view
            for path in (view.files[-1], view.published):
                assert path is not None
                scan_headers(path, Limits())  # whole
                assert pixels(path) == number
        whole = range(1, (acknowledged + 1) // FRAMES + 1)
        until = time.monotonic() + PATIENCE_S
        while any(made.exposure(expid).state is not ExposureState.ARCHIVED for expid in whole):
            assert time.monotonic() < until
            time.sleep(0.05)
        for expid in whole:
            with fits.open(made.get_archive(expid), checksum=True) as hdus:
                wanted = np.arange((expid - 1) * FRAMES, expid * FRAMES)
                for name in NAMES:
                    np.testing.assert_array_equal(hdus[name].data[:, 0, 0], wanted)
        assert [item for item in made.status()["alarms"] if item["key"] != "missing"] == []
    assert list(root.rglob("*.part")) == []


def test_what_killed_writers_left_is_gone_when_a_builder_is_ready(tmp_path: Path) -> None:
    settings = SETTINGS | {"archive": "asked", "plot_save": True}
    with builder(tmp_path, outputs=True, on_frame=lambda *_: None, **settings) as made:
        made.assign(1, 0, extensions=NAMES)
        for name in NAMES:
            made.accept(1, 0, name, image(1))
        view = wait_done(made, 1, 0)
        made.archive(1, wait=True)
        cube = made.get_archive(1)
    assert view.published is not None
    for directory in (view.directory, view.directory.parent):
        (directory / "frame.part").write_text("half")
    own = f"w{os.getpid()}x0123abcd.part"  # in a container, or soon after, another process has that number
    for path in (*view.files, view.published):
        path.with_name(f"{path.name}.{own}").write_text("half")
    others = view.files[0].with_name(f"notes.txt.{own}")
    others.write_text("somebody else's")
    manifest = cube.with_name(f"manifest_00000001.json.{own}")
    manifest.write_text("half")
    picture = min(view.files[0].parent.glob("*.png"))
    picture.with_name(f"{picture.name}.{own}").write_text("half")
    with builder(tmp_path, outputs=True, on_frame=lambda *_: None, **settings) as made:
        assert list(tmp_path.rglob("*.fits.*.part")) == list(tmp_path.rglob("frame.part")) == []
        made.plot(1, 0)
        made.archive(1, wait=True)
    assert list(tmp_path.rglob("*.part")) == [others]
