"""When an exposure began: header texts and numbers to an aware moment, by the rules of a camera."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from nightglass.config import TimeRule
from nightglass.errors import Rejected
from nightglass.fitsio.cards import Scalar

__all__ = ["Start", "find_start", "parse_iso"]

_DATE = re.compile(r"(?P<year>\d{4})[-/](?P<month>\d{1,2})[-/](?P<day>\d{1,2})")
_OLD_DATE = re.compile(r"(?P<day>\d{1,2})/(?P<month>\d{1,2})/(?P<year>\d{2})")
"""DD/MM/YY of the years 1900 to 1999, FITS Standard 4.0 section 4.4.2.1."""
_TIME = re.compile(r"(?P<hour>\d{1,2}):(?P<minute>\d{1,2})(?::(?P<second>\d{1,2}(?:\.\d*)?))?")
_OFFSET = re.compile(r"(?P<sign>[+-])(?P<hours>\d{2}):?(?P<minutes>\d{2})?")
_UTC = frozenset({"Z", "UT", "UTC", "GMT"})
_MJD_EPOCH = datetime(1858, 11, 17, tzinfo=UTC)
_EPOCHS = {
    "mjd": (_MJD_EPOCH, 0.0, 86400.0),
    "jd": (_MJD_EPOCH, 2400000.5, 86400.0),
    "unix": (datetime(1970, 1, 1, tzinfo=UTC), 0.0, 1.0),
}
"""Moment, the number it has, and seconds in a unit."""
_PLAUSIBLE = (datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A start of an exposure, and the keywords that said so."""

    moment: datetime
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parsed:
    moment: datetime
    has_time: bool


def find_start(
    rules: Sequence[TimeRule], lookup: Callable[[str], Scalar], *, exposure_time_s: float, where: str
) -> Start | None:
    """Try the rules in order; one that gives a date alone serves only if no other gives a time.

    Parameters
    ----------
    lookup : callable
        Keyword to value, None if absent.
    where : str
        For the message.

    Returns
    -------
    Start or None
        None if none of the keywords is there.

    Raises
    ------
    Rejected
        If keywords are there and none can be read.
    """
    unreadable: list[str] = []
    date_alone: Start | None = None
    for rule in rules:
        values = [lookup(keyword) for keyword in rule.keywords]
        if any(value is None for value in values):
            continue
        source = " + ".join(rule.keywords)
        parsed = _apply(rule, values)
        if parsed is None:
            unreadable += [f"{keyword} = {value!r}" for keyword, value in zip(rule.keywords, values, strict=True)]
            continue
        shift = timedelta(seconds=rule.shift_s - rule.minus_exposure * exposure_time_s)
        start = Start(moment=parsed.moment + shift, source=source)
        if parsed.has_time:
            return start
        date_alone = date_alone or start
    if date_alone is not None:
        return date_alone
    if unreadable:
        message = f"{where}: no start of the exposure in {', '.join(dict.fromkeys(unreadable))}"
        raise Rejected(message, remedy="correct header.times in the camera file, or the header")
    return None


def _apply(rule: TimeRule, values: Sequence[Scalar]) -> _Parsed | None:
    if rule.format == "iso":
        return _iso([str(value) for value in values], timedelta(hours=rule.utc_offset_hours))
    try:
        number = float(values[0] or 0)
        epoch, zero, unit_s = _EPOCHS[rule.format]
        moment = epoch + timedelta(seconds=round((number - zero) * unit_s, 6))
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number) or not _PLAUSIBLE[0] < moment < _PLAUSIBLE[1]:
        return None
    return _Parsed(moment=moment - timedelta(hours=rule.utc_offset_hours), has_time=True)


def parse_iso(text: str, *, utc_offset_hours: float = 0.0) -> datetime | None:
    """Return the moment that a text such as ``2017-12-19T18:33:43.317-0700`` names, in UTC; None if it names none."""
    parsed = _iso([text], timedelta(hours=utc_offset_hours))
    return parsed.moment if parsed else None


def _iso(texts: Sequence[str], offset: timedelta) -> _Parsed | None:
    date_text, time_text = _halves(texts[0])
    if len(texts) > 1:
        joined = [_halves(text) for text in texts[1:]]
        time_text = " ".join(time or date for date, time in joined)
    date = _DATE.fullmatch(date_text) or _OLD_DATE.fullmatch(date_text)
    if date is None:
        return None
    year = int(date["year"]) + (1900 if len(date["year"]) == 2 else 0)
    try:
        day = datetime(year, int(date["month"]), int(date["day"]), tzinfo=UTC)
    except ValueError:
        return None
    time = _TIME.match(time_text)
    if time is None:
        return None if time_text else _plausible(day - offset, has_time=False)
    hour, minute, second = int(time["hour"]), int(time["minute"]), float(time["second"] or 0)
    if hour > 24 or minute > 59 or second >= 61:
        return None
    rest = time_text[time.end() :].strip()
    stated = _stated_offset(rest) if rest else offset
    if stated is None:
        return None
    moment = day + timedelta(hours=hour, minutes=minute, microseconds=round(second * 1e6))
    return _plausible(moment - stated, has_time=True)


def _halves(text: str) -> tuple[str, str]:
    """Split a text into date and time at ``T`` or a space; a lone time is a date here."""
    date, _, time = text.strip().replace("T", " ", 1).partition(" ")
    return date, time.strip()


def _stated_offset(text: str) -> timedelta | None:
    if text.upper() in _UTC:
        return timedelta(0)
    found = _OFFSET.fullmatch(text)
    if found is None:
        return None
    size = timedelta(hours=int(found["hours"]), minutes=int(found["minutes"] or 0))
    return -size if found["sign"] == "-" else size


def _plausible(moment: datetime, *, has_time: bool) -> _Parsed | None:
    return _Parsed(moment=moment, has_time=has_time) if _PLAUSIBLE[0] < moment < _PLAUSIBLE[1] else None
