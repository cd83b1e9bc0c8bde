"""Hits of several chips in one stream: a hit map for each, reduced and archived as detectors of one exposure."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.config import Observatory
from nightglass.fitsio import read_product
from nightglass.ledger import Ledger
from nightglass.model import State
from nightglass.streams.astropix import encode_readout, make_hits
from tests.integration.receiving import beat, cube_of, entries_of, eventually, live, observatory, product_of, states
from tests.ports import free_port

pytestmark = pytest.mark.slow
CHIPS, ROWS, COLUMNS = 3, 20, 12
BEGAN_NS = 1_790_000_000_000_000_000


def receive(root: Path, **changes: object) -> tuple[Observatory, int]:
    port = free_port()
    stream = {"name": "hits", "camera": "astropix", "protocol": "astropix", "wait_s": 0.3} | changes
    return observatory(root, [f"127.0.0.1:{port}"], **stream), port


def test_each_chip_has_a_map(tmp_path: Path) -> None:
    root, rng = tmp_path / "out", np.random.default_rng(5)
    settings, port = receive(root, chips=CHIPS, hit_map=[ROWS, COLUMNS])
    expected, outside = np.zeros((CHIPS, ROWS, COLUMNS), np.uint32), 0
    with Ledger.open(root / "ledger.sqlite") as ledger:
        with live(settings, ledger), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            eventually(lambda: beat(root).streams[0]["peers"][0]["state"] == "receiving", what="a listener")
            for number in range(60):
                chip, row, column = rng.integers(0, (CHIPS + 1, ROWS + 2, COLUMNS + 2), (4, 3)).T
                hits = make_hits(row=row, column=column, begin=0, cycles=1000, chip_id=chip)
                readout = encode_readout(hits, readout_id=number, timestamp_ns=BEGAN_NS + number)
                sender.sendto(readout.to_bytes(), ("127.0.0.1", port))
                inside = (chip < CHIPS) & (row < ROWS) & (column < COLUMNS)
                np.add.at(expected, (chip[inside], row[inside], column[inside]), 1)
                outside += int(np.count_nonzero(~inside))
            eventually(lambda: beat(root).streams[0]["messages"] == 60, what="all readouts")
            eventually(lambda: states(ledger) == [State.REDUCED], what="the slice reduced")
        (entry,) = entries_of(ledger)
        names = [f"HITMAP{chip}" for chip in range(CHIPS)]
        with fits.open(entry.path, checksum=True) as hdus:
            hdus.verify("exception")
            assert (hdus[0].header["NHITS"], hdus[0].header["NOUTSIDE"]) == (240, outside)
            assert hdus[0].header["NEXTEND"] == len(hdus) - 1
            np.testing.assert_array_equal([hdus[name].data for name in names], expected)
        images = read_product(product_of(entry, ledger))
        assert [image.detector for image in images] == names
        np.testing.assert_array_equal([image.data for image in images], expected)
        with fits.open(cube_of(entry, ledger, settings), checksum=True) as cube:
            np.testing.assert_array_equal([np.squeeze(cube[name].data) for name in names], expected)
