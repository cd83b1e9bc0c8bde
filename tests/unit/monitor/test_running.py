"""The loop that drives a monitor."""

from __future__ import annotations

import gc
import logging
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nightglass.monitor import (
    AartfaacMonitor,
    AstroPix4Monitor,
    FeedState,
    Histogram1d,
    HistogramPanel,
    LivePicture,
    Monitor,
    Picture,
    run_monitor,
)
from nightglass.monitor.recorded import FileFeed
from nightglass.sensors.recordings import Recorder
from nightglass.streams import DECODERS
from tests.unit.monitor.feeding import Came, Flood, Queue


class Plain(Monitor[int]):
    title = "Plain"

    def setup(self) -> None:
        self.seen: list[int] = []
        self.sizes = Histogram1d([0, 10, 20], label="n")

    def process(self, message: int) -> None:
        if message < 0:
            raise ValueError(message)
        self.seen.append(message)
        self.sizes.fill([message])

    def update(self) -> Picture:
        return Picture(title=self.title, panels=(HistogramPanel.of(self.sizes, title="n"),), message=str(self.seen))


@contextmanager
def running(monitor: Monitor, feed, live: LivePicture, **options) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=run_monitor, args=(monitor, feed, live), kwargs={"stop": stop, **options})
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(120)
        assert not thread.is_alive()


def until(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def test_every_message_is_processed_and_the_last_picture_shows_them() -> None:
    live = LivePicture("plain")
    feed = Queue(Came(number) for number in range(5))
    state = FeedState(losses={"dropped": 2}, alarms=("away",), peers=(("a", "connected"),))
    with running(Plain(), feed, live, refresh_s=0.01, state=lambda: state):
        until(lambda: live.newest.counters.get("messages") == 5)
    picture = live.newest
    assert picture.message == "[0, 1, 2, 3, 4]"
    assert picture.losses == {"dropped": 2}
    assert picture.alarms == ("away",)
    assert {"Traffic", "Peers"} <= {panel.title for panel in picture.panels}
    assert picture.rates["messages/s"] > 0


@pytest.mark.timed
def test_the_picture_is_renewed_at_its_interval_however_fast_the_stream_is() -> None:
    live = LivePicture("flood")
    feed = Flood(Came(DECODERS["astropix"].example(4)))
    with running(AstroPix4Monitor(), feed, live, refresh_s=0.1):
        assert live.wait(after=0, timeout_s=120) is not None
        began, first = time.monotonic(), live.newest.number
        time.sleep(2)
        made, passed = live.newest.number - first, time.monotonic() - began
    assert feed.taken > 10_000
    assert 3 <= made <= passed / 0.1 + 2


@pytest.mark.timed
@pytest.mark.slow
@pytest.mark.parametrize(("monitor", "protocol"), [(AstroPix4Monitor(), "astropix"), (AartfaacMonitor(), "aartfaac")])
def test_memory_stays_flat(monitor: Monitor, protocol: str) -> None:
    monitor.setup()
    messages = [Came(DECODERS[protocol].example(seed)) for seed in range(60)]

    def turn(times: int) -> int:
        for _ in range(times):
            monitor.process_many(messages)
            monitor.update().to_text()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = turn(40)
        assert turn(200) - before < 64 * 1024
    finally:
        tracemalloc.stop()


def test_a_monitor_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    live = LivePicture("plain")
    feed = Queue([Came(1), Came(-3), Came(-4)])
    monitor = Plain()
    monitor.batch = 1
    with caplog.at_level(logging.ERROR), running(monitor, feed, live, refresh_s=0.01):
        until(lambda: live.newest.counters.get("messages") == 3)
        feed.waiting.append(Came(7))
        until(lambda: live.newest.message == "[1, 7]")
    assert live.newest.alarms == ("the monitor failed 2 times, last with ValueError: -4",)
    assert len(caplog.records) == 1


def test_a_picture_that_cannot_be_shown_is_told_of() -> None:
    class Odd(Plain):
        def update(self) -> Picture:
            return Picture(title="odd", counters={"x": {1}})  # type: ignore[dict-item]

    live = LivePicture("odd")
    with running(Odd(), Queue(), live, refresh_s=0.01):
        until(lambda: bool(live.newest.alarms))
        assert "cannot be shown" in live.newest.alarms[0]
        assert "cannot be shown" in live.text()


def test_a_new_beginning_forgets_everything() -> None:
    live = LivePicture("plain")
    feed = Queue([Came(1), Came(2)])
    with running(Plain(), feed, live, refresh_s=0.01):
        until(lambda: live.newest.message == "[1, 2]")
        live.ask_reset()
        until(lambda: live.newest.message == "[]")
        assert live.newest.counters["messages"] == 0
        feed.waiting.append(Came(3))
        until(lambda: live.newest.message == "[3]")


def test_a_recording_is_seen_as_the_stream_was(tmp_path: Path) -> None:
    endpoints = ("127.0.0.1:6666", "127.0.0.1:6667")
    protocol = DECODERS["aartfaac"]
    with Recorder(tmp_path / "sky.rec", protocol="aartfaac", endpoints=endpoints) as recorder:
        for seed in range(12):
            wire = protocol.encode(protocol.example(seed))
            recorder.write(seed % 2, wire[:700])
            recorder.write(seed % 2, wire[700:] + (b"garbage" if seed == 11 else b""))
        recorder.write(1, b"")
    feed, live = FileFeed(tmp_path / "sky.rec"), LivePicture("sky")
    with running(AartfaacMonitor(), feed, live, refresh_s=0.01, state=feed.state):
        until(lambda: live.newest.losses.get("damaged bytes") == 7)
    assert feed.protocol.name == "aartfaac"
    assert live.newest.counters["windows"] == 12


def test_a_recording_that_was_cut_off_is_told_of(tmp_path: Path) -> None:
    with Recorder(tmp_path / "pix.rec", protocol="astropix", endpoints=("127.0.0.1:5007",)) as recorder:
        for seed in range(20):
            recorder.write(0, DECODERS["astropix"].encode(DECODERS["astropix"].example(seed)))
        recorder.write(0, b"nonsense")
    torn = (tmp_path / "pix.rec").read_bytes()[:-3]
    (tmp_path / "pix.rec").write_bytes(torn)
    feed, live = FileFeed(tmp_path / "pix.rec"), LivePicture("pix")
    with running(AstroPix4Monitor(), feed, live, refresh_s=0.01, state=feed.state):
        until(lambda: bool(live.newest.alarms) and live.newest.counters["last readout id"] == 19)
    assert "was cut off" in live.newest.alarms[0]


def test_a_viewer_waits_for_what_is_newer() -> None:
    live = LivePicture("plain")
    assert live.wait(after=0, timeout_s=0.01) is None
    threading.Timer(0.05, live.publish, [Picture(title="t", number=1)]).start()
    picture = live.wait(after=0, timeout_s=120)
    assert picture is not None
    assert picture.number == 1
    assert '"title":"t"' in live.text()
