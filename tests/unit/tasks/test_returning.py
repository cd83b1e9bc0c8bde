"""What becomes of a stage whose run ends any other way than well."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelling, Crashed, Running

from nightglass.ledger import StageRecord, StageState
from nightglass.model import Night, Stage
from nightglass.watch.work import Workbench
from tasks.returning import return_work

NIGHT = Night("20260821")


def running_stage(bench: Workbench, run: FlowRun) -> datetime:
    """Let a run hold the claim of a stage that is due; return since when it is."""
    due = datetime.now(UTC).replace(microsecond=0)
    bench.ledger.open_night(NIGHT, "lynx", midway_due=due, final_due=due + timedelta(hours=8))
    assert bench.ledger.claim_stage(NIGHT, "lynx", Stage.MIDWAY, owner=f"host:1:t:flow-{run.id}", lease_s=60)
    return due


def midway(bench: Workbench) -> StageRecord:
    record = bench.ledger.find_night(NIGHT, "lynx")
    assert record is not None
    return record.stage(Stage.MIDWAY)


def a_run(state: State) -> FlowRun:
    return FlowRun(id=uuid.uuid4(), name="20260821-midway", flow_id=uuid.uuid4(), parameters={}, state=state)


async def test_a_stage_that_a_person_cancels_is_put_off(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTGLASS_ROOT", str(bench.observatory.root))
    run = a_run(Cancelling())
    running_stage(bench, run)
    await return_work(None, run, Cancelling())  # type: ignore[arg-type]
    stage = midway(bench)
    assert stage.state is StageState.PENDING
    assert timedelta(minutes=59) < stage.due - datetime.now(UTC) <= timedelta(hours=1)
    assert bench.ledger.stages_due() == (), "the watch does not run it behind the person's back"
    later = stage.due.timestamp() + 1
    assert [item.stage for item in bench.ledger.stages_due(now=later)] == [Stage.MIDWAY], "nor is it forgotten"


@pytest.mark.parametrize("state", [Crashed(), Cancelling(message="Runner is shutting down.")])
async def test_a_stage_that_was_interrupted_is_due_at_once(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, state: State
) -> None:
    """The server knows such a run as running: nobody asked there for its end."""
    monkeypatch.setenv("NIGHTGLASS_ROOT", str(bench.observatory.root))
    run = a_run(Running())
    due = running_stage(bench, run)
    await return_work(None, run, state)  # type: ignore[arg-type]
    assert (midway(bench).state, midway(bench).due) == (StageState.PENDING, due)
    assert [item.stage for item in bench.ledger.stages_due()] == [Stage.MIDWAY]
