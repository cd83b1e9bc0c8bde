"""Making Prefect's view true again after the server was gone: late reports, and runs that nobody ends any more."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import FlowRunCreate
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Crashed, Failed, to_state_create

from nightglass.errors import Misconfigured
from nightglass.layout import Layout
from nightglass.watch.owners import Owner
from tasks.bench import dead_runs

if TYPE_CHECKING:
    from nightglass.ledger import Ledger, RunRecord

__all__ = ["LATE_TAGS", "Orphans", "report_late"]

LATE_TAGS = ("nightglass", "late")
"""On runs that took place without Prefect."""
_INLINE_TAG = "inline"
_OWNER_PREFIX = "runner="
_CHUNK = 50
_GRACE = timedelta(seconds=60)
_REMEMBERED = 1000
_PAGE = 200


async def report_late(ledger: Ledger) -> int:
    """Show in Prefect the runs that the ledger holds as unreported, oldest first; return how many there were.

    A run that exists already is ended; for one that does not, a run is made that has ended. Both twice are once:
    the id of the job is the idempotency key.
    """
    count = 0
    async with get_client() as client:
        while records := await asyncio.to_thread(ledger.unreported, _CHUNK):
            for record in records:
                flow_run_id = await _report(client, record)
                await asyncio.to_thread(ledger.mark_reported, [record.run_id], str(flow_run_id))
                count += 1
    return count


async def _report(client: PrefectClient, record: RunRecord) -> UUID:
    state = _late_state(record)
    if record.flow_run_id:
        flow_run_id = UUID(record.flow_run_id)
        try:
            await client.set_flow_run_state(flow_run_id, state, force=True)
        except ObjectNotFound:
            pass  # the server lost its database, or a person deleted the run: a new one is made
        else:
            return flow_run_id
    body = FlowRunCreate(
        flow_id=await client.create_flow_from_name(record.flow),
        name=record.name,
        parameters=record.parameters,
        state=to_state_create(state),
        tags=[*LATE_TAGS, f"night={record.night}"],
        idempotency_key=record.run_id,
    )
    answer = await client.request("POST", "/flow_runs/", json=body.model_dump(mode="json", exclude_unset=True))
    return UUID(answer.json()["id"])


def _late_state(record: RunRecord) -> State[None]:
    began, ended = (datetime.fromtimestamp(moment, UTC) for moment in (record.started_at, record.ended_at))
    when = f"ran {began:%Y-%m-%d %H:%M:%S} to {ended:%H:%M:%S} UTC, reported late"
    return Failed(message=f"{record.error} ({when})") if record.error else Completed(message=when)


class Orphans:
    """Flow runs in a runner, and what becomes of those that Prefect believes to be running still.

    Every run in a runner bears the runner's name as a tag, so that a later runner can tell whose runs have lost
    their process; runs of deployments leave a file while they have a workbench.
    """

    def __init__(self, owner: Owner, layout: Layout) -> None:
        self._owner = owner
        self._layout = layout
        self._alive: set[str] = set()
        self._ended: OrderedDict[str, str] = OrderedDict()

    @property
    def tags(self) -> tuple[str, ...]:
        """For the runs in this runner."""
        return ("nightglass", _INLINE_TAG, f"{_OWNER_PREFIX}{self._owner}")

    def began(self, flow_run_id: str) -> None:
        """Note a run as alive."""
        if flow_run_id:
            self._alive.add(flow_run_id)

    def ended(self, flow_run_id: str, *, error: str) -> None:
        """Note that a run is over, and how, in case Prefect did not hear it."""
        self._alive.discard(flow_run_id)
        if flow_run_id:
            self._ended[flow_run_id] = error
            while len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)

    async def end(self) -> int:
        """End the runs that no process runs any more; return how many there were."""
        unfinished = FlowRunFilter.model_validate(
            {
                "tags": {"all_": [_INLINE_TAG]},
                "state": {"type": {"any_": [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]}},
            }
        )
        count = 0
        async with get_client() as client:
            for run in await client.read_flow_runs(flow_run_filter=unfinished, limit=_PAGE):
                state = self._last_state(run)
                if state is not None:
                    await client.set_flow_run_state(run.id, state, force=True)
                    count += 1
            for path, owner in await asyncio.to_thread(dead_runs, self._layout):
                count += await _end_dead(client, UUID(path.stem), owner)
                path.unlink(missing_ok=True)
        return count

    def _last_state(self, run: FlowRun) -> State[None] | None:
        """Return the state that an unfinished run should have; None: leave it alone."""
        owner = next(_owners(run), None)
        run_id = str(run.id)
        if owner is None:
            return None
        if str(owner) != str(self._owner):
            return Crashed(message=f"its runner (process {owner.pid}) is gone") if owner.is_dead else None
        if run_id in self._ended:
            error = self._ended[run_id]
            return Failed(message=error) if error else Completed(message="its end was reported late")
        # one that never got as far as its work: its job ended with an error long ago
        young = run.created is not None and datetime.now(UTC) - run.created < _GRACE
        return None if run_id in self._alive or young else Crashed(message="it never came to its work")


async def _end_dead(client: PrefectClient, flow_run_id: UUID, owner: Owner) -> int:
    """End a run of a deployment whose process is gone, unless Prefect knows that it ended."""
    try:
        run = await client.read_flow_run(flow_run_id)
    except ObjectNotFound:
        return 0
    if run.state is None or run.state.is_final() or run.state.is_scheduled():
        return 0
    message = f"its process {owner.pid} is gone"
    await client.set_flow_run_state(flow_run_id, Crashed(message=message), force=True)
    return 1


def _owners(run: FlowRun) -> Iterator[Owner]:
    for tag in run.tags:
        if tag.startswith(_OWNER_PREFIX):
            try:
                yield Owner.parse(tag.removeprefix(_OWNER_PREFIX))
            except Misconfigured:
                continue  # somebody else's tag
