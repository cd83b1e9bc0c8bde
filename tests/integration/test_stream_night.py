"""The benchmark of a night of a stream: its sender says exactly what it sent, and its short form loses nothing."""

from __future__ import annotations

import argparse
import socket
import threading

import pytest

from benchmarks.skysender import Sky, emulated
from benchmarks.stream_night import measure
from nightglass.streams.aartfaac import Window, WindowDecoder

SKY = Sky(bands=2, size=48, period_s=0.2)


def _receive(endpoint: str, windows: list[Window], first: threading.Event) -> None:
    host, _, port = endpoint.partition(":")
    decoder = WindowDecoder()
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        while data := connection.recv(1 << 16):
            windows += decoder.feed(data)
            if windows:
                first.set()


@pytest.mark.slow
def test_what_the_sender_says_it_sent_is_what_comes() -> None:
    received: list[list[Window]] = [[] for _ in range(SKY.bands)]
    first = threading.Event()
    with emulated(SKY) as sender:
        threads = [
            threading.Thread(target=_receive, args=(endpoint, windows, first))
            for endpoint, windows in zip(sender.endpoints, received, strict=True)
        ]
        for thread in threads:
            thread.start()
        sender.begin()
        assert first.wait(60)
        sent = sender.end()
        for thread in threads:
            thread.join(60)
    assert sent
    for windows in received:
        assert [window.timestamp for window in windows] == sent
    assert len({windows[0].frequency_hz for windows in received}) == SKY.bands


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_short_night_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = argparse.Namespace(seconds=6.0, warm_up=3.0, size=128, bands=3, period=1.0, dark=False)
    outcome = measure(arguments)
    said = capsys.readouterr().out
    assert outcome.whole, said
    assert outcome.lags, said
    assert "processor seconds for each step" in said
    assert "memory (PSS) in MiB over the time" in said
