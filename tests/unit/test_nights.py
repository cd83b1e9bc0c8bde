"""Nights and due times against almanacs, changes of the clock, the southern sky and the polar night."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightglass.config import Site
from nightglass.errors import Misconfigured
from nightglass.model import Night, Stage
from nightglass.nights import Clock, Hours, Sun, due_time, night_of, night_span, parse_due

PARANAL = Site(name="Paranal", latitude=-24.6272, longitude=-70.4042, elevation_m=2635, timezone="America/Santiago")
LICK = Site(name="Lick", latitude=37.3414, longitude=-121.6429, elevation_m=1283, timezone="America/Los_Angeles")
SVALBARD = Site(latitude=78.2, longitude=15.6, timezone="Arctic/Longyearbyen")
NOWHERE = Site(timezone="America/Santiago")
OPENED = datetime(2026, 8, 21, 22, tzinfo=UTC)


def due(stage: Stage, text: str, night: str, site: Site, opened: datetime = OPENED) -> datetime:
    return due_time(stage, parse_due(text), night=Night(night), opened_at=opened, site=site)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("16h", Hours(16)),
        (" 0.5 H", Hours(0.5)),
        ("23:30", Clock(time(23, 30))),
        ("9:00", Clock(time(9))),
        ("SUN", Sun()),
    ],
)
def test_due_times_are_hours_a_clock_or_the_sun(text: str, expected: object) -> None:
    assert parse_due(text) == expected


@pytest.mark.parametrize("text", ["", "16", "24:00", "12:60", "-3h", "noon", "1e3h", "16h 3m", "१६h:"])
def test_other_due_times_are_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(Misconfigured, match="hours after opening"):
        parse_due(text)


@pytest.mark.parametrize(
    ("moment", "site", "night"),
    [
        ("2026-08-22T03:00:00+00:00", PARANAL, "20260821"),
        ("2026-08-22T15:59:59+00:00", PARANAL, "20260821"),  # a second before noon, UTC-4 in winter
        ("2026-08-22T16:00:00+00:00", PARANAL, "20260822"),
        ("2017-12-20T01:33:43+00:00", Site(), "20171219"),
        ("2017-12-19T18:33:43-07:00", Site(timezone="America/Phoenix"), "20171219"),
        ("2026-01-01T00:00:00+00:00", Site(timezone="Pacific/Kiritimati"), "20260101"),  # UTC+14: already the afternoon
        ("2026-01-01T00:00:00+00:00", Site(timezone="Pacific/Pago_Pago"), "20251231"),
    ],
)
def test_a_night_runs_from_noon_to_noon_local_time(moment: str, site: Site, night: str) -> None:
    assert night_of(datetime.fromisoformat(moment), site) == Night(night)


@pytest.mark.parametrize(
    ("night", "hours"),
    [("20260328", 23), ("20261024", 25), ("20260821", 24)],  # clocks in Berlin change on the mornings after
)
def test_a_night_of_a_clock_change_is_shorter_or_longer(night: str, hours: int) -> None:
    start, end = night_span(Night(night), Site(timezone="Europe/Berlin"))
    assert end - start == timedelta(hours=hours)


@given(
    st.integers(946_684_800, 2_524_608_000),
    st.sampled_from(["UTC", "America/Santiago", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Australia/Lord_Howe"]),
)
def test_every_moment_lies_in_its_night(epoch_s: int, zone: str) -> None:
    site, aware = Site(timezone=zone), datetime.fromtimestamp(epoch_s, UTC)
    start, end = night_span(night_of(aware, site), site)
    assert start <= aware < end


def test_hours_count_from_the_opening() -> None:
    assert due(Stage.MIDWAY, "16h", "20260821", NOWHERE) == OPENED + timedelta(hours=16)


@pytest.mark.parametrize(
    ("text", "night", "expected"),
    [
        ("23:30", "20260821", "2026-08-22T03:30:00+00:00"),  # the evening, UTC-4
        ("00:30", "20260821", "2026-08-22T04:30:00+00:00"),  # after midnight
        ("12:00", "20260821", "2026-08-21T16:00:00+00:00"),
        ("11:59", "20260821", "2026-08-22T15:59:00+00:00"),
        ("09:00", "20260905", "2026-09-06T12:00:00+00:00"),  # the clock went to UTC-3 that midnight
        ("23:30", "20260905", "2026-09-06T03:30:00+00:00"),
    ],
)
def test_a_clock_time_is_the_first_after_the_nights_noon(text: str, night: str, expected: str) -> None:
    assert due(Stage.FINAL, text, night, PARANAL) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    ("site", "morning", "rises", "sets"),
    [
        # US Naval Observatory, as quoted in Skyfield's tests of its almanac
        (Site(latitude=40.8939, longitude=-83.8917), "2018-09-12", "11:13", "23:50"),
        (Site(latitude=41.281944, longitude=-84.362778), "2019-11-08", "12:17", "22:25"),
    ],
    ids=["Bluffton", "Defiance"],
)
def test_the_sun_rises_and_sets_as_in_the_almanac(site: Site, morning: str, rises: str, sets: str) -> None:
    at_site = site.model_copy(update={"timezone": "America/New_York"})
    evening = Night(morning.replace("-", ""))
    assert minutes_off(due(Stage.FINAL, "sun", str(evening.shifted(-1)), at_site), f"{morning}T{rises}+00:00") <= 1
    sunrise, middle = (due(stage, "sun", str(evening), at_site) for stage in (Stage.FINAL, Stage.MIDWAY))
    assert minutes_off(middle - (sunrise - middle), f"{morning}T{sets}+00:00") <= 1


def minutes_off(moment: datetime, expected: str) -> float:
    return abs((moment - datetime.fromisoformat(expected)).total_seconds()) / 60


def spencer_sunrise(day: date, site: Site) -> datetime:
    """Sunrise by Spencer's Fourier series (Search 2 (5), 172, 1971): good to two minutes, by other means than ours."""
    assert site.latitude is not None
    assert site.longitude is not None
    angle = 2 * math.pi * (day.timetuple().tm_yday - 1) / 365
    cos, sin = (lambda k: math.cos(k * angle)), (lambda k: math.sin(k * angle))
    declination = 0.006918 - 0.399912 * cos(1) + 0.070257 * sin(1) - 0.006758 * cos(2) + 0.000907 * sin(2)
    declination += -0.002697 * cos(3) + 0.00148 * sin(3)
    equation_min = 229.18 * (0.000075 + 0.001868 * cos(1) - 0.032077 * sin(1) - 0.014615 * cos(2) - 0.040849 * sin(2))
    latitude = math.radians(site.latitude)
    altitude = math.sin(math.radians(-0.833)) - math.sin(latitude) * math.sin(declination)
    hour_angle = math.degrees(math.acos(altitude / (math.cos(latitude) * math.cos(declination))))
    minutes = 720 - 4 * (site.longitude + hour_angle) - equation_min
    return datetime.combine(day, time(), tzinfo=UTC) + timedelta(minutes=minutes)


@pytest.mark.parametrize("site", [LICK, PARANAL], ids=["north", "south"])
@pytest.mark.parametrize("night", ["20260101", "20260320", "20260621", "20260921", "20261221"])
def test_the_sun_rises_at_any_season_in_both_hemispheres(site: Site, night: str) -> None:
    rises = due(Stage.FINAL, "sun", night, site)
    assert abs(rises - spencer_sunrise(Night(night).shifted(1).date, site)) < timedelta(minutes=3)


@pytest.mark.parametrize("site", [LICK, PARANAL, Site(latitude=-36.9, longitude=174.8, timezone="Pacific/Auckland")])
@pytest.mark.parametrize("night", ["20260101", "20260329", "20260621", "20260927"])
def test_midway_lies_in_the_dark_between_the_noons(site: Site, night: str) -> None:
    start, end = night_span(Night(night), site)
    middle, rises = due(Stage.MIDWAY, "sun", night, site), due(Stage.FINAL, "sun", night, site)
    assert start < middle < rises < end
    assert timedelta(hours=4) < rises - middle < timedelta(hours=8)


def test_without_a_position_the_sun_is_refused_and_a_clock_is_not() -> None:
    with pytest.raises(Misconfigured, match="no latitude and longitude"):
        due(Stage.MIDWAY, "sun", "20260821", NOWHERE)
    assert due(Stage.MIDWAY, "23:30", "20260821", NOWHERE).tzinfo is UTC


@pytest.mark.parametrize("night", ["20260621", "20261221"], ids=["midnight sun", "polar night"])
def test_where_the_sun_does_not_set_or_rise_it_is_said(night: str) -> None:
    with pytest.raises(Misconfigured, match=r"does not both set and rise at latitude 78\.2"):
        due(Stage.FINAL, "sun", night, SVALBARD)


def test_nights_are_dates_in_order() -> None:
    assert Night("20260821").date == date(2026, 8, 21)
    assert Night("20251231").shifted(1) == Night("20260101")
    assert Night("20240301").shifted(-1) == Night("20240229")
    assert sorted([Night("20260822"), Night("20251231")])[0] == Night("20251231")
    for label in ("2026-08-21", "20260230", "2026082", "tonight", "٢٠٢٦٠٨٢١"):
        with pytest.raises(Misconfigured, match="YYYYMMDD"):
            Night(label)
