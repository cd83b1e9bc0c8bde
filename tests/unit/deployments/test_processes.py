"""Children die with their parents, and with all that they started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deployments.processes import Child, running_pid, spawn
from nightglass.errors import Misconfigured

SLEEPER = ["python", "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    "python",
    "-c",
    "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print(child.pid, flush=True); time.sleep(600)",
]
PARENT = """
import os, sys, time
from pathlib import Path
from deployments.processes import spawn
command = ["python", "-c", "import time; time.sleep(600)"]
child = spawn("sleeper", command, environment=dict(os.environ), log=Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(600)
"""


def start(command: list[str], directory: Path) -> Child:
    return spawn(
        "test",
        command,
        environment=dict(os.environ),
        log=directory / "logs" / "test.log",
        pipes=True,
        pid_file=directory / "test.pid",
    )


def first_line(child: Child) -> str:
    assert child.process.stdout is not None
    return child.process.stdout.readline().strip()


def holds_within(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.timed
def test_a_child_runs_says_things_and_ends(tmp_path: Path) -> None:
    child = start(SLEEPER, tmp_path)
    assert first_line(child) == "up"
    assert child.alive
    assert running_pid(tmp_path / "test.pid", containing="time.sleep") == child.pid
    began = time.monotonic()
    child.stop(grace_s=5.0)
    assert not child.alive
    assert time.monotonic() - began < 2.0
    assert child.process.returncode == -signal.SIGTERM
    assert not (tmp_path / "test.pid").exists()


@pytest.mark.timed
def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(tmp_path: Path) -> None:
    child = start(STUBBORN, tmp_path)
    grandchild = int(first_line(child))
    child.stop(grace_s=0.2)
    assert child.process.returncode == -signal.SIGKILL
    assert holds_within(lambda: is_gone(grandchild), 2.0)


def test_a_stopped_child_can_be_ended(tmp_path: Path) -> None:
    child = start(SLEEPER, tmp_path)
    first_line(child)
    child.signal(signal.SIGSTOP)
    child.kill()
    assert child.process.returncode == -signal.SIGKILL
    child.stop(grace_s=1.0)  # twice is once


@pytest.mark.timed
def test_a_child_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        parent.kill()
        assert holds_within(lambda: is_gone(pid), 5.0)


def test_a_pid_file_of_another_process_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(f"{os.getpid()}\n")
    assert running_pid(path, containing="no process is called like this") is None
    path.write_text("not a number")
    assert running_pid(path, containing="") is None
    assert running_pid(tmp_path / "absent", containing="") is None


def test_a_log_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="file/log"):
        spawn("test", SLEEPER, environment={}, log=tmp_path / "file" / "log")
