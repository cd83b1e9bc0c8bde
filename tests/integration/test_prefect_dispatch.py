"""Both ways of dispatch reduce a night to the same bytes; its stages are run by a worker, or by the watch itself."""

from __future__ import annotations

import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun

from deployments.runner_executor import PrefectExecutor
from nightglass.cluster import start
from nightglass.config import Dispatch, load_camera, load_observatory
from nightglass.layout import Layout
from nightglass.ledger import Ledger, StageState
from nightglass.model import Night, Stage, State
from nightglass.simulate import NightPlan, write_night
from nightglass.watch import Watch
from nightglass.watch.heartbeat import read_heartbeats
from tests.integration.conftest import ASKING_S, PrefectSite, eventually

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]
NIGHT = Night("20260825")
PLAN = NightPlan(night=NIGHT, biases=3, darks=0, flats=0, science=2, dithers=2, filters=("g",), shape=(256, 256))
FILES = 5


class WatchedNight:
    """A night under a root of its own, watched from its first file until its final closes it."""

    def __init__(self, site: PrefectSite, root: Path, *, dispatch: Dispatch, fallback_s: float) -> None:
        self.site, self.raw, self.layout = site, root / "raw", Layout(root / "out")
        self.configuration = root / "observatory.toml"
        self.told: list[str] = []
        self.raw.mkdir(parents=True)
        self.configuration.write_text(
            f'root = "{self.layout.root}"\n'
            f'[[sources]]\ncamera = "lynx"\ndirectory = "{self.raw}"\n'
            f'[prefect]\napi_url = "{site.server.api_url}"\nserve = false\n'
            # one run at a time: what comes meanwhile is the next batch, which costs one process less for each exposure
            f'dispatch = "{dispatch}"\nfallback_s = {fallback_s}\nconcurrency = 1\n'
            f'[cluster]\naddress = "{site.pool.address}"\n[reduction]\ncalibration_settle_s = 0.5\n'
        )

    def run(self, files: list[Path]) -> None:
        observatory = load_observatory(self.configuration, environment={})
        with Ledger.open(self.layout.ledger) as ledger, start(observatory.cluster, layout=self.layout) as pool:
            executor = PrefectExecutor(observatory, configuration=self.configuration, cluster_address=pool.address)
            cameras = {"lynx": load_camera("lynx")}
            watch = Watch(observatory, cameras, ledger, pool, executor, nights=[NIGHT], alarm=self._hear)
            thread = threading.Thread(target=watch.run, name="watch under test")
            thread.start()
            try:
                # until the runner is there, exposures would be reduced without Prefect
                eventually(lambda: executor.healthy, seconds=250, what="a runner")
                ready = time.time()
                eventually(lambda: self._is_lit(since=ready), seconds=200, what="a closed breaker")
                for path in files:
                    shutil.copy2(path, self.raw)
                eventually(lambda: ledger.counts()[State.REDUCED] == FILES, seconds=200, what="all exposures reduced")
                eventually(lambda: ledger.masters("lynx"), seconds=200, what="a master")
                for stage in Stage:
                    self._stage(ledger, stage)
                thread.join(200)
                assert not thread.is_alive(), "the night is closed, so its watch ends"
            finally:
                watch.stop()
                thread.join(60)

    def products(self) -> dict[Path, bytes]:
        """Return the bytes of all products, by their place below the root."""
        night = self.layout.night("lynx", NIGHT)
        return {path.relative_to(self.layout.root): path.read_bytes() for path in night.rglob("*.fits")}

    def stage_runs(self, *, inline: bool) -> list[FlowRun]:
        """Return the runs that ran the stages, once they ended: of the watch's runner, or of deployments."""
        names = [f"{NIGHT}-{stage.value}" for stage in Stage]
        wanted = FlowRunFilter.model_validate({"name": {"any_": names}})

        def ended() -> list[FlowRun]:
            runs = client.read_flow_runs(flow_run_filter=wanted)
            done = [run for run in runs if run.state_name == "Completed" and ("inline" in run.tags) is inline]
            return done if len(done) >= len(names) else []

        with self.site.client() as client:
            runs: list[FlowRun] = eventually(ended, seconds=200, what="the ends of the runs", every_s=ASKING_S)
        assert sorted(run.name for run in runs) == sorted(names)
        return runs

    @property
    def run_by_the_watch(self) -> int:
        """How many stages the watch ran itself."""
        return sum(subject.endswith("run by the watch") for subject in self.told)

    def _hear(self, subject: str, text: str) -> None:
        assert text
        self.told.append(subject)

    def _is_lit(self, *, since: float) -> bool:
        beats = read_heartbeats(self.layout.run)
        return any(beat.at > since and beat.breaker.get("state") == "closed" for beat in beats)

    def _stage(self, ledger: Ledger, stage: Stage) -> None:
        ledger.reset_stage(NIGHT, "lynx", stage, due=datetime.now(UTC))

        def done() -> bool:
            record = ledger.find_night(NIGHT, "lynx")
            return record is not None and record.stage(stage).state is StageState.DONE

        eventually(done, seconds=250, what=f"{stage} done")


def test_both_ways_of_dispatch_give_the_same_bytes(deployed: PrefectSite, tmp_path: Path) -> None:
    files = list(write_night(tmp_path / "simulated", PLAN, seed=7).paths)
    inline = WatchedNight(deployed, tmp_path / "inline", dispatch=Dispatch.INLINE, fallback_s=0.5)
    inline.run(files)
    assert inline.run_by_the_watch == len(Stage)
    inline.stage_runs(inline=True)

    by_worker = WatchedNight(deployed, tmp_path / "deployed", dispatch=Dispatch.DEPLOYMENT, fallback_s=600)
    with deployed.process("prefect", "worker", "start", "--pool", "nightglass", "--limit", "4", log="worker.log"):
        by_worker.run(files)
        runs = by_worker.stage_runs(inline=False)
    assert not by_worker.run_by_the_watch, "the worker ran the stages when they were due"
    assert all(run.parameters["configuration"] == str(by_worker.configuration) for run in runs)

    products = inline.products()
    assert len(products) >= FILES + 2, "exposures, a master and a stack"
    assert by_worker.products() == products
