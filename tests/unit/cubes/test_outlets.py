"""Bytes that go to the disk past the page cache, and where that is not possible, through it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightglass.cubes.outlets import Unwritable, is_uncached, opened_part, read_uncached
from nightglass.fitsio.checksums import sum_bytes

_ROOM = 3 << 20
_ABLE = os.open
_WRITTEN = os.pwrite


def refused(path, flags, *mode):
    """A file system that knows nothing of O_DIRECT."""
    if flags & os.O_DIRECT:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return _ABLE(path, flags, *mode)


def refused_late(descriptor, data, offset):
    """One that lets such a file be opened, and then does not write to it."""
    if is_direct(descriptor):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return _WRITTEN(descriptor, data, offset)


def is_direct(descriptor: int) -> bool:
    flags = Path(f"/proc/self/fdinfo/{descriptor}").read_text().split("flags:")[1].split()[0]
    return bool(int(flags, 8) & os.O_DIRECT)


@pytest.fixture(params=["able", "refused", "refused late"])
def part(request, tmp_path, monkeypatch):
    path = tmp_path / "part.fits"
    path.write_bytes(b"\xaa" * _ROOM)
    if request.param == "refused":
        monkeypatch.setattr(os, "open", refused)
    if request.param == "refused late":
        monkeypatch.setattr(os, "pwrite", refused_late)
    return path


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    offset=st.integers(0, 9000),
    sizes=st.lists(st.sampled_from([1, 7, 80, 2880, 4096, 65536, 1 << 20]), max_size=4),
    durable=st.booleans(),
)
def test_what_is_put_into_an_outlet_is_in_the_file_and_nothing_else(part, offset, sizes, durable):
    part.write_bytes(b"\xaa" * _ROOM)
    pieces = [bytes((7 * number + index) % 251 for index in range(size)) for number, size in enumerate(sizes)]
    with opened_part(part, durable=durable) as file:
        outlet = file.outlet(offset)
        for piece in pieces:
            outlet.put(memoryview(piece))
        total = outlet.finish()
    whole = b"".join(pieces)
    assert total == sum_bytes(whole)
    found = part.read_bytes()
    assert found[offset : offset + len(whole)] == whole
    assert found[:offset] == b"\xaa" * offset
    assert found[offset + len(whole) :] == b"\xaa" * max(_ROOM - offset - len(whole), 0)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(length=st.integers(0, 2_500_000), start=st.integers(0, 300_000), size=st.integers(0, 2_500_000))
def test_a_file_of_any_length_is_read_from_anywhere(part, length, start, size):
    content = (b"0123456789abcdef." * 150_000)[:length]
    part.write_bytes(content)
    offset = 4 * start
    pieces = [bytes(piece) for piece in read_uncached(part, offset, size)]
    assert b"".join(pieces) == content[offset : offset + size]
    assert all(len(piece) % 4 == 0 for piece in pieces[:-1])


def test_an_error_of_the_disk_is_told_with_the_path(tmp_path, monkeypatch):
    path = tmp_path / "part.fits"
    path.write_bytes(bytes(_ROOM))

    def failing(descriptor, data, offset):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pwrite", failing)
    with (
        opened_part(path, durable=True) as file,
        pytest.raises(Unwritable, match=r"part\.fits cannot be written"),
    ):
        file.write(memoryview(bytes(1 << 20)), 0)


def test_a_part_that_is_gone(tmp_path):
    with pytest.raises(Unwritable, match="No such file"), opened_part(tmp_path / "none", durable=True):
        pass


def test_whether_the_cache_can_be_passed_is_told(tmp_path, monkeypatch):
    path = tmp_path / "part.fits"
    path.touch()
    monkeypatch.setattr(os, "open", refused)
    assert not is_uncached(path)
