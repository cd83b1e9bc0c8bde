"""Kill -9 of the process that receives, at any moment: what it acknowledged into the ledger is there, and whole."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.config import Observatory
from nightglass.ledger import Ledger
from nightglass.model import State
from nightglass.simulate.streams import synthetic_readouts
from nightglass.streams import find_protocol
from tests.integration.receiving import Sender, entries_of, eventually, live, observatory, states
from tests.ports import free_port

pytestmark = pytest.mark.slow
BANDS = 3
AARTFAAC = find_protocol("aartfaac")
PROGRAM = """
import sys
from pathlib import Path
from nightglass.config import Observatory, load_camera
from nightglass.ledger import Ledger
from nightglass.pool import SerialPool
from nightglass.watch import Watch
settings = Observatory.model_validate_json(Path(sys.argv[1]).read_text())
cameras = {stream.camera: load_camera(stream.camera) for stream in settings.streams}
with Ledger.open(settings.root / "ledger.sqlite") as ledger:
    Watch(settings, cameras, ledger, SerialPool()).run()
"""


@contextlib.contextmanager
def receiving(settings: Observatory, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    configuration = directory / "observatory.json"
    configuration.write_text(settings.model_dump_json())
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, str(configuration)], env=dict(os.environ))
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def killed_in_the_middle(child: subprocess.Popen[bytes], ledger: Ledger, send: Callable[[], None], seed: int) -> None:
    """Send until something is in the ledger, go on for a while, and kill."""
    rounds = 0
    while len(entries_of(ledger)) < 3:
        send()
        rounds += 1
        time.sleep(0.01)
        assert rounds < 6000
    end = time.monotonic() + float(np.random.default_rng(seed).uniform(0, 0.2))
    while time.monotonic() < end:
        send()
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()


def check_nothing_is_left_over(root: Path, pattern: str, ledger: Ledger) -> None:
    assert set(root.glob(pattern)) == {entry.path for entry in entries_of(ledger)}
    assert not list(root.rglob("*.part"))


@pytest.mark.parametrize("seed", range(3))
def test_time_steps_that_are_in_the_ledger_survive(tmp_path: Path, seed: int) -> None:
    root, sent = tmp_path / "out", [0]
    with contextlib.ExitStack() as stack:
        senders = [stack.enter_context(contextlib.closing(Sender())) for _ in range(BANDS)]

        def send() -> None:
            for band, sender in enumerate(senders):
                # the kernel takes some windows whether or not anybody reads them
                sender.send(AARTFAAC.encode(AARTFAAC.example(6 * sent[0] + band)))
            sent[0] += 1

        settings = observatory(root, senders)
        ledger = stack.enter_context(Ledger.open(root / "ledger.sqlite"))
        with receiving(settings, tmp_path) as child:
            killed_in_the_middle(child, ledger, send, seed)
        for sender in senders:
            sender.hang_up()
        acknowledged = {entry.path for entry in entries_of(ledger)}
        for path in acknowledged:
            with fits.open(path, checksum=True) as hdus:
                assert len(hdus) == BANDS + 1
        with live(settings, ledger):
            send()
            eventually(
                lambda: len(states(ledger)) > len(acknowledged) and set(states(ledger)) == {State.REDUCED},
                what="all reduced after the restart",
            )
        assert acknowledged < {entry.path for entry in entries_of(ledger)}
        check_nothing_is_left_over(root, "aartfaac/*/raw/sky/*.fits", ledger)


@pytest.mark.parametrize("seed", range(2))
def test_slices_of_hits_that_are_in_the_ledger_survive(tmp_path: Path, seed: int) -> None:
    root, port = tmp_path / "out", free_port()
    packets = synthetic_readouts(rate_hz=50.0, seed=seed)  # by their time stamps: a slice of a second has 50
    settings = observatory(
        root, [f"127.0.0.1:{port}"], name="hits", camera="astropix", protocol="astropix", slice_s=1.0, wait_s=0.1
    )
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

        def send() -> None:
            for _ in range(10):
                with contextlib.suppress(ConnectionRefusedError):  # nobody listens yet
                    out.sendto(next(packets), ("127.0.0.1", port))

        ledger = stack.enter_context(Ledger.open(root / "ledger.sqlite"))
        with receiving(settings, tmp_path) as child:
            killed_in_the_middle(child, ledger, send, seed)
        acknowledged = {entry.path: readouts_of(entry.path) for entry in entries_of(ledger)}
        assert any(acknowledged.values())
        with live(settings, ledger):

            def go_on() -> bool:
                send()
                return len(states(ledger)) > len(acknowledged) + 2 and State.REDUCED in states(ledger)

            eventually(go_on, what="new slices after the restart")
        for path, before in acknowledged.items():
            assert before <= readouts_of(path)
        check_nothing_is_left_over(root, "astropix/*/raw/hits/*.fits", ledger)


def readouts_of(path: Path) -> set[int]:
    with fits.open(path, checksum=True) as hdus:
        assert len(hdus["HITS"].data) == hdus[0].header["NHITS"]
        return {int(number) for number in hdus["READOUTS"].data["readout_id"]}
