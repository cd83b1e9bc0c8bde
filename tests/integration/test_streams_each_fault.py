"""Every fault of the emulator by itself, through a whole watch: it is survived, counted, and costs what it must.

What a fault costs is known from what the emulator says it sent; files hold exactly that.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.config import Observatory
from nightglass.ledger import Ledger
from nightglass.model import State
from nightglass.simulate.directory import write_directory
from nightglass.simulate.emulator import DatagramEmulator, StreamEmulator
from nightglass.simulate.faults import FaultPlan
from nightglass.simulate.hostile import tiny
from nightglass.simulate.streams import SkyBands, synthetic_readouts, synthetic_sky
from tests.integration.receiving import beat, entries_of, eventually, live, observatory, states
from tests.ports import free_port

pytestmark = pytest.mark.slow
BANDS, STEPS = 2, 12


def plan(fault: str, rate: float) -> FaultPlan:
    return FaultPlan(**{fault: rate}, stall_s=0.3, seed=3)


def windows(ledger: Ledger, sky: SkyBands) -> int:
    """Return how many windows are in files, each of which has the pixels that were sent."""
    count = 0
    for entry in entries_of(ledger):
        with fits.open(entry.path, checksum=True) as hdus:
            for hdu in hdus[1:]:
                band = [6e6, 6.5e6].index(hdu.header["RESTFRQ"])
                stamp = np.datetime64(hdu.header["DATE-OBS"]) - np.datetime64(sky._began.replace(tzinfo=None))
                step = round(stamp / np.timedelta64(1, "s"))
                np.testing.assert_array_equal(hdu.data, sky.plane(band, step))
                count += 1
    return count


@pytest.mark.parametrize("fault", ["late", "missing", "duplicate", "corrupt", "torn", "stalled", "dribbled"])
def test_of_a_sky(fault: str, tmp_path: Path) -> None:
    root, sky = tmp_path / "out", SkyBands(synthetic_sky((48, 64), sources=5), seed=1)
    with (
        StreamEmulator("127.0.0.1", (0,) * BANDS, sky, period_s=0, steps=STEPS, plan=plan(fault, 0.3)) as emulator,
        Ledger.open(root / "ledger.sqlite") as ledger,
    ):
        ports = [f"127.0.0.1:{port}" for port in emulator.ports]
        with live(observatory(root, ports, reconnect_s=60, wait_s=0.4), ledger):
            eventually(
                lambda: {peer["state"] for peer in beat(root).streams[0]["peers"]} == {"waiting"},
                what=f"the end of both connections: {beat(root).streams[0]['peers']}",
            )
        (state,), counts = beat(root).streams, emulator.counts
        assert counts[fault] > 0
        assert state["messages"] == counts["sent"] + counts["duplicate"]
        assert windows(ledger, sky) == counts["sent"]
        assert state["duplicates"] == counts["duplicate"]
        assert counts["sent"] + counts["missing"] + counts["corrupt"] + counts["torn"] == BANDS * STEPS
        assert (state["skipped"] > 0) == (fault in ("corrupt", "torn"))
        single = sum(len(fits.info(entry.path, output=False)) == 2 for entry in entries_of(ledger))
        assert single <= state["partial"] <= single + state["late"]


def test_of_a_sky_whose_senders_hang_up(tmp_path: Path) -> None:
    root, sky = tmp_path / "out", SkyBands(synthetic_sky((48, 64), sources=5), seed=1)
    with Ledger.open(root / "ledger.sqlite") as ledger:
        with StreamEmulator("127.0.0.1", (0,) * BANDS, sky, period_s=0.05, plan=plan("disconnected", 0.2)) as emulator:
            ports = [f"127.0.0.1:{port}" for port in emulator.ports]
            with live(observatory(root, ports, wait_s=0.4), ledger):
                eventually(
                    lambda: emulator.counts["disconnected"] > 3 and states(ledger).count(State.REDUCED) > STEPS,
                    what="some that hung up",
                )
        (state,) = beat(root).streams
        assert state["partial"] > 0
        assert windows(ledger, sky) == state["messages"] - state["duplicates"]


@pytest.mark.parametrize("fault", ["late", "missing", "duplicate", "corrupt", "torn", "stalled"])
def test_of_readouts(fault: str, tmp_path: Path) -> None:
    root, port, count = tmp_path / "out", free_port(), 300
    packets = list(synthetic_readouts(count=count, rate_hz=100.0, seed=2))
    settings = observatory(
        root, [f"127.0.0.1:{port}"], name="hits", camera="astropix", protocol="astropix", slice_s=1.0, wait_s=0.2
    )
    emulator = DatagramEmulator("127.0.0.1", port, rate_hz=3000, plan=plan(fault, 0.02 if fault == "stalled" else 0.2))
    with Ledger.open(root / "ledger.sqlite") as ledger:
        with live(settings, ledger):
            eventually(lambda: beat(root).streams[0]["peers"][0]["state"] == "receiving", what="a listener")
            emulator.run(packets)
            counts = emulator.counts
            whole = counts["sent"] + counts["duplicate"]
            eventually(lambda: beat(root).streams[0]["messages"] == whole, what=f"{whole} messages")
        (state,) = beat(root).streams
        headers, ids = [], list[int]()
        for entry in entries_of(ledger):
            with fits.open(entry.path, checksum=True) as hdus:
                headers.append(hdus[0].header.copy())
                ids += hdus["READOUTS"].data["readout_id"].tolist()
    assert counts[fault] > 0
    assert len(ids) == len(set(ids)) == counts["sent"]
    assert state["duplicates"] == counts["duplicate"] == sum(header["NDUPLIC"] for header in headers)
    lost = max(ids) - min(ids) + 1 - len(ids)
    assert state["lost"] == lost == sum(header["NLOST"] for header in headers)
    assert (lost > 0) == (fault in ("missing", "corrupt", "torn"))
    assert (state["skipped"] > 0) == (fault in ("corrupt", "torn"))
    assert sum(header["NLATE"] for header in headers) <= counts["late"]


@pytest.mark.parametrize("fault", ["late", "missing", "duplicate", "corrupt", "torn", "stalled"])
def test_of_a_directory(fault: str, tmp_path: Path) -> None:
    root, source, raw, count = tmp_path / "out", tmp_path / "source", tmp_path / "raw", 12
    source.mkdir()
    for number in range(count):
        (source / f"{number:02d}.fits").write_bytes(tiny(number=number + 1))
    watched = {"camera": "lynx", "directory": str(raw), "settle_s": 0.1, "transfer_timeout_s": 1.5}
    settings = Observatory.model_validate(
        {
            "root": root,
            "sources": [watched],
            "limits": {"free_disk_gib": 0},
            "reduction": {"quicklook": False},
        }
    )
    with Ledger.open(root / "ledger.sqlite") as ledger, contextlib.ExitStack() as stack:
        stack.enter_context(live(settings, ledger))
        counts = write_directory(source, raw, period_s=0.02, plan=plan(fault, 0.3), stopping=threading.Event())
        assert counts[fault] > 0
        expected = {str(path) for path in raw.iterdir()}
        eventually(lambda: {str(entry.path) for entry in ledger.entries()} == expected, what=f"{states(ledger)}")
        ends = Counter({State.REJECTED: counts["corrupt"] + counts["torn"], State.SKIPPED: counts["duplicate"]})
        ends[State.REDUCED] = len(expected) - ends.total()
        eventually(lambda: Counter(states(ledger)) == ends, what=f"{ends}")
