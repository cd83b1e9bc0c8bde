"""The commands emulate, record and replay, as processes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightglass.config import Overflow
from nightglass.sensors import Backlog, ReceiverState
from nightglass.sensors.recordings import read_recording
from nightglass.simulate.hostile import tiny
from nightglass.simulate.streams import SkyBands, synthetic_sky
from tests.ports import free_port
from tests.unit.sensors.streams.site import PATIENCE_S, collect, running, source, until

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "deployments.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def interrupted(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, text
    return text


def backlog() -> Backlog[Any]:
    return Backlog(256 << 20, Overflow.BLOCK)


def test_a_sky_is_emulated_recorded_and_replayed(tmp_path: Path) -> None:
    port = free_port()
    path = tmp_path / "sky.rec"
    sky = ("--port", str(port), "--bands", "1", "--period", "0.2", "--size", "64", "--torn", "0.1")
    with command("emulate", "aartfaac", *sky) as emulator:
        with command("record", f"aartfaac://127.0.0.1:{port}", "-o", str(path)) as recorder:
            until(lambda: path.exists() and path.stat().st_size > 200_000)
            told = interrupted(recorder)
        assert "sent" in interrupted(emulator)
    assert "messages" in told
    recording = read_recording(path)
    assert recording.protocol == "aartfaac"
    other = f"127.0.0.1:{free_port()}"
    waiting = backlog()
    with (
        command("replay", str(path), "--speed", "0", "--endpoints", other) as player,
        running(source("aartfaac", other), waiting),
    ):
        found = collect(waiting, 8)
        assert player.wait(PATIENCE_S) == 0
    made = SkyBands(synthetic_sky((64, 64), seed=1), seed=1)
    steps = [round((item.message.timestamp - found[0].message.timestamp).total_seconds() / 0.2) for item in found]
    assert steps == sorted(set(steps))
    assert found[0].message.pixels.shape == made.plane(0, 0).shape
    assert all(np.isfinite(item.message.pixels).all() for item in found)


def test_readouts_are_emulated_with_faults() -> None:
    port = free_port()
    waiting = backlog()
    with running(source("astropix", f"127.0.0.1:{port}"), waiting) as (receiver,):
        until(lambda: receiver.status.state is ReceiverState.RECEIVING)
        options = ("--port", str(port), "--count", "500", "--rate", "2000", "--missing", "0.1", "--corrupt", "0.1")
        with command("emulate", "astropix", *options) as emulator:
            text, _ = emulator.communicate(timeout=PATIENCE_S)
        counts = dict(zip(text.split()[-6::2], map(int, text.split()[-5::2]), strict=True))
        found = collect(waiting, counts["sent"])
        until(lambda: receiver.status.faults.get("BAD_MAGIC") == counts["corrupt"])
        losses = receiver.status.losses
    assert losses is not None
    assert counts["sent"] + counts["missing"] + counts["corrupt"] == 500
    ids = [item.message.readout_id for item in found]
    assert losses.lost == ids[-1] - ids[0] + 1 - len(ids) > 50


def test_files_are_emulated(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for number in range(3):
        (tmp_path / "source" / f"{number}.fits").write_bytes(tiny(number=number + 1))
    with command(
        "emulate", "directory", str(tmp_path / "source"), str(tmp_path / "there"), "--period", "0"
    ) as emulator:
        text, _ = emulator.communicate(timeout=PATIENCE_S)
    assert emulator.returncode == 0
    assert "sent 3" in text
    assert [path.name for path in sorted((tmp_path / "there").iterdir())] == ["0.fits", "1.fits", "2.fits"]


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.rec").write_text("hello")
    for arguments in (("record", "lofar://a:1", "-o", str(tmp_path / "x")), ("replay", str(tmp_path / "no.rec"))):
        with command(*arguments) as process:
            text, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode in (1, 2)
        assert text.startswith("nightglass: ")
        assert text.count("\n") == 1
