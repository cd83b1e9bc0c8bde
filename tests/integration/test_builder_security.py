"""What somebody who may push images may not do: write elsewhere, run code, read the disk, come from elsewhere."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from astropy.io import fits

from nightglass.builder.client import Client
from nightglass.errors import Misconfigured, NightglassError, Rejected
from nightglass.web import Site, WebServer
from tests.integration.building import Served, guide_pixels, served


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("place") / "root"
    with served(root, {"name": "guider", "preset": "guider", "timeout_s": 5.0}) as found:
        yield found


@pytest.fixture
def here(place: Served) -> Served:
    with place.client() as client:
        client.configure(unsaved="discard")
    return place


@pytest.fixture
def client(here: Served) -> Iterator[Client]:
    with here.client() as found:
        found.assign(1, 0, sources=["A"])
        found.push(1, 0, "A", guide_pixels(), source="A")
        assert found.build(1, 0, sources=["A"])["state"] == "built"
        yield found


def files_outside(here: Served) -> list[Path]:
    return [path for path in here.root.parent.rglob("*") if path.is_file() and not path.is_relative_to(here.root)]


@pytest.mark.parametrize(
    "name", ["..", ".", "a/b", "..%2f..%2fx", "%2e%2e", "A.fits", "A%00", "Ä", "A" * 33, "A B", "%0a"]
)
def test_names_of_extensions_cannot_leave_their_directory(here: Served, name: str) -> None:
    answer = httpx.put(
        f"{here.url}/v1/exposures/1/frames/0/extensions/{name}",
        content=bytes(2880),
        headers={"X-Nightglass": "1", "Content-Type": "application/fits"},
    )
    assert answer.status_code in {404, 405, 422}
    assert files_outside(here) == []
    assert list(here.root.rglob("builder/*/*/*.fits")) == []


ELSEWHERE = ("/etc", "/tmp/nightglass-elsewhere", "../../..", "~", "$HOME", "${HOME}", "a/../../../..", "\0", "/")


@pytest.mark.parametrize("directory", ELSEWHERE)
@pytest.mark.parametrize("option", ["image_dir", "archive_dir", "png_dir"])
def test_directories_are_those_of_the_configuration(here: Served, client: Client, option: str, directory: str) -> None:
    refused = 0
    for attempt in (
        lambda: client.set(**{option: directory}),
        lambda: client.write(1, 0, overwrite=True),
        lambda: client.plot(1, 0),
        lambda: client.finalize(1),
        lambda: client.archive(1, wait=True),
    ):
        try:
            attempt()
        except NightglassError:
            refused += 1  # at once, or when it is used
    assert refused
    assert files_outside(here) == []


@pytest.mark.parametrize("directory", ELSEWHERE)
def test_an_order_cannot_name_a_directory_elsewhere(here: Served, client: Client, directory: str) -> None:
    with pytest.raises(NightglassError):
        client.write(1, 0, image_dir=directory)
    client.finalize(1)
    with pytest.raises(NightglassError):
        client.archive(1, wait=True, archive_dir=directory)
    client.archive(1, wait=True)
    with pytest.raises(NightglassError):
        client.write_archive(1, directory)
    assert files_outside(here) == []


def test_what_the_night_keeps_is_not_written_over(here: Served, client: Client) -> None:
    client.finalize(1)
    client.archive(1, wait=True)
    night = client.exposure(1)["night"]
    for name in (
        "run",
        "generic/.incoming",
        f"generic/{night}/raw/guider",
        f"generic/{night}/builder",
        f"x/{night}/raw",
    ):
        place = str(here.root / name)
        with pytest.raises(Rejected, match="not below a directory"):
            client.write(1, 0, image_dir=place)
        with pytest.raises(Rejected, match="not below a directory"):
            client.write_archive(1, place)


def test_a_copy_of_a_cube_replaces_nothing_unless_told(here: Served, client: Client) -> None:
    client.finalize(1)
    client.archive(1, wait=True)
    place = here.root / "images" / "copies"
    first = Path(client.write_archive(1, place))
    assert Path(client.write_archive(1, place)) == first
    whole = first.read_bytes()
    first.write_bytes(b"somebody else's")
    with pytest.raises(Rejected, match="is there already"):
        client.write_archive(1, place)
    assert first.read_bytes() == b"somebody else's"
    client.write_archive(1, place, overwrite=True)
    assert first.read_bytes() == whole
    for wrong in ("\0", "x" * 5000):
        with pytest.raises(NightglassError) as caught:
            client.write_archive(1, wrong)
        assert "fault of the server" not in str(caught.value)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "x\0y", "\n"])
@pytest.mark.parametrize("option", ["image_name", "add_on"])
def test_parts_of_names_stay_parts(here: Served, client: Client, option: str, name: str) -> None:
    with pytest.raises(NightglassError):
        client.write(1, 0, **{option: name}, overwrite=True)
    with pytest.raises(NightglassError):
        client.set(**{option: name})
    assert files_outside(here) == []


@pytest.mark.parametrize("word", ["image_dir", "archive_dir", "image_name", "sub_dir"])
def test_control_words_of_headers_cannot_leave_either(here: Served, client: Client, word: str) -> None:
    client.set(local_copy=True)
    for frame, place in enumerate(("/etc", "../../..", "/"), start=1):
        client.assign(1, frame, sources=["A"])
        try:
            client.push(1, frame, "A", guide_pixels(), header={word: place}, source="A")
        except NightglassError:
            continue
        client.build(1, frame, sources=["A"], wait_s=10)
    client.finalize(1)
    with contextlib.suppress(NightglassError):
        client.archive(1, wait=True)
    assert files_outside(here) == []


CODE = "os:system"


@pytest.mark.parametrize(
    "change",
    [
        {"guider_app": CODE},
        {"donut_app": CODE},
        {"receivers": {"a": CODE}},
        {"pull": {"A": CODE}},
        {"pull": {"A": "/etc"}},
        {"pull": {"A": "file:///etc/passwd"}},
        {"callables": [CODE]},
        {"send_to": [CODE]},
        {"add_send_to": CODE},
        {"guiderApp": CODE},
    ],
)
def test_code_is_named_in_the_observatory_file_alone(client: Client, change: dict[str, Any]) -> None:
    before = client.config()
    try:
        client.set(**change)
    except NightglassError:
        assert client.config() == before
        return
    with pytest.raises(NightglassError):
        client.send(1, 0)  # a receiver that nobody knows is refused when it is used


@pytest.mark.parametrize(
    "target", [CODE, "builtins:eval", "subprocess:run", "file:///etc/passwd", "ftp://x/", "javascript:1"]
)
def test_nobody_subscribes_code(client: Client, target: str) -> None:
    with pytest.raises(Misconfigured):
        client.subscribe("built", target, ["touch /tmp/x"])
    with pytest.raises(NightglassError):
        client.send(1, 0, send_to=[target])


def test_passwords_in_addresses_are_shown_to_nobody(here: Served, client: Client) -> None:
    kept = "http://ann:secret@127.0.0.1:9"
    answer = httpx.patch(
        f"{here.url}/v1/config", json={"receivers": {"pipeline": kept}}, headers={"X-Nightglass": "1"}, timeout=60
    )
    assert answer.json()["receivers"] == {"pipeline": "http://127.0.0.1:9"}
    for shown in (client.config(), client.get("receivers"), client.status()):
        assert "secret" not in json.dumps(shown)
    with pytest.raises(NightglassError, match="password"):
        client.set(send_to=[kept])


def test_a_callback_of_a_header_runs_no_code(client: Client, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for frame, target in enumerate((CODE, "pathlib:Path.touch"), start=1):
        client.assign(1, frame, sources=["A"])
        try:
            client.push(
                1, frame, "A", guide_pixels(), header={"cb_function": target, "cb_args": f"touch {mark}"}, source="A"
            )
            client.build(1, frame, sources=["A"], wait_s=10)
        except NightglassError:
            continue
    assert not mark.exists()


def test_from_elsewhere_a_token_is_asked_for(tmp_path: Path) -> None:
    with served(tmp_path, token="secret") as here:
        assert httpx.get(f"{here.url}/v1/status").status_code == 401
        assert httpx.get(f"{here.url}/v1/openapi.json").status_code == 401
        headers = {"Authorization": "Bearer wrong", "X-Nightglass": "1"}
        assert httpx.post(f"{here.url}/v1/exposures/1/frames/0/assign", headers=headers).status_code == 401
        with Client(here.url, token="secret") as client:
            assert client.status()
        with pytest.raises(Misconfigured, match="token"):
            WebServer(Site(builders=here.builders), host="0.0.0.0")


def test_pages_from_elsewhere_change_nothing(here: Served) -> None:
    place = f"{here.url}/v1/exposures/9/frames/0/assign"
    refusal = httpx.post(place, json={"sources": ["A"]})
    assert refusal.status_code == 403
    assert "X-Nightglass" in refusal.json()["error"]
    assert "X-Nightglass: 1" in refusal.json()["remedy"]
    assert httpx.post(place, json={}, headers={"X-Nightglass": "1", "Host": "evil.example"}).status_code == 403
    assert httpx.get(f"{here.url}/v1/exposures").json() == []


def test_what_is_refused_does_not_tell_the_environment(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTGLASS_SECRET", "/hidden-word")
    with pytest.raises(NightglassError) as refused:
        client.write(1, 0, image_dir="$NIGHTGLASS_SECRET/x")
    assert "hidden-word" not in str(refused.value)


def test_a_header_of_a_pushed_file_cannot_name_its_place(here: Served, client: Client, tmp_path: Path) -> None:
    header = fits.Header({"EXTNAME": "../../../../X", "FILENAME": "/etc/x", "NIGHT": "../../..", "EXPID": "../1"})
    file = tmp_path / "pushed" / "x.fits"
    file.parent.mkdir()
    fits.PrimaryHDU(np.zeros((8, 8), np.int16), header).writeto(file)
    client.set(local_copy=True)
    client.assign(1, 1, sources=["A"])
    client.push(1, 1, "A", file, source="A")
    client.build(1, 1, sources=["A"], wait_s=10)
    client.write(1, 1, overwrite=True)
    client.plot(1, 1)
    client.finalize(1)
    client.archive(1, wait=True)
    assert files_outside(here) == []


def test_json_that_is_none_is_refused(here: Served) -> None:
    for body in (
        '{"header": {"A": NaN}}',
        '{"header": {"A": 1e999}}',
        '{"header":',
        "[" * 100_000,
        '{"timeout_s": Infinity}',
    ):
        answer = httpx.post(
            f"{here.url}/v1/exposures/1/frames/0/assign",
            content=body,
            headers={"X-Nightglass": "1", "Content-Type": "application/json"},
        )
        assert answer.status_code in {400, 422}, body[:40]
    text = json.dumps({"header": {"A": "\ud800"}})  # half a character, which no encoding has
    answer = httpx.post(
        f"{here.url}/v1/exposures/1/frames/0/assign",
        content=text,
        headers={"X-Nightglass": "1", "Content-Type": "application/json"},
    )
    assert answer.status_code < 500
    assert httpx.get(f"{here.url}/v1/exposures").status_code == 200
