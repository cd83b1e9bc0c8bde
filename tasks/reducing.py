"""Tasks around the reduction of groups: whose work it is, the one library call, and what is shown of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State as RunState
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from nightglass import byhand
from nightglass.config import Camera
from nightglass.errors import NightglassError
from nightglass.layout import Layout
from nightglass.model import State
from nightglass.reduction import GroupJob, GroupOutcome, run_group
from nightglass.watch.jobs import JobPhase
from nightglass.watch.owners import Owner
from nightglass.watch.work import Workbench
from tasks.artifacts import artifact_key, exposure_rows, show_quicklook, show_table
from tasks.bench import current_bench, current_handover
from tasks.choosing import the_cameras

__all__ = [
    "RETURNED",
    "Work",
    "conclude",
    "flow_owner",
    "give_up",
    "is_repeated",
    "reduce_groups",
    "show_reduction",
    "take_exposures",
    "take_groups",
]

_log = logging.getLogger(__name__)

RETURNED = "Returned"
"""Name of the state of a run that gave back work; it is Completed, because the ledger has it done again."""
_TIMEOUT_S = 3600.0
"""No batch takes an hour; the watch takes its own jobs back much earlier, and leases bound everybody."""
_AT_ONCE = 4
"""Groups of a batch in flight: enough to keep workers busy while others are planned and committed."""
_BAD = frozenset({State.FAILED, State.REJECTED})


class Work:
    """Groups that a flow run may reduce: their leases are its own, or those of the watch's job.

    A plain class, so that Prefect does not look through it for futures when it is handed to a task.

    Parameters
    ----------
    groups : sequence of GroupJob
        Claimed already; empty: there is nothing to do, see `idle`.
    tell : callable
        Told how far each group is.
    cancelled : callable
        Whether nothing more may begin.
    by_hand : bool
        Whether a person asked for it.
    idle : str
        Why there is nothing to do.
    """

    def __init__(
        self,
        groups: Sequence[GroupJob],
        *,
        tell: Callable[[JobPhase, str, str], None] = lambda *_: None,
        cancelled: Callable[[], bool] = lambda: False,
        by_hand: bool = False,
        idle: str = "",
    ) -> None:
        self.groups = tuple(groups)
        self.tell = tell
        self.cancelled = cancelled
        self.by_hand = by_hand
        self.idle = idle

    @property
    def exposure_ids(self) -> list[str]:
        """The exposures of all groups, in order."""
        return [ref.exposure_id for group in self.groups for ref in group.refs]


def flow_owner() -> str:
    """Return the name under which this flow run holds leases; it ends in the run's id, by which hooks find them."""
    return str(Owner.here(f"flow-{flow_run.id}"))


def is_repeated() -> bool:
    """Return whether somebody has Prefect run this flow run once more."""
    return int(flow_run.run_count or 0) > 1


async def take_exposures(targets: Sequence[str], *, camera: str, job: str) -> Work:
    """Return the work on exposures: that of the watch's job, or claimed here where there is none.

    Parameters
    ----------
    targets : sequence of str
        Exposure ids, or paths of files.
    camera : str
        Its name; empty: what the ids begin with, or the only configured one.
    job : str
        Id of the watch's job; empty: a person asks.

    Raises
    ------
    NightglassError
        If a target is unknown, a file can't be reduced, or somebody else is at it.
    """
    handed = _handed(job)
    if handed is not None:
        return handed
    return await asyncio.to_thread(_claim_exposures, current_bench(), targets, camera, flow_owner())


async def take_groups(group_ids: Sequence[str], *, job: str) -> Work:
    """Return the work on groups, as `take_exposures`.

    Raises
    ------
    NightglassError
        If a group is unknown, or somebody else is at it.
    """
    handed = _handed(job)
    if handed is not None:
        return handed
    return await asyncio.to_thread(_claim_groups, current_bench(), group_ids, flow_owner())


def _handed(job: str) -> Work | None:
    """Return the work of the watch's job; None: it is to be claimed here."""
    if not job:
        return None
    handover = current_handover(job)
    if handover is not None and not handover.cancelled():
        return Work(handover.job.groups, tell=handover.tell, cancelled=handover.cancelled)
    # its leases are gone; a person who repeats an old run wants it done all the same
    return None if is_repeated() else Work((), idle=f"the watch took job {job} back")


def _claim_exposures(bench: Workbench, targets: Sequence[str], camera: str, owner: str) -> Work:
    entries = [
        byhand.take_in(target, _camera_of(bench, target, camera), ledger=bench.ledger, observatory=bench.observatory)
        for target in targets
    ]
    groups = byhand.claim_exposures(entries, ledger=bench.ledger, observatory=bench.observatory, owner=owner)
    return Work(groups, by_hand=True)


def _claim_groups(bench: Workbench, group_ids: Sequence[str], owner: str) -> Work:
    groups: list[GroupJob] = []
    try:
        for group_id in group_ids:
            groups.append(byhand.claim_group(group_id, ledger=bench.ledger, observatory=bench.observatory, owner=owner))
    except NightglassError:
        give_up(bench, groups)
        raise
    return Work(groups, by_hand=True)


def _camera_of(bench: Workbench, target: str, camera: str) -> Camera:
    if not camera and target.count("/") == 2 and target.partition("/")[0] in bench.cameras:
        camera = target.partition("/")[0]
    return bench.camera(the_cameras(camera, bench.observatory)[0])


@task(
    name="reduce-groups",
    task_run_name="{name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    timeout_seconds=_TIMEOUT_S,
)
async def reduce_groups(name: str, work: Work) -> list[GroupOutcome]:
    """Reduce groups by `nightglass.reduction.run_group`, a few at once, and return how each ended.

    It is not retried: the ledger retries each exposure by itself, with its own count.
    """
    del name
    bench = current_bench()
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(group: GroupJob) -> GroupOutcome | None:
        async with places:
            return await _reduce(group, work, bench)

    try:
        return [outcome for outcome in await asyncio.gather(*map(one, work.groups)) if outcome is not None]
    finally:
        if work.by_hand:
            give_up(bench, work.groups)


async def _reduce(group: GroupJob, work: Work, bench: Workbench) -> GroupOutcome | None:
    if work.cancelled():
        return None
    work.tell(JobPhase.WORKING, group.group_id, "")
    problem = ""
    try:
        return await asyncio.to_thread(
            run_group,
            group,
            ledger=bench.ledger,
            pool=bench.pool,
            observatory=bench.observatory,
            camera=bench.camera(group.camera),
        )
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        _log.exception("group %s failed", group.group_id)
        raise
    finally:
        work.tell(JobPhase.DONE, group.group_id, problem)


def give_up(bench: Workbench, groups: Sequence[GroupJob]) -> None:
    """Return to the queue what is still claimed of these groups; what was committed has no lease any more."""
    leases = [lease for group in groups for lease in group.leases]
    if leases:
        bench.ledger.revoke(leases=leases, reason="its flow run ended without it")


async def show_reduction(name: str, work: Work) -> None:
    """Leave a table with the run, and for a single exposure that a person asked for, its quick look.

    A run of the watch for a single exposure leaves none: its name and its end say the same.
    """
    if len(work.exposure_ids) == 1 and not work.by_hand:
        return
    bench = current_bench()
    entries = await asyncio.to_thread(lambda: list(bench.ledger.entries(ids=work.exposure_ids)))
    if not entries:
        return
    night = entries[0].night
    await show_table(exposure_rows(entries), key=artifact_key(entries[0].camera, night, "exposures"), description=name)
    ref = entries[0].ref
    if len(entries) == 1 and ref is not None:
        await show_quicklook(Layout(bench.observatory.root).quicklook(ref), night=night, name=name)


def conclude(work: Work, outcomes: Sequence[GroupOutcome]) -> RunState[Any]:
    """Return the state in which a run ends: failed if an exposure was rejected or failed for good.

    What waits for a calibration, or goes back to the queue, is no failure: the run is Completed and says so.
    """
    members = [member for outcome in outcomes for member in outcome.members]
    reduced = [exposure_id for outcome in outcomes for exposure_id in outcome.reduced]
    bad = [member for member in members if member.state in _BAD]
    message = f"{len(reduced)} of {len(work.exposure_ids)} reduced"
    if bad:
        return Failed(message=f"{message}; {bad[0].exposure_id}: {bad[0].error}")
    rest = [member for member in members if member.error]
    if work.idle or len(reduced) < len(work.exposure_ids):
        why = work.idle or (f"{rest[0].exposure_id}: {rest[0].error}" if rest else "the watch took the rest back")
        waits = bool(rest) and all(member.state is State.WAITING for member in rest)
        return Completed(name="Waiting" if waits else RETURNED, message=f"{message}; {why}", data=reduced)
    return Completed(message=message, data=reduced)
