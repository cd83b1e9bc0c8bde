"""An exposure of an image builder as one run in the runner, with its steps as tasks and its frames in a table."""

from __future__ import annotations

import uuid

import pytest

from deployments.runner_executor import PrefectExecutor
from nightglass.builder.accounts import Account, FrameAccount, write_account
from nightglass.layout import Layout
from nightglass.model import Night
from nightglass.watch.jobs import Job, JobKind, JobPhase, JobReport
from tests.integration.conftest import PrefectSite, eventually

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]
NIGHT = Night("20260821")
TIMES = {"assigned": 100.0, "first": 100.2, "last": 100.5, "built": 100.6, "saved": 100.9}


def test_an_exposure_is_one_run(prefect_site: PrefectSite) -> None:
    site = prefect_site
    settings = site.observatory.prefect.model_copy(update={"api_url": site.server.api_url, "serve": False})
    observatory = site.observatory.model_copy(update={"prefect": settings})
    frames = [FrameAccount(frame=n, state="built", extensions=6, size=1 << 20, times=TIMES) for n in range(3)]
    account = Account(
        exposure="lynx/20260821/17",
        builder="guider",
        camera="lynx",
        night=NIGHT.label,
        expid=17,
        state="complete",
        frames=frames,
    )
    write_account(Layout(observatory.root).account("lynx", NIGHT, "guider", 17), account)
    job = Job(
        job_id=uuid.uuid4().hex,
        kind=JobKind.BUILD,
        key="lynx/20260821/17",
        camera="lynx",
        night=NIGHT,
        deadline_s=600,
        exposures=("lynx/20260821/17",),
        builder="guider",
    )
    executor, heard = PrefectExecutor(observatory, configuration=site.configuration), list[JobReport]()

    def ended() -> JobReport | None:
        heard.extend(executor.poll())
        return next((report for report in heard if report.phase is JobPhase.ENDED), None)

    executor.attach(lambda: None)
    try:
        eventually(lambda: executor.healthy, seconds=180, what="a healthy executor")
        executor.submit(job)
        report: JobReport = eventually(ended, seconds=120, what="the end of the run")
    finally:
        executor.close()
    assert report.error == ""
    with site.client() as client:
        run = client.read_flow_run(uuid.UUID(report.flow_run_id))
        assert (run.name, run.state_name) == ("lynx/20260821/17-build", "Completed")
        of_run = {"flow_run_id": {"any_": [report.flow_run_id]}}

        def names() -> set[str]:
            return {
                run["name"] for run in client.request("POST", "/task_runs/filter", json={"task_runs": of_run}).json()
            }

        # runs of tasks are written down a moment after they ended
        eventually(lambda: {"collect", "build", "write", "send", "plot"} <= names(), seconds=60, what="tasks")
        artifacts = client.request("POST", "/artifacts/filter", json={"artifacts": of_run}).json()
        assert any('"frame"' in str(artifact["data"]) for artifact in artifacts)
