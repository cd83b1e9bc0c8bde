"""Owners, the instance lock, alarms and the heartbeat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nightglass.errors import Misconfigured
from nightglass.watch.alarms import Alarms
from nightglass.watch.heartbeat import Heartbeat, read_heartbeats, write_heartbeat
from nightglass.watch.instance import InstanceLock, lock_holder
from nightglass.watch.owners import Owner

HOLD_LOCK = """
import sys
from pathlib import Path
from nightglass.watch.instance import InstanceLock
with InstanceLock(Path(sys.argv[1]), sys.argv[2:]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_an_owner_is_dead_when_its_process_is_gone_or_its_number_was_used_again() -> None:
    here = Owner.here("watch")
    assert Owner.parse(str(here)) == here
    assert not here.is_dead
    assert replace(here, started="another-1").is_dead
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    try:
        assert not Owner("elsewhere", child.pid, "x", "watch").is_dead
    finally:
        child.wait()
    assert replace(here, pid=child.pid).is_dead
    with pytest.raises(Misconfigured, match="host:pid:started:role"):
        Owner.parse("somebody")


def test_a_process_that_waits_to_be_reaped_is_dead() -> None:
    code = "from nightglass.watch.owners import Owner; print(Owner.here('x'))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        owner = Owner.parse(child.stdout.read().strip())
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert owner.is_dead


def test_overlapping_camera_sets_exclude_each_other_until_the_holder_dies(tmp_path: Path) -> None:
    assert lock_holder(tmp_path, "lynx") is None
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(tmp_path), "guide", "lynx"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Misconfigured, match=rf"camera lynx .* process {holder.pid}"):
            InstanceLock(tmp_path, ["fast", "lynx"]).acquire()
        assert lock_holder(tmp_path, "lynx") == holder.pid
        with InstanceLock(tmp_path, ["fast"]):  # not left half taken by the attempt before
            pass
        holder.kill()
    with InstanceLock(tmp_path, ["lynx", "fast"]):
        assert lock_holder(tmp_path, "lynx") == os.getpid()
    assert lock_holder(tmp_path, "lynx") is None


def test_an_alarm_is_told_once_until_it_is_time_again() -> None:
    told = []
    now = 0.0
    alarms = Alarms(lambda *both: told.append(both[1]), repeat_s=100, clock=lambda: now)
    for now in (0, 1, 2):
        alarms.raise_("disk", "Disk", f"{now}")
    alarms.clear("disk")
    now = 50
    alarms.raise_("disk", "Disk", "flaps")
    now = 60
    alarms.raise_("lag", "Lag", "other")
    assert told == ["0", "other"]
    assert [alarm.key for alarm in alarms.standing] == ["disk", "lag"]
    now = 100
    alarms.raise_("disk", "Disk", "still")
    assert told[-1] == "still"
    alarms.clear("disk")
    alarms.clear("lag")
    assert alarms.standing == ()


def test_an_alarm_that_cannot_be_told_does_not_hurt_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(subject: str, text: str) -> None:
        raise ConnectionRefusedError(subject)

    Alarms(refuse).raise_("disk", "Disk", "full")
    assert "could not be passed on" in caplog.text


def test_the_heartbeat_is_read_back_whole_and_a_broken_one_is_named(tmp_path: Path) -> None:
    beat = Heartbeat(
        pid=1, at=5.0, started=1.0, phase="watching", cameras=["lynx"], counts={"lynx/20260821": {"seen": 2}}
    )
    write_heartbeat(tmp_path / "watch.json", beat)
    write_heartbeat(tmp_path / "watch-guide.json", replace(beat, at=9.0))
    assert read_heartbeats(tmp_path) == (replace(beat, at=9.0), beat)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["watch-guide.json", "watch.json"]
    (tmp_path / "watch.json").write_text(json.dumps({"pid": 1}))
    with pytest.raises(Misconfigured, match=r"watch\.json"):
        read_heartbeats(tmp_path)
