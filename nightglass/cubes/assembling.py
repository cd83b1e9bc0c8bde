"""THE library call: frames in, one verified cube out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from nightglass.config import Camera, Limits
from nightglass.cubes.compressed import write_compressed
from nightglass.cubes.plain import write_plain
from nightglass.cubes.planning import plan_cube
from nightglass.cubes.publishing import publishing, refuse_existing, sync
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
from nightglass.errors import Rejected
from nightglass.pool import Pool, SerialPool

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
    request = _absolute(request)
    if not request.overwrite:
        refuse_existing(request.out)
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


def _absolute(request: CubeRequest) -> CubeRequest:
    """Return a request whose paths mean the same to a worker, which may stand in another directory."""
    return replace(request, paths=tuple(path.absolute() for path in request.paths), out=request.out.absolute())


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
    with publishing(request) as part:
        with clock.stage("pixels"):
            sources = _write(plan, part, pool, limits, progress)
        with clock.stage("finish"):
            if request.durable:
                sync(part)
        with clock.stage("verify"):
            if request.verify:
                # workers of the mode gather do not see the cube
                read_back(part, pool=SerialPool() if request.mode == "gather" else pool, limits=limits)
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
