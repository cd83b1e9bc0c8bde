"""What could not be followed when it is time is refused when it is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nightglass.builder.service import Builder
from nightglass.errors import Misconfigured, Rejected
from tests.unit.builder.desk import builder

PLACES: list[dict[str, Any]] = [
    *({name: place} for name in ("image_dir", "archive_dir") for place in ("/etc", "../../..", "$NOWHERE", "a\0b")),
    *({"sub_dir": place} for place in ("..", "/etc", "a//../b", "a b")),
    *({"send_to": [who]} for who in ("nobody", "os:system", "ftp://x/", "file:///etc/passwd")),
]
ONLY_SET: list[dict[str, Any]] = [
    {"png_dir": "/etc"},
    {"constants_version": "NONE"},
    {"add_send_to": "nobody"},
    {"donut_app": "nobody"},
    {"send_to": 5},
    {"send_to": {"a": 1}},
    {"exclude": 5},
    {"sources": {"A": 1}},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    with builder(tmp_path_factory.mktemp("early"), outputs=True, constants={"OTHER": {"A": 1}}) as running:
        yield running


@pytest.mark.parametrize("change", PLACES + ONLY_SET, ids=str)
def test_an_option(made: Builder, change: dict[str, Any]) -> None:
    before = made.options
    with pytest.raises((Misconfigured, Rejected)):
        made.set(**change)
    assert made.options == before


@pytest.mark.parametrize("said", [*PLACES, {"image_name": "../x"}, {"cb_function": "os:system"}], ids=str)
def test_an_instruction(made: Builder, said: dict[str, Any]) -> None:
    with pytest.raises((Misconfigured, Rejected)):
        made.assign(1, 0, sources=["A"], instructions=said)
    assert made.exposures() == ()


def test_what_is_allowed_is_taken(made: Builder, tmp_path: Path) -> None:
    good = {"sub_dir": "a/b", "image_dir": "below", "send_to": ["http://127.0.0.1:1/x"], "constants_version": "OTHER"}
    assert made.set(**good).sub_dir == "a/b"
    made.set(constants_version="DEFAULT", send_to=None, sub_dir=None, image_dir=None)
