"""A stage has one holder, runs once by itself, and again when a person asks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from nightglass.errors import Misconfigured, Retryable
from nightglass.ledger import StageState
from nightglass.model import Night, Stage, State
from nightglass.simulate import SimulatedNight
from nightglass.watch.work import Workbench
from tasks.archiving import archive_stage
from tasks.calibrating import build_night_masters
from tasks.postprocessing import (
    announce,
    finish_stage,
    flush_groups,
    reconcile_night,
    redo_exposures,
    refresh_masters,
    stack_groups,
    stage_work,
    write_stage_reports,
)
from tasks.reducing import reduce_groups, take_exposures

NIGHT = Night("20260821")
SCHEDULED = "lynx/20260821-final@20260823T120000"


def open_night(bench: Workbench) -> None:
    due = datetime.now(UTC) + timedelta(hours=1)
    bench.ledger.open_night(NIGHT, "lynx", midway_due=due, final_due=due + timedelta(hours=1))


def standing(bench: Workbench, stage: Stage) -> StageState:
    record = bench.ledger.find_night(NIGHT, "lynx")
    assert record is not None
    return record.stage(stage).state


async def test_all_pieces_of_final_close_the_night(bench: Workbench, small_night: SimulatedNight) -> None:
    open_night(bench)
    work = await take_exposures([str(path) for path in small_night.paths], camera="lynx", job="")
    await reduce_groups.fn("all", work)
    async with stage_work(Stage.FINAL, NIGHT.label, "lynx", SCHEDULED) as stage:
        assert not stage.idle
        await flush_groups.fn(stage)
        assert await refresh_masters.fn(stage) == 1
        assert await redo_exposures.fn(stage) == 2
        stacks = await stack_groups.fn(stage)
        assert await archive_stage.fn(stage) == 0
        reconciliation = await reconcile_night.fn(stage)
        report = await write_stage_reports.fn(stage, reconciliation)
        await announce.fn(stage, report)
        summary = await finish_stage.fn(stage, report, reconciliation)
    assert (summary.redone, summary.stacks) == (2, stacks)
    assert summary.differences == ()
    assert (summary.archived, summary.archive_failures) == (len(small_night.paths), ())
    assert summary.counts is not None
    assert summary.counts["reduced"] == len(small_night.paths)
    assert report.page.is_file()
    record = bench.ledger.find_night(NIGHT, "lynx")
    assert record is not None
    assert not record.is_open


async def test_a_stage_has_one_holder_and_is_not_repeated_by_itself(bench: Workbench) -> None:
    open_night(bench)
    async with stage_work(Stage.MIDWAY, NIGHT.label, "lynx", SCHEDULED) as first:
        assert not first.idle
        async with stage_work(Stage.MIDWAY, NIGHT.label, "lynx", SCHEDULED) as second:
            assert "another holder" in second.idle
            assert second.skipped().name == "Skipped"
        first.post.ledger.finish_stage(first.post.lease)  # type: ignore[arg-type]
    async with stage_work(Stage.MIDWAY, NIGHT.label, "lynx", SCHEDULED) as third:
        assert third.idle == "it is done already"
    async with stage_work(Stage.MIDWAY, NIGHT.label, "lynx", "") as asked:
        assert not asked.idle


async def test_a_closed_night_is_opened_again_for_a_person(bench: Workbench) -> None:
    open_night(bench)
    async with stage_work(Stage.FINAL, NIGHT.label, "lynx", SCHEDULED) as first:
        first.post.ledger.finish_stage(first.post.lease)  # type: ignore[arg-type]
    bench.ledger.close_night(NIGHT, "lynx")
    async with stage_work(Stage.FINAL, NIGHT.label, "lynx", "") as asked:
        assert not asked.idle
    record = bench.ledger.find_night(NIGHT, "lynx")
    assert record is not None
    assert record.is_open


async def test_a_stage_that_fails_is_given_back_for_a_later_attempt(bench: Workbench) -> None:
    open_night(bench)
    message = "the disk is full"
    with pytest.raises(Retryable, match="disk"):
        async with stage_work(Stage.MIDWAY, NIGHT.label, "lynx", SCHEDULED):
            raise Retryable(message)
    assert standing(bench, Stage.MIDWAY) is StageState.PENDING


async def test_a_night_that_was_never_opened_says_so(bench: Workbench) -> None:
    with pytest.raises(Misconfigured, match="never opened"):
        async with stage_work(Stage.FINAL, "20260820", "lynx", ""):
            pass


async def test_masters_of_a_night(bench: Workbench, small_night: SimulatedNight) -> None:
    biases = [str(path) for path in small_night.paths[:3]]
    work = await take_exposures(biases, camera="lynx", job="")
    await reduce_groups.fn("biases", work)
    (master,) = await build_night_masters.fn(NIGHT.label, "", "bias", "")
    assert master.frames == 3
    assert {entry.state for entry in bench.ledger.entries()} == {State.REDUCED}
