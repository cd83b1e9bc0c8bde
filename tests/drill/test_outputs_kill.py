"""A builder's outputs are killed at random moments: files are whole or not there, and what was queued arrives."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.builder.delivering import CameraOutputs
from nightglass.config import BuilderOptions, Site, load_camera
from nightglass.layout import Layout
from tests.unit.builder.making import noise
from tests.unit.builder.receiving import PATIENCE_S, receiver

pytestmark = pytest.mark.drill

KILLS = 12
NAMES = ("GUIDE0", "GUIDE2")
SHAPE = (400, 500)
CHILD = """
import itertools, sys
from pathlib import Path
from nightglass.builder.records import ArchiveOrder, SendOrder, WriteOrder
from tests.drill.test_outputs_kill import made
from tests.unit.builder.making import exposure, frame, record_of
root, first = Path(sys.argv[1]), int(sys.argv[2])
outputs = made(root, "http://127.0.0.1:9")
outputs.rois.accept([{"extension": "GUIDE0", "x": 200, "y": 200, "size": 50}])
outputs.start()
for expid in itertools.count(first):
    views = []
    for number in range(3):
        records = [record_of(path, path.stem) for path in sorted((root / "spool" / str(number)).glob("*.fits"))]
        views.append(frame(records, expid=expid, number=number, primary={"EXPTIME": 5.0}))
    whole = exposure(expid, (0, 1, 2))
    options = outputs.options
    for view in views:
        print("file", outputs.write(whole, view, options, WriteOrder(compress=expid % 2 == 0)), flush=True)
        outputs.built(whole, view, options)
        outputs.send(whole, view, options, SendOrder(send_to=("later",)), wait_s=0)
        print("sent", expid, view.frame, flush=True)
    print("file", outputs.archive(whole, views, options, ArchiveOrder(compress=expid % 2 == 1)).path, flush=True)
"""


class Made(CameraOutputs):
    """Outputs that remember their options."""

    options: BuilderOptions


def made(root: Path, url: str) -> Made:
    """Make the outputs under test; the child's receiver is dead, ours is not."""
    options = BuilderOptions(
        role="guide", module="GUIDER", mode="GUIDE", use_guider=True, receivers={"later": url}, send_attempts=1000
    )
    outputs = Made("guider", options, layout=Layout(root), camera=load_camera("generic"), site=Site())
    outputs.options = options
    return outputs


def spool(root: Path) -> None:
    for number in range(3):
        place = root / "spool" / str(number)
        place.mkdir(parents=True)
        for index, name in enumerate(NAMES):
            header = fits.Header([("DATE-OBS", f"2026-08-22T03:00:0{number}")])
            fits.PrimaryHDU(noise(SHAPE, 10 * number + index), header).writeto(place / f"{name}.fits")


def killed_run(root: Path, first: int, alive_s: float) -> list[str]:
    """Run the outputs for a while from their first file on, kill them, and return what they said."""
    command = [sys.executable, "-c", CHILD, str(root), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline()]
        time.sleep(alive_s)
        child.send_signal(signal.SIGKILL)
        said += child.stdout.read().splitlines()
    return [line.strip() for line in said if line.strip()]


def whole(path: Path) -> None:
    with fits.open(path, checksum=True) as hdus:  # a false checksum is a warning, and that an error
        names = [name for name in NAMES if name in hdus]
        assert names or "rois" in path.name or "stamps" in path.parts
        for index, name in enumerate(names):
            if hdus[name].data.ndim == 3:
                assert np.array_equal(hdus[name].data[1], noise(SHAPE, 10 + index))


def test_killed_outputs_lose_nothing_that_they_said(tmp_path: Path) -> None:
    chance = random.Random(5)
    spool(tmp_path)
    promised: set[tuple[str, str]] = set()
    for kill in range(KILLS):
        for line in killed_run(tmp_path, 1 + 1000 * kill, chance.uniform(0.0, 1.5)):
            word, _, rest = line.partition(" ")
            if word == "file":
                assert Path(rest).is_file(), line
            elif word == "sent":
                promised.add(tuple(rest.split()))  # type: ignore[arg-type]
        for place in ("images", "generic"):
            for path in (tmp_path / place).rglob("*.fits*"):
                if not path.name.endswith(".part"):
                    whole(path)
    assert len(promised) >= KILLS
    with receiver() as peer:
        outputs = made(tmp_path, peer.url)
        outputs.start()
        assert outputs.dispatcher.wait_idle(PATIENCE_S)
        outputs.close()
    got = {(headers["X-Nightglass-Expid"], headers["X-Nightglass-Frame"]) for headers in peer.headers}
    assert promised <= got
    assert not list((tmp_path / "run").rglob("*.fits"))
