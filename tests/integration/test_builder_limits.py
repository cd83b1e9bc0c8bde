"""What a server in front of image builders takes from whoever reaches its port, and what it does not."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from nightglass.web.intake import Doorkeeper
from tests.integration.building import Served, served

MINE = "Host: 127.0.0.1\r\nX-Nightglass: 1\r\n"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("builder")) as site:
        yield site


def asked(site: Served, *pieces: bytes) -> bytes:
    """Send pieces until nobody takes them any more, and return the answer."""
    host, _, port = site.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 30) as peer:
        answer = b""
        try:
            for piece in pieces:
                peer.sendall(piece)
            while got := peer.recv(65536):
                answer += got
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answer


def get(site: Served, *heads: str) -> bytes:
    lines = "".join(f"{head}\r\n" for head in (*heads, "Connection: close"))
    return asked(site, f"GET /v1/status HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_read_as_a_whole_is_small(here: Served, announced: bool) -> None:
    piece = b" " * (1 << 20)
    content: Any = piece * 64 if announced else iter([piece] * 64)
    address = f"{here.url}/v1/exposures/1/frames/0/assign"
    headers = {"X-Nightglass": "1", "Content-Type": "application/json"}
    try:
        answer = httpx.post(address, content=content, headers=headers, timeout=60)
    except httpx.WriteError:
        return  # it was cut off while it sent
    assert answer.status_code == 413
    assert "not an extension" in answer.json()["error"]


def test_a_head_without_an_end_is_cut_off(here: Served) -> None:
    begun = f"GET /v1/status HTTP/1.1\r\n{MINE}X-Long: ".encode()
    answer = asked(here, begun, *[b"a" * (1 << 20)] * 64)
    assert answer[:12] in (b"HTTP/1.1 431", b"")
    assert get(here, "Host: 127.0.0.1").startswith(b"HTTP/1.1 200")


def test_a_sender_that_falls_silent_is_taken_for_gone() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            seen.append(message["body"])

    async def receive() -> dict[str, Any]:
        if pieces:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": True}
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Any) -> None:
        raise AssertionError(message)

    seen: list[bytes] = []
    pieces = [b"a", b"b"]
    scope = {"type": "http", "method": "PUT", "path": "/v1/exposures/1/frames/0/extensions/A"}
    asyncio.run(asyncio.wait_for(Doorkeeper(app, silent_s=0.05)(scope, receive, send), 60))
    assert seen == [b"a", b"b"]


@pytest.mark.parametrize(
    "host",
    [
        *("evil.org", "127.0.0.1.evil.org", "foo_bar.evil.org", "127.0.0.1@evil.org", "evil.org@127.0.0.1", "["),
        *(
            "[::1",
            "a:b:c",
            "\xe9vil.org",
            "localhost:8140#evil.org",
            "127.0.0.1\\@evil.org",
            "",
            "127.0.0.1\r\nHost: evil.org",
        ),
    ],
)
def test_whoever_names_another_host_learns_nothing(here: Served, host: str) -> None:
    assert get(here, f"Host: {host}")[:12] in (b"HTTP/1.1 403", b"HTTP/1.1 400")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:80", "LOCALHOST", "[::1]:8140"])
def test_this_machine_has_several_names(here: Served, host: str) -> None:
    assert get(here, f"Host: {host}").startswith(b"HTTP/1.1 200")


def test_pages_of_others_are_not_answered_and_links_are(here: Served) -> None:
    others = "Host: 127.0.0.1", "Sec-Fetch-Site: cross-site"
    assert get(here, *others, "Sec-Fetch-Mode: no-cors").startswith(b"HTTP/1.1 403")
    assert get(here, *others, "Sec-Fetch-Mode: navigate").startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("method", "place", "content", "status"),
    [
        ("GET", "/v1/nothing", None, 404),
        ("POST", "/v1/status", None, 405),
        ("POST", "/v1/exposures/1/finalize", b"9" * 5000, 400),
        ("POST", "/v1/exposures/1/finalize", b"[" * 100_000, 400),
    ],
)
def test_every_error_has_the_same_form(
    here: Served, method: str, place: str, content: bytes | None, status: int
) -> None:
    headers = {"X-Nightglass": "1", "Content-Type": "application/json"}
    answer = httpx.request(method, f"{here.url}{place}", content=content, headers=headers)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "remedy", "kind"}


def test_who_knows_events_of_the_future_gets_those_of_now(here: Served) -> None:
    with here.client() as client:
        client.assign(2, 0, sources=["A"])
        event = next(client.events(10**17, most=1))
    assert event["number"] < 10**17


def test_only_so_many_listen_also_when_they_come_at_once(here: Served) -> None:
    host, _, port = here.url.removeprefix("http://").partition(":")
    with ExitStack() as stack:
        peers = [stack.enter_context(socket.create_connection((host, int(port)), 30)) for _ in range(100)]
        for peer in peers:
            peer.sendall(b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answers = [peer.recv(12) for peer in peers]
    assert answers.count(b"HTTP/1.1 200") == 64
    assert answers.count(b"HTTP/1.1 503") == 36

    def has_room() -> bool:
        return httpx.get(f"{here.url}/v1/events", params={"most": 0}, timeout=60).status_code == 200

    until(has_room)  # when they went away


def test_what_json_cannot_hold_is_null(here: Served, tmp_path: Path) -> None:
    path = tmp_path / "primary.fits"
    cards = ["SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    0"]
    cards += ["LARGE   =              1.0E999", "NOTHING =                     ", "END"]
    path.write_bytes("".join(card.ljust(80) for card in cards).ljust(2880).encode())
    with here.client() as client:
        client.push(3, 0, "PRIMARY", path)
        primary = client.frame(3, 0)["primary"]
        assert {name: primary[name] for name in ("LARGE", "NOTHING")} == {"LARGE": None, "NOTHING": None}
        json.dumps(client.get("exposure", expid=3, frame=0, extheader="PRIMARY"), allow_nan=False)


def test_who_says_nothing_costs_next_to_nothing(here: Served) -> None:
    host, _, port = here.url.removeprefix("http://").partition(":")
    before = resident_mib()
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection((host, int(port)), 30))
        assert get(here, "Host: 127.0.0.1").startswith(b"HTTP/1.1 200")  # they are accepted by now
        assert resident_mib() - before < 60


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@pytest.mark.parametrize("place", ["/frames/0/image", "/image", "/frames/0/picture"])
@pytest.mark.parametrize("read", [0, 5000])
def test_what_is_handed_out_goes_when_nobody_waits_for_it(here: Served, place: str, read: int) -> None:
    host, _, port = here.url.removeprefix("http://").partition(":")
    with here.client() as client:
        client.push(8, 0, "A", np.zeros((2000, 3000), np.uint16))
        client.build(8, 0)
        with socket.create_connection((host, int(port)), 30) as peer:
            peer.sendall(f"GET /v1/exposures/8{place} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            peer.recv(read) if read else until(lambda: handed_out(here))
        until(lambda: not handed_out(here))


def handed_out(site: Served) -> list[Path]:
    return list((site.root / "run").glob("handed-out-*/*"))


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
