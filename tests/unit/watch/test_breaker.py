"""The breaker opens at once and closes with care."""

from __future__ import annotations

from nightglass.watch.breaker import Breaker, BreakerState


def test_the_first_unhealthy_look_opens_it_and_says_why() -> None:
    breaker = Breaker(hold_s=1)
    assert breaker.observe(healthy=True, now=0) is None
    change = breaker.observe(healthy=False, now=1)
    assert change is not None
    assert (change.state, breaker.state, breaker.trips) == (BreakerState.OPEN, BreakerState.OPEN, 1)
    assert "does not answer" in breaker.reason
    assert breaker.observe(healthy=False, now=2) is None


def test_it_closes_when_health_held_without_a_gap() -> None:
    breaker = Breaker(hold_s=1)
    breaker.observe(healthy=False, now=0)
    breaker.observe(healthy=True, now=1)
    assert breaker.closes_at() == 2
    breaker.observe(healthy=False, now=1.5)
    assert breaker.closes_at() is None
    assert breaker.observe(healthy=True, now=2) is None
    change = breaker.observe(healthy=True, now=3)
    assert change is not None
    assert change.state is BreakerState.CLOSED
    assert breaker.closes_at() is None


def test_silence_trips_it_although_health_is_claimed() -> None:
    breaker = Breaker(hold_s=1)
    change = breaker.trip("silent for 2 s", 5)
    assert change is not None
    assert change.reason == "silent for 2 s"
    assert breaker.trip("again", 5.5) is None
    assert breaker.observe(healthy=True, now=5.6) is None
    assert breaker.observe(healthy=True, now=6.6) is not None


def test_short_lived_health_makes_the_next_hold_longer_and_calm_forgives() -> None:
    breaker = Breaker(hold_s=1, hold_limit_s=5)
    now = 0.0
    holds = []
    for _ in range(5):
        breaker.trip("flapping", now)
        holds.append(breaker.hold_s)
        breaker.observe(healthy=True, now=now)
        now += breaker.hold_s
        assert breaker.observe(healthy=True, now=now) is not None
        now += 0.5
    assert holds == [1, 2, 4, 5, 5]
    breaker.trip("after a calm hour", now + 3600)
    assert breaker.hold_s == 1
