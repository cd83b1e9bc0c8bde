"""Planes moved into plain cubes, judged by fitsverify, astropy and fitsio."""

from __future__ import annotations

import gzip
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightglass.config import Limits
from nightglass.cubes.converting import stored_dtype
from nightglass.cubes.moving import Move, MoveTask, Run, fetch_planes, move_planes
from nightglass.cubes.plain import write_plain
from nightglass.cubes.records import PixelFormat
from nightglass.cubes.sums import rotated
from nightglass.cubes.transfer import SpoiltFrames
from nightglass.errors import Retryable
from nightglass.fitsio.checksums import add_sums, sum_bytes
from nightglass.pool import SerialPool
from tests.unit.cubes.oracles import (
    BITPIX,
    assert_planes,
    assert_sound,
    pixels_of,
    plan_of,
    request_of,
    survey_of,
    write_frame,
)

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 13))


def write(paths: list[Path], out: Path, formats: dict[str, PixelFormat] | None = None, **options: object) -> None:
    survey = survey_of(paths)
    request = request_of(paths, out=out, **options)
    write_plain(plan_of(survey, request, formats), out, pool=SerialPool(), limits=Limits())


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(kind=st.sampled_from(sorted(BITPIX)), shape=SHAPES, frames=st.integers(1, 5), checksum=st.booleans())
def test_planes_of_any_type_and_size(tmp_path_factory, kind, shape, frames, checksum):
    directory = tmp_path_factory.mktemp("cube")
    planes = [pixels_of(kind, shape, seed) for seed in range(frames)]
    paths = [
        write_frame(directory / f"{index}.fits", [pixels, pixels[::-1]], checksum=checksum)
        for index, pixels in enumerate(planes)
    ]
    out = directory / "cube.fits"
    write(paths, out)
    assert_sound(out)
    assert_planes(out, "SCI0", planes)
    assert_planes(out, "SCI1", [pixels[::-1] for pixels in planes])


@pytest.mark.parametrize("shape", [(700, 1201), (1449, 1447)])
def test_planes_larger_than_the_buffer(tmp_path, shape):
    planes = [pixels_of("u2", shape, seed) for seed in range(3)]
    paths = [write_frame(tmp_path / f"{i}.fits", pixels, checksum=True) for i, pixels in enumerate(planes)]
    write(paths, tmp_path / "cube.fits")
    assert_sound(tmp_path / "cube.fits")
    assert_planes(tmp_path / "cube.fits", "SCIENCE0", planes)


def test_odd_planes_larger_than_the_buffer(tmp_path):
    planes = [pixels_of("u1", (1025, 1027), seed) for seed in range(3)]
    paths = [write_frame(tmp_path / f"{i}.fits", pixels, checksum=True) for i, pixels in enumerate(planes)]
    write(paths, tmp_path / "cube.fits")
    assert_sound(tmp_path / "cube.fits")
    assert_planes(tmp_path / "cube.fits", "SCIENCE0", planes)


def test_the_stored_bytes_of_floats_are_kept(tmp_path):
    # a signalling NaN with a payload, which no arithmetic must touch
    stored = np.array([[0x7FA12345, 0xFFC00001], [0x80000000, 0x3F800000]], ">u4").view(">f4")
    path = write_frame(tmp_path / "a.fits", stored)
    write([path], tmp_path / "cube.fits")
    assert stored.tobytes() in (tmp_path / "cube.fits").read_bytes()


def test_mixed_types_are_promoted(tmp_path):
    planes = [pixels_of("i2", (5, 7), 1), pixels_of("u2", (5, 7), 2), pixels_of("u1", (5, 7), 3)]
    paths = [write_frame(tmp_path / f"{i}.fits", pixels) for i, pixels in enumerate(planes)]
    write(paths, tmp_path / "cube.fits", {"SCIENCE0": PixelFormat(32)})
    assert_sound(tmp_path / "cube.fits")
    assert_planes(tmp_path / "cube.fits", "SCIENCE0", [pixels.astype(np.int32) for pixels in planes])


def test_planes_of_every_encoding_side_by_side(tmp_path):
    planes = [pixels_of("i2", (12, 10), seed) for seed in range(4)]
    paths = [tmp_path / f"{index}.fits" for index in range(4)]
    write_frame(paths[0], [planes[0]])
    paths[1].write_bytes(gzip.compress(write_frame(tmp_path / "b", [planes[1]]).read_bytes()))
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(planes[2], name="SCI0")]).writeto(paths[2])
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(planes[3], name="SCI0", compression_type="GZIP_2")]).writeto(
        paths[3]
    )
    write(paths, tmp_path / "cube.fits")
    assert_sound(tmp_path / "cube.fits")
    assert_planes(tmp_path / "cube.fits", "SCI0", planes)


@pytest.mark.parametrize("packed", [False, True])
def test_several_frames_in_one_file(tmp_path, packed):
    cube = pixels_of("u2", (6, 5, 3))
    path = write_frame(tmp_path / "a.fits", cube)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    write([path], tmp_path / "cube.fits")
    assert_planes(tmp_path / "cube.fits", "SCIENCE0", list(cube))


def test_gathered_cubes_are_the_same(tmp_path):
    paths = [write_frame(tmp_path / f"{i}.fits", [pixels_of("u1", (9, 7), i)] * 2, checksum=True) for i in range(5)]
    for mode in ("shared", "gather"):
        write(paths, tmp_path / f"{mode}.out", mode=mode)
    assert (tmp_path / "shared.out").read_bytes() == (tmp_path / "gather.out").read_bytes()


def test_progress_ends_with_all(tmp_path):
    paths = [write_frame(tmp_path / f"{index}.fits", pixels_of("f8", (9, 7))) for index in range(6)]
    survey = survey_of(paths)
    told: list[tuple[int, int]] = []
    plan = plan_of(survey, request_of(paths))
    write_plain(plan, tmp_path / "out", pool=SerialPool(), limits=Limits(), progress=lambda *now: told.append(now))
    assert told[-1] == (6 * 9 * 7 * 8,) * 2
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def _task(paths: list[Path], part: Path, offset: int = 0) -> MoveTask:
    survey = survey_of(paths)
    moves = tuple(
        Move(index, survey.files[plane.file], plane, plane.format) for index, plane in enumerate(survey.planes)
    )
    return MoveTask(part, (Run(1, offset, offset, moves),), Limits())


def test_a_task_done_twice_is_done_once(tmp_path):
    paths = [write_frame(tmp_path / f"{i}.fits", pixels_of("u1", (3, 3), i)) for i in range(3)]
    part = tmp_path / "part"
    part.write_bytes(bytes(100))
    task = _task(paths, part, offset=5)
    first = move_planes(task)
    content = part.read_bytes()
    assert move_planes(task) == first
    assert part.read_bytes() == content
    assert content[:5] + content[32:] == bytes(5 + 68)
    assert first[0].total % 0xFFFFFFFF == sum_bytes(content) % 0xFFFFFFFF
    fetched = fetch_planes(task)[0]
    assert (fetched.moved, fetched.offset, fetched.data) == (first[0], 5, content[5:32])


@pytest.mark.parametrize("pieces", [[5, 3, 9], [4, 4], [1]])
def test_sums_of_runs_add_up(pieces):
    data = np.random.default_rng(0).bytes(sum(pieces))
    total = offset = 0
    for size in pieces:
        total = add_sums(total, rotated(sum_bytes(data[offset : offset + size]), offset))
        offset += size
    assert total == sum_bytes(data)


class TestSpoiltFrames:
    """What is wrong with a frame is said, with its name, and the cube is not taken for good."""

    @pytest.fixture
    def paths(self, tmp_path):
        return [write_frame(tmp_path / f"{i}.fits", pixels_of("i2", (40, 50), i), checksum=True) for i in range(4)]

    def faults(self, paths, survey):
        with pytest.raises(SpoiltFrames) as caught:
            write_plain(
                plan_of(survey, request_of(paths)), paths[0].with_name("out"), pool=SerialPool(), limits=Limits()
            )
        return caught.value.faults

    def test_cut(self, paths):
        survey = survey_of(paths)
        os.truncate(paths[2], 4000)
        (fault,) = self.faults(paths, survey)
        assert fault.path == paths[2]
        assert survey.planes[fault.plane].file == 2
        assert "2.fits" in fault.reason

    def test_cut_without_a_trace(self, paths):
        # the stamp is what the file has now, so only the bytes that are not there tell
        survey = survey_of(paths)
        os.truncate(paths[2], 4000)
        found = paths[2].stat()
        stamp = replace(survey.files[2].stamp, size=found.st_size, mtime_ns=found.st_mtime_ns)
        files = (*survey.files[:2], replace(survey.files[2], stamp=stamp), survey.files[3])
        (fault,) = self.faults(paths, replace(survey, files=files))
        assert "was cut" in fault.reason

    def test_changed(self, paths):
        survey = survey_of(paths)
        found = paths[1].stat()
        os.utime(paths[1], ns=(found.st_atime_ns, found.st_mtime_ns + 1))
        (fault,) = self.faults(paths, survey)
        assert fault.path == paths[1]
        assert "changed" in fault.reason

    def test_replaced(self, paths, tmp_path):
        survey = survey_of(paths)
        other = write_frame(tmp_path / "other", pixels_of("i2", (40, 50), 9), checksum=True)
        os.utime(other, ns=(0, survey.files[3].stamp.mtime_ns))
        other.replace(paths[3])
        (fault,) = self.faults(paths, survey)
        assert fault.path == paths[3]

    def test_gone(self, paths):
        survey = survey_of(paths)
        paths[0].unlink()
        (fault,) = self.faults(paths, survey)
        assert fault.path == paths[0]

    def test_wrong_datasum(self, paths):
        data = bytearray(paths[1].read_bytes())
        data[2880 + 77] ^= 1
        paths[1].write_bytes(data)
        survey = survey_of(paths)
        (fault,) = self.faults(paths, survey)
        assert fault.path == paths[1]
        assert "DATASUM" in fault.reason

    def test_several(self, paths):
        survey = survey_of(paths)
        for path in paths[1:3]:
            path.unlink()
        assert {fault.path for fault in self.faults(paths, survey)} == set(paths[1:3])


def test_a_part_that_cannot_be_opened_is_named(tmp_path):
    path = write_frame(tmp_path / "a.fits", pixels_of("i2", (4, 5)))
    with pytest.raises(Retryable, match="nowhere"):
        move_planes(_task([path], tmp_path / "nowhere" / "part"))


def test_values_out_of_range_are_a_fault_of_their_frame(tmp_path):
    path = write_frame(tmp_path / "a.fits", np.array([[70000, 1]], np.int32))
    survey = survey_of([path])
    plan = plan_of(survey, request_of([path]), {"SCIENCE0": PixelFormat(16)})
    with pytest.raises(SpoiltFrames, match="without loss"):
        write_plain(plan, tmp_path / "out", pool=SerialPool(), limits=Limits())


def test_every_type_is_covered():
    assert {abs(bitpix) // 8 for bitpix, _ in BITPIX.values()} == {1, 2, 4, 8}
    assert all(stored_dtype(bitpix).itemsize == np.dtype(kind).itemsize for kind, (bitpix, _) in BITPIX.items())


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lead=st.integers(0, 30), size=st.integers(1, 60), other=st.booleans())
def test_a_sum_is_checked_when_only_the_end_of_the_data_is_moved(tmp_path, lead, size, other):
    pixels = pixels_of("u1", (1, lead + size), lead)
    (tmp_path / "0.fits").unlink(missing_ok=True)
    survey = survey_of([write_frame(tmp_path / "0.fits", pixels)])
    whole = pixels.tobytes()
    source = replace(
        survey.planes[0],
        shape=(1, size),
        offset=survey.planes[0].offset + lead,
        size=size,
        datasum=add_sums(sum_bytes(whole), int(other)),
    )
    move = Move(0, survey.files[0], source, PixelFormat(8), lead=lead, rest=sum_bytes(whole[:lead]))
    (fetched,) = fetch_planes(MoveTask(tmp_path / "part", (Run(0, 0, 0, (move,)),), Limits()))
    assert other or fetched.data == whole[lead:]
    assert ["DATASUM" in fault.reason for fault in fetched.moved.faults] == [True] * other
