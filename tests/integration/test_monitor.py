"""``nightglass monitor`` and ``serve`` as people use them: processes, sockets, a browser."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from nightglass.config import StreamSource
from nightglass.errors import Misconfigured
from nightglass.monitor import AartfaacMonitor, AstroPix4Monitor, LivePicture
from nightglass.monitor.streaming import monitor_stream
from nightglass.streams.astropix import RunSummary, decode_run, read_run
from tests.integration.sending import sending_readouts, serving_windows
from tests.ports import free_port
from tests.unit.web.browser import Browser, chromium

PATIENCE_S = 120.0
OWN = """
from dataclasses import dataclass

from nightglass.monitor import Histogram1d, HistogramPanel, Monitor, Picture


class Sizes(Monitor):
    title = "Sizes of readouts"

    def setup(self):
        self.sizes = Histogram1d(range(0, 200, 10), label="size [byte]")

    def process(self, message):
        self.sizes.fill(len(message.data))

    def update(self):
        panels = (HistogramPanel.of(self.sizes, title="Sizes"),)
        return Picture(title=self.title, message=f"{self.sizes.entries} sizes", panels=panels)
"""


@contextmanager
def command(root: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], Callable[[], str]]]:
    """Run a command; give the process and what waits for its first line. SIGTERM has to end it well."""
    environment = {**os.environ, "NIGHTGLASS_ROOT": str(root), "COLUMNS": "200"}
    with subprocess.Popen(
        [sys.executable, "-m", "deployments.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, errors
            assert "Traceback" not in errors


def until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def address_in(line: str) -> str:
    found = re.search(r"http://\S+", line)
    assert found, line
    return found[0]


@pytest.mark.slow
def test_windows_of_two_senders_are_shown_in_the_browser(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with ExitStack() as stack:
        ports = [stack.enter_context(serving_windows(frequency_hz=hertz)) for hertz in (7e6, 6e6)]
        source = "aartfaac://" + ",".join(f"127.0.0.1:{port}" for port in ports)
        _, line = stack.enter_context(command(tmp_path, "monitor", source, "--port", "0", "--refresh", "0.1"))
        page = address_in(line())
        pictures = page.replace("/monitor/", "/v1/monitor/") + "/picture"
        until(lambda: httpx.get(pictures, timeout=PATIENCE_S).json()["counters"].get("windows", 0) > 10)
        picture = httpx.get(pictures, timeout=PATIENCE_S).json()
        maps = [panel for panel in picture["panels"] if panel["kind"] == "map"]
        assert [panel["title"] for panel in maps] == ["6.000 MHz", "7.000 MHz"]
        assert maps[0]["value_label"] == "brightness [Jy/beam]"
        rms = float(maps[0]["note"].split()[1].strip(";"))
        assert rms == pytest.approx(2, rel=0.15)
        assert set(picture["losses"]) >= {"dropped here", "damaged bytes", "reconnects"}
        note = next((tmp_path / "run" / "monitors").glob("*.json"))
        assert page in note.read_text()
        if chromium():
            browser = stack.enter_context(Browser())
            browser.open(page)
            browser.until("Number(document.body?.dataset.number ?? 0) > 5")
            assert browser.evaluate("document.querySelectorAll('canvas').length") == 4
            assert browser.errors == []
    assert list((tmp_path / "run" / "monitors").iterdir()) == []


def test_lost_readouts_are_counted() -> None:
    port = free_port()
    source = StreamSource(name="pix", camera="", protocol="astropix", endpoints=(f"127.0.0.1:{port}",))
    live, monitor = LivePicture("pix"), AstroPix4Monitor("pix")
    with monitor_stream(monitor, source, live, refresh_s=0.05):
        until(lambda: ("127.0.0.1" in str(live.newest.panels)) and "receiving" in str(live.newest.panels))
        with sending_readouts(port, skip=frozenset({40, 41, 70}), most=300):
            until(lambda: live.newest.counters.get("last readout id") == 299)
    picture = live.newest
    assert picture.losses["readouts lost"] == 3
    assert picture.losses["lost before here"] == 3
    assert picture.losses["gaps"] == 2
    assert picture.losses["dropped here"] == 0
    assert picture.counters["hits"] == 2 * 297
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("monitor-", "receiver-"))]


def test_a_sender_that_is_away_is_told_of() -> None:
    port = free_port()
    source = StreamSource(name="sky", camera="", protocol="aartfaac", endpoints=(f"127.0.0.1:{port}",))
    live = LivePicture("sky")
    with monitor_stream(AartfaacMonitor(), source, live, refresh_s=0.05):
        until(lambda: any(f"127.0.0.1:{port}" in alarm for alarm in live.newest.alarms))


@pytest.mark.slow
def test_a_monitor_of_ones_own_on_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    port = free_port()
    arguments = ("monitor", f"astropix://127.0.0.1:{port}", "--text", "--with", f"{tmp_path / 'own.py'}:Sizes")
    with sending_readouts(port), command(tmp_path, *arguments) as (_, line):
        for _ in range(200):
            if re.search(r"[1-9]\d* sizes", line()):
                return
    pytest.fail("no picture with sizes")


@pytest.mark.slow
def test_the_screen_of_a_terminal_is_not_torn_by_log_lines(tmp_path: Path) -> None:
    away = free_port()
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 140, 0, 0))
    environment = {**os.environ, "NIGHTGLASS_ROOT": str(tmp_path), "TERM": "xterm-256color"}
    with subprocess.Popen(
        [sys.executable, "-m", "deployments.cli", "monitor", f"aartfaac://127.0.0.1:{away}", "--text"],
        stdin=there,
        stdout=there,
        stderr=there,
        env=environment,
    ) as process:
        os.close(there)
        shown, told = "", False
        limit = threading.Timer(PATIENCE_S, process.kill)
        limit.start()
        with suppress(OSError):  # the terminal goes when the process does
            while data := os.read(here, 65536):
                shown += data.decode(errors="replace")
                if f"127.0.0.1:{away}: " in shown and not told:
                    told = True
                    process.send_signal(signal.SIGINT)
        limit.cancel()
        os.close(here)
    assert process.returncode == 0
    assert "Nightglass" in shown
    assert "WARNING" not in shown
    assert "0 windows of 0 sub-bands" in shown.split("\x1b[?1049l")[-1]


@pytest.mark.slow
@pytest.mark.real
def test_a_real_run_as_a_file(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "astropix" / "20250723_092534_data.apx"
    summary = RunSummary()
    hits = sum(len(piece) for piece in decode_run(read_run(path, summary)[1], summary))
    with command(tmp_path, "monitor", str(path), "--port", "0") as (_, line):
        address = address_in(line()).replace("/monitor/", "/v1/monitor/")
        until(lambda: httpx.get(f"{address}/picture", timeout=PATIENCE_S).json()["counters"].get("hits") == hits)


@pytest.mark.slow
def test_serve_shows_the_night_and_named_monitors(tmp_path: Path) -> None:
    port = free_port()
    file = tmp_path / "observatory.toml"
    file.write_text(
        f'root = "{tmp_path / "root"}"\n[[streams]]\nname = "pix"\ncamera = "generic"\nprotocol = "astropix"\n'
        f'endpoints = ["127.0.0.1:{port}"]\n'
    )
    arguments = ("serve", "--config", str(file), "--port", "0", "--monitor", "pix")
    with sending_readouts(port), command(tmp_path / "root", *arguments) as (_, line):
        url = address_in(line()).rstrip("/")
        assert "no night" in httpx.get(f"{url}/v1/night", timeout=PATIENCE_S).json()["reason"]
        until(lambda: "hits" in httpx.get(f"{url}/v1/monitors", timeout=PATIENCE_S).json()["monitors"][0]["message"])
        assert "<title>Nightglass</title>" in httpx.get(url, timeout=PATIENCE_S).text
        assert httpx.get(f"{url}/monitor/pix", timeout=PATIENCE_S).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("monitor", "nowhere"), "neither a source nor a file"),
        (("monitor", "astropix://127.0.0.1:5007", "--host", "0.0.0.0"), "no token"),
        (("serve", "--host", "0.0.0.0"), "no token"),
        (("monitor", "astropix://127.0.0.1:5007", "--with", "nightglass.monitor:Picture"), "is no monitor"),
        (("monitor", "astropix://127.0.0.1:5007", "--with", "nothing"), "no monitor 'nothing'"),
    ],
)
def test_mistakes_are_said_at_once(
    arguments: tuple[str, ...], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deployments.cli.app import app

    monkeypatch.delenv("NIGHTGLASS_TOKEN", raising=False)
    with pytest.raises(Misconfigured, match=text):
        app([*arguments, "--root", str(tmp_path)], standalone_mode=False)
