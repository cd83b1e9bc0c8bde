from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightglass.config import TimeRule
from nightglass.errors import Rejected
from nightglass.fitsio.cards import Scalar
from nightglass.startimes import Start, find_start, parse_iso


def start_of(values: dict[str, Scalar], *rules: TimeRule, seconds: float = 0.0) -> Start | None:
    return find_start(rules, values.get, exposure_time_s=seconds, where="a.fits")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2017-12-19T18:33:43.317-0700", datetime(2017, 12, 20, 1, 33, 43, 317000, tzinfo=UTC)),
        ("2017-12-20T01:33:43.317+00:00", datetime(2017, 12, 20, 1, 33, 43, 317000, tzinfo=UTC)),
        ("2017-12-20 01:33:43Z", datetime(2017, 12, 20, 1, 33, 43, tzinfo=UTC)),
        ("2017-12-20T01:33:43 UTC", datetime(2017, 12, 20, 1, 33, 43, tzinfo=UTC)),
        ("2016-12-31T23:59:60.5", datetime(2017, 1, 1, 0, 0, 0, 500000, tzinfo=UTC)),
        ("2017/12/20T24:00:00", datetime(2017, 12, 21, tzinfo=UTC)),
        ("2017-12-20T01:33", datetime(2017, 12, 20, 1, 33, tzinfo=UTC)),
        ("20/12/97", datetime(1997, 12, 20, tzinfo=UTC)),
        ("2017-12-20", datetime(2017, 12, 20, tzinfo=UTC)),
        ("2017-02-30T00:00:00", None),
        ("2017-12-20T25:00:00", None),
        ("2017-12-20T01:33:43 MST", None),
        ("0000-00-00T00:00:00", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_texts_that_name_a_moment(text: str, moment: datetime | None) -> None:
    assert parse_iso(text) == moment


@given(
    st.timedeltas(timedelta(0), timedelta(days=200 * 365)),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_iso_texts_come_back(since: timedelta, zone: timezone) -> None:
    aware = datetime(1950, 1, 1, tzinfo=zone) + since
    assert parse_iso(aware.isoformat()) == aware
    assert parse_iso(aware.strftime("%Y-%m-%dT%H:%M:%S.%f%z")) == aware
    offset = zone.utcoffset(None).total_seconds() / 3600
    assert parse_iso(aware.strftime("%Y-%m-%dT%H:%M:%S.%f"), utc_offset_hours=offset) == aware


def test_an_offset_in_the_text_goes_before_that_of_the_rule() -> None:
    rule = TimeRule(keywords=("D",), utc_offset_hours=-7)
    for text in ("2017-12-19T18:00:00", "2017-12-19T18:00:00-0700", "2017-12-20T01:00:00Z"):
        start = start_of({"D": text}, rule)
        assert start is not None
        assert start.moment == datetime(2017, 12, 20, 1, tzinfo=UTC)


def test_date_and_time_of_two_keywords() -> None:
    rule = TimeRule(keywords=("DATE-OBS", "UT"))
    for date, time in (
        ("2017-12-01", "23:00:00.5"),
        ("2017-12-01T00:00:00", "23:00:00.5"),
        ("2017-12-01", "2017-12-01T23:00:00.5"),
    ):
        start = start_of({"DATE-OBS": date, "UT": time}, rule)
        assert start == Start(moment=datetime(2017, 12, 1, 23, 0, 0, 500000, tzinfo=UTC), source="DATE-OBS + UT")


def test_a_date_alone_serves_only_without_a_time() -> None:
    rules = (TimeRule(keywords=("DATE-OBS",)), TimeRule(keywords=("DATE-OBS", "UT")))
    both = start_of({"DATE-OBS": "2017-12-01", "UT": "23:00:00"}, *rules)
    alone = start_of({"DATE-OBS": "2017-12-01"}, *rules)
    assert both is not None
    assert alone is not None
    assert (both.moment.hour, alone.moment.hour) == (23, 0)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("mjd", 58107.0625), ("jd", 2458107.5625), ("unix", 1513733400), ("mjd", "58107.0625")],
)
def test_numbers_that_name_a_moment(kind: str, value: Scalar) -> None:
    start = start_of({"T": value}, TimeRule.model_validate({"keywords": ["T"], "format": kind}))
    assert start is not None
    assert start.moment == datetime(2017, 12, 20, 1, 30, tzinfo=UTC)


def test_what_is_stamped_may_be_the_end() -> None:
    rule = TimeRule(keywords=("END",), minus_exposure=1.0, shift_s=-2.0)
    start = start_of({"END": "2017-12-20T01:30:00"}, rule, seconds=60)
    assert start is not None
    assert start.moment == datetime(2017, 12, 20, 1, 28, 58, tzinfo=UTC)


@pytest.mark.parametrize("value", ["soon", float("nan"), float("inf"), 1e300, -5.0, "2017-13-01T00:00:00"])
def test_values_that_make_no_sense_are_named(value: Scalar) -> None:
    rules = (TimeRule(keywords=("T",)), TimeRule(keywords=("T",), format="mjd"))
    with pytest.raises(Rejected, match=r"a\.fits: no start of the exposure in T = "):
        start_of({"T": value}, *rules)


def test_without_keywords_there_is_no_start() -> None:
    assert start_of({}, TimeRule(keywords=("T",))) is None
