"""The plain library call behind each kind of job: what every executor ends in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nightglass.errors import Misconfigured
from nightglass.watch.jobs import Job, JobKind, JobPhase

if TYPE_CHECKING:
    from nightglass.cluster import Pool
    from nightglass.config import Camera, Observatory
    from nightglass.ledger import Ledger

__all__ = ["Workbench", "perform"]

_log = logging.getLogger(__name__)

PhaseFunction = Callable[[JobPhase, str, str], None]
"""Told phase, group id (empty: the job) and error text (empty: none)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """What library calls need beside the job."""

    ledger: Ledger
    pool: Pool
    observatory: Observatory
    cameras: Mapping[str, Camera]

    def camera(self, name: str) -> Camera:
        """Return a camera by name.

        Raises
        ------
        Misconfigured
            If this process does not know it.
        """
        if name not in self.cameras:
            message = f"there is no camera {name!r} here"
            raise Misconfigured(message, remedy=f"known: {', '.join(sorted(self.cameras)) or 'none'}")
        return self.cameras[name]


def perform(job: Job, bench: Workbench, *, on_phase: PhaseFunction) -> dict[str, Any]:
    """Do a job by plain library calls, in this thread, and return a small summary.

    A group of a batch that raises is told through `on_phase` and does not stop the others.

    Raises
    ------
    NightglassError
        What masters, a stage or an archive raised.
    """
    on_phase(JobPhase.WORKING, "", "")
    match job.kind:
        case JobKind.GROUP:
            return _perform_groups(job, bench, on_phase)
        case JobKind.MASTERS:
            return _perform_masters(job, bench)
        case JobKind.STAGE:
            return _perform_stage(job, bench)
        case JobKind.ARCHIVE:
            return _perform_archive(job, bench)
        case JobKind.BUILD | JobKind.CUBE | JobKind.REPORT:
            return {}  # without Prefect there is nowhere to report to


def _perform_groups(job: Job, bench: Workbench, on_phase: PhaseFunction) -> dict[str, Any]:
    from nightglass.reduction import run_group

    camera = bench.camera(job.camera)
    failed = 0
    for group in job.groups:
        on_phase(JobPhase.WORKING, group.group_id, "")
        problem = ""
        try:
            run_group(group, ledger=bench.ledger, pool=bench.pool, observatory=bench.observatory, camera=camera)
        except Exception as error:  # noqa: BLE001 - a boundary: the watch gives the leases of this group back
            _log.exception("group %s of job %s failed", group.group_id, job.job_id)
            problem = f"{type(error).__name__}: {error}"
            failed += 1
        on_phase(JobPhase.DONE, group.group_id, problem)
    return {"groups": len(job.groups), "failed": failed}


def _perform_masters(job: Job, bench: Workbench) -> dict[str, Any]:
    from nightglass.calibrations import build_masters

    masters = build_masters(
        job.night,
        bench.camera(job.camera),
        kinds=job.kinds or None,
        ledger=bench.ledger,
        pool=bench.pool,
        observatory=bench.observatory,
    )
    return {"masters": [master.master_id for master in masters]}


def _perform_stage(job: Job, bench: Workbench) -> dict[str, Any]:
    from nightglass.postprocess import run_stage

    if job.stage is None:
        message = f"job {job.job_id} of kind stage names no stage"
        raise Misconfigured(message)
    run_stage(
        job.stage,
        job.night,
        bench.camera(job.camera),
        ledger=bench.ledger,
        pool=bench.pool,
        observatory=bench.observatory,
    )
    return {"stage": job.stage.value}


def _perform_archive(job: Job, bench: Workbench) -> dict[str, Any]:
    from nightglass.archive import archive_night

    night = archive_night(
        job.night,
        bench.camera(job.camera),
        exposures=job.exposures or None,
        ledger=bench.ledger,
        pool=bench.pool,
        observatory=bench.observatory,
    )
    night.check()
    return night.to_json()
