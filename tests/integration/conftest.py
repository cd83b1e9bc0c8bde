"""One real Prefect server, and one simulated night, for all tests that need them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.deploy import Deployed, Schedules, deploy
from deployments.environment import child_environment
from deployments.server import EmbeddedServer
from nightglass import byhand
from nightglass.cluster import start
from nightglass.config import Observatory, load_camera, load_observatory
from nightglass.layout import Layout
from nightglass.ledger import Ledger
from nightglass.model import Night
from nightglass.pool import Pool
from nightglass.reduction import run_group
from nightglass.simulate import NightPlan, SimulatedNight, write_night

PLAN = NightPlan(
    night=Night("20260821"), biases=3, darks=0, flats=0, science=4, dithers=2, filters=("g",), shape=(160, 160)
)


ASKING_S = 0.3
"""Between two questions to a Prefect server: twenty a second took the time that the runs needed."""


def eventually(condition: Callable[[], Any], *, seconds: float, what: str, every_s: float = 0.05) -> Any:
    """Wait until a condition gives something true, and return that."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(every_s)
    return found


@dataclass
class PrefectSite:
    """An observatory whose Prefect server runs."""

    observatory: Observatory
    configuration: Path
    server: EmbeddedServer
    night: SimulatedNight
    pool: Pool

    @property
    def environment(self) -> dict[str, str]:
        """Of children that talk to the server."""
        values = child_environment(
            self.observatory,
            api_url=self.server.api_url,
            configuration=self.configuration,
            environment=dict(os.environ),
        )
        # what a worker on another host knows: the file, and nothing of our process
        del values["NIGHTGLASS_OBSERVATORY"], values["NIGHTGLASS_ROOT"]
        return values

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        with temporary_settings({PREFECT_API_URL: self.server.api_url}), get_client(sync_client=True) as client:
            yield client

    def ledger(self) -> Ledger:
        return Ledger.open(Layout(self.observatory.root).ledger)

    def deploy(self, schedules: Schedules) -> tuple[Deployed, ...]:
        with temporary_settings({PREFECT_API_URL: self.server.api_url}):
            return asyncio.run(deploy(self.observatory, configuration=self.configuration, schedules=schedules))

    def reduce(self, ledger: Ledger, paths: Iterable[Path]) -> None:
        """Reduce exposures without Prefect, which takes seconds for each run of a deployment."""
        camera, common = load_camera("lynx"), {"ledger": ledger, "observatory": self.observatory}
        entries = [byhand.take_in(path, camera, **common) for path in paths]
        for group in byhand.claim_exposures(entries, owner="host:1:t:test", **common):
            assert not run_group(group, pool=self.pool, camera=camera, **common).errors

    def wait_for_run(self, flow_run_id: Any, *, seconds: float = 120.0) -> FlowRun:
        """Wait until a run is over, and return it."""
        with self.client() as client:

            def final() -> FlowRun | None:
                run = client.read_flow_run(flow_run_id)
                return run if run.state is not None and run.state.is_final() else None

            found: FlowRun = eventually(final, seconds=seconds, what=f"the end of run {flow_run_id}", every_s=ASKING_S)
            return found

    @contextmanager
    def process(self, *command: str, log: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command beside the test, and end it with SIGTERM."""
        path = self.observatory.root / log
        with path.open("ab") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdin is not None
            process.stdin.close()


_ATTEMPTS = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def prefect_site(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[PrefectSite]:
    attempt = pytestconfig.stash[_ATTEMPTS] = pytestconfig.stash.get(_ATTEMPTS, 0) + 1
    if attempt > 2:
        pytest.fail("the Prefect server did not start, twice")  # each test would wait for it again
    root = tmp_path_factory.mktemp("site")
    night = write_night(root / "raw", PLAN, seed=5)
    server = EmbeddedServer(root / "observatory")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(root / "home"))
        patch.setenv("PREFECT_LOGGING_LEVEL", "WARNING")
        try:
            server.ensure()
            server.wait(timeout_s=200)  # its first start migrates a database
            configuration = root / "observatory.toml"
            configuration.write_text(
                f'root = "{root / "observatory"}"\n'
                f'[[sources]]\ncamera = "lynx"\ndirectory = "{root / "raw"}"\n'
                f'[prefect]\napi_url = "{server.api_url}"\nfallback_s = 600\n'
                "[cluster]\nworkers = 1\n"
            )
            observatory = load_observatory(configuration, environment={})
            with start(observatory.cluster, layout=Layout(observatory.root)) as pool:
                yield PrefectSite(observatory, configuration, server, night, pool)
        finally:
            server.close()


@pytest.fixture(scope="session")
def deployed(prefect_site: PrefectSite) -> PrefectSite:
    """The site with its deployments, whose schedules are paused; whoever changes them makes them anew."""
    prefect_site.deploy(Schedules.PAUSED)
    return prefect_site
