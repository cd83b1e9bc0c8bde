"""Streams through a real watch: from a socket to the ledger, reduced and archived."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.fitsio import read_product
from nightglass.ledger import Ledger
from nightglass.model import ProductKind, State
from nightglass.streams import find_protocol
from nightglass.streams.aartfaac import Window, encode_window
from tests.integration.receiving import Sender, beat, entries_of, eventually, live, observatory, states

pytestmark = pytest.mark.slow
BANDS = 3


@pytest.fixture
def senders() -> Iterator[list[Sender]]:
    found = [Sender() for _ in range(BANDS)]
    yield found
    for sender in found:
        sender.close()


def window(band: int, step: int) -> Window:
    found = find_protocol("aartfaac").example(6 * step + band)
    assert isinstance(found, Window)
    pixels = np.random.default_rng(6 * step + band).normal(size=(64, 48)).astype(np.float32)
    header = fits.Header.fromstring(found.header)
    header["NAXIS1"], header["NAXIS2"] = 48, 64
    return replace(found, header=header.tostring(), pixels=pixels)


def send(senders: list[Sender], bands: range, step: int) -> None:
    for band in bands:
        item = window(band, step)
        senders[band].send(encode_window(item.header, item.pixels))


def test_time_steps_are_reduced_and_the_last_is_written_at_the_end(tmp_path: Path, senders: list[Sender]) -> None:
    root = tmp_path / "out"
    with Ledger.open(root / "ledger.sqlite") as ledger:
        with live(observatory(root, senders, wait_s=30.0), ledger):
            for step in range(3):
                send(senders, range(BANDS), step)
            eventually(lambda: states(ledger) == [State.REDUCED] * 3, what=f"{states(ledger)}")
            eventually(lambda: beat(root).streams[0]["files"] == 3, what="heartbeat")
            (state,) = beat(root).streams
            assert (state["messages"], state["lost"], state["dropped"], state["partial"]) == (9, 0, 0, 0)
            send(senders, range(1), 3)
            eventually(lambda: beat(root).streams[0]["messages"] == 10, what="the tenth")
        entries = entries_of(ledger)
        assert len(entries) == 4
        assert entries[-1].state in (State.COMPLETE, State.GROUPED, State.REDUCED)
        with fits.open(entries[-1].path, checksum=True) as hdus:
            assert [hdu.name for hdu in hdus] == ["PRIMARY", "SB0"]
        for step, entry in enumerate(entries[:3]):
            products = ledger.products(entry.night, "aartfaac")
            (product,) = [
                item for item in products if item.key == entry.exposure_id and item.kind is ProductKind.REDUCED
            ]
            for band, image in enumerate(read_product(product.path)):
                np.testing.assert_array_equal(image.data, window(band, step).pixels)
                assert image.detector == f"SB{band}"


def test_a_late_sub_band_makes_a_revision_of_its_file(tmp_path: Path, senders: list[Sender]) -> None:
    root = tmp_path / "out"
    with Ledger.open(root / "ledger.sqlite") as ledger, live(observatory(root, senders), ledger):
        send(senders, range(BANDS - 1), 0)
        eventually(lambda: states(ledger) == [State.REDUCED], what="in part")
        eventually(lambda: beat(root).streams[0]["partial"] == 1, what="heartbeat")
        send(senders, range(BANDS - 1, BANDS), 0)
        eventually(
            lambda: [(entry.revision, entry.state) for entry in entries_of(ledger)] == [(2, State.REDUCED)],
            what="the revision",
        )
        (entry,) = entries_of(ledger)
        with fits.open(entry.path, checksum=True) as hdus:
            assert [hdu.name for hdu in hdus[1:]] == ["SB0", "SB1", "SB2"]
        eventually(lambda: beat(root).streams[0]["late"] == 1, what="heartbeat of the revision")


def test_a_sender_that_hangs_up_is_connected_to_again(tmp_path: Path, senders: list[Sender]) -> None:
    root = tmp_path / "out"
    with Ledger.open(root / "ledger.sqlite") as ledger, live(observatory(root, senders), ledger):
        send(senders, range(BANDS), 0)
        eventually(lambda: len(entries_of(ledger)) == 1, what="the first")
        senders[1].send(b"garbage" * 100)
        senders[1].hang_up()
        send(senders, range(BANDS), 1)
        eventually(lambda: states(ledger) == [State.REDUCED] * 2, what="the second")
        with fits.open(entries_of(ledger)[1].path) as hdus:
            assert len(hdus) == BANDS + 1


def test_silence_is_an_alarm(tmp_path: Path, senders: list[Sender]) -> None:
    root, told = tmp_path / "out", list[str]()
    settings = observatory(root, senders, silence_alarm_s=0.5)
    with Ledger.open(root / "ledger.sqlite") as ledger, live(settings, ledger, told):
        eventually(lambda: any("Stream sky is silent" in line for line in told), what=f"{told}")
        send(senders, range(BANDS), 0)
        eventually(lambda: beat(root).streams[0]["messages"] == BANDS, what="messages")
        eventually(lambda: len(entries_of(ledger)) == 1, what="the file")
