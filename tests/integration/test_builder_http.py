"""The interface of the image builder, asked over a real socket: by curl, by the client, and by bare bytes."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from astropy.io import fits

from nightglass.builder.client import Client
from nightglass.errors import Misconfigured, Rejected, Retryable
from tests.integration.building import Served, guide_pixels, receiving, served


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "root", {"name": "guider", "preset": "guider", "timeout_s": 60.0}) as found:
        yield found


@pytest.fixture
def client(here: Served) -> Iterator[Client]:
    with here.client() as found:
        yield found


def curl(*arguments: str, cwd: Path) -> Any:
    """Make one request as a person would; JSON where the answer is."""
    done = subprocess.run(
        ["curl", "-sS", "--fail-with-body", "--max-time", "60", "-H", "X-Nightglass: 1", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(arguments)}: {done.stdout} {done.stderr}"
    return json.loads(done.stdout) if done.stdout else None


def test_curl_alone_drives_a_whole_exposure(here: Served, tmp_path: Path) -> None:
    api, as_json = f"{here.url}/v1", ("-H", "Content-Type: application/json")
    planes = {name: [guide_pixels(10 * number + frame) for frame in range(3)] for number, name in enumerate("AB")}
    for frame in range(3):
        place = f"{api}/exposures/17/frames/{frame}"
        body = json.dumps({"sources": ["A", "B"], "header": {"TILEID": [80605, "tile"]}})
        assert curl(*as_json, "-X", "POST", f"{place}/assign", "-d", body, cwd=tmp_path)["state"] == "open"
        fits.PrimaryHDU(planes["A"][frame], fits.Header({"EXPTIME": 1.5})).writeto(tmp_path / f"a{frame}.fits")
        pushed = ("-H", "Content-Type: application/fits", "-T", f"a{frame}.fits")
        assert curl(*pushed, f"{place}/extensions/A?source=A", cwd=tmp_path)["shape"] == [64, 96]
        (tmp_path / "b.raw").write_bytes(planes["B"][frame].astype("<u2").tobytes())
        header = json.dumps({"dtype": "uint16", "shape": [64, 96], "EXPTIME": [1.5, "seconds"]})
        if frame % 2:
            pushed = ("-X", "PUT", "-F", f"header={header}", "-F", "data=@b.raw")
        else:
            pushed = (
                *("-H", "Content-Type: application/octet-stream"),
                *("-H", f"X-Nightglass-Header: {header}", "-T", "b.raw"),
            )
        curl(*pushed, f"{place}/extensions/B?source=B", cwd=tmp_path)
        wait = json.dumps({"sources": ["A", "B"], "wait_s": 30})
        assert curl(*as_json, "-X", "POST", f"{place}/build", "-d", wait, cwd=tmp_path)["state"] == "built"
    body = json.dumps({"overwrite": True, "extra_headers": {"OBSERVER": "Ann"}})
    (written,) = curl(*as_json, "-X", "POST", f"{api}/exposures/17/frames/1/write", "-d", body, cwd=tmp_path)["files"]
    assert fits.getheader(written)["OBSERVER"] == "Ann"
    curl("-o", "image.fits", f"{api}/exposures/17/frames/1/image", cwd=tmp_path)
    with fits.open(tmp_path / "image.fits", checksum=True) as image:
        assert np.array_equal(image["A"].data, planes["A"][1])
        assert image[0].header["TILEID"] == 80605
    assert curl("-X", "POST", f"{api}/exposures/17/finalize", cwd=tmp_path)["state"] == "complete"
    curl(*as_json, "-X", "POST", f"{api}/exposures/17/archive", "-d", '{"wait": true}', cwd=tmp_path)
    curl("-o", "cube.fits", f"{api}/exposures/17/archive", cwd=tmp_path)
    with fits.open(tmp_path / "cube.fits", checksum=True) as cube:
        assert cube[0].header["FRAMES"] == 3
        for name, frames in planes.items():
            assert np.array_equal(cube[name].data, np.array(frames))
            assert list(cube[f"{name}T"].data["EXPTIME"]) == [1.5] * 3
    assert curl(f"{api}/exposures/17", cwd=tmp_path)["state"] == "archived"


def test_a_body_is_in_the_spool_when_it_is_acknowledged_and_twice_is_once(here: Served, client: Client) -> None:
    client.assign(1, 0, sources=["A", "B"])
    first = client.push(1, 0, "a", guide_pixels(), header={"EXPTIME": 1.0}, source="A")
    assert (first["name"], first["shape"], first["duplicate"]) == ("A", [64, 96], False)
    assert client.push(1, 0, "A", guide_pixels(), header={"EXPTIME": 1.0}, source="A")["duplicate"]
    (file,) = here.root.rglob("A.*.fits")
    assert np.array_equal(fits.getdata(file), guide_pixels())
    assert list(here.root.rglob("*.part")) == []
    with pytest.raises(Rejected, match="A"):
        client.push(1, 0, "A", guide_pixels(1), source="A")
    assert not client.push(1, 0, "A", guide_pixels(1), source="A", clobber=True)["duplicate"]
    assert client.frame(1, 0)["missing"] == ["B"]
    assert list(here.root.rglob("*.part")) == []


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "u4", "f4", "f8", ">u2", ">f4"])
def test_bare_pixels_of_every_type_come_back_as_they_were(
    here: Served, client: Client, kind: str, tmp_path: Path
) -> None:
    pixels = (np.random.default_rng(1).normal(size=(33, 41)) * 100).astype(kind)
    client.assign(1, 0, sources=["A"])
    client.push(1, 0, "A", pixels, source="A")
    data = fits.getdata(client.get_extension(tmp_path / "a.fits", 1, 0, "A"))
    assert np.array_equal(data, pixels)


def ask(here: Served, method: str, place: str, **more: Any) -> httpx.Response:
    headers = {"X-Nightglass": "1", **more.pop("headers", {})}
    return httpx.request(method, f"{here.url}/v1{place}", headers=headers, timeout=30, **more)


@pytest.mark.parametrize(
    ("method", "place", "body", "status", "about"),
    [
        ("GET", "/exposures/3", None, 404, "3"),
        ("GET", "/exposures/1/frames/7", None, 404, "7"),
        ("GET", "/exposures/1/frames/0/extensions/NONE", None, 404, "NONE"),
        ("POST", "/exposures/1/frames/0/write", {"clober": True}, 422, "did you mean 'clobber'"),
        ("POST", "/exposures/123456789/frames/0/assign", {}, 422, "expid"),
        ("POST", "/exposures/1/frames/10000/assign", {}, 422, "frame"),
        ("PATCH", "/config", {"local_cop": True}, 422, "local_copy"),
        ("PATCH", "/config", {"expsure_ready_mode": "fits"}, 422, "exposure_ready_mode"),
        ("PATCH", "/config", {"add_frame": "perhaps"}, 422, "add_frame"),
        ("GET", "/get/statos", None, 422, "status"),
        ("DELETE", "/hooks/none", None, 404, "none"),
    ],
)
def test_what_makes_no_sense_is_answered_with_what_to_do(
    here: Served, client: Client, method: str, place: str, body: Any, status: int, about: str
) -> None:
    client.assign(1, 0, sources=["A"])
    answer = ask(here, method, place, json=body)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert about in problem["error"] + problem["remedy"]
    assert problem["kind"]


def test_a_body_that_is_too_large_is_refused_before_it_comes(tmp_path: Path) -> None:
    with served(tmp_path, {"name": "small", "max_body_bytes": 100_000}) as here:
        parts = urlsplit(here.url)
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            lines = ("PUT /v1/exposures/1/frames/0/extensions/A HTTP/1.1", "Host: 127.0.0.1", "X-Nightglass: 1")
            head = "\r\n".join([*lines, "Content-Type: application/fits", "Content-Length: 99999999999", "", ""])
            connection.sendall(head.encode())
            connection.settimeout(30)
            assert connection.recv(64).startswith(b"HTTP/1.1 413")
        endless = (bytes(65536) for _ in range(1000))  # chunked: nobody says how much will come
        answer = ask(here, "PUT", "/exposures/1/frames/0/extensions/A", content=endless)
        assert answer.status_code == 413
        assert list(tmp_path.rglob("*.part")) == []
        assert here.builder.spool.held == 0


def test_a_sender_that_goes_away_leaves_nothing(here: Served, client: Client) -> None:
    client.assign(1, 0, sources=["A"])
    parts = urlsplit(here.url)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        lines = ("PUT /v1/exposures/1/frames/0/extensions/A HTTP/1.1", "Host: 127.0.0.1", "X-Nightglass: 1")
        head = "\r\n".join([*lines, "Content-Type: application/fits", "Content-Length: 8000000", "", ""])
        connection.sendall(head.encode() + bytes(4_000_000))
        until(lambda: list(here.root.rglob("*.part")) != [])
    until(lambda: list(here.root.rglob("*.part")) == [])
    assert client.frame(1, 0)["extensions"] == []


@pytest.mark.parametrize(
    ("content", "kind", "header", "status"),
    [
        (b"\x80\x04\x95pickled", "application/python-pickle", None, 415),
        (b"\x80\x04\x95pickled", "application/fits", None, 422),
        (bytes(100), "application/octet-stream", None, 422),
        (bytes(100), "application/octet-stream", {"dtype": "uint16", "shape": [6, 10]}, 422),
        (bytes(100), "application/octet-stream", {"dtype": "object", "shape": [5, 10]}, 422),
        (bytes(100), "application/octet-stream", {"dtype": "uint16", "shape": [-5, -10]}, 422),
        (bytes(100), "application/octet-stream", {"BITPIX": 16, "NAXIS1": 10**12, "NAXIS2": 10**12}, 422),
        (bytes(100), "application/octet-stream", {"BITPIX": 16, "NAXIS1": 10, "NAXIS2": 5, "bad key!": 1}, 422),
        (b"x" * 100, "multipart/form-data; boundary=b", None, 422),
        (b"", "multipart/form-data", None, 422),
    ],
)
def test_a_body_that_is_not_what_it_says_is_refused(
    here: Served, client: Client, content: bytes, kind: str, header: Any, status: int
) -> None:
    client.assign(1, 0, sources=["A"])
    headers = {"Content-Type": kind} | ({"X-Nightglass-Header": json.dumps(header)} if header else {})
    answer = ask(here, "PUT", "/exposures/1/frames/0/extensions/A", content=content, headers=headers)
    assert answer.status_code in {status, 413} if header else answer.status_code == status, answer.text
    assert list(here.root.rglob("*.part")) == []
    assert client.frame(1, 0)["extensions"] == []


def test_events_come_as_they_happen_and_from_where_somebody_left_off(client: Client) -> None:
    heard: list[dict[str, Any]] = []
    listener = threading.Thread(target=lambda: heard.extend(client.events(0, most=3)))
    listener.start()
    client.assign(1, 0, sources=["A"])
    client.push(1, 0, "A", guide_pixels(), source="A")
    assert client.build(1, 0, sources=["A"])["state"] == "built"
    client.finalize(1)
    listener.join(30)
    numbers = [event["number"] for event in heard]
    assert len(heard) == 3
    assert numbers == sorted(set(numbers))
    (after,) = client.events(numbers[0], most=1)
    assert after == heard[1]
    everything = client.events(0)
    seen = next(event for event in everything if event["name"] == "frame" and event.get("state") == "built")
    assert (seen["expid"], seen["frame"]) == (1, 0)


def test_whoever_waits_holds_up_nobody(here: Served, client: Client) -> None:
    def wait(frame: int) -> None:
        with here.client() as own:
            own.build(1, frame, sources=["A"], wait_s=100.0)

    waiting = [threading.Thread(target=wait, args=(frame,), daemon=True) for frame in range(50)]
    for thread in waiting:
        thread.start()
    until(lambda: len(client.exposures()) == 1 and len(client.exposure(1)["frames"]) == 50)
    began = time.monotonic()
    for frame in range(50):
        client.push(1, frame, "A", guide_pixels(frame), source="A")
    for thread in waiting:
        thread.join(120)
    assert not any(thread.is_alive() for thread in waiting)
    assert time.monotonic() - began < 90


def test_the_client_tells_of_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", timeout_s=5) as client, pytest.raises(Retryable, match="does not answer"):
        client.status()


def test_two_builders_have_addresses_of_their_own(tmp_path: Path) -> None:
    with served(tmp_path, {"name": "guider"}, {"name": "focus", "camera": "lynx", "preset": "focus"}) as here:
        names = [entry["name"] for entry in ask(here, "GET", "/builders").json()["builders"]]
        assert names == ["guider", "focus"]
        with here.client("focus") as focus, here.client() as first:
            focus.assign(1, 0, sources=["A"])
            assert [view["expid"] for view in focus.exposures()] == [1]
            assert first.exposures() == []
            assert focus.config()["module"] == "FOCUS"


def test_an_address_that_is_none_is_told_so(here: Served) -> None:
    with here.client("gider") as wrong, pytest.raises(Rejected, match="did you mean 'guider'"):
        wrong.status()
    for path, words in (("/v1/exposure/1", "Not Found"), ("/v1/builders/guider/exposure", "no address 'exposure'")):
        answer = httpx.get(f"{here.url}{path}")
        assert answer.status_code == 404
        assert words in answer.json()["error"]
        assert answer.json()["remedy"] == "see /v1/docs"
    put = {"X-Nightglass": "1"}
    for content, headers, words in (
        ("{sources}", {"Content-Type": "application/json"}, "the body is no JSON"),
        ("{}", {}, "only with the header Content-Type: application/json"),
    ):
        answer = httpx.patch(f"{here.url}/v1/config", content=content, headers=put | headers)
        assert answer.status_code == 422
        assert words in answer.json()["error"]


def test_the_document_and_its_page_name_every_address(here: Served) -> None:
    document = ask(here, "GET", "/openapi.json").json()
    page = ask(here, "GET", "/docs").text
    assert len(document["paths"]) > 25
    for path, methods in document["paths"].items():
        assert path in page
        for operation in methods.values():
            assert operation["description"].endswith(".")
            assert operation["tags"]


def test_hooks_are_told_until_they_are_not_wanted_any_more(client: Client) -> None:
    with receiving() as there:
        hook = client.subscribe("built", there.url, ["guider"])
        client.assign(1, 0, sources=["A"])
        client.push(1, 0, "A", guide_pixels(), source="A")
        assert there.came.wait(120)
        news = json.loads(there.bodies[0])
        assert (news["stage"], news["expid"], news["frame"], news["args"]) == ("built", 1, 0, ["guider"])
        client.enable(hook, enabled=False)
        client.unsubscribe(hook)
        assert client.hooks() == []
        with pytest.raises(Misconfigured, match="os:system"):
            client.subscribe("built", "os:system")


def until(condition: Any, timeout_s: float = 120.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
