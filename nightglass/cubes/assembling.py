"""THE library call: frames in, one verified cube out."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from nightglass.config import Camera, Limits
from nightglass.cubes.compressed import write_compressed
from nightglass.cubes.plain import write_plain
from nightglass.cubes.planning import plan_cube
from nightglass.cubes.readback import read_back
from nightglass.cubes.records import (
    CubePlan,
    CubeRequest,
    CubeSummary,
    ImagePlan,
    Problem,
    Progress,
    SourceSummary,
)
from nightglass.cubes.survey import survey_frames
from nightglass.cubes.transfer import SpoiltFrames
from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.fitsio import part_path
from nightglass.pool import Pool

__all__ = ["assemble_cube"]


@dataclass(slots=True)
class _Clock:
    """Seconds of each stage; of the last attempt, where there were several."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def assemble_cube(
    request: CubeRequest,
    *,
    pool: Pool,
    limits: Limits | None = None,
    camera: Camera | None = None,
    progress: Progress | None = None,
) -> CubeSummary:
    """Assemble frames to a cube that appears under its name whole, or not at all.

    Frames that change or turn out to be damaged while they are copied are left out and named, unless
    `CubeRequest.skip_bad` is off.

    Parameters
    ----------
    pool : Pool
        Whose workers move and compress pixels; `nightglass.pool.SerialPool` does it in this thread.
    limits : Limits, optional
        What a frame may announce.
    camera : Camera, optional
        How its files name frames, detectors and times.
    progress : callable, optional
        Told the bytes that are done, and all bytes.

    Raises
    ------
    Misconfigured
        If the cube is there already and is not to be replaced.
    Rejected
        If no frame can be used; or any cannot, and `skip_bad` is off.
    Retryable
        If the file system refuses (a full disk, for example), or the workers died again and again. No file is left.
    """
    limits = limits or Limits()
    if request.out.exists() and not request.overwrite:
        raise _there_already(request.out)
    left_out: tuple[Problem, ...] = ()
    wanted = request
    while True:
        try:
            return _assemble(wanted, left_out, pool, limits, camera, progress)
        except SpoiltFrames as spoilt:
            bad = {fault.path: fault.reason for fault in spoilt.faults}
            paths = tuple(path for path in wanted.paths if path not in bad)
            if not request.skip_bad or len(paths) == len(wanted.paths):
                raise
            if not paths:
                message = f"no frame for {request.out} is left: {spoilt.message}"
                raise Rejected(message, remedy="the frames are archived when they are whole") from spoilt
            left_out += tuple(Problem(path, reason) for path, reason in bad.items())
            wanted = replace(wanted, paths=paths)


def _assemble(
    request: CubeRequest,
    left_out: tuple[Problem, ...],
    pool: Pool,
    limits: Limits,
    camera: Camera | None,
    progress: Progress | None,
) -> CubeSummary:
    clock = _Clock()
    with clock.stage("survey"):
        survey = survey_frames(request, limits, camera=camera, pool=pool)
        survey = replace(survey, problems=(*survey.problems, *left_out))
    with clock.stage("plan"):
        plan = plan_cube(survey, request, camera=camera)
    with _published(request) as part:
        with clock.stage("pixels"):
            sources = _write(plan, part, pool, limits, progress)
        with clock.stage("finish"):
            if request.durable:
                _sync(part)
        with clock.stage("verify"):
            if request.verify:
                read_back(part, pool=pool, limits=limits)
        size = part.stat().st_size
    images = [item for item in plan.hdus if isinstance(item, ImagePlan)]
    return CubeSummary(
        path=request.out,
        size=size,
        pixel_bytes=sum(image.plane_size * len(image.planes) for image in images),
        sources=sources,
        frames=len({plane.frame for plane in survey.planes}),
        problems=survey.problems,
        seconds=clock.seconds,
    )


def _write(
    plan: CubePlan, part: Path, pool: Pool, limits: Limits, progress: Progress | None
) -> tuple[SourceSummary, ...]:
    if plan.request.compression is None:
        return write_plain(plan, part, pool=pool, limits=limits, progress=progress)
    return write_compressed(plan, part, pool=pool, limits=limits, progress=progress)


@contextlib.contextmanager
def _published(request: CubeRequest) -> Iterator[Path]:
    """Give a path to write to; at the end of a block without exception the cube gets its name."""
    # the form of the token tells `remove_stale_parts` whose file it is
    part = part_path(request.out, f"w{os.getpid()}x{secrets.token_hex(4)}")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if request.overwrite:
            part.replace(request.out)
        else:
            _rename_new(part, request.out)
        if request.durable:
            _sync(request.out.parent)
    except OSError as error:
        message = f"{request.out} cannot be written: {error.strerror or error}"
        raise Retryable(message, remedy="make room on the disk, and check the rights of the directory") from error
    finally:
        with contextlib.suppress(OSError):  # the first failure is the one to tell
            part.unlink(missing_ok=True)


def _rename_new(part: Path, out: Path) -> None:
    """Rename a file to a name that nobody else has taken in the meantime."""
    try:
        os.link(part, out)  # unlike a rename, it does not replace
    except FileExistsError:
        raise _there_already(out) from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        if out.exists():  # a file system without hard links leaves a short moment for another writer
            raise _there_already(out) from None
        part.replace(out)


def _there_already(out: Path) -> Misconfigured:
    message = f"{out} is there already"
    return Misconfigured(message, remedy="remove it, or ask for it to be overwritten")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
