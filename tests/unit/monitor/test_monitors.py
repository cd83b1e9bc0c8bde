"""The monitors that come along, against the numbers that went in."""

from __future__ import annotations

import base64
import csv
import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.stats import sigma_clip
from hypothesis import given
from hypothesis import strategies as st

from nightglass.monitor import (
    AartfaacMonitor,
    AstroPix4Monitor,
    HistogramPanel,
    MapPanel,
    Picture,
    TrafficMonitor,
    clipped_rms,
    monitor_for,
    shrink,
)
from nightglass.streams import DECODERS
from nightglass.streams.aartfaac import Window, WindowStatus, make_header
from nightglass.streams.astropix import HitDecoder, Readout, RunSummary, encode_readout, make_hits, read_run
from tests.unit.monitor.feeding import Came


def panel(picture: Picture, title: str):
    return next(one for one in picture.panels if one.title == title)


def pixels_of(plain: dict) -> np.ndarray:
    """Read a map as a page does."""
    codes = np.frombuffer(base64.b64decode(plain["data"]), "<u2").reshape(plain["shape"])
    values = plain["low"] + (plain["high"] - plain["low"]) * codes / 65534
    return np.where(codes == 65535, np.nan, values)


def made_readouts(count: int = 200):
    rng = np.random.default_rng(3)
    readouts, everything = [], []
    for number in range(count):
        size = int(rng.integers(0, 6))
        hits = make_hits(
            row=rng.integers(0, 32, size),
            column=rng.integers(0, 18, size),
            begin=rng.integers(0, 1 << 17, size),
            cycles=rng.integers(1, 12000, size),
            chip_id=rng.integers(0, 4, size),
        )
        everything.append(hits)
        readouts.append(encode_readout(hits, readout_id=number, timestamp_ns=number * 1000))
    return readouts, np.concatenate(everything)


def test_astropix_shows_every_hit_and_what_was_lost() -> None:
    readouts, hits = made_readouts()
    monitor = AstroPix4Monitor("127.0.0.1:5007")
    monitor.setup()
    kept = [Came(readout) for number, readout in enumerate(readouts) if number not in {50, 51, 120}]
    for start in range(0, len(kept), 7):
        monitor.process_many(kept[start : start + 7])
    picture = monitor.update()
    missing = {50, 51, 120}
    good = hits[~np.isin(hits_of(readouts), list(missing))]
    tot, where = panel(picture, "Time over threshold"), panel(picture, "Hit map")
    assert isinstance(tot, HistogramPanel)
    assert len(tot.contents) == 99
    assert (tot.edges[0], tot.edges[-1]) == (0, 500)
    expected, _ = np.histogram(good["tot_us"], np.linspace(0, 500, 100))
    assert tot.contents == tuple(expected)
    inside = good[good["column"] < 16]
    counts, _, _ = np.histogram2d(inside["row"], inside["column"], (np.arange(36) - 0.5, np.arange(17) - 0.5))
    assert np.array_equal(where.values, counts)
    assert where.values.shape == (35, 16)
    assert picture.counters["hits"] == len(good)
    assert picture.losses["readouts lost"] == 3
    assert picture.losses["gaps"] == 2
    assert picture.message == f"127.0.0.1:5007: {len(kept)} readouts, {len(good)} hits"
    monitor.setup()
    assert monitor.update().counters["hits"] == 0


def hits_of(readouts: list[Readout]) -> np.ndarray:
    monitor_hits = [np.full(len(decode(readout)), readout.readout_id) for readout in readouts]
    return np.concatenate(monitor_hits)


def decode(readout: Readout) -> np.ndarray:
    return HitDecoder().decode((readout,)).hits


def test_hits_cut_in_two_are_joined_for_each_sender_alone() -> None:
    hits = make_hits(row=[3], column=[4], begin=[100], cycles=[2000])
    whole = encode_readout(hits, readout_id=0, timestamp_ns=1, idle=0)
    first, second = (type(whole)(0, 1, whole.data[:4]), type(whole)(1, 2, whole.data[4:]))
    monitor = AstroPix4Monitor()
    monitor.setup()
    for message in (first, second):
        monitor.process_many([Came(message, peer="a"), Came(message, peer="b")])
    assert monitor.update().counters["hits"] == 2
    for number in range(100):
        monitor.process_many([Came(first, peer=f"stranger {number}")])
    assert monitor.update().message == "readouts: 104 readouts, 2 hits"


@pytest.mark.real
def test_the_real_run_shows_what_the_reference_table_holds(real_data: Path) -> None:
    source = real_data / "astropix"
    monitor = AstroPix4Monitor(columns=20, rows=40)
    monitor.setup()
    _, pieces = read_run(source / "20250723_092534_data.apx", RunSummary())
    for piece in pieces:
        monitor.process_many([Came(readout) for readout in piece])
    lines = (source / "20250723_092534_data.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    picture = monitor.update()
    assert picture.counters["hits"] == len(rows)
    expected, _ = np.histogram([float(row["tot_us"]) for row in rows], np.linspace(0, 500, 100))
    assert panel(picture, "Time over threshold").contents == tuple(expected)


def window(step: int, band: int, *, shape: tuple[int, int] = (300, 200), scale: float = 1.0) -> Window:
    rng = np.random.default_rng(step * 10 + band)
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=step)
    pixels = np.asfortranarray(rng.normal(scale=scale, size=shape).astype(np.float32))
    header = make_header(shape, timestamp=moment, frequency_hz=None, cards={"BUNIT": "Jy/beam"})
    return Window(header, pixels, moment, 6e6 + band * 5e5, WindowStatus.OK)


def image_label(picture: Picture) -> str:
    return panel(picture, "6.000 MHz").value_label


def test_aartfaac_shows_each_band_its_noise_and_its_lag() -> None:
    monitor = AartfaacMonitor("127.0.0.1:6666", pixels=64)
    monitor.setup()
    late = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=9, milliseconds=250)
    for step in range(10):
        monitor.process_many([Came(window(step, band), received_at=late) for band in (2, 0, 1)])
    monitor.process(Window("", np.full((20, 20), 5, np.float32), None, None, WindowStatus.NO_TIMESTAMP))
    picture = monitor.update()
    titles = [one.title for one in picture.panels if isinstance(one, MapPanel)]
    assert image_label(picture) == "brightness [Jy/beam]"
    assert titles[:3] == ["6.000 MHz", "6.500 MHz", "7.000 MHz"]
    image = panel(picture, "6.500 MHz")
    assert np.allclose(image.values, shrink(window(9, 1).pixels, most=64))
    assert image.extent == (0.5, 200.5, 0.5, 300.5)
    noise = panel(picture, "Noise").series[1]
    assert len(noise.y) == 10
    assert noise.y[-1] == pytest.approx(clipped_rms(window(9, 1).pixels))
    rows = {row[0]: row for row in panel(picture, "Sub-bands").rows}
    assert rows["6.500 MHz"][5] == pytest.approx(0.25)
    assert rows[""][-1] == "flat or empty"
    assert picture.losses["no timestamp"] == 1
    assert picture.counters["windows"] == 31
    json.loads(picture.to_text())


def test_more_bands_than_fit_are_told_of() -> None:
    monitor = AartfaacMonitor()
    monitor.setup()
    for band in range(80):
        monitor.process(window(0, band, shape=(8, 8)))
    picture = monitor.update()
    assert picture.counters["sub-bands"] == 64
    assert picture.alarms == ("16 windows of more than 64 sub-bands not shown",)


def test_noise_is_that_of_astropy_and_bright_sources_do_not_matter() -> None:
    image = np.random.default_rng(5).normal(size=(400, 400))
    image[200:203, 200:203] += 500
    middle = image[100:300, 100:300]
    expected = float(np.std(sigma_clip(middle, sigma=3, maxiters=8, cenfunc="median", stdfunc="std").compressed()))
    assert clipped_rms(image) == pytest.approx(expected, rel=1e-12)
    assert clipped_rms(image) == pytest.approx(1, rel=0.03)
    assert math.isnan(clipped_rms(np.full((10, 10), np.nan)))
    assert clipped_rms(np.ones((1, 1))) == 0


@pytest.mark.real
def test_a_real_sky_is_shown_as_it_is(real_data: Path) -> None:
    with fits.open(real_data / "radio_tkp" / "SWIFT_554620-130504.fits") as opened:
        pixels = np.squeeze(opened[0].data).astype(np.float32)
    monitor = AartfaacMonitor()
    monitor.setup()
    monitor.process(Window("", pixels, datetime(2026, 1, 1, tzinfo=UTC), 6e7, WindowStatus.OK))
    plain = panel(monitor.update(), "60.000 MHz").as_json()
    assert np.allclose(pixels_of(plain), shrink(pixels, most=128), rtol=0, atol=float(np.ptp(pixels)) / 60000)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.booleans())
def test_shrinking_keeps_the_mean_of_blocks(rows: int, columns: int, most: int, turned: bool) -> None:
    image = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    small = shrink(np.asfortranarray(image) if turned else image, most=most)
    assert max(small.shape) <= max(most, 1)
    step = math.ceil(max(rows, columns) / most)
    block = image[: min(step, rows), : min(step, columns)]
    assert small[0, 0] == pytest.approx(block.mean())


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=64), min_size=1, max_size=30))
def test_any_numbers_can_be_drawn(values: list[float]) -> None:
    image = np.array([values])
    plain = MapPanel(
        title="t", values=image, extent=(0, 1, 0, 1), x_label="", y_label="", value_label="", shown=(math.nan, 1)
    ).as_json()
    json.dumps(plain, allow_nan=False)
    finite = np.isfinite(image)
    back = np.frombuffer(base64.b64decode(plain["data"]), "<u2").reshape(plain["shape"])
    assert ((back == 65535) == ~finite).all()
    if finite.any():
        assert plain["low"] == image[finite].min()
        assert plain["high"] == image[finite].max()


def test_streams_without_a_monitor_of_their_own_are_watched_by_their_traffic() -> None:
    for name in DECODERS:
        monitor = monitor_for(name, "somewhere")
        monitor.setup()
        for _ in range(3):
            monitor.process_many([Came(DECODERS[name].example(seed), peer=f"p{seed % 3}") for seed in range(12)])
        picture = monitor.update()
        assert "somewhere: 36" in picture.message
        json.loads(picture.to_text())
    monitor = monitor_for("astropix-quad", "x")
    assert isinstance(monitor, TrafficMonitor)
