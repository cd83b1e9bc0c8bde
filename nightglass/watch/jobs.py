"""What the watch hands to an executor, and what it hears back; both cross a pipe as plain JSON.

A job is a request to make one plain library call (or, for a batch, one for each group), so that every
executor does the same work: `nightglass.reduction.run_group`, `nightglass.calibrations.build_masters`,
`nightglass.postprocess.run_stage`, `nightglass.archive.archive_night`. A report tells how far it came; the ledger,
not the report, says whether exposures are reduced.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from nightglass.errors import Misconfigured
from nightglass.model import Kind, Night, Stage

if TYPE_CHECKING:
    from nightglass.reduction import GroupJob

__all__ = ["Job", "JobKind", "JobPhase", "JobReport"]


class JobKind(enum.StrEnum):
    """Which library call a job asks for."""

    GROUP = "group"
    """`run_group` for each of `Job.groups`, in order or at once."""
    MASTERS = "masters"
    """`build_masters` for one night of one camera."""
    STAGE = "stage"
    """`run_stage` for one stage of one night of one camera."""
    ARCHIVE = "archive"
    """`archive_night` for `Job.exposures` of one night of one camera."""
    BUILD = "build"
    """Show what an image builder did for an exposure: it is done already, and its account written down."""
    CUBE = "cube"
    """Show what an image builder made of an exposure that it archived, or why not; as BUILD."""
    REPORT = "report"
    """Show the dark runs that the ledger holds as unreported; nothing to do in the dark itself."""


class JobPhase(enum.StrEnum):
    """How far a job, or one group of it, came; phases only go forward."""

    ACCEPTED = "accepted"
    """The executor has it; the library call has not begun, so it can be taken back without loss."""
    WORKING = "working"
    """The library call has begun."""
    DONE = "done"
    """The library call returned or raised; what surrounds it (a flow run) may still be open."""
    ENDED = "ended"
    """Nothing of it is left in the executor. Exactly one for each submitted job, and always its last."""

    @property
    def rank(self) -> int:
        """Order of the phases, from 0."""
        return list(JobPhase).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request to an executor.

    Attributes
    ----------
    job_id : str
        Unique for ever: a job that is given again gets a new id.
    key : str
        What a person recognises the run by: the exposure or group id, ``<night>-masters``, ``<night>-final``.
    deadline_s : float
        Seconds after which the watch takes the job back when nothing of it has come forward; an executor
        may use it as the outer time-out of its run.
    groups : tuple of GroupJob
        For `JobKind.GROUP`; every exposure in it is claimed already, the leases are inside.
    stage : Stage or None
        For `JobKind.STAGE`.
    kinds : tuple of Kind
        For `JobKind.MASTERS`: which masters; empty: all.
    exposures : tuple of str
        For `JobKind.ARCHIVE`: which exposures; empty: all. For `JobKind.BUILD` and `JobKind.CUBE`: the one.
    builder, order : str
        For these two: the image builder, and what tells its orders, or exposures of one number, apart.
    progress : str
        For these two: what is going on; empty: it is over.
    """

    job_id: str
    kind: JobKind
    key: str
    camera: str
    night: Night
    deadline_s: float
    groups: tuple[GroupJob, ...] = ()
    stage: Stage | None = None
    kinds: tuple[Kind, ...] = ()
    exposures: tuple[str, ...] = ()
    builder: str = ""
    order: str = ""
    progress: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the job as plain JSON values."""
        return {
            "job_id": self.job_id,
            "kind": self.kind.value,
            "key": self.key,
            "camera": self.camera,
            "night": self.night.label,
            "deadline_s": self.deadline_s,
            "groups": [group.to_json() for group in self.groups],
            "stage": self.stage.value if self.stage else None,
            "kinds": [kind.value for kind in self.kinds],
            "exposures": list(self.exposures),
            "builder": self.builder,
            "order": self.order,
            "progress": self.progress,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """Make the job from what `to_json` gave.

        Raises
        ------
        Misconfigured
            If the record is of another shape: it was written by another version.
        """
        from nightglass.reduction import GroupJob  # heavy; a process that only sends jobs never needs it

        try:
            return cls(
                job_id=record["job_id"],
                kind=JobKind(record["kind"]),
                key=record["key"],
                camera=record["camera"],
                night=Night(record["night"]),
                deadline_s=float(record["deadline_s"]),
                groups=tuple(GroupJob.from_json(group) for group in record["groups"]),
                stage=Stage(record["stage"]) if record["stage"] else None,
                kinds=tuple(Kind(kind) for kind in record["kinds"]),
                exposures=tuple(record["exposures"]),
                builder=record["builder"],
                order=record["order"],
                progress=record["progress"],
            )
        except (KeyError, TypeError, ValueError) as error:
            message = f"a job record does not fit: {error!r}"
            raise Misconfigured(message, remedy="watch and runner must be of one version; restart both") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """How far a job came, as its executor heard.

    Attributes
    ----------
    group_id : str
        The group of a batch that the phase is of; empty: the whole job.
    error : str
        With ENDED (or DONE of a group): class and text of what went wrong; empty: all went well. It is for
        logs and status only: what happens to the exposures stands in the ledger.
    flow_run_id : str
        Of the Prefect flow run, where there is one.
    lost : bool
        With ENDED: whether the job went down with its runner, for which its exposures are not to blame.
    summary : dict
        Small JSON-able facts for logs and status (masters made, verdicts, seconds).
    """

    job_id: str
    phase: JobPhase
    group_id: str = ""
    error: str = ""
    flow_run_id: str = ""
    lost: bool = False
    summary: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "job_id": self.job_id,
            "phase": self.phase.value,
            "group_id": self.group_id,
            "error": self.error,
            "flow_run_id": self.flow_run_id,
            "lost": self.lost,
            "summary": self.summary,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """Make the report from what `to_json` gave.

        Raises
        ------
        Misconfigured
            If the record is of another shape.
        """
        try:
            return cls(**{**record, "phase": JobPhase(record["phase"])})
        except (KeyError, TypeError, ValueError) as error:
            message = f"a job report does not fit: {error!r}"
            raise Misconfigured(message, remedy="watch and runner must be of one version; restart both") from error
