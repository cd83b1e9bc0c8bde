"""Preflight: what is wrong with a site is found before its night."""

from __future__ import annotations

import os
import socket
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from deployments.preflight import Check, Verdict, preflight
from nightglass.config import Observatory, validate
from nightglass.layout import Layout
from nightglass.watch.instance import InstanceLock

pytestmark = pytest.mark.cluster


def checks(root: Path, **values: Any) -> dict[str, list[Check]]:
    cluster = {"workers": 1, "memory_mib": 512} | values.pop("cluster", {})
    observatory = validate(Observatory, {"root": str(root), "cluster": cluster, **values}, where="test")
    found: dict[str, list[Check]] = {}
    for check in preflight(observatory):
        found.setdefault(check.name, []).append(check)
    return found


def worst(found: list[Check]) -> Verdict:
    return max((check.verdict for check in found), key=list(Verdict).index)


@pytest.mark.slow
def test_a_sound_site_passes_and_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    raw = tmp_path / "raw"
    found = checks(
        tmp_path / "root",
        sources=[{"camera": "lynx", "directory": f"{raw}/{{night}}"}],
        notices={"file": str(tmp_path / "told.txt")},
    )
    assert {name: worst(each) for name, each in found.items()} == dict.fromkeys(found, Verdict.OK), found
    assert "will be made" in found["sources"][0].detail
    assert not raw.exists()
    assert {path.name.partition(".")[0] for path in (tmp_path / "root").iterdir()} <= {"ledger"}


def test_each_fault_is_found_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    file = tmp_path / "file"
    file.write_text("")
    found = checks(
        tmp_path / "root",
        sources=[{"camera": "lynx", "directory": str(file / "below")}],
        cluster={"address": "tcp://127.0.0.1:9"},
        night={"midway": "sun"},
        limits={"free_disk_gib": 1e9},
        reduction={"postprocess": ["stacking"]},
        notices={
            "mail_from": "a@example.org",
            "mail_to": ["b@example.org"],
            "smtp": {"host": "127.0.0.1", "port": 9, "security": "none"},
        },
    )
    expected = {
        "cameras": (Verdict.WARN, "stacking"),
        "night": (Verdict.FAIL, "no latitude"),
        "root": (Verdict.WARN, "free"),
        "sources": (Verdict.FAIL, str(file)),
        "cluster": (Verdict.FAIL, "no Dask scheduler answers"),
        "Prefect server": (Verdict.WARN, "does not answer"),
        "notices": (Verdict.FAIL, "refused"),
    }
    for name, (verdict, words) in expected.items():
        assert worst(found[name]) is verdict, found[name]
        assert any(words in check.detail for check in found[name]), found[name]


def test_image_builders_need_a_port_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.delenv("NIGHTGLASS_TOKEN", raising=False)
    builders = [{"name": "guider", "camera": "generic", "preset": "guider", "sources": ["GUIDE0"]}]

    def looked(**web: object) -> list[Check]:
        everything = preflight(
            Observatory.model_validate({"root": tmp_path / "root", "builders": builders, "web": web})
        )
        return [check for check in takewhile(lambda check: check.name != "ledger", everything) if "image" in check.name]

    free = looked(port=0)
    assert [check.verdict for check in free] == [Verdict.OK] * 2, free
    assert "GUIDE0" in free[0].detail
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (*_, busy) = looked(port=taken.getsockname()[1])
        assert "Address already in use (another program has the port" in busy.detail
    with InstanceLock(Layout(tmp_path / "root").run, ["generic"]):
        assert looked()[-1].detail == f"they run already, in process {os.getpid()}"
        assert "token" in looked(host="0.0.0.0")[-1].detail
    assert "token" in looked(host="0.0.0.0")[-1].detail
