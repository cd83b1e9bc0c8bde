"""Nights, and when their stages are due: hours after opening, a clock time, or the sun."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

from nightglass.errors import Misconfigured
from nightglass.model import Night, Stage

if TYPE_CHECKING:
    from nightglass.config import Site

__all__ = ["Clock", "Due", "Hours", "Sun", "due_time", "night_of", "night_span", "parse_due"]

_HOURS = re.compile(r"(\d+(?:\.\d+)?)\s*h")
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_SUN_STEP = timedelta(minutes=5)
_HORIZON_DEG = -0.833
"""Altitude of the sun's centre at rise and set: refraction and semi-diameter (Astronomical Almanac)."""


@dataclass(frozen=True, slots=True)
class Hours:
    """So many hours after the night was opened."""

    hours: float


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock time at the site, the first after the night's noon."""

    at: time


@dataclass(frozen=True, slots=True)
class Sun:
    """Midway: the middle between sunset and sunrise; final: sunrise."""


Due = Hours | Clock | Sun


def parse_due(text: str) -> Due:
    """Read ``16h``, ``23:30`` or ``sun``.

    Raises
    ------
    Misconfigured
        If the text is none of these.
    """
    cleaned = text.strip().lower()
    if cleaned == "sun":
        return Sun()
    if match := _HOURS.fullmatch(cleaned):
        return Hours(float(match[1]))
    if match := _CLOCK.fullmatch(cleaned):
        return Clock(time(int(match[1]), int(match[2])))
    message = f"{text!r} is not a time at which a stage can be due"
    raise Misconfigured(message, remedy="write hours after opening (16h), a clock time (23:30) or sun")


def night_of(moment: datetime, site: Site) -> Night:
    """Return the night, noon to noon local time, in which an aware moment lies."""
    local = moment.astimezone(site.zone)
    return Night((local - timedelta(hours=12)).strftime("%Y%m%d"))


def night_span(night: Night, site: Site) -> tuple[datetime, datetime]:
    """Return the local noons between which a night lies, as UTC."""
    return _noon(night, site), _noon(night.shifted(1), site)


def due_time(stage: Stage, due: Due, *, night: Night, opened_at: datetime, site: Site) -> datetime:
    """Return when a stage of a night is due, as UTC.

    Raises
    ------
    Misconfigured
        If the sun is asked for and the site has no position, or the sun does not set there that night.
    """
    match due:
        case Hours(hours):
            return opened_at.astimezone(UTC) + timedelta(hours=hours)
        case Clock(at):
            noon = _noon(night, site).astimezone(site.zone)
            days = 0 if at >= time(12) else 1
            return datetime.combine(noon.date() + timedelta(days=days), at, tzinfo=site.zone).astimezone(UTC)
        case Sun():
            sunset, sunrise = _sunset_and_sunrise(night, site)
            return sunrise if stage is Stage.FINAL else sunset + (sunrise - sunset) / 2


def _noon(night: Night, site: Site) -> datetime:
    return datetime.combine(night.date, time(12), tzinfo=site.zone).astimezone(UTC)


def _sunset_and_sunrise(night: Night, site: Site) -> tuple[datetime, datetime]:
    if site.latitude is None or site.longitude is None:
        message = f"night {night}: a stage is due by the sun, but the site has no latitude and longitude"
        raise Misconfigured(message, remedy="add them to [site], or give hours or a clock time")
    # astropy costs a second of import, which most calls of this module do not need
    import numpy as np
    from astropy import units as u
    from astropy.coordinates import AltAz, EarthLocation, get_sun
    from astropy.time import Time
    from astropy.utils import iers

    start, end = night_span(night, site)
    moments = [start + index * _SUN_STEP for index in range(int((end - start) / _SUN_STEP) + 1)]
    place = EarthLocation.from_geodetic(site.longitude, site.latitude, site.elevation_m)
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("iers_degraded_accuracy", "ignore"):  # noqa: FBT003
        times = Time(moments)
        altitude = get_sun(times).transform_to(AltAz(obstime=times, location=place)).alt.to_value(u.deg)
    below = np.asarray(altitude) < _HORIZON_DEG
    if not below.any() or below.all():
        message = f"night {night}: the sun does not both set and rise at latitude {site.latitude}"
        raise Misconfigured(message, remedy="give hours or a clock time for the stages")
    first = int(np.argmax(below))
    last = len(below) - 1 - int(np.argmax(below[::-1]))
    return _crossing(moments, altitude, first), _crossing(moments, altitude, last + 1)


def _crossing(moments: list[datetime], altitude: object, index: int) -> datetime:
    """Interpolate where the altitude passes the horizon, between index - 1 and index."""
    if index in (0, len(moments)):
        return moments[min(index, len(moments) - 1)]
    before, after = (float(altitude[k]) - _HORIZON_DEG for k in (index - 1, index))  # type: ignore[index]
    return moments[index - 1] + (before / (before - after)) * _SUN_STEP
