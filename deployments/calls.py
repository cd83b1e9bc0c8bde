"""Which flow, with which parameters, shows a job of the watch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nightglass.errors import Misconfigured
from nightglass.model import Stage
from nightglass.watch.jobs import Job, JobKind
from tasks.reducing import RETURNED

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

__all__ = ["DEPLOYMENT", "STAGE_FLOWS", "FlowCall", "call_of", "problem_of"]

DEPLOYMENT = "nightglass"
"""Name of every deployment; the flow's name goes before it."""

STAGE_FLOWS = {Stage.MIDWAY: "flows.postprocess.midway_postprocess", Stage.FINAL: "flows.postprocess.final_postprocess"}

_PLAIN = {"what": "", "redo": "changed"}


@dataclass(frozen=True, slots=True)
class FlowCall:
    """A flow by its entry point, and what to call it with."""

    entrypoint: str
    parameters: dict[str, Any]

    @property
    def flow_name(self) -> str:
        """As Prefect shows it."""
        return self.entrypoint.rsplit(".", 1)[-1].replace("_", "-")

    @property
    def deployment(self) -> str:
        """``flow/deployment``."""
        return f"{self.flow_name}/{DEPLOYMENT}"


def call_of(job: Job, *, configuration: str = "") -> FlowCall:
    """Return the flow call that shows a job.

    Raises
    ------
    Misconfigured
        If no flow shows jobs of that kind.
    """
    common = {"camera": job.camera, "configuration": configuration, "job": job.job_id}
    night = {"night": job.night.label}
    match job.kind:
        case JobKind.GROUP if len(job.groups) == 1 and len(job.groups[0].refs) == 1:
            exposure = job.groups[0].refs[0].exposure_id
            return FlowCall("flows.realtime.reduce_exposure", {"exposure": exposure, **common})
        case JobKind.GROUP if len(job.groups) == 1:
            return FlowCall("flows.realtime.reduce_group", {"group": job.groups[0].group_id, **common})
        case JobKind.GROUP:
            groups = [group.group_id for group in job.groups]
            return FlowCall("flows.realtime.reduce_batch", {"groups": groups, **common})
        case JobKind.MASTERS:
            kinds = ", ".join(kind.value for kind in job.kinds)
            return FlowCall("flows.realtime.make_masters", {**night, "kinds": kinds, **common})
        case JobKind.STAGE if job.stage is not None:
            return FlowCall(STAGE_FLOWS[job.stage], {**night, **common})
        case JobKind.ARCHIVE if len(job.exposures) == 1:
            return FlowCall("flows.archive.archive_exposure", {"exposure": job.exposures[0], **_PLAIN, **common})
        case JobKind.ARCHIVE:
            return FlowCall("flows.archive.archive_night", {**night, **_PLAIN, **common})
        case JobKind.BUILD:
            build = {"exposure": job.exposures[0], "builder": job.builder}
            return FlowCall("flows.building.build_exposure", {**build, **common})
        case JobKind.CUBE:
            built = {"exposure": job.exposures[0], "builder": job.builder, "order": job.order}
            return FlowCall("flows.building.archive_built_exposure", {**built, **common})
    message = f"no flow shows job {job.job_id} of kind {job.kind}"
    raise Misconfigured(message)


def problem_of(state: State[Any]) -> str:
    """Return what a run that ended did not do, empty if it did all: Prefect calls work given back Completed, too."""
    done = state.is_completed() and state.name != RETURNED
    return "" if done else f"{state.name}: {state.message}"
