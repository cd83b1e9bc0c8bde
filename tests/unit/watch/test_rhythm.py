"""What is due when: timers, masters, catching up, and alarms that follow from a look."""

from __future__ import annotations

from pathlib import Path

from nightglass.config import Observatory
from nightglass.model import Night
from nightglass.watch.alarms import Alarms
from nightglass.watch.breaker import Breaker
from nightglass.watch.mastering import MasterDesk
from nightglass.watch.sentry import Sentry
from nightglass.watch.timers import Timers

NIGHT = Night("20260821")


def test_timers_are_due_at_once_and_then_by_their_period_without_catching_up() -> None:
    timers, done = Timers(), []
    timers.every(1.0, "a", lambda: done.append("a"))
    timers.every(5.0, "b", lambda: done.append("b"))
    for now in (0.0, 0.5, 1.0, 5.5, 5.6):
        for _, action in timers.due(now):
            action()
    assert done == ["a", "b", "a", "a", "b"]
    assert timers.next_due() == 6.5


def test_masters_are_due_when_frames_stopped_or_when_they_come_for_long() -> None:
    desk = MasterDesk(settle_s=5)
    desk.note("lynx", NIGHT, 0)
    assert desk.due(4.9) == ()
    desk.note("lynx", NIGHT, 4)
    assert desk.due(8) == ()
    assert desk.next_due() == 9
    assert desk.due(9) == (("lynx", NIGHT),)
    for now in range(10, 30):
        desk.note("lynx", NIGHT, now)
    assert desk.due(29.9) == ()
    assert desk.due(30) == (("lynx", NIGHT),)
    desk.take("lynx", NIGHT)
    assert (len(desk), desk.next_due()) == (0, None)
    desk.note("lynx", NIGHT, 31)
    desk.hurry()
    assert desk.due(31) == (("lynx", NIGHT),)


def test_the_sentry_tells_of_disk_lag_darkness_and_sources_and_of_their_end(tmp_path: Path) -> None:
    told = []
    alarms = Alarms(lambda subject, text: told.append(f"{subject}: {text}"))
    limits = {"free_disk_gib": 1e9, "lag_alarm_s": 60}
    sentry = Sentry(Observatory.model_validate({"root": tmp_path, "limits": limits}), alarms)
    sentry.look_at_disk()
    assert not sentry.must_pause
    sentry.free_gib = 0.1
    assert sentry.must_pause
    sentry.look_at_lag(61, 7)
    breaker = Breaker()
    breaker.trip("the runner is silent", 0)
    sentry.look_at_breaker(breaker, 59)
    sentry.look_at_breaker(breaker, 61)
    state = {"camera": "lynx", "directory": "/raw", "error": "gone"}
    sentry.look_at_sources([state])
    assert [line.split(":")[0] for line in told] == [
        "Disk almost full",
        "Reduction lags behind",
        "Prefect is away",
        "Directory of lynx",
    ]
    assert "7 ready groups has waited for 61 s" in told[1]
    assert "the runner is silent" in told[2]
    sentry.look_at_lag(0, 0)
    sentry.look_at_sources([state | {"error": ""}])
    breaker.observe(healthy=True, now=62)
    breaker.observe(healthy=True, now=64)
    sentry.look_at_breaker(breaker, 64)
    assert [alarm.key for alarm in alarms.standing] == ["disk"]
