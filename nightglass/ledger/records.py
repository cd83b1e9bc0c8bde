"""What the ledger hands out: frozen records, no rows and no connections."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from nightglass.errors import Misconfigured
from nightglass.model import ExposureRef, Kind, Night, Quality, Stage, State, sanitize

if TYPE_CHECKING:
    from nightglass.groups import ReadyGroup

__all__ = [
    "FINAL_STATES",
    "Difference",
    "DifferenceKind",
    "Entry",
    "ErrorSummary",
    "Event",
    "GroupRecord",
    "Lease",
    "NightRecord",
    "Reconciliation",
    "RunRecord",
    "StageLease",
    "StageRecord",
    "StageState",
]

FINAL_STATES = frozenset({State.REDUCED, State.REJECTED, State.FAILED, State.SKIPPED})
"""States that nothing leaves by itself: only a person, a changed file or a redo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One content that arrived, and how far it came.

    Attributes
    ----------
    key : str
        ``<night>/<camera>/<number in order of arrival>``; it never changes, even if the night turns out to be another.
    size, mtime_ns : int
        Of the file as it was last seen.
    content_id, exposure_id : str
        Empty until the file is complete.
    parent : str
        Exposure of which the file is only a part, one frame or one detector; empty: it is all of it.
    revision : int
        From 1; grows when the file is replaced after it had been complete, or judged.
    reason, cause : str
        Why the entry is in this state, and the class of the error behind it; both may be empty.
    ref : ExposureRef or None
        None until the file is complete.
    lease_until, retry_at : float or None
        Epoch seconds.
    attempts : int
        Claims since the entry last got on; a claim that was revoked does not count.
    masters : tuple of str
        Ids of the masters that the last product used.
    measured, timings : dict
        What the reduction measured, and its seconds by step.
    latency_s : float or None
        From the sighting to the first product of this revision, in seconds.
    times : dict
        Stage (``seen``, ``complete``, ``grouped``, ``running``, ``reduced``) -> epoch seconds, if reached.
    """

    key: str
    camera: str
    night: Night
    path: Path
    size: int
    mtime_ns: int
    content_id: str
    exposure_id: str
    revision: int
    state: State
    reason: str
    cause: str
    kind: Kind | None
    ref: ExposureRef | None
    group_id: str
    token: str
    owner: str
    lease_until: float | None
    attempts: int
    retry_at: float | None
    quality: Quality | None
    masters: tuple[str, ...]
    measured: dict[str, Any]
    timings: dict[str, Any]
    latency_s: float | None
    times: dict[str, float]
    parent: str = ""

    @property
    def archive_id(self) -> str:
        """Id of the exposure in whose cube the file belongs; a file that was never understood is one of its own."""
        if self.parent or self.exposure_id:
            return self.parent or self.exposure_id
        return f"{self.camera}/{self.night}/{sanitize(self.path.name.partition('.')[0])}-{self.key.rpartition('/')[2]}"

    @property
    def is_duplicate(self) -> bool:
        """Whether it was skipped because the same content is known under another path."""
        return self.state is State.SKIPPED and self.cause == "Duplicate"

    @property
    def is_final(self) -> bool:
        """Whether nothing happens to it by itself any more."""
        return self.state in FINAL_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to reduce one exposure until a moment (epoch seconds); the token fences its former holders."""

    exposure_id: str
    key: str
    token: str
    until: float
    revision: int
    attempts: int

    def to_json(self) -> dict[str, Any]:
        """Return the lease as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Make the lease from what `to_json` gave.

        Raises
        ------
        Misconfigured
            If the record is of another shape.
        """
        try:
            return cls(**record)
        except TypeError as error:
            message = f"a lease record does not fit: {error}"
            raise Misconfigured(message, remedy="all processes must be of one version; restart them") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRecord:
    """A group as it was closed; a later revision holds all members of the earlier ones.

    Attributes
    ----------
    rule : str
        Name of the `GroupRule`; empty for a group of one.
    members : tuple of str
        Exposure ids, in order of position.
    """

    group_id: str
    night: Night
    camera: str
    rule: str
    members: tuple[str, ...]
    complete: bool = True
    revision: int = 1
    reason: str = ""

    @classmethod
    def of(cls, group: ReadyGroup) -> Self:
        """Return the record of a group that the engine closed."""
        first = group.members[0]
        return cls(
            group_id=group.group_id,
            night=first.night,
            camera=first.camera,
            rule=group.rule.name if group.rule else "",
            members=tuple(ref.exposure_id for ref in group.members),
            complete=group.complete,
            revision=group.revision,
            reason=group.reason,
        )


class StageState(enum.StrEnum):
    """How far a stage of a night came."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """One stage of one night of one camera.

    Attributes
    ----------
    due : datetime
        Aware, UTC.
    summary : dict
        What the last run that ended well said.
    reason : str
        What went wrong last; empty after a run that ended well.
    """

    night: Night
    camera: str
    stage: Stage
    due: datetime
    state: StageState
    owner: str
    lease_until: float | None
    attempts: int
    summary: dict[str, Any]
    reason: str
    started_at: float | None
    ended_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLease:
    """The right to run one stage until a moment (epoch seconds)."""

    night: Night
    camera: str
    stage: Stage
    token: str
    until: float
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NightRecord:
    """One night of one camera; times are epoch seconds, `closed_at` is None while it is open."""

    night: Night
    camera: str
    opened_at: float
    closed_at: float | None
    stages: tuple[StageRecord, ...]

    @property
    def is_open(self) -> bool:
        """Whether the night is not closed."""
        return self.closed_at is None

    def stage(self, stage: Stage) -> StageRecord:
        """Return one of its stages."""
        return next(item for item in self.stages if item.stage is stage)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run that took place without Prefect, or whose end Prefect did not hear, to be reported late.

    Attributes
    ----------
    run_id : str
        Unique; the id of the job, or job and group.
    name : str
        What the run is called in the view: the exposure or group id, ``<night>-final``.
    flow : str
        Name of the flow that would have run.
    started_at, ended_at : float
        Epoch seconds.
    error : str
        Class and text of what went wrong; empty: all went well.
    parameters : dict
        Flow parameters, plain JSON.
    flow_run_id : str
        Of a flow run that exists already and is to be ended; empty: one is to be made.
    """

    run_id: str
    name: str
    flow: str
    night: Night
    camera: str
    started_at: float
    ended_at: float
    error: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    flow_run_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change of state of one entry; `at` in epoch seconds, `before` None for the first."""

    key: str
    number: int
    revision: int
    at: float
    before: State | None
    after: State
    reason: str
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSummary:
    """One cause of trouble in a night: how many exposures it struck, and the first few of them."""

    state: State
    cause: str
    reason: str
    count: int
    examples: tuple[str, ...]


class DifferenceKind(enum.StrEnum):
    """In what way ledger, directory and expectation differ."""

    UNRECORDED = "unrecorded"
    """A file on disk that the ledger does not know."""
    CHANGED = "changed"
    """A file whose size is not the one that the ledger knows."""
    GONE = "gone"
    """A file that the ledger knows and that is no longer there."""
    UNFINISHED = "unfinished"
    """An entry that is not in a final state."""
    NO_PRODUCT = "no product"
    """A reduced exposure without a recorded product."""
    PRODUCT_GONE = "product gone"
    """A recorded product that is not on disk, or has another size there."""
    UNKNOWN_PRODUCT = "unknown product"
    """A product on disk that the ledger does not know."""
    MISSING = "missing"
    """An exposure that was expected and never came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One difference; `subject` is a path, exposure id or entry key, `detail` says what is known about it."""

    kind: DifferenceKind
    subject: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.subject}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """Ledger, directory and expectation of a night, compared."""

    night: Night
    camera: str
    counts: dict[State, int]
    differences: tuple[Difference, ...]

    @property
    def agrees(self) -> bool:
        """Whether there is no difference."""
        return not self.differences
