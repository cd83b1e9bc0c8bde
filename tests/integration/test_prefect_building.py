"""Exposures of an image builder, and archives of them, as runs of a real Prefect server: each one run, now or later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun

from deployments.runner_executor import PrefectExecutor
from nightglass.builder.accountfiles import write_account
from nightglass.builder.accounts import Account, FrameAccount
from nightglass.builder.client import Client
from nightglass.config import Observatory, load_camera
from nightglass.errors import NightglassError
from nightglass.layout import Layout
from nightglass.ledger import ArchiveState, Ledger
from nightglass.model import Content, Night
from nightglass.watch.jobs import Job, JobKind, JobPhase, JobReport
from tests.integration.building import guide_pixels
from tests.integration.conftest import PrefectSite, eventually
from tests.integration.receiving import beat, live

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]
NIGHT = Night("20260821")
TIMES = {"assigned": 100.0, "first": 100.2, "last": 100.5, "built": 100.6, "saved": 100.9}
STEPS = {"collect", "build", "write", "send", "plot"}
CAMERAS = {"generic": load_camera("generic")}
PATIENCE_S = 180.0


def observatory(site: PrefectSite, root: Path, name: str) -> Observatory:
    """Return an observatory of its own at the server of all: one builder, and no disk to be short of."""
    values = {
        "root": root,
        "builders": [
            {"name": name, "camera": "generic", "preset": "guider", "sources": ["GUIDE0", "GUIDE2"], "idle_s": 900}
        ],
        "web": {"port": 0},
        "prefect": {"api_url": site.server.api_url, "serve": False},
        "cluster": {"workers": 1},
        "limits": {"free_disk_gib": 0},
    }
    return Observatory.model_validate(values)


@contextmanager
def watched(settings: Observatory, configuration: Path) -> Iterator[Client]:
    """Run a watch with a runner, and give a client of its builder."""
    executor = PrefectExecutor(settings, configuration=configuration)
    with (
        Ledger.open(Layout(settings.root).ledger) as ledger,
        live(settings, ledger, cameras=CAMERAS, executor=executor),
    ):
        reached = lambda: beat(settings.root).builders and beat(settings.root).builders[0]["address"]  # noqa: E731
        with Client(eventually(reached, seconds=PATIENCE_S, what="the address")) as client:
            yield client


def runs(site: PrefectSite, builder: str, flow: str) -> list[FlowRun]:
    """Return the runs of a flow that are about a builder, the first first."""
    with site.client() as client:
        asked = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_ASC"}
        found = client.request("POST", "/flow_runs/filter", json=asked).json()
        return [FlowRun.model_validate(run) for run in found if run["parameters"].get("builder") == builder]


def ended(site: PrefectSite, builder: str, flow: str, count: int = 1) -> Callable[[], list[FlowRun]]:
    def found() -> list[FlowRun]:
        over = [run for run in runs(site, builder, flow) if run.state is not None and run.state.is_final()]
        return over if len(over) >= count else []

    return found


def of_run(site: PrefectSite, run: FlowRun, what: str) -> list[dict[str, Any]]:
    """Return the task runs, or the artifacts, of a run."""
    with site.client() as client:
        which = {"task_runs" if what == "task_runs" else "artifacts": {"flow_run_id": {"any_": [str(run.id)]}}}
        found: list[dict[str, Any]] = client.request("POST", f"/{what}/filter", json=which).json()
        return found


def expose(client: Client, expid: int, frames: int = 2) -> None:
    for frame in range(frames):
        client.assign(expid, frame)
        for number, name in enumerate(("GUIDE0", "GUIDE2")):
            client.push(expid, frame, name, guide_pixels(10 * frame + number), header={"EXPTIME": 1.0}, source=name)
        assert client.build(expid, frame)["state"] == "built"


def test_an_exposure_is_one_run_and_each_archive_another(prefect_site: PrefectSite, tmp_path: Path) -> None:
    site, name = prefect_site, "guider-one"
    settings = observatory(site, tmp_path, name)
    with watched(settings, site.configuration) as client:
        expose(client, 17)
        # it goes on: that is to be seen, and takes no place in the runner
        going_on = lambda: [run for run in runs(site, name, "build-exposure") if run.state_name == "Collecting"]  # noqa: E731
        (open_run,) = eventually(going_on, seconds=PATIENCE_S, what="the run of an exposure that goes on")
        assert open_run.state is not None
        assert open_run.state.message == "2 frames so far"
        cube = client.archive(17, wait=True)
        (built,) = eventually(ended(site, name, "build-exposure"), seconds=PATIENCE_S, what="the run of the exposure")
        (made,) = eventually(ended(site, name, "archive-built-exposure"), seconds=PATIENCE_S, what="that of its cube")
        with pytest.raises(NightglassError, match="not below"):
            client.archive(17, wait=True, archive_dir="/elsewhere")
        _, failed = eventually(
            ended(site, name, "archive-built-exposure", 2), seconds=PATIENCE_S, what="one that failed"
        )
    night = built.name.split("/")[1]
    assert (built.id, built.name, built.state_name) == (open_run.id, f"generic/{night}/17-build", "Completed")
    assert (made.name, made.state_name) == (f"generic/{night}/17-archive-exposure", "Completed")
    assert "4 planes" in str(made.state.message)  # type: ignore[union-attr]
    assert (failed.name, failed.state_name) == (made.name, "NotArchived")
    assert failed.state.is_failed()  # type: ignore[union-attr]
    assert "Rejected" in str(failed.state.message)  # type: ignore[union-attr]
    assert "choose one below" in str(failed.state.message)  # type: ignore[union-attr]
    # runs of tasks are written down a moment after they ended
    eventually(
        lambda: {run["name"] for run in of_run(site, built, "task_runs")} >= STEPS,
        seconds=60,
        what="tasks of the frames",
    )
    eventually(lambda: len(of_run(site, made, "task_runs")) >= 5, seconds=60, what="tasks of the cube")
    shown = {artifact["type"]: str(artifact["data"]) for artifact in of_run(site, made, "artifacts")}
    assert set(shown) == {"markdown", "table", "image"}
    assert str(cube) in shown["markdown"]
    assert "read back" in shown["markdown"]
    assert '"GUIDE2"' in shown["table"]
    assert "remedy" in str(of_run(site, failed, "artifacts")[0]["data"])
    with Ledger.open(Layout(tmp_path).ledger) as ledger:
        (record,) = ledger.archives(content=Content.BUILT)
        assert (record.state, record.path) == (ArchiveState.ARCHIVED, Path(str(cube)))  # the former cube is there still
        assert record.exposure == f"generic/{night}/{name}-00000017"
    assert list(Layout(tmp_path).tellings.iterdir()) == []
    eventually(lambda: events(site, built.name.removesuffix("-build")) >= ENDS, seconds=60, what="events")
    shown_again(site, tmp_path, name, made)


ENDS = {f"nightglass.exposure.{what}" for what in ("built", "archived", "archive-failed")}


def events(site: PrefectSite, exposure: str) -> set[str]:
    """Return what the server heard of an exposure."""
    with site.client() as client:
        which = {"resource": {"id": [f"nightglass.exposure.{exposure}"]}}
        found = client.request("POST", "/events/filter", json={"filter": which}).json()["events"]
        return {event["event"] for event in found}


def shown_again(site: PrefectSite, root: Path, builder: str, made: FlowRun) -> None:
    """Run the flow by hand, as a person does: it shows the same, as a run of its own."""
    configuration = root / "observatory.toml"
    configuration.write_text(f'root = "{root}"\n')
    order = made.parameters["order"]
    call = f"archive_built_exposure('{made.name.removesuffix('-archive-exposure')}', '{builder}', order='{order}')"
    script = f"import asyncio; from flows.building import archive_built_exposure; asyncio.run({call})"
    environment = {**site.environment, "NIGHTGLASS_CONFIG": str(configuration)}
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300, env=environment)
    *_, last = runs(site, builder, "archive-built-exposure")
    assert (last.name, last.state_name, last.id != made.id) == (made.name, "Completed", True)


def test_what_nobody_listened_to_is_told_later_and_once(prefect_site: PrefectSite, tmp_path: Path) -> None:
    site, name = prefect_site, "guider-two"
    settings = observatory(site, tmp_path, name)
    nobody = settings.prefect.model_copy(update={"api_url": "http://127.0.0.1:9/api"})
    with watched(settings.model_copy(update={"prefect": nobody}), site.configuration) as client:
        expose(client, 18)
        client.archive(18, wait=True)  # not held up by a server that is gone
        eventually(lambda: len(list(Layout(tmp_path).tellings.iterdir())) == 2, seconds=60, what="two notes")
        eventually(lambda: list(tmp_path.rglob(f"reports/{name}-00000018.json")), seconds=60, what="the account")
    assert runs(site, name, "build-exposure") == []
    notes = {path.name: path.read_bytes() for path in Layout(tmp_path).tellings.iterdir()}
    for _ in range(2):
        with watched(settings, site.configuration):
            eventually(lambda: not list(Layout(tmp_path).tellings.iterdir()), seconds=PATIENCE_S, what="all told")
        for flow in ("build-exposure", "archive-built-exposure"):
            (run,) = runs(site, name, flow)
            assert run.state_name == "Completed"
        for file, content in notes.items():  # as if it had been killed before they were crossed off
            (Layout(tmp_path).tellings / file).write_bytes(content)


CHILD = """
import os, signal, sys
from pathlib import Path
from nightglass.config import Observatory
from nightglass.watch.accounting import Accountant
from tests.integration.test_prefect_building import expose, watched
take = Accountant.take_cube
def die(self, account):
    if account.is_over:  # the cube is there, its account is not
        os.kill(os.getpid(), signal.SIGKILL)
    take(self, account)
Accountant.take_cube = die
with watched(Observatory.model_validate_json(sys.argv[1]), Path(sys.argv[2])) as client:
    expose(client, 19)
    client.archive(19, wait=True)
"""


def test_a_watch_that_is_killed_between_cube_and_account_tells_of_it_once(
    prefect_site: PrefectSite, tmp_path: Path
) -> None:
    site, name = prefect_site, "guider-three"
    settings = observatory(site, tmp_path, name)
    command = [sys.executable, "-c", CHILD, settings.model_dump_json(exclude_unset=True), str(site.configuration)]
    killed = subprocess.run(command, check=False, timeout=300, env=dict(os.environ), capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert len(list(tmp_path.rglob("guide-00000019.fits*"))) == 1, killed.stderr.decode()[-3000:]
    assert list(tmp_path.rglob("reports/*-archive-*.json")) == []
    with watched(settings, site.configuration):
        eventually(ended(site, name, "archive-built-exposure"), seconds=PATIENCE_S, what="the run of the cube")
        eventually(ended(site, name, "build-exposure"), seconds=PATIENCE_S, what="the run of the exposure")
    for flow in ("build-exposure", "archive-built-exposure"):
        (run,) = runs(site, name, flow)
        assert run.state_name == "Completed"
    with Ledger.open(Layout(tmp_path).ledger) as ledger:
        (record,) = ledger.archives(content=Content.BUILT)
        assert record.is_safe


def test_an_exposure_gets_its_run_anew_when_there_is_news(prefect_site: PrefectSite) -> None:
    site, name = prefect_site, "guider-four"
    settings = site.observatory.prefect.model_copy(update={"api_url": site.server.api_url, "serve": False})
    where = site.observatory.model_copy(update={"prefect": settings})
    executor, heard = PrefectExecutor(where, configuration=site.configuration), list[JobReport]()
    executor.attach(lambda: None)

    def tell(progress: str = "") -> JobReport:
        job = job_of(name, progress)
        executor.submit(job)

        def ended() -> JobReport | None:
            heard.extend(executor.poll())
            return next((each for each in heard if (each.job_id, each.phase) == (job.job_id, JobPhase.ENDED)), None)

        found: JobReport = eventually(ended, seconds=120, what="the end of the telling")
        return found

    try:
        eventually(lambda: executor.healthy, seconds=PATIENCE_S, what="a healthy executor")
        assert "no account" in tell().error  # it would be told again
        told = [tell("1 frame so far").error]
        for count in (1, 3):
            write(where, name, frames=count)
            told.append(tell().error)
        told.append(tell("4 frames so far").error)
        told.append(tell().error)
    finally:
        executor.close()
    assert told == [""] * 5
    (run,) = runs(site, name, "build-exposure")
    assert (run.state_name, run.state.message) == ("Completed", "3 frames")  # type: ignore[union-attr]


def job_of(builder: str, progress: str) -> Job:
    return Job(
        job_id=uuid.uuid4().hex,
        kind=JobKind.BUILD,
        key="lynx/20260821/17",
        camera="lynx",
        night=NIGHT,
        deadline_s=600,
        exposures=("lynx/20260821/17",),
        builder=builder,
        order="20260821T081320123",
        progress=progress,
    )


def write(settings: Observatory, builder: str, *, frames: int) -> None:
    listed = [FrameAccount(frame=n, state="built", extensions=6, size=1 << 20, times=TIMES) for n in range(frames)]
    account = Account(
        exposure="lynx/20260821/17",
        builder=builder,
        camera="lynx",
        night=NIGHT.label,
        expid=17,
        state="complete",
        frames=listed,
    )
    write_account(Layout(settings.root).account("lynx", NIGHT, builder, 17), account)
