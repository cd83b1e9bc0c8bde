"""Due times that always exist and are always in order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from nightglass.config import NightRule, Site
from nightglass.model import Night
from nightglass.watch.duetimes import due_times

NIGHT = Night("20260821")
SITE = Site(latitude=-24.6, longitude=-70.4, timezone="America/Santiago")
EVENING = datetime(2026, 8, 21, 20, tzinfo=UTC)


def test_hours_count_from_opening() -> None:
    times = due_times(NIGHT, rule=NightRule(), site=Site(), opened_at=EVENING)
    assert (times.midway, times.final) == (EVENING + timedelta(hours=16), EVENING + timedelta(hours=48))
    assert times.problem == ""


def test_sun_and_clock_at_the_site() -> None:
    times = due_times(NIGHT, rule=NightRule(midway="sun", final="09:00"), site=SITE, opened_at=EVENING)
    assert times.midway.date() == datetime(2026, 8, 22, tzinfo=UTC).date()
    assert 3 < times.midway.hour + times.midway.minute / 60 < 6
    assert times.final == datetime(2026, 8, 22, 13, tzinfo=UTC)


def test_a_polar_summer_falls_back_to_hours_and_says_so() -> None:
    pole = Site(latitude=78.2, longitude=15.6, timezone="UTC")
    opened = datetime(2026, 6, 21, 18, tzinfo=UTC)
    times = due_times(Night("20260621"), rule=NightRule(midway="sun", final="sun"), site=pole, opened_at=opened)
    assert times.final == opened + timedelta(hours=48)
    assert "16 h after opening instead" in times.problem


@pytest.mark.parametrize(("midway", "final"), [("48h", "16h"), ("20h", "20h"), ("8h", "14:00")])
def test_midway_is_before_final(midway: str, final: str) -> None:
    times = due_times(NIGHT, rule=NightRule(midway=midway, final=final), site=Site(), opened_at=EVENING)
    assert EVENING < times.midway < times.final or final == "14:00"
    assert times.midway < times.final


def test_a_night_opened_long_after_it_gets_time_to_catch_up() -> None:
    opened = EVENING + timedelta(days=300)
    times = due_times(NIGHT, rule=NightRule(midway="23:30", final="09:00"), site=SITE, opened_at=opened)
    assert opened < times.midway < times.final == opened + timedelta(minutes=15)
