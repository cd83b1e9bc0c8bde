"""Runs that Prefect did not see or did not hear the end of, as it would show them."""

from __future__ import annotations

import time
from typing import Any

from nightglass.ledger import RunRecord
from nightglass.model import Stage
from nightglass.watch.flights import Flight
from nightglass.watch.jobs import Job, JobKind

__all__ = ["run_record"]

_STAGE_FLOWS = {Stage.MIDWAY: "midway-postprocess", Stage.FINAL: "final-postprocess"}


def run_record(flight: Flight, *, error: str) -> RunRecord:
    """Return the record of a run that is over, for a late report.

    Flow names and parameters are those of the flows that would have run.
    """
    flow, parameters = _flow_of(flight.job)
    return RunRecord(
        run_id=flight.job.job_id,
        name=flight.job.key,
        flow=flow,
        night=flight.job.night,
        camera=flight.job.camera,
        started_at=flight.started_at,
        ended_at=time.time(),
        error=error,
        parameters={**parameters, "camera": flight.job.camera},
        flow_run_id=flight.flow_run_id,
    )


def _flow_of(job: Job) -> tuple[str, dict[str, Any]]:
    match job.kind:
        case JobKind.GROUP if len(job.groups) > 1:
            return "reduce-batch", {"groups": [group.group_id for group in job.groups]}
        case JobKind.GROUP if len(job.groups[0].refs) > 1:
            return "reduce-group", {"group": job.groups[0].group_id}
        case JobKind.GROUP:
            return "reduce-exposure", {"exposure": job.groups[0].refs[0].exposure_id}
        case JobKind.STAGE if job.stage is not None:
            return _STAGE_FLOWS[job.stage], {"night": job.night.label}
        case JobKind.ARCHIVE if len(job.exposures) == 1:
            return "archive-exposure", {"exposure": job.exposures[0]}
        case JobKind.ARCHIVE:
            return "archive-night", {"night": job.night.label}
        case JobKind.BUILD:
            return "build-exposure", {"exposure": job.exposures[0], "builder": job.builder}
        case JobKind.CUBE:
            built = {"exposure": job.exposures[0], "builder": job.builder, "order": job.order}
            return "archive-built-exposure", built
    return "make-masters", {"night": job.night.label}
