"""``nightglass serve`` hosts the image builders where no watch has them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from nightglass.builder import Client
from nightglass.errors import Misconfigured
from nightglass.layout import Layout
from nightglass.watch.instance import InstanceLock
from tests.integration.building import guide_pixels

pytestmark = pytest.mark.slow
PATIENCE_S = 60.0


def serving(config: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "deployments.cli", "serve", "--config", str(config), "--port", "0"]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def shown(line: str) -> list[tuple[str, str, int]]:
    """Return the image builders that the page of the night tells of."""
    page = re.search(r"(http://[0-9.:]+)/", line)
    assert page is not None, line
    end = time.monotonic() + PATIENCE_S
    while not (found := httpx.get(f"{page[1]}/v1/night").json()["watches"]):
        assert time.monotonic() < end
        time.sleep(0.2)
    return [(one["name"], one["address"], one["last"]) for beat in found for one in beat["builders"]]


def test_builders_are_served_and_survive_a_kill(tmp_path: Path) -> None:
    config, root = tmp_path / "observatory.toml", tmp_path / "root"
    config.write_text(
        f'root = "{root}"\n[web]\nport = 0\n[[builders]]\nname = "guider"\ncamera = "generic"\npreset = "guider"\n'
    )
    for number in range(2):
        process = serving(config)
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline(), process.stdout.readline()]
            found = re.search(r"(http://[0-9.:]+)/v1/docs", lines[1])
            assert found is not None, lines
            with Client(found[1], builder="guider") as client:
                if number == 0:
                    client.assign(17, 0, sources=["A", "B"], timeout_s=3600.0)
                    client.push(17, 0, "A", guide_pixels(), source="A")
                    process.send_signal(signal.SIGKILL)
                else:
                    assert client.frame(17, 0)["missing"] == ["B"]
                    assert shown(lines[0]) == [("guider", found[1], 17)]
                    client.push(17, 0, "B", guide_pixels(1), source="B")
                    assert client.build(17, 0, sources=["A", "B"])["state"] == "built"
                    with pytest.raises(Misconfigured, match="watched"):
                        InstanceLock(Layout(root).run, ["generic"]).acquire()
                    process.send_signal(signal.SIGTERM)
        finally:
            if process.poll() is None and number == 0:
                process.kill()
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def test_builders_that_a_watch_has_are_left_to_it(tmp_path: Path) -> None:
    config, root = tmp_path / "observatory.toml", tmp_path / "root"
    config.write_text(f'root = "{root}"\n[web]\nport = 0\n[[builders]]\nname = "guider"\ncamera = "generic"\n')
    with InstanceLock(Layout(root).run, ["generic"]):
        process = serving(config)
        try:
            assert process.stdout is not None
            assert "serving" in process.stdout.readline()
        finally:
            process.send_signal(signal.SIGTERM)
            rest, errors = process.communicate(timeout=60)
    assert "image builders: another process has them, at port 0" in rest
    assert process.returncode == 0, errors
