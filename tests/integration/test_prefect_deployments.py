"""Every deployment on a real server: made, shown, scheduled, and run by a worker and by the serve child."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from deployments.deploy import Schedules
from deployments.scheduling import StageScheduler, stage_key
from nightglass.config import load_camera
from nightglass.layout import Layout
from nightglass.ledger import StageState
from nightglass.model import Night, Stage, State
from nightglass.pool import SerialPool
from nightglass.simulate import NightPlan, write_night
from nightglass.watch.instance import InstanceLock
from nightglass.watch.work import Workbench
from tests.integration.conftest import ASKING_S, PrefectSite, eventually

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.cluster]
REPOSITORY = Path(__file__).parents[2]


def start_run(client: SyncPrefectClient, name: str, **parameters: Any) -> FlowRun:
    deployment = client.read_deployment_by_name(f"{name}/nightglass")
    return client.create_flow_run_from_deployment(deployment.id, parameters=parameters)


def artifacts(client: SyncPrefectClient, run: FlowRun) -> list[dict[str, Any]]:
    asked = {"artifacts": {"flow_run_id": {"any_": [str(run.id)]}}}
    found: list[dict[str, Any]] = client.request("POST", "/artifacts/filter", json=asked).json()
    return found


def test_deploying_twice_is_deploying_once(prefect_site: PrefectSite) -> None:
    first = prefect_site.deploy(Schedules.PAUSED)
    assert prefect_site.deploy(Schedules.PAUSED) == first
    described = yaml.safe_load((Path(__file__).parents[2] / "prefect.yaml").read_text())["deployments"]
    assert len(first) == len(described) > 9
    with prefect_site.client() as client:
        assert client.read_work_pool("nightglass").type == "process"
        for item in first:
            deployment = client.read_deployment(item.deployment_id)
            assert deployment.description
            assert deployment.work_pool_name == "nightglass"
            assert deployment.parameters["configuration"] == str(prefect_site.configuration)
            assert deployment.global_concurrency_limit is not None
            properties = deployment.parameter_openapi_schema["properties"]
            assert all(field["description"] for field in properties.values())
        (schedule,) = client.read_deployment_by_name("run-night/nightglass").schedules
        assert not schedule.active


@pytest.fixture
def changing(prefect_site: PrefectSite) -> Iterator[PrefectSite]:
    """The site for a test that changes its deployments."""
    yield prefect_site
    prefect_site.deploy(Schedules.PAUSED)


def test_the_schedule_yields_runs_in_the_time_zone_of_the_site(changing: PrefectSite) -> None:
    """With SQLAlchemy 2.1 Prefect's scheduler makes none, and everything else looks healthy."""
    site = changing.observatory.site.model_copy(update={"timezone": "America/Santiago"})
    replace(changing, observatory=changing.observatory.model_copy(update={"site": site})).deploy(Schedules.ACTIVE)
    with changing.client() as client:
        deployment = client.read_deployment_by_name("run-night/nightglass")

        def scheduled() -> list[FlowRun]:
            runs = client.read_flow_runs(
                flow_run_filter=FlowRunFilter.model_validate(
                    {"deployment_id": {"any_": [deployment.id]}, "state": {"type": {"any_": [StateType.SCHEDULED]}}}
                )
            )
            return [run for run in runs if run.auto_scheduled]

        runs = eventually(scheduled, seconds=200, what="runs of a cron schedule", every_s=ASKING_S)
        moments = [run.expected_start_time.astimezone(site.zone) for run in runs]
        assert {(moment.hour, moment.minute) for moment in moments} == {(12, 5)}


def test_prefects_own_command_deploys_the_file(changing: PrefectSite) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=REPOSITORY,
        env=changing.environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with changing.client() as client:
        for name in ("reduce-exposure", "run-night"):
            deployment = client.read_deployment_by_name(f"{name}/nightglass")
            assert not deployment.pull_steps
            assert deployment.entrypoint.startswith("flows.")
            assert ":" not in deployment.entrypoint


def test_a_worker_runs_every_deployment(deployed: PrefectSite) -> None:
    site, night = deployed, Night("20260821")
    path = str(site.night.paths[3])
    with (
        site.process("prefect", "worker", "start", "--pool", "nightglass", "--limit", "4", log="worker.log"),
        InstanceLock(Layout(site.observatory.root).run, ["lynx"]),  # we are the watch of this night
        site.client() as client,
        site.ledger() as ledger,
    ):
        due = datetime.now(UTC) + timedelta(hours=8)
        ledger.open_night(night, "lynx", midway_due=due, final_due=due + timedelta(hours=8))
        for stage in Stage:  # when this is its second run
            ledger.reset_stage(night, "lynx", stage, due=due)
        whole = start_run(client, "run-night", night=night.label, poll_s=0.5)
        run = start_run(client, "reduce-exposure", exposure=path, camera="lynx")
        site.reduce(ledger, site.night.paths[:3])
        reduced = site.wait_for_run(run.id)
        assert (reduced.state_name, reduced.name) == ("Completed", path), reduced.state
        assert {item["type"] for item in artifacts(client, reduced)} == {"table", "image"}

        (entry,) = ledger.entries(states=[State.REDUCED], ids=["lynx/20260821/4"])
        runs = [
            start_run(client, "make-masters", night=night.label),
            start_run(client, "reduce-group", group=entry.group_id),
            start_run(client, "reduce-batch", groups=["lynx/20260821/1", "lynx/20260821/2"]),
        ]
        ended = [site.wait_for_run(run.id) for run in runs]
        assert [run.state_name for run in ended] == ["Completed"] * 3, [run.state for run in ended]
        assert ended[0].name == "20260821-masters"

        midway = site.wait_for_run(start_run(client, "midway-postprocess", night=night.label).id)
        assert midway.state_name == "Completed", midway.state
        assert client.read_flow_run(whole.id).state_name == "Running"
        final = site.wait_for_run(start_run(client, "final-postprocess", night=night.label).id)
        assert final.state_name == "Completed", final.state
        assert {item["type"] for item in artifacts(client, final)} == {"markdown", "table"}
        record = ledger.find_night(night, "lynx")
        assert record is not None
        assert not record.is_open
        seen = site.wait_for_run(whole.id)
        assert seen.state_name == "Completed", seen.state
        (progress,) = [item for item in artifacts(client, seen) if item["type"] == "progress"]
        assert progress["data"] == 100.0
        assert "final done" in progress["description"]


@pytest.fixture(scope="module")
def served(deployed: PrefectSite) -> Iterator[PrefectSite]:
    """The site with a serve child."""
    with deployed.process("deployments.serving", log="serve.log"):
        yield deployed


def test_the_serve_child_takes_a_scheduled_stage_once(served: PrefectSite, request: pytest.FixtureRequest) -> None:
    # another night when this is its second run
    site, night = served, Night("20260831").shifted(getattr(request.node, "execution_count", 1))
    with site.ledger() as ledger, site.client() as client:
        due = datetime.now(UTC) + timedelta(seconds=2)
        opened = ledger.open_night(night, "lynx", midway_due=due, final_due=due + timedelta(hours=9))
        bench = Workbench(
            ledger=ledger, pool=SerialPool(), observatory=site.observatory, cameras={"lynx": load_camera("lynx")}
        )
        first, second = StageScheduler(bench), StageScheduler(bench)
        with temporary_settings({PREFECT_API_URL: site.server.api_url}):
            made = [asyncio.run(scheduler.schedule()) for scheduler in (first, first, second)]
        assert made == [2, 0, 2]
        key = stage_key(opened.stage(Stage.MIDWAY))
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate({"tags": {"all_": [f"night={night}", "stage=midway"]}})
        )
        (run,) = runs  # a second scheduler made no second run
        assert run.idempotency_key == key
        assert run.name == f"{night}-midway"
        ended = site.wait_for_run(run.id)
        assert ended.state_name == "Completed", ended.state
        record = ledger.find_night(night, "lynx")
        assert record is not None
        assert record.stage(Stage.MIDWAY).state is StageState.DONE
        again = start_run(client, "midway-postprocess", night=night.label, job=key)
        assert site.wait_for_run(again.id).state_name == "Skipped"
        ledger.reset_stage(night, "lynx", Stage.FINAL, due=datetime.now(UTC))
        with temporary_settings({PREFECT_API_URL: site.server.api_url}):
            assert asyncio.run(first.schedule()) == 1, "its due time changed"
        finals = FlowRunFilter.model_validate({"tags": {"all_": [f"night={night}", "stage=final"]}})
        ended = [site.wait_for_run(run.id) for run in client.read_flow_runs(flow_run_filter=finals)]
        assert sorted(str(run.state_name) for run in ended) == ["Cancelled", "Completed"]
        closed = ledger.find_night(night, "lynx")
        assert closed is not None
        assert not closed.is_open


def test_a_run_that_is_cancelled_returns_its_exposure_to_the_queue(served: PrefectSite, tmp_path: Path) -> None:
    # a frame of its own: one that any other test reduced keeps its product, and stays reduced, when a redo is cancelled
    plan = NightPlan(night=Night("20260902"), biases=1, darks=0, flats=0, science=0, shape=(160, 160))
    path = str(write_night(tmp_path / "raw", plan, seed=8).paths[0])
    (worker,) = served.pool.workers()
    os.kill(worker.pid, signal.SIGSTOP)  # the reduction cannot end before we cancel it
    try:
        with served.client() as client, served.ledger() as ledger:
            run = start_run(client, "reduce-exposure", exposure=path, camera="lynx")
            owner = f":flow-{run.id}"

            def held() -> bool:
                return any(entry.owner.endswith(owner) for entry in ledger.running())

            eventually(held, seconds=120, what="a lease of the run")
            client.set_flow_run_state(run.id, Cancelling(), force=True)

            def cancelled() -> bool:
                # a process too busy to take note of its end within a second is Crashed for a moment, says Prefect
                return client.read_flow_run(run.id).state_name == "Cancelled"

            eventually(cancelled, seconds=120, what="the end of the run", every_s=ASKING_S)
            assert not held()
            assert ledger.find(path).state is State.GROUPED
    finally:
        os.kill(worker.pid, signal.SIGCONT)
