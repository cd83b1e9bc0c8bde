"""Bytes moved within a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightglass.fitsio.filling import move_within

CONTENT = bytes(number % 251 for number in range(3000))


@given(source=st.integers(0, 2000), target=st.integers(0, 2000), size=st.integers(0, 1000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_are_moved_whether_or_not_they_overlap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: int, target: int, size: int
) -> None:
    monkeypatch.setattr("nightglass.fitsio.filling._MOVED", 64)
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with path.open("r+b", buffering=0) as stream:
        move_within(stream.fileno(), source, target, size)
    wanted = bytearray(CONTENT)
    wanted[target : target + size] = CONTENT[source : source + size]
    assert path.read_bytes() == bytes(wanted)


def test_a_file_that_is_too_short_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with path.open("r+b", buffering=0) as stream, pytest.raises(OSError, match="ends at byte 3000"):
        move_within(stream.fileno(), 2900, 0, 200)
