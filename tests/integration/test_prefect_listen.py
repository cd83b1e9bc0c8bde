"""The flow that listens: it starts a watch that receives by itself, and shows how the stream fares."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from nightglass.layout import Layout
from nightglass.ledger import Ledger
from nightglass.model import State
from nightglass.streams import find_protocol
from nightglass.streams.aartfaac import Window, encode_window
from nightglass.watch.heartbeat import read_heartbeats
from nightglass.watch.instance import lock_holder
from tests.integration.conftest import PrefectSite, eventually
from tests.integration.receiving import Sender

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]
PROGRAM = """
import asyncio, sys
from flows.listen import listen
state = asyncio.run(listen("sky", poll_s=0.5, hours=float(sys.argv[1])))
print(state["messages"], state["files"])
"""


def test_a_run_starts_the_watch_of_a_stream_and_the_next_attaches(prefect_site: PrefectSite, tmp_path: Path) -> None:
    layout, sender = Layout(tmp_path / "root"), Sender()
    configuration = tmp_path / "observatory.toml"
    configuration.write_text(
        f'root = "{layout.root}"\n'
        '[[streams]]\nname = "sky"\ncamera = "aartfaac"\nprotocol = "aartfaac"\n'
        f'endpoints = ["{sender.endpoint}"]\n'
        f'[prefect]\napi_url = "{prefect_site.server.api_url}"\nserve = false\n'
        f'[cluster]\naddress = "{prefect_site.pool.address}"\n'
    )
    environment = prefect_site.environment | {"NIGHTGLASS_CONFIG": str(configuration)}

    def flow(hours: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, str(hours)]
        return subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True)

    first = flow(1.0)
    watch = None
    try:
        watch = eventually(lambda: lock_holder(layout.run, "aartfaac"), seconds=150, what="a watch")
        assert watch != first.pid
        first.send_signal(signal.SIGKILL)
        first.communicate()
        window = find_protocol("aartfaac").example(0)
        assert isinstance(window, Window)
        sender.send(encode_window(window.header, window.pixels))
        with Ledger.open(layout.ledger) as ledger:
            eventually(lambda: ledger.counts()[State.REDUCED] == 1, seconds=180, what="the exposure reduced")
        # what the second run shows is the last heartbeat: it must tell of all that was received
        eventually(lambda: beaten(layout.run) == {"messages": 1, "files": 1}, seconds=60, what="a heartbeat")
        second = flow(0.0)
        shown, _ = second.communicate(timeout=150)
        assert (second.returncode, shown.split()) == (0, ["1", "1"])
        assert lock_holder(layout.run, "aartfaac") == watch
    finally:
        first.kill()
        sender.close()
        if watch is not None and runs(watch):
            os.kill(watch, signal.SIGTERM)
            eventually(lambda: not runs(watch), seconds=120, what="the end of the watch")


def beaten(run: Path) -> dict[str, int]:
    return {
        name: state[name] for beat in read_heartbeats(run) for state in beat.streams for name in ("messages", "files")
    }


def runs(process: int) -> bool:
    """Tell whether a process goes on; the parent of this one was killed, and who inherits it may not bury it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    return False
