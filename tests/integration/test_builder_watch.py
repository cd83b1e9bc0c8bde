"""Image builders inside a real watch: pushed by HTTP, sighted, in the ledger, told of at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.builder.accounts import read_account
from nightglass.builder.client import Client
from nightglass.config import Observatory, load_camera, validate
from nightglass.ledger import FINAL_STATES, Ledger
from tests.integration.building import guide_pixels
from tests.integration.receiving import beat, entries_of, eventually, live

pytestmark = pytest.mark.slow
SOURCES = ("GUIDE0", "GUIDE2")
CAMERAS = {"generic": load_camera("generic")}


def site(root: Path) -> Observatory:
    values = {
        "root": str(root),
        "builders": [{"name": "guider", "camera": "generic", "preset": "guider", "sources": list(SOURCES)}],
        "web": {"port": 0},
    }
    return validate(Observatory, values, where="test")


def test_frames_reach_the_ledger_and_exposures_are_told_of(tmp_path: Path) -> None:
    root = tmp_path / "out"
    with Ledger.open(root / "ledger.sqlite") as ledger:
        with live(site(root), ledger, cameras=CAMERAS):
            eventually(lambda: beat(root).builders and beat(root).builders[0]["address"], what="the address")
            with Client(beat(root).builders[0]["address"], builder="guider") as client:
                for frame in range(3):
                    client.assign(17, frame)
                    for number, name in enumerate(SOURCES):
                        pixels = guide_pixels(10 * frame + number)
                        client.push(17, frame, name, pixels, header={"EXPTIME": 1.0}, source=name)
                    assert client.build(17, frame)["state"] == "built"
                eventually(lambda: len(entries_of(ledger)) == 3, what="three entries")
                client.finalize(17)
            eventually(lambda: beat(root).builders[0]["frames"] == 3, what="the heartbeat")
            eventually(lambda: list(root.rglob("reports/guider-00000017.json")) != [], what="the account")
            eventually(lambda: all(entry.state in FINAL_STATES for entry in entries_of(ledger)), what="the end")
        (path,) = root.rglob("reports/guider-00000017.json")
        told = read_account(path)
        assert (told.state, [frame.state for frame in told.frames]) == ("complete", ["built"] * 3)
        entries = entries_of(ledger)
        assert sorted(entry.ref.frame for entry in entries if entry.ref) == [0, 1, 2]
        assert len({entry.ref.parent for entry in entries if entry.ref}) == 1
        for frame, entry in enumerate(sorted(entries, key=lambda entry: entry.path)):
            with fits.open(entry.path, checksum=True) as hdus:
                for number, name in enumerate(SOURCES):
                    np.testing.assert_array_equal(hdus[name].data, guide_pixels(10 * frame + number))
    with Ledger.open(root / "ledger.sqlite") as ledger, live(site(root), ledger, cameras=CAMERAS):
        eventually(lambda: beat(root).builders and beat(root).builders[0]["address"], what="the address")
        with Client(beat(root).builders[0]["address"]) as client:
            assert client.exposure(17)["state"] == "complete"
        assert len(entries_of(ledger)) == 3
