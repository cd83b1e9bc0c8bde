"""The web application, asked over a real socket."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from nightglass.errors import Misconfigured, Retryable
from nightglass.monitor import (
    AstroPix4Monitor,
    Histogram1d,
    HistogramPanel,
    LivePicture,
    MapPanel,
    Picture,
    Series,
    SeriesPanel,
    TablePanel,
    run_monitor,
)
from nightglass.streams import DECODERS
from nightglass.web import Site, WebServer
from tests.unit.monitor.feeding import Came, Queue
from tests.unit.web.browser import Browser, chromium

PATIENCE_S = 120.0
needs_chromium = pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")


def a_picture(number: int) -> Picture:
    counts = Histogram1d(np.linspace(0, 10, 11), label="t [s]")
    counts.fill(np.arange(number % 10))
    image = np.add.outer(np.arange(20.0), np.arange(80.0))
    image[3, 3] = np.nan
    return Picture(
        title="Test <b>& picture</b>",
        message=f"picture {number}",
        panels=(
            HistogramPanel.of(counts, title="Times"),
            MapPanel(
                title="Sky",
                values=image,
                extent=(0, 80, 0, 20),
                x_label="x [px]",
                y_label="y [px]",
                value_label="flux [Jy]",
            ),
            SeriesPanel(
                title="Curve", series=(Series("a", (0, 1), (1, 2)), Series("b", (), ())), x_label="t", y_label="y"
            ),
            TablePanel(title="Table", columns=("name", "n"), rows=(("<i>one</i>", 1), ("two", 2.5))),
        ),
        counters={"hits": number},
        losses={"lost": 0, "gaps": 2},
        alarms=("something is wrong",),
        number=number,
        at=time.time(),
    )


@pytest.fixture
def live() -> LivePicture:
    made = LivePicture("test")
    made.publish(a_picture(1))
    return made


@pytest.fixture
def server(live: LivePicture) -> Iterator[WebServer]:
    with WebServer(Site(monitors={"test": live})) as started:
        yield started


def events(url: str, count: int, **options) -> list[dict]:
    found: list[dict] = []
    with httpx.stream("GET", url, timeout=PATIENCE_S, **options) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        for line in reply.iter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
                if len(found) == count:
                    break
    return found


def test_pages_and_pictures(server: WebServer, live: LivePicture) -> None:
    with httpx.Client(timeout=PATIENCE_S, base_url=server.url, follow_redirects=True) as client:
        home = client.get("/")
        assert home.url.path == "/monitor/test"
        assert "script-src 'self'" in home.headers["content-security-policy"]
        assert client.get("/static/draw.js").headers["content-type"].startswith("text/javascript")
        assert client.get("/v1/monitor/test/picture").json() == live.newest.as_json()
        assert client.get("/v1/monitors").json()["monitors"][0]["address"] == "/monitor/test"
        assert client.get("/v1/night").json()["night"] is None
        for path in (
            "/monitor/none",
            "/v1/monitor/none/events",
            "/static/application.py",
            "/static/..%2fguard.py",
            "/docs",
        ):
            assert client.get(path).status_code == 404, path


def test_several_viewers_see_every_new_picture(server: WebServer, live: LivePicture) -> None:
    found: dict[int, list[dict]] = {}
    url = f"{server.url}/v1/monitor/test/events"
    viewers = [threading.Thread(target=lambda who=who: found.update({who: events(url, 3)})) for who in range(5)]
    for viewer in viewers:
        viewer.start()
    end = time.monotonic() + PATIENCE_S
    for number in range(2, 400):
        if not any(viewer.is_alive() for viewer in viewers) or time.monotonic() > end:
            break
        live.publish(a_picture(number))
        time.sleep(0.1)
    for viewer in viewers:
        viewer.join(PATIENCE_S)
    assert len(found) == 5
    for seen in found.values():
        numbers = [picture["number"] for picture in seen]
        assert numbers == sorted(set(numbers))


def test_only_so_many_viewers_are_served(server: WebServer) -> None:
    url = f"{server.url}/v1/monitor/test/events"
    with httpx.Client(limits=httpx.Limits(max_connections=None), timeout=PATIENCE_S) as client:
        streams = [client.stream("GET", url) for _ in range(64)]
        replies = [stream.__enter__() for stream in streams]
        lines = [reply.iter_lines() for reply in replies]
        assert all(next(line) for line in lines)
        assert client.get(url).status_code == 503
        for stream in streams:
            stream.__exit__(None, None, None)
        end = time.monotonic() + PATIENCE_S
        while len(events_or_none(url)) != 1:
            assert time.monotonic() < end
            time.sleep(0.1)


def events_or_none(url: str) -> list[dict]:
    with httpx.stream("GET", url, timeout=PATIENCE_S) as reply:
        if reply.status_code != 200:
            return []
        return [json.loads(next(line for line in reply.iter_lines() if line.startswith("data: "))[6:])]


def test_a_reset_needs_the_header_that_no_foreign_page_sends(server: WebServer, live: LivePicture) -> None:
    url = f"{server.url}/v1/monitor/test/reset"
    assert httpx.post(url, timeout=PATIENCE_S).status_code == 403
    assert not live.take_reset()
    assert httpx.post(url, headers={"X-Nightglass": "reset"}, timeout=PATIENCE_S).status_code == 204
    assert live.take_reset()


def test_a_foreign_name_for_this_machine_gets_nothing(server: WebServer) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "10.0.0.1"):
        assert httpx.get(f"{server.url}/v1/monitors", headers={"Host": host}, timeout=PATIENCE_S).status_code == 403
    assert (
        httpx.get(f"{server.url}/v1/monitors", headers={"Host": "localhost:1"}, timeout=PATIENCE_S).status_code == 200
    )


def test_a_token_is_asked_for_and_becomes_a_cookie(live: LivePicture) -> None:
    with (
        WebServer(Site(monitors={"test": live}, token="s3cret")) as server,
        httpx.Client(timeout=PATIENCE_S, base_url=server.url) as client,
    ):
        assert client.get("/v1/monitors").status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        assert client.get("/v1/monitors", headers={"Authorization": "Bearer s3cret"}).status_code == 200
        welcome = client.get(f"{server.url}//evil.example/x?token=s3cret&a=1")
        assert welcome.status_code == 303
        assert welcome.headers["location"] == "/evil.example/x?a=1"
        assert "HttpOnly" in welcome.headers["set-cookie"]
        assert client.get("/v1/monitors").status_code == 200
        assert client.get("/v1/monitors", headers={"Host": "observatory.example"}).status_code == 200


def test_other_machines_are_served_only_with_a_token(live: LivePicture) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "observatory.example"):
        with pytest.raises(Misconfigured, match="no token"):
            WebServer(Site(monitors={"test": live}), host=host)


def test_a_port_that_is_taken_is_said_so(live: LivePicture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Retryable, match="--port"):
        WebServer(Site(monitors={"test": live}), port=taken.getsockname()[1])


@pytest.mark.timed
def test_it_ends_at_once_while_somebody_looks(live: LivePicture) -> None:
    before, looking = set(threading.enumerate()), threading.Event()

    def look(url: str) -> None:
        with suppress(httpx.HTTPError), httpx.stream("GET", url, timeout=PATIENCE_S) as reply:
            for _ in reply.iter_lines():
                looking.set()

    with WebServer(Site(monitors={"test": live})) as server:
        viewer = threading.Thread(target=look, args=(f"{server.url}/v1/monitor/test/events",))
        viewer.start()
        assert looking.wait(PATIENCE_S)
        began = time.monotonic()
    assert time.monotonic() - began < 4
    viewer.join(PATIENCE_S)
    assert not viewer.is_alive()
    assert not {thread for thread in threading.enumerate() if thread.name == "web"} - before


@needs_chromium
@pytest.mark.slow
def test_a_browser_draws_every_panel(server: WebServer, live: LivePicture, tmp_path: Path) -> None:
    with Browser() as browser:
        browser.open(server.url)
        assert browser.until("document.body?.dataset.number === '1'")
        live.publish(a_picture(7))
        browser.until("document.body.dataset.number === '7'")
        assert browser.evaluate("document.getElementById('title').textContent") == "Test <b>& picture</b>"
        assert browser.evaluate("document.getElementById('message').textContent") == "picture 7"
        assert browser.evaluate("document.querySelectorAll('.panel').length") == 4
        assert browser.evaluate("document.querySelector('td').textContent") == "<i>one</i>"
        assert browser.evaluate("document.querySelector('.loss.some').textContent") == "2gaps"
        assert browser.evaluate("document.querySelector('#alarms p').textContent") == "something is wrong"
        painted = """[...document.querySelectorAll('canvas')].map((canvas) => new Set(new Uint32Array(
            canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size)"""
        assert all(colours > 10 for colours in browser.evaluate(painted))
        decoded = "import('/static/draw.js').then((draw) => fetch('/v1/monitor/test/picture').then((r) => r.json())"
        decoded += ".then((p) => Array.from(draw.pixelsOf(p.panels[1])).map((v) => Number.isNaN(v) ? null : v)))"
        values = np.array(browser.evaluate(decoded), float).reshape(20, 80)
        expected = a_picture(7).panels[1].values  # type: ignore[union-attr]
        assert np.allclose(values, expected, atol=0.002, equal_nan=True)
        browser.evaluate("document.querySelector('h2 button').click()")
        browser.evaluate("document.getElementById('reset').click()")
        end = time.monotonic() + PATIENCE_S
        while not live.take_reset():
            assert time.monotonic() < end
            time.sleep(0.05)
        browser.screenshot(tmp_path / "page.png")
        assert browser.errors == []


@needs_chromium
@pytest.mark.slow
def test_a_running_monitor_is_seen_by_two_browsers(tmp_path: Path) -> None:
    live, stop = LivePicture("astropix"), threading.Event()
    feed = Queue(Came(DECODERS["astropix"].example(seed)) for seed in range(500))
    thread = threading.Thread(
        target=run_monitor, args=(AstroPix4Monitor("here"), feed, live), kwargs={"stop": stop, "refresh_s": 0.1}
    )
    thread.start()
    try:
        with WebServer(Site(monitors={"astropix": live})) as server, Browser() as one, Browser(scheme="light") as two:
            for browser in (one, two):
                browser.open(f"{server.url}/monitor/astropix")
                browser.until("document.getElementById('message')?.textContent.startsWith('here: 500 readouts')")
                assert browser.evaluate("document.getElementById('light').className") == "live"
            one.evaluate("document.getElementById('reset').click()")
            for browser in (one, two):
                browser.until("document.getElementById('message').textContent === 'here: 0 readouts, 0 hits'")
                assert browser.errors == []
    finally:
        stop.set()
        thread.join(PATIENCE_S)


def a_night() -> dict:
    return {
        "night": "20260821",
        "cameras": ["lynx"],
        "total": 12,
        "counts": {"reduced": 10, "failed": 1, "waiting": 1},
        "latency_s": {"p50": 0.61, "p95": 1.2},
        "lag": 3.0,
        "waiting": {},
        "errors": [
            {"state": "failed", "cause": "x", "reason": "no <b>dark</b>", "count": 1, "examples": ["/d/a.fits"]}
        ],
        "stages": [
            {"camera": "lynx", "stage": "midway", "due": "2026-08-22T03:00:00+00:00", "state": "done", "reason": ""}
        ],
        "disk": {"free_gib": 12.34, "total_gib": 100.0},
        "watches": [
            {
                "pid": 1,
                "phase": "watching",
                "cameras": ["lynx"],
                "queued": 1,
                "running": 2,
                "breaker": {"state": "closed"},
                "streams": [
                    {
                        "name": "sky",
                        "camera": "aartfaac",
                        "messages": 77,
                        "bytes": 2**20,
                        "files": 5,
                        "lag_s": 0.5,
                        "waiting": 0,
                        "lost": 3,
                        "dropped": 0,
                        "error": "",
                        "peers": [{"peer": "h:1", "state": "receiving"}],
                    }
                ],
                "builders": [
                    {
                        "name": "guider",
                        "role": "guide",
                        "camera": "generic",
                        "address": "http://127.0.0.1:8",
                        "last": 7,
                        "exposures": 2,
                        "frames": 5,
                        "unsaved": 0,
                    }
                ],
                "alarms": [{"subject": "disk", "text": "is filling"}],
                "cluster": {},
            }
        ],
        "prefect_ui": "http://127.0.0.1:4200",
        "archives": {},
        "recent": [
            {"exposure": "a", "kind": "science", "filter": "r", "latency_s": 0.5, "quality": "ok", "age_s": 3.0},
        ],
    }


@needs_chromium
@pytest.mark.slow
def test_the_page_of_the_night_shows_it(live: LivePicture, tmp_path: Path) -> None:
    there = {"name": "elsewhere", "address": "http://127.0.0.1:9/monitor/elsewhere"}
    site = Site(monitors={"test": live}, night=a_night, elsewhere=lambda: [there])
    with WebServer(site) as server, Browser() as browser:
        browser.open(server.url)
        browser.until("document.body?.dataset.number === '2'")
        text = browser.evaluate("document.body.innerText")
        for word in (
            "night 20260821 · lynx",
            "reduced 10",
            "0.61 s",
            "no <b>dark</b>",
            "a.fits",
            "disk: is filling",
            "12.3",
            "h:1 receiving",
        ):
            assert word in text
        links = browser.evaluate("[...document.querySelectorAll('td a')].map((link) => link.href)")
        there_too = ["http://127.0.0.1:9/monitor/elsewhere", "http://127.0.0.1:8/"]
        assert links == [f"{server.url}/monitor/test", *there_too]
        assert browser.errors == []
