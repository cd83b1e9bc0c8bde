"""Tasks around midway and final: each piece of `nightglass.postprocess.Postprocess` as one visible step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State as RunState
from prefect.states import Completed

from nightglass.archive import NightArchive
from nightglass.layout import Layout
from nightglass.ledger import Ledger, Reconciliation, StageState
from nightglass.model import CALIBRATION_KINDS, MasterRef, Night, Stage, State
from nightglass.postprocess import Postprocess, StageSummary, archive_facts
from nightglass.reduction import GroupJob, GroupOutcome, run_group
from nightglass.report import StageReport
from nightglass.watch.jobs import JobPhase
from nightglass.watch.work import Workbench
from tasks.archiving import show_archives
from tasks.artifacts import artifact_key, show_summary
from tasks.bench import current_bench, current_handover
from tasks.calibrating import if_retryable
from tasks.choosing import the_cameras, the_night
from tasks.reducing import flow_owner, is_repeated

__all__ = [
    "StageWork",
    "announce",
    "finish_stage",
    "flush_groups",
    "reconcile_night",
    "redo_exposures",
    "refresh_masters",
    "show_stage",
    "stack_groups",
    "stage_work",
    "write_stage_reports",
]

_TIMEOUT_S = 6 * 3600.0
_PICTURES = 6
_NAMED = 20


class StageWork:
    """A stage in the hands of a flow run.

    A plain class, so that Prefect does not look through it for futures when it is handed to a task.

    Parameters
    ----------
    post : Postprocess
        Its claim on the stage is inside.
    idle : str
        Why there is nothing to do; empty: the stage is this run's.
    """

    def __init__(self, post: Postprocess, *, idle: str = "") -> None:
        self.post = post
        self.idle = idle
        self.masters: tuple[MasterRef, ...] = ()
        self.outcomes: list[GroupOutcome] = []
        self.stacks = 0
        self.archive: NightArchive | None = None

    @property
    def name(self) -> str:
        """Stage, night and camera."""
        return f"{self.post.stage.value} of {self.post.night}, {self.post.camera.name}"

    def skipped(self) -> RunState[Any]:
        """Return the state of a run that found nothing to do."""
        return Completed(name="Skipped", message=f"{self.name}: {self.idle}")

    def reduce(self, group: GroupJob) -> GroupOutcome:
        """Reduce one group, in the calling thread."""
        post = self.post
        return run_group(group, ledger=post.ledger, pool=post.pool, observatory=post.observatory, camera=post.camera)


@asynccontextmanager
async def stage_work(stage: Stage, night: str, camera: str, job: str) -> AsyncIterator[StageWork]:
    """Claim a stage in the ledger for as long as the block lasts; only one holder at a time has it.

    A person who asks (no job), or repeats a run, has a stage that is done run again; the schedule and the watch do not.

    Raises
    ------
    Misconfigured
        If the night was never opened.
    """
    bench = current_bench()
    handover = current_handover(job)
    if handover is not None:
        handover.tell(JobPhase.WORKING, "", "")
    post = Postprocess(
        stage,
        the_night(night, bench.observatory),
        bench.camera(the_cameras(camera, bench.observatory)[0]),
        bench.ledger,
        bench.pool,
        bench.observatory,
        owner=flow_owner(),
    )
    idle = await asyncio.to_thread(_claim, post, again=not job or is_repeated())
    work = StageWork(post, idle=idle)
    if idle:
        yield work
        return
    try:
        with post.kept():
            yield work
    except Exception as error:
        await asyncio.to_thread(post.fail, error)
        raise


def _claim(post: Postprocess, *, again: bool) -> str:
    """Claim the stage; return why it can't be had, empty if it can."""
    ledger, night, camera, stage = post.ledger, post.night, post.camera.name, post.stage
    if again:
        _release(ledger, night, camera, stage)
    if post.claim():
        return ""
    record = ledger.find_night(night, camera)
    states = {item.stage: item for item in record.stages} if record is not None else {}
    if stage in states and states[stage].state in (StageState.DONE, StageState.FAILED):
        return f"it is {states[stage].state.value} already"
    holders = [f"{item.stage.value} by {item.owner}" for item in states.values() if item.owner]
    return f"another holder runs {', '.join(holders) or 'it'}"


def _release(ledger: Ledger, night: Night, camera: str, stage: Stage) -> None:
    """Make a stage that is over claimable once more."""
    record = ledger.find_night(night, camera)
    if record is None or record.stage(stage).state not in (StageState.DONE, StageState.FAILED):
        return
    now = datetime.now(UTC)
    if not record.is_open:
        ledger.reopen(night, camera, final_due=now)
    ledger.reset_stage(night, camera, stage, due=now)


@task(
    name="flush-groups",
    cache_policy=NO_CACHE,
    persist_result=False,
    timeout_seconds=_TIMEOUT_S,
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=if_retryable,
)
async def flush_groups(work: StageWork) -> int:
    """Close and reduce the last groups of the night; return how many exposures were reduced."""
    outcomes = await asyncio.to_thread(work.post.flush_groups, work.reduce)
    return _count(work, outcomes)


@task(
    name="refresh-masters",
    cache_policy=NO_CACHE,
    persist_result=False,
    timeout_seconds=_TIMEOUT_S,
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=if_retryable,
)
async def refresh_masters(work: StageWork) -> int:
    """Make tonight's masters of all accepted frames; return how many there are."""
    work.masters = await asyncio.to_thread(work.post.refresh_masters)
    return len(work.masters)


@task(
    name="redo-exposures",
    cache_policy=NO_CACHE,
    persist_result=False,
    timeout_seconds=_TIMEOUT_S,
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=if_retryable,
)
async def redo_exposures(work: StageWork) -> int:
    """Reduce again what waited or has better masters now; return how many exposures were reduced."""
    outcomes = await asyncio.to_thread(work.post.redo, work.reduce)
    return _count(work, outcomes)


@task(
    name="stack-groups",
    cache_policy=NO_CACHE,
    persist_result=False,
    timeout_seconds=_TIMEOUT_S,
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=if_retryable,
)
async def stack_groups(work: StageWork) -> int:
    """Make the stacks that are missing or out of date; return how many there are."""
    work.stacks = await asyncio.to_thread(work.post.stack)
    return work.stacks


@task(name="reconcile-night", cache_policy=NO_CACHE, persist_result=False, timeout_seconds=_TIMEOUT_S)
async def reconcile_night(work: StageWork) -> Reconciliation | None:
    """Compare ledger, directories and products."""
    return await asyncio.to_thread(work.post.reconcile)


@task(
    name="write-reports",
    cache_policy=NO_CACHE,
    persist_result=False,
    timeout_seconds=_TIMEOUT_S,
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=if_retryable,
)
async def write_stage_reports(work: StageWork, reconciliation: Reconciliation | None) -> StageReport:
    """Write summary, error report and exposure log."""
    return await asyncio.to_thread(work.post.report, reconciliation)


@task(name="announce", cache_policy=NO_CACHE, persist_result=False, timeout_seconds=_TIMEOUT_S)
async def announce(work: StageWork, report: StageReport) -> None:
    """Put the notice into the outbox; the watch sends it, and tries again until it is delivered."""
    await asyncio.to_thread(work.post.announce, report)


@task(name="finish-stage", cache_policy=NO_CACHE, persist_result=False, timeout_seconds=_TIMEOUT_S)
async def finish_stage(work: StageWork, report: StageReport, reconciliation: Reconciliation | None) -> StageSummary:
    """Record the stage as done, which for final closes the night."""
    post = work.post
    counts = await asyncio.to_thread(post.ledger.counts, post.night, post.camera.name)
    summary = StageSummary(
        stage=post.stage.value,
        night=post.night.label,
        camera=post.camera.name,
        masters=len(work.masters),
        redone=sum(len(outcome.reduced) for outcome in work.outcomes),
        stacks=work.stacks,
        counts={state.value: count for state, count in counts.items()},
        differences=tuple(str(item) for item in reconciliation.differences) if reconciliation else (),
        **archive_facts(work.archive),
        reports=tuple(str(path) for path in (report.page, *report.attachments)),
    )
    await asyncio.to_thread(post.finish, summary)
    return summary


async def show_stage(work: StageWork, summary: StageSummary) -> None:
    """Leave a page with the run: counts, what reconciliation found, the newest quick looks; and a table of archives."""
    if work.archive is not None:
        await show_archives(work.name, work.archive.exposures)
    facts: dict[str, Any] = {state: count for state, count in (summary.counts or {}).items() if count}
    facts |= {"masters": summary.masters, "reduced in this stage": summary.redone, "stacks": summary.stacks}
    facts |= {"archived": summary.archived} if work.archive is not None else {}
    facts |= {f"not archived {number}": text for number, text in enumerate(summary.archive_failures[:_NAMED], start=1)}
    facts |= {f"difference {number}": text for number, text in enumerate(summary.differences, start=1)}
    facts["report"] = f"`{summary.reports[0]}`" if summary.reports else ""
    pictures = await asyncio.to_thread(_newest_pictures, current_bench(), work.post)
    key = artifact_key(summary.camera, summary.night, summary.stage)
    await show_summary(work.name, facts, pictures, key=key)


def _newest_pictures(bench: Workbench, post: Postprocess) -> dict[str, Path]:
    layout = Layout(bench.observatory.root)
    entries = bench.ledger.entries(night=post.night, camera=post.camera.name, states={State.REDUCED})
    refs = [entry.ref for entry in entries if entry.ref is not None and entry.ref.kind not in CALIBRATION_KINDS]
    return {ref.exposure_id: layout.quicklook(ref) for ref in refs[-_PICTURES:]}


def _count(work: StageWork, outcomes: Sequence[GroupOutcome]) -> int:
    work.outcomes += outcomes
    return sum(len(outcome.reduced) for outcome in outcomes)
