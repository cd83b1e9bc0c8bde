"""Cubes on a real Prefect server: as deployments that a worker runs, and as jobs of the watch in its runner."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

from deployments.runner_executor import PrefectExecutor
from nightglass import byhand
from nightglass.config import load_camera
from nightglass.ledger import ArchiveState, Ledger
from nightglass.model import Content, Night
from nightglass.watch.jobs import Job, JobKind, JobPhase, JobReport
from tests.integration.conftest import PrefectSite, eventually

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.cluster]
NIGHT = Night("20260821")


def take_in(site: PrefectSite, ledger: Ledger, paths: list[Path]) -> list[str]:
    camera = load_camera("lynx")
    return [byhand.take_in(path, camera, ledger=ledger, observatory=site.observatory).exposure_id for path in paths]


def start_run(client: SyncPrefectClient, name: str, **parameters: Any) -> FlowRun:
    deployment = client.read_deployment_by_name(f"{name}/nightglass")
    return client.create_flow_run_from_deployment(deployment.id, parameters=parameters)


def tables(client: SyncPrefectClient, run: FlowRun) -> list[dict[str, Any]]:
    asked = {"artifacts": {"flow_run_id": {"any_": [str(run.id)]}, "type": {"any_": ["table"]}}}
    found: list[dict[str, Any]] = client.request("POST", "/artifacts/filter", json=asked).json()
    return found


def test_a_worker_archives_an_exposure_a_night_and_any_frames(deployed: PrefectSite, tmp_path: Path) -> None:
    site = deployed
    with (
        site.process("prefect", "worker", "start", "--pool", "nightglass", "--limit", "4", log="archiver.log"),
        site.client() as client,
        site.ledger() as ledger,
    ):
        names = take_in(site, ledger, site.night.paths[:3])
        one = start_run(client, "archive-exposure", exposure=names[0])
        out = tmp_path / "any.fits"
        frames = [str(path) for path in site.night.paths[:2]]
        cube = start_run(client, "assemble-cube", frames=frames, out=str(out), role="sky", extra="OBSERVER=Ann")
        ended = [site.wait_for_run(run.id) for run in (one, cube)]
        assert [run.state_name for run in ended] == ["Completed"] * 2, [run.state for run in ended]
        assert ended[0].name == f"{names[0]}-archive"
        assert fits.getheader(out)["OBSERVER"] == "Ann"
        (table,) = tables(client, ended[1])
        assert "rate_mib_s" in table["data"]
        record = ledger.find_archive(names[0])
        assert record is not None
        assert record.is_safe

        whole = site.wait_for_run(start_run(client, "archive-night", night=NIGHT.label).id)
        assert whole.state_name == "Completed", whole.state
        assert whole.name == "20260821-archive"
        (table,) = tables(client, whole)
        assert all(name in table["data"] for name in names)
        held = {record.exposure for record in ledger.archives(NIGHT, states=[ArchiveState.ARCHIVED])}
        assert held >= set(names)

        wrong = site.wait_for_run(start_run(client, "archive-exposure", exposure="lynx/20260821/4711").id)
        assert wrong.state_name == "Failed"
        assert not [owner for owner in ledger.holders() if "flow-" in owner]


def test_a_job_of_the_watch_is_a_run_in_its_runner(prefect_site: PrefectSite) -> None:
    site = prefect_site
    settings = site.observatory.prefect.model_copy(update={"api_url": site.server.api_url, "serve": False})
    observatory = site.observatory.model_copy(update={"prefect": settings})
    executor = PrefectExecutor(observatory, configuration=site.configuration)
    heard: list[JobReport] = []

    def ended(job: Job) -> JobReport:
        def last() -> JobReport | None:
            heard.extend(executor.poll())
            mine = (report for report in heard if report.job_id == job.job_id)
            return next((report for report in mine if report.phase is JobPhase.ENDED), None)

        found: JobReport = eventually(last, seconds=120, what=f"the end of job {job.key}")
        return found

    def job(*exposures: str) -> Job:
        return Job(
            job_id=uuid.uuid4().hex,
            kind=JobKind.ARCHIVE,
            key="archive",
            camera="lynx",
            night=NIGHT,
            deadline_s=600,
            exposures=exposures,
        )

    with site.ledger() as ledger:
        names = take_in(site, ledger, site.night.paths[3:6])
        executor.attach(lambda: None)
        try:
            eventually(lambda: executor.healthy, seconds=120, what="a healthy executor")
            jobs = [job(names[0]), job(*names[1:]), job(names[0], "lynx/20260821/4711")]
            for each in jobs:
                executor.submit(each)
            reports = [ended(each) for each in jobs]
        finally:
            executor.close()
        assert [report.error for report in reports[:2]] == ["", ""]
        assert "4711" in reports[2].error
        assert all(record is not None and record.is_safe for record in map(ledger.find_archive, names))
        with site.client() as client:
            runs = [client.read_flow_run(uuid.UUID(report.flow_run_id)) for report in reports]
        assert [run.name for run in runs] == [f"{names[0]}-archive", "20260821-archive", "20260821-archive"]
        assert [run.state_name for run in runs] == ["Completed", "Completed", "Failed"]
    assert ledger.find_archive(names[0], Content.REDUCED) is None
