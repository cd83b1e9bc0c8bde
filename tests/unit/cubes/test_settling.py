"""Heaps that go into the cube at once: whoever ends first, is late, is killed or finds a bad frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nightglass.config import Limits
from nightglass.cubes.assembling import assemble_cube
from nightglass.cubes.compressed import write_compressed
from nightglass.cubes.ends import SPOILT, read_end, tell_end, wait_for_end
from nightglass.cubes.records import Compression
from nightglass.errors import Retryable
from nightglass.pool import PoolBase, SerialPool, Worker
from tests.unit.cubes.nights import cube_of
from tests.unit.cubes.oracles import assert_sound, frames_in, left_in, pixels_of, plan_of, request_of, survey_of
from tests.unit.cubes.packing import assert_decoded, table_of

SHAPE = (20, 33)
WAITED_S = 60.0


class Team(PoolBase):
    """Three workers, of which one is held up by each call that `slow` names."""

    def __init__(self, slow: Callable[[int], bool]) -> None:
        self._slow = slow
        self._calls = 0
        self._threads = ThreadPoolExecutor(3)

    @property
    def address(self) -> str:
        return ""

    def submit(self, function: Any, *args: Any, key: str | None = None, priority: int = 0) -> Future[Any]:
        del key, priority
        late = self._slow(self._calls)
        self._calls += 1
        return self._threads.submit(self._run, late, function, *args)

    def workers(self) -> tuple[Worker, ...]:
        return (Worker("a"), Worker("b"), Worker("c"))

    def close(self) -> None:
        self._threads.shutdown()

    @staticmethod
    def _run(late: bool, function: Any, *args: Any) -> Any:
        if late:
            time.sleep(0.2)
        return function(*args)


class Dying(PoolBase):
    """Loses each call once: the worker did what it was asked, and died before it could say so."""

    def __init__(self) -> None:
        self._here = SerialPool()
        self.lost: list[tuple[Any, ...]] = []

    @property
    def address(self) -> str:
        return ""

    def submit(self, function: Any, *args: Any, key: str | None = None, priority: int = 0) -> Future[Any]:
        done = self._here.submit(function, *args, key=key, priority=priority)
        if args in self.lost:
            return done
        self.lost.append(args)
        lost: Future[Any] = Future()
        lost.set_exception(Retryable("the worker died"))
        return lost

    def workers(self) -> tuple[Worker, ...]:
        return self._here.workers()


@pytest.fixture
def team(request: pytest.FixtureRequest) -> Iterator[Team]:
    with Team(request.param) as pool:
        yield pool


def every_third(call: int) -> bool:
    return call % 3 == 0


def never(_: int) -> bool:
    return False


@given(end=st.integers(0, 1 << 62), before=st.integers(0, 3), written=st.integers(0, (1 << 16) - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_end_that_is_half_written_is_none(tmp_path: Path, end: int, before: int, written: int) -> None:
    path = tmp_path / "ends"
    path.write_bytes(b"")
    for number in range(before + 1):
        assert read_end(path, number) is None
        tell_end(path, number, end)
    assert read_end(path, before) == end
    whole = path.read_bytes()
    half = bytes(byte if written >> place & 1 else 0 for place, byte in enumerate(whole[-16:]))
    path.write_bytes(whole[:-16] + half)
    assert read_end(path, before) == (end if half == whole[-16:] else None)


def test_ends_are_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "ends"
    path.write_bytes(b"")
    assert read_end(path, -1) == 0
    assert wait_for_end(path, 0, 0.02) is None
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(wait_for_end, path, 2, WAITED_S)
        tell_end(path, 2, SPOILT)
        assert found.result(WAITED_S) == SPOILT
    assert read_end(path, 1) is None


@pytest.mark.parametrize("durable", [False, True], ids=["cached", "synced"])
@pytest.mark.parametrize("mode", ["shared", "gather"])
@pytest.mark.parametrize(
    ("team", "patience_s"),
    [(never, WAITED_S), (every_third, WAITED_S), (every_third, 0.0)],
    indirect=["team"],
    ids=["at once", "waiting", "left behind"],
)
def test_whoever_ends_first_the_bytes_are_the_same(
    tmp_path: Path, team: Team, patience_s: float, mode: Any, durable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nightglass.cubes.settling._PATIENCE_S", patience_s)
    paths = frames_in(tmp_path / "frames", 40, (90, 71))
    alone = cube_of(*paths, compression=Compression(), out=tmp_path / "alone.fits")
    out = tmp_path / "made" / "cube.fits"
    left: list[int] = []

    def look(*_: int) -> None:
        left.append(sum(path.stat().st_size > 90 * 71 for path in out.parent.glob("f*.part")))

    request = request_of(paths, compression=Compression(), out=out, mode=mode, durable=durable)
    summary = assemble_cube(request, pool=team, progress=look)
    assert summary.frames == 40
    assert out.read_bytes() == alone.read_bytes()
    assert left_in(out.parent) == ["cube.fits"]
    if patience_s == 0.0:
        assert max(left) > 0  # heaps were in fragments,
        assert left[-1] < max(left)  # and these did not stay until the end


def test_calls_that_are_done_twice_are_done_once(tmp_path: Path) -> None:
    paths = frames_in(tmp_path / "frames", 12, SHAPE)
    alone = cube_of(*paths, compression=Compression(), out=tmp_path / "alone.fits")
    for mode in ("shared", "gather"):
        out = tmp_path / f"{mode}.fits"
        pool = Dying()
        assemble_cube(request_of(paths, compression=Compression(), out=out, mode=mode), pool=pool)
        assert pool.lost
        assert out.read_bytes() == alone.read_bytes()
    assert left_in(tmp_path) == ["alone.fits", "frames", "gather.fits", "shared.fits"]


@pytest.mark.parametrize("team", [every_third], indirect=True, ids=["late"])
@pytest.mark.parametrize("mode", ["shared", "gather"])
@pytest.mark.parametrize("bad", [0, 13, 39])
def test_nobody_waits_for_a_task_with_a_bad_frame(
    tmp_path: Path, team: Team, mode: Any, bad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nightglass.cubes.settling._PATIENCE_S", 3 * WAITED_S)
    paths = frames_in(tmp_path / "frames", 40, (90, 71))
    content = bytearray(paths[bad].read_bytes())
    content[-2880 - 100] ^= 1  # a pixel is another: its DATASUM tells
    paths[bad].write_bytes(content)
    started = time.monotonic()
    out = tmp_path / "cube.fits"
    summary = assemble_cube(request_of(paths, compression=Compression(), out=out, mode=mode), pool=team)
    assert time.monotonic() - started < 3 * WAITED_S
    assert [problem.path for problem in summary.problems] == [paths[bad]]
    assert summary.frames == 39
    assert_decoded(out, np.stack([pixels_of("u2", (90, 71), number) for number in range(40) if number != bad]))
    assert left_in(tmp_path) == ["cube.fits", "frames"]


def _flat(count: int) -> list[NDArray[Any]]:
    return [np.full(SHAPE, number, np.int16) for number in range(count)]


def _noise(count: int) -> list[NDArray[Any]]:
    return [pixels_of("i2", SHAPE, number) for number in range(count)]


@pytest.mark.parametrize(
    ("planes", "form"),
    [(_flat(1) + _noise(5), "1QB"), (_noise(1) + _flat(5), "1PB")],
    ids=["larger", "smaller"],
)
def test_a_heap_that_becomes_larger_or_smaller_than_it_seemed(
    tmp_path: Path, planes: list[NDArray[Any]], form: str
) -> None:
    """The first plane is no measure for the others; there are two images, so something comes behind the first one."""
    paths = [tmp_path / f"{number}.fits" for number in range(len(planes))]
    for number, (path, plane) in enumerate(zip(paths, planes, strict=True)):
        images = [fits.ImageHDU(plane, name=name) for name in ("ONE", "TWO")]
        fits.HDUList([fits.PrimaryHDU(header=fits.Header([("FRAME", number)])), *images]).writeto(path)
    plan = plan_of(survey_of(paths), request_of(paths, compression=Compression(), durable=False))
    certain = tmp_path / "certain"
    write_compressed(plan, certain, pool=SerialPool(), limits=Limits(), wide_heap=0 if form == "1QB" else 1 << 31)
    seemed = tmp_path / "seemed"
    write_compressed(plan, seemed, pool=SerialPool(), limits=Limits(), wide_heap=3 * planes[0].nbytes)
    for name in ("ONE", "TWO"):
        assert table_of(seemed, name)[0]["TFORM1"].startswith(form)
        assert_decoded(seemed, np.stack(planes), name)
    assert_sound(seemed)
    assert seemed.read_bytes() == certain.read_bytes()
