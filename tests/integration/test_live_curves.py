"""Light curves that grow while a stream is reduced: soon after each time step, once, whatever happens to the watch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.config import load_camera
from nightglass.layout import Layout
from nightglass.ledger import Ledger
from nightglass.lightcurves import OUTLIER, light_curve_path, live_paths
from nightglass.model import Night, Quality, Stage, State
from nightglass.pool import SerialPool
from nightglass.postprocess import run_stage
from nightglass.simulate.streams import SkyBands, synthetic_sky
from nightglass.watch.curves import CurveDesk
from tests.integration.receiving import Sender, beat, entries_of, eventually, live, observatory, states
from tests.integration.test_streams_killed import receiving

pytestmark = pytest.mark.slow
BANDS = 2
NIGHT = Night("20261120")
CARDS = {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CRVAL1": 10.0, "CRVAL2": 52.0, "CRPIX1": 64.0, "CRPIX2": 64.0}


def sky() -> SkyBands:
    cards = CARDS | {"CDELT1": -0.1, "CDELT2": 0.1}
    began = datetime(2026, 11, 21, 1, tzinfo=UTC)
    return SkyBands(synthetic_sky((128, 128), sources=8), cards=cards, began=began, seed=1)


def send(senders: list[Sender], bands: SkyBands, steps: range) -> None:
    for step in steps:
        for band, sender in enumerate(senders):
            sender.send(bands(band, step))


def images_in(root: Path) -> list[tuple[int, str, str]]:
    """Return step, band and exposure of each image that is in; a table that is just being begun has none."""
    _, path = live_paths("aartfaac", NIGHT, Layout(root))
    with contextlib.suppress(OSError, IndexError), fits.open(path) as hdus:
        return list(zip(*(hdus[1].data[name].tolist() for name in ("step", "band", "exposure")), strict=True))
    return []


def table(path: Path, name: str) -> NDArray[np.void]:
    with fits.open(path, memmap=False) as hdus:
        rows = hdus[name].data
        columns = {column: np.asarray(rows[column]) for column in rows.names}  # text as text
    joined = np.zeros(len(rows), [(column, values.dtype.newbyteorder("=")) for column, values in columns.items()])
    for column, values in columns.items():
        joined[column] = values
    return joined


@contextlib.contextmanager
def make_senders() -> Iterator[list[Sender]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Sender())) for _ in range(BANDS)]


def test_they_grow_with_each_time_step_and_final_makes_the_same(tmp_path: Path) -> None:
    root, bands = tmp_path / "out", sky()
    with make_senders() as senders, Ledger.open(root / "ledger.sqlite") as ledger:
        settings = observatory(root, senders)
        with live(settings, ledger):
            for step in range(4):
                send(senders, bands, range(step, step + 1))
                eventually(lambda: len(images_in(root)) == BANDS * (step + 1), what="a step in")  # noqa: B023
        curves_path, images_path = live_paths("aartfaac", NIGHT, Layout(root))
        assert [(step, band) for step, band, _ in images_in(root)] == [
            (step, f"SB{band}") for step in range(4) for band in range(BANDS)
        ]
        camera = load_camera("aartfaac")
        assert run_stage(Stage.MIDWAY, NIGHT, camera, ledger=ledger, pool=SerialPool(), observatory=settings)
        final = light_curve_path("aartfaac", NIGHT, Layout(root))
        np.testing.assert_array_equal(table(final, "CURVES"), table(curves_path, "CURVES"))
        np.testing.assert_array_equal(table(final, "IMAGES"), table(images_path, "IMAGES"))
        curves = table(final, "CURVES")
        swinging = curves["source"][np.argmax(curves["v"])]
        rows = curves[(curves["source"] == swinging) & (curves["band"] == "SB0")]
        expected = 1 + 0.6 * np.sin(2 * np.pi * np.arange(4) / 12)
        np.testing.assert_allclose(rows["flux"] / rows["flux"][0], expected, rtol=0.2)
        assert not list(root.rglob("*.part"))
        assert run_stage(Stage.FINAL, NIGHT, camera, ledger=ledger, pool=SerialPool(), observatory=settings)
        assert len(table(final, "IMAGES")) == 4 * BANDS
        late = CurveDesk({"aartfaac": camera}, ledger=ledger, layout=Layout(root))
        late.start()
        late.note(entries_of(ledger))
        late.stop(hurry=lambda: False)
        assert sorted(path.name for path in final.parent.iterdir()) == [final.name]


@pytest.mark.parametrize("seed", range(2))
def test_what_a_watch_did_not_come_to_is_added_by_the_next_once(tmp_path: Path, seed: int) -> None:
    root, bands = tmp_path / "out", sky()
    with make_senders() as senders, Ledger.open(root / "ledger.sqlite") as ledger:
        settings = observatory(root, senders)
        with receiving(settings, tmp_path):
            send(senders, bands, range(2))
            eventually(lambda: len(images_in(root)) == 2 * BANDS, what="the first steps")
            send(senders, bands, range(2, 5))
            eventually(lambda: states(ledger).count(State.REDUCED) >= 3, what="more that is reduced")
            time.sleep(float(np.random.default_rng(seed).uniform(0, 1.5)))
        for sender in senders:
            sender.hang_up()
        with live(settings, ledger):
            send(senders, bands, range(5, 6))
            eventually(lambda: set(states(ledger)) == {State.REDUCED}, what=f"{states(ledger)}")
            eventually(
                lambda: {name for _, _, name in images_in(root)} == {item.exposure_id for item in entries_of(ledger)},
                what="all in",
            )
        found = images_in(root)
        assert len(found) == len({(band, name) for _, band, name in found})
        curves_path, images_path = live_paths("aartfaac", NIGHT, Layout(root))
        assert table(images_path, "IMAGES")["rows"][-1] == len(table(curves_path, "CURVES"))


def test_a_sub_band_that_comes_late_is_added_to_its_step(tmp_path: Path) -> None:
    root, bands = tmp_path / "out", sky()
    with make_senders() as senders, Ledger.open(root / "ledger.sqlite") as ledger:
        with live(observatory(root, senders), ledger):
            senders[0].send(bands(0, 0))
            eventually(lambda: len(images_in(root)) == 1, what="the first band")
            send(senders, bands, range(1, 2))
            eventually(lambda: len(images_in(root)) == 3, what="the next step")
            senders[1].send(bands(1, 0))
            eventually(lambda: len(images_in(root)) == 4, what="the late band")
        assert [(step, band) for step, band, _ in images_in(root)] == [(0, "SB0"), (1, "SB0"), (1, "SB1"), (0, "SB1")]
        assert {entry.revision for entry in entries_of(ledger)} == {1, 2}


def test_an_outlier_is_left_out_and_the_ledger_says_so(tmp_path: Path) -> None:
    root, bands = tmp_path / "out", sky()
    camera = load_camera("aartfaac")
    assert camera.lightcurves is not None
    short = camera.lightcurves.model_copy(update={"rms_history": 5, "rms_sigma": 10.0})
    camera = camera.model_copy(update={"lightcurves": short})
    loud = SkyBands(bands.plane(0, 0) * 0, cards=CARDS | {"CDELT1": -0.1, "CDELT2": 0.1}, began=bands._began, seed=3)
    loud._noise = loud._noise * 40
    with make_senders() as senders, Ledger.open(root / "ledger.sqlite") as ledger:
        settings = observatory(root, senders)
        with live(settings, ledger, cameras={"aartfaac": camera}):
            for step in range(6):
                send(senders, bands, range(step, step + 1))
                eventually(lambda: len(images_in(root)) == BANDS * (step + 1), what="a step in")  # noqa: B023
        for sender in senders:
            sender.hang_up()
        # the history survives the restart
        with live(settings, ledger, cameras={"aartfaac": camera}):
            senders[0].send(loud(0, 6))
            senders[1].send(bands(1, 6))
            eventually(lambda: len(images_in(root)) == BANDS * 7, what="the loud one")
            send(senders, bands, range(7, 8))
            eventually(lambda: len(images_in(root)) == BANDS * 8, what="the last one")
        curves_path, images_path = live_paths("aartfaac", NIGHT, Layout(root))
        troubles = table(images_path, "IMAGES")["trouble"].tolist()
        assert [bool(text) for text in troubles] == [False] * 12 + [True] + [False] * 3
        left = table(curves_path, "CURVES")
        assert set(left["band"][left["step"] == 6]) == {"SB1"}
        verdicts = [(entry.quality, entry.cause) for entry in entries_of(ledger)]
        assert verdicts == [(Quality.OK, "")] * 6 + [(Quality.WARNING, OUTLIER)] + [(Quality.OK, "")]
        assert "SB0: noise" in entries_of(ledger)[6].reason
        assert run_stage(Stage.MIDWAY, NIGHT, camera, ledger=ledger, pool=SerialPool(), observatory=settings)
        final = light_curve_path("aartfaac", NIGHT, Layout(root))
        np.testing.assert_array_equal(table(final, "CURVES"), left)
        assert entries_of(ledger)[6].cause == OUTLIER


def test_the_heart_beats_while_a_watch_waits_for_its_streams(tmp_path: Path) -> None:
    """The disk refuses the last file for a while, as one that is full does."""
    root, bands = tmp_path / "out", sky()
    directory = Layout(root).received("aartfaac", NIGHT, "sky")
    directory.parent.mkdir(parents=True)
    directory.write_text("a file where a directory is wanted")
    with make_senders() as senders, Ledger.open(root / "ledger.sqlite") as ledger:
        with live(observatory(root, senders), ledger) as watch:
            send(senders, bands, range(1))
            eventually(lambda: beat(root).streams[0]["error"], what="an error")
            watch.stop()
            eventually(lambda: beat(root).phase == "draining", what="the end begun")
            times = set[float]()

            def beaten() -> bool:
                assert beat(root).phase == "draining"
                times.add(beat(root).at)
                return len(times) > 3

            eventually(beaten, what="heartbeats")
            directory.unlink()
            eventually(lambda: beat(root).phase == "stopped", what="the end")
        assert len(entries_of(ledger)) == 1
