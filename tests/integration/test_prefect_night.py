"""The flow that people see: it starts a watch that outlives it, and ends when the ledger says closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from nightglass.layout import Layout
from nightglass.ledger import Ledger
from nightglass.model import Night, State
from nightglass.watch.instance import lock_holder
from tests.integration.conftest import PrefectSite, eventually

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.cluster]
PROGRAM = "import asyncio, sys; from flows.night import run_night; asyncio.run(run_night(sys.argv[1], poll_s=0.2))"


def test_killing_the_run_does_not_stop_the_night(prefect_site: PrefectSite, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "root")
    configuration = tmp_path / "observatory.toml"
    configuration.write_text(
        f'root = "{layout.root}"\n'
        f'[[sources]]\ncamera = "lynx"\ndirectory = "{prefect_site.night.paths[0].parent}"\n'
        f'[prefect]\napi_url = "{prefect_site.server.api_url}"\nserve = false\n'
        f'[cluster]\naddress = "{prefect_site.pool.address}"\n'
    )
    environment = prefect_site.environment | {"NIGHTGLASS_CONFIG": str(configuration)}

    def flow() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", PROGRAM, "20260821"], env=environment, cwd=tmp_path)

    def holder() -> int | None:
        return lock_holder(layout.run, "lynx")

    first = flow()
    try:
        watch = eventually(holder, seconds=150, what="a watch")
        assert watch != first.pid
        first.send_signal(signal.SIGKILL)
        first.wait()
        with Ledger.open(layout.ledger) as ledger:

            def reduced() -> bool:
                return ledger.counts()[State.REDUCED] == len(prefect_site.night.paths)

            eventually(reduced, seconds=120, what="all exposures reduced after the flow was killed")
            assert holder() == watch
            os.kill(watch, signal.SIGTERM)
            eventually(lambda: holder() is None, seconds=120, what="the end of the watch")
            ledger.close_night(Night("20260821"), "lynx", now=datetime.now(UTC).timestamp())
            assert flow().wait(150) == 0
            assert holder() is None  # a closed night needs no watch
    finally:
        first.kill()
        first.wait()
        if (pid := holder()) is not None:
            left = psutil.Process(pid)
            os.kill(pid, signal.SIGTERM)
            psutil.wait_procs([left], timeout=120)
