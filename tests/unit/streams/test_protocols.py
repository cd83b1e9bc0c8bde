"""Protocols of other distributions: found by entry point, and received like those that come along."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nightglass.config import Overflow
from nightglass.errors import Misconfigured
from nightglass.sensors import Backlog
from nightglass.streams import DECODERS, find_protocol, load_protocols
from tests.unit.sensors.streams.site import collect, listening, running, source

PLUGIN = """
from nightglass.streams import BufferedDecoder, StreamProtocol

class LineDecoder(BufferedDecoder):
    def __init__(self):
        super().__init__()
        self._buffer, self._held = bytearray(512), b""

    def get_buffer(self, sizehint=-1):
        return memoryview(self._buffer)

    def buffer_updated(self, count):
        self._tally.received += count
        *lines, self._held = (self._held + self._buffer[:count]).split(b"\\n")
        self._tally.messages += len(lines)
        return [bytes(line).decode() for line in lines]

    def finish(self):
        self._tally.truncated += bool(self._held)
        self._tally.skipped += len(self._held)
        self._held = b""
        return []

PROTOCOL = StreamProtocol(
    name={name!r}, doc="lines of text", decoder=LineDecoder, encode=lambda line: line.encode() + b"\\n", example=str
)
NUMBER = 3
"""


def install(directory: Path, target: str, *, name: str = "lines") -> None:
    (directory / "liner.py").write_text(PLUGIN.format(name=name))
    info = directory / "liner-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: liner\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[nightglass.streams]\nlines = {target}\n")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "liner", raising=False)
    monkeypatch.setattr("nightglass.streams.DECODERS", dict(DECODERS))
    load_protocols.cache_clear()
    yield tmp_path
    load_protocols.cache_clear()


def test_other_distributions_add_protocols(place: Path) -> None:
    install(place, "liner:PROTOCOL")
    assert find_protocol("lines").doc == "lines of text"

    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(b"one\ntwo\nthr")
        connection.recv(1)

    waiting: Backlog[Any] = Backlog(1 << 20, Overflow.BLOCK)
    with listening(serve) as endpoint, running(source("lines", endpoint), waiting) as (receiver,):
        found = collect(waiting, 2)
    assert [(item.message, item.size) for item in found] == [("one", 4), ("two", 4)]
    assert receiver.status.truncated == 1
    assert receiver.status.losses is None


@pytest.mark.parametrize(
    ("target", "name", "problem"),
    [
        ("liner:NUMBER", "lines", "is no StreamProtocol"),
        ("liner:MISSING", "lines", "cannot be loaded"),
        ("no_such_module:PROTOCOL", "lines", "cannot be loaded"),
        ("liner:PROTOCOL", "aartfaac", "is taken"),
    ],
)
def test_a_broken_entry_point_is_named(place: Path, target: str, name: str, problem: str) -> None:
    install(place, target, name=name)
    with pytest.raises(Misconfigured, match=problem):
        find_protocol("aartfaac")
