"""The Prefect server gone or hung while exposures arrive: they are reduced all the same, and the runs appear later."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from nightglass.model import State
from nightglass.simulate import NightPlan, write_night
from tests.drill.harness import CAMERA, Observatory, assert_nothing_lost_nothing_twice, running, wait_for
from tests.ports import free_port

WARM_UP = NightPlan(biases=3, darks=0, flats=0, science=2, dithers=1, filters=("r",), shape=(256, 256))
MOST_S = 4.0


def _servers(observatory: Observatory) -> list[psutil.Process]:
    return observatory.tree().get("server", [])


def _hang(servers: list[psutil.Process], seconds: float) -> None:
    for process in servers:
        process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    for process in servers:
        process.send_signal(signal.SIGCONT)


def _kill(servers: list[psutil.Process], seconds: float) -> None:
    for process in servers:
        process.kill()
    time.sleep(seconds)


def _end(servers: list[psutil.Process], seconds: float) -> None:
    for process in servers:
        process.terminate()
    time.sleep(seconds)


OUTAGES = {"hung": _hang, "killed": _kill, "stopped": _end}


def _runs(api: str, states: list[str] | None = None) -> list[dict[str, Any]]:
    query: dict[str, Any] = {"limit": 200}
    if states:
        query["flow_runs"] = {"state": {"type": {"any_": states}}}
    answer = httpx.post(f"{api}/flow_runs/filter", json=query, timeout=20)
    answer.raise_for_status()
    runs: list[dict[str, Any]] = answer.json()
    return runs


def _drill(tmp_path: Path, outage: str, *, seconds: float, exposures: int) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    config = tmp_path / "observatory.toml"
    config.write_text(f"[prefect]\nport = {port}\n[reduction]\nlease_s = 20.0\n")
    observatory = Observatory(tmp_path / "root", tmp_path / "raw", ("--config", str(config)))
    first = WARM_UP.biases + WARM_UP.science
    plan = NightPlan(
        biases=0, darks=0, flats=0, science=exposures, dithers=1, filters=("r",), shape=(256, 256), first_number=50
    )
    with running(observatory):
        write_night(observatory.raw, WARM_UP, seed=1)
        wait_for(lambda: observatory.states()[State.REDUCED] == first, timeout_s=250, what="the warm-up")
        wait_for(lambda: _answers(api), timeout_s=200, what="the server's health")
        writer = threading.Thread(target=write_night, args=(observatory.raw, plan), kwargs={"seed": 2, "pace_s": 1.0})
        writer.start()
        time.sleep(2.3)  # into the middle of a flow as likely as not
        OUTAGES[outage](_servers(observatory), seconds)
        writer.join()
        wait_for(lambda: observatory.states()[State.REDUCED] == first + exposures, timeout_s=200, what="all reduced")
        wait_for(lambda: _answers(api), timeout_s=200, what="the server is back")
        wait_for(lambda: len(_runs(api, ["COMPLETED"])) >= exposures // 2, timeout_s=200, what="the late runs")
        wait_for(lambda: not _runs(api, ["RUNNING", "PENDING"]), timeout_s=200, what="no run left RUNNING")
    assert_nothing_lost_nothing_twice(observatory, first + exposures)
    # on cores of its own; on a machine that is busy with other things all takes longer
    assert _p95(observatory, plan) < MOST_S * max(1.0, os.getloadavg()[1] / (os.cpu_count() or 1))


def _p95(observatory: Observatory, plan: NightPlan) -> float:
    with observatory.ledger() as ledger:
        values = sorted(
            entry.times["reduced"] - entry.mtime_ns / 1e9
            for entry in ledger.entries(camera=CAMERA)
            if entry.ref is not None and int(entry.exposure_id.rsplit("/", 1)[-1].split("-")[0]) >= plan.first_number
        )
    return values[min(len(values) - 1, int(0.95 * len(values)))]


def _answers(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=10).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_hung_server_does_not_stop_the_night(tmp_path: Path) -> None:
    _drill(tmp_path, "hung", seconds=10, exposures=10)


@pytest.mark.drill
@pytest.mark.timeout(700)
@pytest.mark.parametrize("outage", sorted(OUTAGES))
def test_a_minute_without_the_server(tmp_path: Path, outage: str) -> None:
    _drill(tmp_path, outage, seconds=60, exposures=65)
