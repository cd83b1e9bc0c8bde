"""Whose work a run does, how it ends, and what it returns when it does not end well."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling

from nightglass import byhand
from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.layout import Layout
from nightglass.model import Night, State
from nightglass.reduction import GroupJob, GroupOutcome
from nightglass.reduction.group import MemberOutcome
from nightglass.simulate import SimulatedNight
from nightglass.watch.jobs import Job, JobKind, JobPhase
from nightglass.watch.work import Workbench
from tasks.artifacts import artifact_key, data_uri, exposure_rows
from tasks.bench import Handover, handed_over, job_file
from tasks.reducing import Work, conclude, give_up, reduce_groups, take_exposures, take_groups
from tasks.returning import return_work


async def test_a_file_is_reduced_by_hand_and_again(bench: Workbench, small_night: SimulatedNight) -> None:
    for _ in range(2):
        work = await take_exposures([str(small_night.paths[0])], camera="", job="")
        outcomes = await reduce_groups.fn("a bias", work)
        state = conclude(work, outcomes)
        assert state.is_completed()
        assert state.message == "1 of 1 reduced"
    (entry,) = bench.ledger.entries()
    assert entry.state is State.REDUCED
    assert entry.ref is not None
    assert Layout(bench.observatory.root).reduced(entry.ref).is_file()
    by_id = await take_exposures([entry.exposure_id], camera="", job="")
    assert by_id.exposure_ids == [entry.exposure_id]
    assert exposure_rows(bench.ledger.entries())[0]["state"] == "running"
    give_up(bench, by_id.groups)
    assert bench.ledger.find(entry.exposure_id).state is State.REDUCED, "its product stands"


async def test_what_is_no_fits_file_is_rejected_with_the_reason(bench: Workbench, tmp_path: Path) -> None:
    path = tmp_path / "garbage.fits"
    path.write_bytes(b"these are not the pixels you are looking for" * 100)
    with pytest.raises(Rejected, match="garbage"):
        await take_exposures([str(path)], camera="lynx", job="")
    assert bench.ledger.find(str(path)).state is State.REJECTED


async def test_unknown_targets_name_what_can_be_written(bench: Workbench) -> None:
    with pytest.raises(Misconfigured, match="camera/night/number"):
        await take_exposures(["lynx/20260821/999"], camera="lynx", job="")
    with pytest.raises(Misconfigured, match="no group"):
        await take_groups(["lynx/20260821/dither"], job="")


async def test_what_somebody_else_reduces_is_left_alone(bench: Workbench, small_night: SimulatedNight) -> None:
    first, second = (str(path) for path in small_night.paths[:2])
    held = await take_exposures([first], camera="lynx", job="")
    with pytest.raises(Retryable, match="being reduced by"):
        await take_exposures([second, first], camera="lynx", job="")
    # the one that was claimed before the other could not be had is free again
    assert bench.ledger.find(second).state is State.GROUPED
    give_up(bench, held.groups)


def a_job(bench: Workbench, path: Path) -> Job:
    entry = byhand.take_in(path, bench.camera("lynx"), ledger=bench.ledger, observatory=bench.observatory)
    groups = byhand.claim_exposures([entry], ledger=bench.ledger, observatory=bench.observatory, owner="h:1:t:watch")
    return Job(
        job_id=uuid.uuid4().hex,
        kind=JobKind.GROUP,
        key=entry.exposure_id,
        camera="lynx",
        night=Night("20260821"),
        deadline_s=60.0,
        groups=groups,
    )


async def test_a_job_of_the_watch_is_told_about_and_done(bench: Workbench, small_night: SimulatedNight) -> None:
    job = a_job(bench, small_night.paths[0])
    told: list[tuple[JobPhase, str, str]] = []
    with handed_over(Handover(job, lambda *what: told.append(what), lambda: False)):
        work = await take_exposures([job.key], camera="lynx", job=job.job_id)
        outcomes = await reduce_groups.fn(job.key, work)
    assert conclude(work, outcomes).is_completed()
    assert told == [(JobPhase.WORKING, job.key, ""), (JobPhase.DONE, job.key, "")]


async def test_a_job_taken_back_is_not_begun(bench: Workbench, small_night: SimulatedNight) -> None:
    job = a_job(bench, small_night.paths[0])
    with handed_over(Handover(job, lambda *_: None, lambda: True)):
        work = await take_exposures([job.key], camera="lynx", job=job.job_id)
    state = conclude(work, await reduce_groups.fn(job.key, work))
    assert (state.name, work.groups) == ("Returned", ())
    assert bench.ledger.find(job.key).state is State.RUNNING  # the watch's own lease, which it revokes itself


async def test_a_job_is_found_where_it_was_written_down(bench: Workbench, small_night: SimulatedNight) -> None:
    job = a_job(bench, small_night.paths[0])
    path = job_file(Layout(bench.observatory.root), job.job_id)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(job.to_json()))
    work = await take_exposures([job.key], camera="lynx", job=job.job_id)
    assert work.groups == job.groups
    path.unlink()
    assert work.cancelled()


async def test_a_cancelled_run_returns_the_exposures_of_its_job(
    bench: Workbench, small_night: SimulatedNight, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job(bench, small_night.paths[0])
    path = job_file(Layout(bench.observatory.root), job.job_id)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(job.to_json()))
    monkeypatch.setenv("NIGHTGLASS_ROOT", str(bench.observatory.root))
    run = FlowRun(id=uuid.uuid4(), name="frisky-otter", flow_id=uuid.uuid4(), parameters={"job": job.job_id})
    await return_work(None, run, Cancelling())  # type: ignore[arg-type]
    entry = bench.ledger.find(job.key)
    assert entry.state is State.GROUPED
    assert "frisky-otter" in entry.reason


async def test_a_run_that_is_cancelled_returns_what_it_claimed_itself(
    bench: Workbench, small_night: SimulatedNight, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = byhand.take_in(
        small_night.paths[0], bench.camera("lynx"), ledger=bench.ledger, observatory=bench.observatory
    )
    run = FlowRun(id=uuid.uuid4(), name="frisky-otter", flow_id=uuid.uuid4(), parameters={})
    byhand.claim_exposures([entry], ledger=bench.ledger, observatory=bench.observatory, owner=f"h:1:t:flow-{run.id}")
    monkeypatch.setenv("NIGHTGLASS_ROOT", str(bench.observatory.root))
    await return_work(None, run, Cancelling())  # type: ignore[arg-type]
    assert bench.ledger.find(entry.exposure_id).state is State.GROUPED


def outcome(*states: State) -> GroupOutcome:
    members = tuple(
        MemberOutcome(exposure_id=f"lynx/1/{number}", state=state, error="" if state is State.REDUCED else "Error: why")
        for number, state in enumerate(states)
    )
    return GroupOutcome(group_id="g", members=members)


@pytest.mark.parametrize(
    ("states", "name"),
    [
        ((State.REDUCED, State.REDUCED), "Completed"),
        ((State.REDUCED, State.WAITING), "Waiting"),
        ((State.GROUPED, State.WAITING), "Returned"),
        ((State.REDUCED, State.REJECTED), "Failed"),
        ((State.FAILED, State.WAITING), "Failed"),
    ],
)
def test_a_run_ends_as_its_exposures_did(
    bench: Workbench, small_night: SimulatedNight, states: tuple[State, ...], name: str
) -> None:
    groups: list[GroupJob] = [group for path in small_night.paths[:2] for group in a_job(bench, path).groups]
    state = conclude(Work(groups), [outcome(*states)])
    assert state.name == name
    reduced = states.count(State.REDUCED)
    assert (state.message or "").startswith(f"{reduced} of 2 reduced")


def test_keys_and_pictures_of_artifacts(tmp_path: Path) -> None:
    assert artifact_key("Kast_Blue", Night("20260821"), "a+b/c") == "kast-blue-20260821-a-b-c"
    assert data_uri(tmp_path / "absent.png") == ""
    (tmp_path / "small.png").write_bytes(b"\x89PNG")
    assert data_uri(tmp_path / "small.png") == "data:image/png;base64,iVBORw=="
