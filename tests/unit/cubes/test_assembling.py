"""The library call: whole cubes, and what is left when frames, disks or processes fail."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from nightglass.cubes import Compression, CubeRequest, assemble_cube, verify_cube, working
from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.pool import SerialPool
from tests.unit.cubes.oracles import assert_planes, assert_sound, frames_in, left_in, pixels_of, request_of, write_frame

COMPRESSIONS = pytest.mark.parametrize("compression", [None, Compression()], ids=["plain", "rice"])


@pytest.fixture
def paths(tmp_path):
    return frames_in(tmp_path / "frames")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "archive" / "cube.fits"


@COMPRESSIONS
@pytest.mark.parametrize("mode", ["shared", "gather"])
def test_a_cube_appears_whole(paths, out, compression, mode):
    told: list[tuple[int, int]] = []
    summary = assemble_cube(
        request_of(paths, out=out, compression=compression, mode=mode),
        pool=SerialPool(),
        progress=lambda *now: told.append(now),
    )
    assert left_in(out.parent) == ["cube.fits"]
    assert_sound(out)
    assert_planes(out, "SCIENCE0", [fits.getdata(path) for path in paths])
    assert (summary.frames, summary.path, summary.size) == (6, out, out.stat().st_size)
    assert summary.pixel_bytes == 6 * 40 * 50 * 2
    assert not summary.problems
    assert set(summary.seconds) == {"survey", "plan", "pixels", "finish", "verify"}
    assert told[-1] == (summary.pixel_bytes,) * 2
    assert verify_cube(out, paths).ok


@COMPRESSIONS
def test_the_order_of_the_paths_does_not_matter(paths, out, compression):
    assemble_cube(request_of(paths, out=out, compression=compression), pool=SerialPool())
    first = out.read_bytes()
    request = request_of(random.Random(1).sample(paths, 6), out=out, compression=compression, overwrite=True)
    assemble_cube(request, pool=SerialPool())
    assert out.read_bytes() == first


def test_frames_follow_their_numbers_and_gaps_stay_gaps(tmp_path, out):
    paths = []
    for number in (7, 3, 12):
        paths.append(tmp_path / f"n{100 - number}.fits")
        fits.PrimaryHDU(np.full((3, 5), number, np.int16), fits.Header([("FRAME", number)])).writeto(paths[-1])
    assemble_cube(request_of(paths, out=out), pool=SerialPool())
    assert_sound(out)
    with fits.open(out) as cube:
        assert cube["SCIENCE0"].data[:, 0, 0].tolist() == [3, 7, 12]
        assert cube["SCIENCE0T"].data["FRAME"].tolist() == [3, 7, 12]
        assert "GAPS" in cube


def test_a_source_that_changes_its_shape(tmp_path, out):
    paths = [
        write_frame(tmp_path / f"{index}.fits", [np.full(shape, index, np.int16)])
        for index, shape in enumerate([(3, 5), (4, 5), (3, 5)])
    ]
    assemble_cube(request_of(paths, out=out), pool=SerialPool())
    assert_sound(out)
    with fits.open(out) as cube:
        assert cube["SCI0"].shape == (2, 3, 5)
        assert cube["SCI0_2"].shape == (1, 4, 5)


@COMPRESSIONS
def test_mixed_types_are_promoted_without_loss(tmp_path, out, compression):
    planes = [pixels_of(kind, (9, 7), 1) for kind in ("u1", "i2", "u2")]
    paths = [write_frame(tmp_path / f"{index}.fits", [pixels]) for index, pixels in enumerate(planes)]
    summary = assemble_cube(request_of(paths, out=out, compression=compression), pool=SerialPool())
    assert_sound(out)
    assert_planes(out, "SCI0", [pixels.astype(np.int32) for pixels in planes])
    assert summary.sources[0].note


def test_relative_paths(paths, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = CubeRequest(paths=tuple(path.relative_to(tmp_path) for path in paths), out=Path("cube.fits"))
    assert assemble_cube(request, pool=SerialPool()).path == tmp_path / "cube.fits"


class TestNames:
    """A name that is taken is not lost by accident."""

    def test_an_existing_file_stays(self, paths, out):
        out.parent.mkdir()
        out.write_text("precious")
        with pytest.raises(Misconfigured, match="there already"):
            assemble_cube(request_of(paths, out=out), pool=SerialPool())
        assert out.read_text() == "precious"

    def test_an_existing_file_is_replaced_when_asked(self, paths, out):
        out.parent.mkdir()
        out.write_text("worthless")
        assemble_cube(request_of(paths, out=out, overwrite=True), pool=SerialPool())
        assert_sound(out)

    def test_a_file_that_comes_in_between_stays(self, paths, out):
        def intrude(done: int, whole: int) -> None:
            out.write_text("precious")

        with pytest.raises(Misconfigured, match="there already"):
            assemble_cube(request_of(paths, out=out), pool=SerialPool(), progress=intrude)
        assert left_in(out.parent) == ["cube.fits"]
        assert out.read_text() == "precious"

    def test_two_at_once(self, paths, out):
        def compete(done: int, whole: int) -> None:
            if not out.exists():
                assemble_cube(request_of(paths, out=out), pool=SerialPool())

        with pytest.raises(Misconfigured, match="there already"):
            assemble_cube(request_of(paths, out=out), pool=SerialPool(), progress=compete)
        assert left_in(out.parent) == ["cube.fits"]
        assert_sound(out)


class Meddler(SerialPool):
    """Does something before the calls that are counted, as the world does while a worker works."""

    def __init__(self, meddle: Any) -> None:
        self._meddle = meddle

    def submit(self, function: Any, *args: Any, key: str | None = None, priority: int = 0) -> Future[Any]:
        self._meddle()
        return super().submit(function, *args, key=key, priority=priority)


def large(request: CubeRequest, monkeypatch: pytest.MonkeyPatch) -> CubeRequest:
    """Let a small cube be written by the pool, as a large one is."""
    monkeypatch.setattr("nightglass.cubes.transfer._SMALL_BYTES", 0)
    return request


@COMPRESSIONS
class TestBadFrames:
    """A frame that turns out bad is named, and the others are archived."""

    @pytest.mark.parametrize("harm", ["cut", "gone", "changed"])
    def test_while_it_is_moved(self, paths, out, compression, harm, monkeypatch):
        def meddle() -> None:
            if harm == "cut":
                os.truncate(paths[2], 2880)
            elif harm == "gone":
                paths[2].unlink(missing_ok=True)
            else:
                os.utime(paths[2], ns=(0, 1))

        request = large(request_of(paths, out=out, compression=compression), monkeypatch)
        summary = assemble_cube(request, pool=Meddler(meddle))
        assert [problem.path for problem in summary.problems] == [paths[2]]
        assert paths[2].name in summary.problems[0].reason
        assert summary.frames == 5
        assert_sound(out)
        rest = [pixels_of("u2", (40, 50), index) for index in (0, 1, 3, 4, 5)]
        assert_planes(out, "SCIENCE0", rest)
        assert left_in(out.parent) == ["cube.fits"]

    def test_that_it_is_an_error_when_wanted(self, paths, out, compression, monkeypatch):
        request = large(request_of(paths, out=out, compression=compression, skip_bad=False), monkeypatch)
        with pytest.raises(Retryable, match=paths[2].name):
            assemble_cube(request, pool=Meddler(lambda: paths[2].unlink(missing_ok=True)))
        assert left_in(out.parent) == []

    def test_none_is_left(self, paths, out, compression, monkeypatch):
        request = large(request_of(paths[:1], out=out, compression=compression), monkeypatch)
        with pytest.raises(Rejected, match="no frame"):
            assemble_cube(request, pool=Meddler(lambda: paths[0].unlink(missing_ok=True)))
        assert left_in(out.parent) == []

    def test_known_from_its_header(self, paths, out, compression):
        os.truncate(paths[4], 3000)
        summary = assemble_cube(request_of(paths, out=out, compression=compression), pool=SerialPool())
        assert [problem.path for problem in summary.problems] == [paths[4]]
        assert summary.frames == 5
        assert_sound(out)


class Dying(SerialPool):
    """Its workers die: half of the work is done, or none, and the result is lost."""

    def __init__(self, deaths: int, *, works_first: bool) -> None:
        self.left = deaths
        self._works_first = works_first

    def submit(self, function: Any, *args: Any, key: str | None = None, priority: int = 0) -> Future[Any]:
        if not self.left:
            return super().submit(function, *args, key=key, priority=priority)
        self.left -= 1
        if self._works_first:
            super().submit(function, *args)
        future: Future[Any] = Future()
        future.set_exception(Retryable("2 workers died while they ran it"))
        return future


@COMPRESSIONS
class TestWorkers:
    """A worker that dies costs time, and nothing else."""

    @pytest.mark.parametrize("works_first", [False, True])
    def test_its_tasks_are_done_again(self, paths, out, compression, works_first, monkeypatch):
        request = large(request_of(paths, out=out, compression=compression), monkeypatch)
        pool = Dying(2, works_first=works_first)
        summary = assemble_cube(request, pool=pool)
        assert pool.left == 0
        assert summary.frames == 6
        assert_sound(out)
        assert_planes(out, "SCIENCE0", [pixels_of("u2", (40, 50), index) for index in range(6)])

    def test_all_die(self, paths, out, compression, monkeypatch):
        request = large(request_of(paths, out=out, compression=compression), monkeypatch)
        with pytest.raises(Retryable, match="workers died"):
            assemble_cube(request, pool=Dying(1000, works_first=False))
        assert left_in(out.parent) == []


def test_what_runs_is_left_to_end_after_a_failure():
    futures: list[Future[Any]] = []

    class Slow(SerialPool):
        def submit(self, function: Any, *args: Any, key: str | None = None, priority: int = 0) -> Future[Any]:
            futures.append(Future())
            finish = futures[-1].set_result if len(futures) > 1 else futures[-1].set_exception
            threading.Timer(0.1 * len(futures), finish, [Rejected("bad")]).start()
            return futures[-1]

    with pytest.raises(Rejected):
        list(working.run_tasks(Slow(), print, [0, 1], key="test"))
    assert [future.cancelled() for future in futures] == [False, False]


@contextlib.contextmanager
def small_disk(directory: Path, size: int) -> Iterator[Path]:
    """Mount a small file system in memory; skip where that is not allowed."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@COMPRESSIONS
@pytest.mark.parametrize("mode", ["shared", "gather"])
def test_a_full_disk(tmp_path, compression, mode):
    paths = frames_in(tmp_path / "frames", 12, (200, 250))
    with small_disk(tmp_path / "disk", 512 << 10) as disk:
        request = request_of(paths, out=disk / "cube.fits", compression=compression, mode=mode)
        with pytest.raises(Retryable, match=r"No space left.*make room"):
            assemble_cube(request, pool=SerialPool())
        assert left_in(disk) == []
    assert len(left_in(tmp_path / "frames")) == 12
    request = request_of(paths, out=tmp_path / "cube.fits", compression=compression)
    assert assemble_cube(request, pool=SerialPool()).frames == 12


@COMPRESSIONS
@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_an_error_of_the_disk(paths, out, compression, call, monkeypatch):
    def failing(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(Retryable, match="Input/output error"):
        assemble_cube(request_of(paths, out=out, compression=compression), pool=SerialPool())
    assert left_in(out.parent) == []


def test_an_error_of_the_disk_while_it_is_written_back(paths, out, monkeypatch):
    def failing(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(Retryable, match="Input/output error"):
        # what workers do not write themselves goes through the page cache
        assemble_cube(request_of(paths, out=out, mode="gather"), pool=SerialPool())
    assert left_in(out.parent) == []


def test_a_directory_that_may_not_be_written(paths, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Retryable, match="cannot be written"):
        assemble_cube(request_of(paths, out=tmp_path / "file" / "cube.fits"), pool=SerialPool())


class TestStaleParts:
    """What a killed process left beside a cube is removed by the next that makes it; nothing else is."""

    @pytest.fixture
    def gone(self):
        process = subprocess.Popen(["true"])
        process.wait()
        return process.pid

    def test_removed(self, paths, out, gone):
        out.parent.mkdir()
        name = f"cube.fits.w{gone}x0123abcd.part"
        for stale in (name, f"f0.{name}", f"f17.{name}"):
            (out.parent / stale).write_text("half")
        assemble_cube(request_of(paths, out=out), pool=SerialPool())
        assert left_in(out.parent) == ["cube.fits"]

    def test_kept(self, paths, out, gone):
        out.parent.mkdir()
        kept = [
            f"cube.fits.w{os.getppid()}x0123abcd.part",  # its process runs, and is about to lock it
            f"f3.cube.fits.w{os.getppid()}x0123abcd.part",
            f"other.fits.w{gone}x0123abcd.part",
            "cube.fits.12345678.part",  # a token of a ledger
            "cube.fits.part",
        ]
        for name in kept:
            (out.parent / name).write_text("half")
        (out.parent / kept[0]).write_text("")
        assemble_cube(request_of(paths, out=out), pool=SerialPool())
        assert left_in(out.parent) == sorted(["cube.fits", *kept])

    @pytest.mark.parametrize(
        "holder", [os.getpid, os.getppid, threading.get_native_id], ids=["this process", "its parent", "a thread"]
    )
    def test_the_number_of_its_process_came_back(self, paths, out, holder):
        out.parent.mkdir()
        (out.parent / f"cube.fits.w{holder()}x0123abcd.part").write_text("half")
        assemble_cube(request_of(paths, out=out), pool=SerialPool())
        assert left_in(out.parent) == ["cube.fits"]

    def test_one_that_another_host_writes_is_kept(self, paths, out, gone):
        out.parent.mkdir()
        part = out.parent / f"cube.fits.w{gone}x0123abcd.part"
        with part.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            assemble_cube(request_of(paths, out=out), pool=SerialPool())
            assert part.exists()
