"""A whole night: all exposures whatever became of them, within a budget, and again as often as one likes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from nightglass.archive import ArchiveOutcome, Redo, ready_exposures
from nightglass.cubes.records import CubeRequest, CubeSummary
from nightglass.errors import Rejected, Retryable, Waiting
from nightglass.model import Content
from tests.unit.archive.material import NIGHT, Site, joined


def outcomes(site: Site, **options: Any) -> dict[str, str]:
    night = site.archive_all(**options)
    return {item.exposure.rpartition("/")[2]: item.outcome.value for item in night.exposures}


def populate(site: Site) -> None:
    site.reduce(site.add("1.fits", "one", number="1"))
    site.ledger.reject(site.add("2.fits", "two", number="2").key, Rejected("bad header"))
    site.ledger.fail(site.add("3.fits", "three", number="3").key, Retryable("used up"))
    site.ledger.wait(site.add("4.fits", "four", number="4").key, Waiting("no flat"))
    site.ledger.skip([site.add("5.fits", "five", number="5").key])
    site.add("copy.fits", "one", number="6")
    cut = site.see("cut.fits", "bad stump")
    site.ledger.reject(cut.key, Rejected("truncated"))
    site.see("growing.fits", "not yet")


def test_all_exposures_of_whatever_state(site: Site) -> None:
    populate(site)
    found = outcomes(site)
    assert found == {
        **dict.fromkeys("12345", "archived"),
        "cut-00000007": "failed",
        "growing-00000008": "waiting",
    }
    assert set(outcomes(site).values()) == {"current", "failed", "waiting"}, "at most once each"


def test_reduced_products(site: Site) -> None:
    populate(site)
    assert outcomes(site, content=Content.REDUCED) == {"1": "archived"}


def test_one_that_fails_does_not_stop_the_others_and_is_named(site: Site) -> None:
    def fragile(request: CubeRequest, **_: Any) -> CubeSummary:
        if request.exposure == "2":
            raise ZeroDivisionError
        return joined(request)

    site.assemble = fragile
    for number in "123":
        site.add(f"{number}.fits", number, number=number)
    night = site.archive_all()
    assert [item.outcome for item in night.exposures] == [
        ArchiveOutcome.ARCHIVED,
        ArchiveOutcome.WAITING,
        ArchiveOutcome.ARCHIVED,
    ]
    assert night.to_json()["failures"] == [f"lynx/{NIGHT}/2: ZeroDivisionError: "]
    site.assemble = joined
    assert outcomes(site, redo=Redo.FAILED) == {"1": "current", "2": "archived", "3": "current"}


def test_a_night_that_was_stopped_goes_on_where_it_stopped(site: Site) -> None:
    for number in "1234":
        site.add(f"{number}.fits", number, number=number)
    site.settings = {"at_once": 1}
    done: list[str] = []
    outcomes(site, on_done=lambda item: done.append(item.exposure), cancelled=lambda: len(done) == 2)
    assert len(done) == 2
    assert sorted(outcomes(site).values()) == ["archived", "archived", "current", "current"]


@pytest.mark.parametrize(("settings", "most"), [({"at_once": 3, "memory_mib": 4096}, 3), ({"memory_mib": 300}, 2)])
def test_as_many_at_once_as_the_budget_allows(site: Site, settings: dict[str, Any], most: int) -> None:
    lock, running, seen, full = threading.Lock(), [0], [0], threading.Event()

    def slow(request: CubeRequest, **_: Any) -> CubeSummary:
        with lock:
            running[0] += 1
            seen[0] = max(seen[0], running[0])
            if running[0] >= most:
                full.set()
        assert full.wait(120)
        threading.Event().wait(0.05)  # for one too many to come
        with lock:
            running[0] -= 1
        return joined(request)

    site.settings, site.assemble = settings, slow
    for number in range(1, 7):
        site.add(f"{number}.fits", str(number), number=str(number))
    assert set(outcomes(site).values()) == {"archived"}
    assert seen[0] == most


def test_progress_sums_up(site: Site) -> None:
    told: list[tuple[int, int]] = []

    def telling(request: CubeRequest, *, progress: Any, **_: Any) -> CubeSummary:
        progress(5, 10)
        return joined(request)

    site.assemble = telling
    for number in "123":
        site.add(f"{number}.fits", number * 100, number=number)
    site.archive_all(progress=lambda done, of: told.append((done, of)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1]


def test_what_is_ready_for_a_watch(site: Site) -> None:
    def ready(settle_s: float = 0.0) -> set[str]:
        found = ready_exposures(
            NIGHT, "lynx", ledger=site.ledger, content=Content.RAW, now=site.clock.now, settle_s=settle_s
        )
        return {name.rpartition("/")[2] for name in found}

    populate(site)
    frame = site.add("7a.fits", "frame", number="7-f0000", parent="7")
    assert ready() == {*"12345", "cut-00000007"}, "not what is still under way"
    assert ready(settle_s=10) == set()
    site.clock.now += 11
    assert ready(settle_s=10) == {*"12345", "cut-00000007"}
    site.archive_all()
    assert ready() == set(), "what failed is not tried again by itself"
    site.ledger.reject(frame.key, Rejected("x"))
    site.ledger.reject(site.add("7b.fits", "more", number="7-f0001", parent="7").key, Rejected("x"))
    assert ready() == {"7"}, "a frame came after its exposure was archived"
