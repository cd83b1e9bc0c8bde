"""The executor that hands jobs to Prefect: what it does, and what it survives."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.late import Orphans
from deployments.runner_executor import PrefectExecutor
from nightglass import byhand
from nightglass.config import Dispatch, load_camera
from nightglass.layout import Layout
from nightglass.ledger import Ledger, RunRecord
from nightglass.model import Kind, Night, State
from nightglass.watch.jobs import Job, JobKind, JobPhase, JobReport
from nightglass.watch.owners import Owner
from tests.integration.conftest import ASKING_S, PrefectSite, eventually

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.cluster]
NIGHT = Night("20260821")
OWNER = "host:1:t:watch"


class Desk:
    """Stands where the watch stands: gives jobs, hears reports."""

    def __init__(self, site: PrefectSite, executor: PrefectExecutor, ledger: Ledger) -> None:
        self.site = site
        self.executor = executor
        self.ledger = ledger
        self.camera = load_camera("lynx")
        self.heard: list[JobReport] = []
        self.woken = threading.Event()

    def groups(self, *paths: Path, lease_s: float = 600.0) -> Job:
        observatory = self.site.observatory
        entries = [byhand.take_in(path, self.camera, ledger=self.ledger, observatory=observatory) for path in paths]
        job_id = uuid.uuid4().hex
        reduction = observatory.reduction.model_copy(update={"lease_s": lease_s})
        groups = byhand.claim_exposures(
            entries,
            ledger=self.ledger,
            observatory=observatory.model_copy(update={"reduction": reduction}),
            owner=OWNER,
            job_id=job_id,
        )
        return self.job(JobKind.GROUP, key=entries[0].exposure_id, groups=groups, job_id=job_id)

    def job(self, kind: JobKind, *, key: str, job_id: str = "", **more: Any) -> Job:
        return Job(
            job_id=job_id or uuid.uuid4().hex, kind=kind, key=key, camera="lynx", night=NIGHT, deadline_s=600.0, **more
        )

    def reports(self, job: Job) -> list[JobReport]:
        self.heard += self.executor.poll()
        return [report for report in self.heard if report.job_id == job.job_id]

    def ended(self, job: Job, *, seconds: float = 120.0) -> JobReport:
        def last() -> JobReport | None:
            return next((report for report in self.reports(job) if report.phase is JobPhase.ENDED), None)

        found: JobReport = eventually(last, seconds=seconds, what=f"the end of job {job.key}")
        return found

    def healthy(self, expected: bool, *, seconds: float = 120.0) -> None:
        eventually(lambda: self.executor.healthy is expected, seconds=seconds, what=f"healthy is {expected}")

    def states(self, job: Job) -> list[State]:
        ids = [ref.exposure_id for group in job.groups for ref in group.refs]
        return [self.ledger.find(name).state for name in ids]

    def run_of(self, report: JobReport) -> FlowRun:
        with self.site.client() as client:
            return client.read_flow_run(uuid.UUID(report.flow_run_id))


def desk(site: PrefectSite, dispatch: Dispatch = Dispatch.INLINE) -> Iterator[Desk]:
    settings = site.observatory.prefect.model_copy(
        update={"api_url": site.server.api_url, "serve": False, "dispatch": dispatch}
    )
    observatory = site.observatory.model_copy(update={"prefect": settings})
    executor = PrefectExecutor(observatory, configuration=site.configuration)
    with site.ledger() as ledger:
        desk = Desk(site, executor, ledger)
        executor.attach(desk.woken.set)
        try:
            desk.healthy(True)
            yield desk
        finally:
            executor.close()
    assert not executor.pids


@pytest.fixture(autouse=True)
def _no_lease_of_a_test_that_failed(prefect_site: PrefectSite) -> None:
    with prefect_site.ledger() as ledger:
        ledger.revoke(owners=[OWNER], reason="the test is over")


@pytest.fixture
def biases(prefect_site: PrefectSite) -> None:
    """All bias frames reduced, whatever other tests did to them."""
    with prefect_site.ledger() as ledger:
        prefect_site.reduce(ledger, prefect_site.night.paths[:3])


@pytest.fixture(scope="module")
def inline(prefect_site: PrefectSite) -> Iterator[Desk]:
    yield from desk(prefect_site)


def test_one_exposure_is_one_run_named_after_it(inline: Desk) -> None:
    job = inline.groups(inline.site.night.paths[0])
    inline.executor.submit(job)
    report = inline.ended(job)
    assert report.error == ""
    phases = [report.phase for report in inline.reports(job) if not report.group_id or report.phase != JobPhase.ENDED]
    assert phases == [JobPhase.ACCEPTED, JobPhase.WORKING, JobPhase.DONE, JobPhase.ENDED]
    run = inline.run_of(report)
    assert (run.name, run.state_name) == (job.key, "Completed")
    assert run.parameters["exposure"] == job.key
    assert inline.states(job) == [State.REDUCED]
    assert inline.woken.is_set()


def test_a_batch_is_one_run_with_a_table(inline: Desk) -> None:
    job = inline.groups(*inline.site.night.paths[:3])
    inline.executor.submit(job)
    report = inline.ended(job)
    assert report.error == ""
    assert inline.states(job) == [State.REDUCED] * 3
    assert sum(item.phase is JobPhase.DONE for item in inline.reports(job)) == 3
    with inline.site.client() as client:
        asked = {"artifacts": {"flow_run_id": {"any_": [report.flow_run_id]}}}
        (table,) = client.request("POST", "/artifacts/filter", json=asked).json()
    assert table["type"] == "table"
    assert "lynx/20260821/2" in table["data"]


@pytest.mark.usefixtures("biases")
def test_masters_and_two_jobs_at_once(inline: Desk) -> None:
    jobs = [inline.job(JobKind.MASTERS, key="20260821-masters", kinds=(Kind.BIAS,))]
    jobs += [inline.groups(path) for path in inline.site.night.paths[3:5]]
    for job in jobs:
        inline.executor.submit(job)
    assert [inline.ended(job).error for job in jobs] == ["", "", ""]
    assert inline.ledger.masters("lynx", Kind.BIAS)


def test_a_rejected_exposure_ends_its_run_as_failed(inline: Desk, tmp_path: Path) -> None:
    job = inline.groups(inline.site.night.paths[0])
    (group,) = job.groups
    Path(group.refs[0].path).rename(tmp_path / "gone.fits")
    try:
        inline.executor.submit(job)
        report = inline.ended(job)
    finally:
        (tmp_path / "gone.fits").rename(group.refs[0].path)
    assert inline.states(job) != [State.RUNNING]
    assert inline.run_of(report).state_name in {"Failed", "Returned"}


def test_a_restarted_runner_is_back_in_seconds_and_its_runs_are_ended(inline: Desk) -> None:
    job = inline.groups(inline.site.night.paths[0])
    old = inline.executor.pids["runner"]
    os.kill(old, signal.SIGSTOP)
    inline.executor.submit(job)
    time.sleep(0.3)
    inline.executor.restart()
    assert not inline.executor.healthy
    lost = inline.job(JobKind.REPORT, key="report")
    inline.executor.submit(lost)
    assert "there is no runner" in inline.ended(lost).error
    inline.healthy(True)
    assert inline.executor.pids["runner"] != old
    assert inline.reports(job) == []
    inline.ledger.revoke(leases=[lease for group in job.groups for lease in group.leases], reason="test")
    again = inline.groups(inline.site.night.paths[0])
    inline.executor.submit(again)
    assert inline.ended(again).error == ""


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_runner_that_hangs_or_dies_is_replaced_unasked_and_its_jobs_are_ended(
    inline: Desk, number: signal.Signals
) -> None:
    old = inline.executor.pids["runner"]
    job = inline.groups(inline.site.night.paths[0])
    os.kill(old, number)
    inline.executor.submit(job)
    report = inline.ended(job)
    assert report.lost
    assert report.error.startswith("Retryable: the runner")
    inline.healthy(True)
    assert inline.executor.pids["runner"] != old
    inline.ledger.revoke(leases=[lease for group in job.groups for lease in group.leases], reason="lost")
    assert [item.phase for item in inline.reports(job)].count(JobPhase.ENDED) == 1


def test_a_hung_server_is_noticed_and_nothing_stays_running(inline: Desk) -> None:
    server = inline.site.server.pid
    assert server is not None
    job = inline.groups(inline.site.night.paths[1])
    os.kill(server, signal.SIGSTOP)
    try:
        inline.executor.submit(job)
        inline.healthy(False)
        # what the watch does now: kill the runner, take the job back, reduce it in the dark, record the run
        inline.executor.restart()
        inline.ledger.revoke(leases=[lease for group in job.groups for lease in group.leases], reason="dark")
        for number, error in enumerate(("", "Rejected: no such thing")):
            inline.ledger.record_run(
                RunRecord(
                    run_id=f"{job.job_id}-{number}",
                    name=job.key,
                    flow="reduce-exposure",
                    night=NIGHT,
                    camera="lynx",
                    started_at=time.time() - 1,
                    ended_at=time.time(),
                    error=error,
                    parameters={"exposure": job.key},
                )
            )
    finally:
        os.kill(server, signal.SIGCONT)
    inline.healthy(True)
    report = inline.job(JobKind.REPORT, key="late reports")
    inline.executor.submit(report)
    assert inline.ended(report).error == ""
    assert inline.ledger.unreported() == ()
    with inline.site.client() as client:
        mine = FlowRunFilter.model_validate({"tags": {"all_": ["late"]}, "name": {"any_": [job.key]}})
        late = client.read_flow_runs(flow_run_filter=mine)
        assert sorted(str(run.state_name) for run in late) == ["Completed", "Failed"]
        assert all("reported late" in str(run.state and run.state.message) for run in late)
    eventually(lambda: not unfinished(inline), seconds=120, what="no run left unfinished", every_s=ASKING_S)


def unfinished(desk: Desk) -> list[FlowRun]:
    asked = {
        "tags": {"all_": ["inline"]},
        "state": {"type": {"any_": [StateType.RUNNING, StateType.PENDING]}},
    }
    with desk.site.client() as client:
        return client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(asked))


def test_a_killed_server_comes_back_where_it_was(inline: Desk) -> None:
    server = inline.site.server
    before, url = server.pid, server.api_url
    assert before is not None
    os.kill(before, signal.SIGKILL)
    inline.healthy(False)
    server.wait()
    assert server.api_url == url
    assert server.pid != before
    inline.healthy(True)
    job = inline.groups(inline.site.night.paths[2])
    inline.executor.submit(job)
    assert inline.ended(job).error == ""


def test_runs_of_dead_processes_are_ended(inline: Desk) -> None:
    site = inline.site
    with site.client() as client:
        flow_id = client.create_flow_from_name("reduce-exposure")
        made = [
            client.request(
                "POST",
                "/flow_runs/",
                json={"flow_id": str(flow_id), "state": {"type": "RUNNING"}, "tags": tags},
            ).json()["id"]
            for tags in (
                ["inline", "runner=elsewhere:1:boot-0:runner"],
                ["inline", f"runner={Owner.here('runner')}"],
                [],
            )
        ]
        marks = Layout(site.observatory.root).run / "flows"
        marks.mkdir(parents=True, exist_ok=True)
        dead = str(Owner.here("flow")).replace(f":{os.getpid()}:", ":999999999:")
        (marks / f"{made[2]}.json").write_text(dead)
        with temporary_settings({PREFECT_API_URL: site.server.api_url}):
            asyncio.run(Orphans(Owner.here("runner"), Layout(site.observatory.root)).end())
        states = [client.read_flow_run(run_id).state_name for run_id in made]
        assert states == ["Running", "Running", "Crashed"]
        for run_id in made[:2]:
            client.request(
                "POST", f"/flow_runs/{run_id}/set_state", json={"state": {"type": "CANCELLED"}, "force": True}
            )


def test_deployment_dispatch_reduces_through_the_serve_child(deployed: PrefectSite) -> None:
    """Its run begins long after the leases would have ended: they are prolonged as long as it is queued."""
    with deployed.process("deployments.serving", log="serve.log"):
        for waiting in desk(deployed, Dispatch.DEPLOYMENT):
            job = waiting.groups(*deployed.night.paths[:2], lease_s=6.0)
            waiting.executor.submit(job)
            report = waiting.ended(job)
            assert report.error == ""
            assert waiting.states(job) == [State.REDUCED] * 2
            run = waiting.run_of(report)
            assert run.deployment_id is not None
            assert not list((Layout(deployed.observatory.root).run / "jobs").iterdir())
