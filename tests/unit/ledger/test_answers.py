"""What the ledger tells: counts, latency, lag, errors, history, products, masters, runs, differences."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nightglass.errors import Misconfigured, Rejected, Retryable, Waiting
from nightglass.ledger import DifferenceKind, Ledger, RunRecord
from nightglass.model import Kind, MasterRef, Product, ProductKind, Quality, State
from tests.unit.ledger.material import (
    CAMERA,
    DUSK,
    NIGHT,
    T0,
    Arrival,
    Clock,
    arrival,
    claimed,
    commit,
    complete,
    grouped,
    product,
    reduced,
    see,
    tallied,
)


def master(name: str, *, kind: Kind = Kind.BIAS, days: int = 0) -> MasterRef:
    night = NIGHT.shifted(days)
    return MasterRef(master_id=name, kind=kind, camera=CAMERA, night=night, path=Path(f"/m/{name}"), inputs=("a", "b"))


def test_latency_percentiles_are_nearest_ranks(ledger: Ledger, clock: Clock) -> None:
    assert ledger.latencies(NIGHT, CAMERA) is None
    seconds = list(range(1, 41))
    random.Random(1).shuffle(seconds)
    leases = claimed(ledger, *range(40))
    for lease, wait in zip(leases, seconds, strict=True):
        clock.now = T0 + wait
        commit(ledger, lease)
    assert ledger.latencies(NIGHT, CAMERA) == (20, 38)
    assert ledger.latencies(NIGHT) == (20, 38)
    assert [entry.latency_s for entry in ledger.latest(NIGHT, CAMERA, limit=3)] == [40, 39, 38]


def test_lag_is_that_of_what_is_ready_and_not_taken(ledger: Ledger, clock: Clock) -> None:
    first, second = grouped(ledger, 1, 2)
    clock.now = T0 + 30
    assert ledger.lag(CAMERA) == 30
    ledger.claim([first], owner="me", lease_s=60)
    (lease,) = ledger.claim([second], owner="me", lease_s=60)
    assert ledger.lag() == 0
    ledger.give_back(lease, Retryable("busy"), max_attempts=3, retry_s=10)
    assert ledger.lag() == 0, "what waits for its next attempt is not late"
    clock.now += 15
    assert ledger.lag() == 5
    assert ledger.lag("other") == 0


def test_errors_are_grouped_by_cause(ledger: Ledger) -> None:
    for number in range(7):
        ledger.reject(see(ledger, arrival(number)).key, Rejected("no DATE-OBS"))
    ledger.wait(complete(ledger, arrival(8)).key, Waiting("no flat in r"))
    worst, other = ledger.errors(NIGHT, CAMERA)
    assert (worst.state, worst.cause, worst.reason, worst.count) == (State.REJECTED, "Rejected", "no DATE-OBS", 7)
    assert worst.examples == tuple(f"/data/raw/{number:04d}.fits" for number in range(5))
    assert other.state is State.WAITING
    assert ledger.waiting_reasons() == {"no flat in r": 1}
    assert ledger.counts(NIGHT, CAMERA) == tallied(ledger)


def test_entries_can_be_chosen_and_cross_pages(ledger: Ledger) -> None:
    sightings = [arrival(number).sighting for number in range(1234)]
    ledger.see_many(sightings, camera=CAMERA, night=NIGHT)
    flat = complete(ledger, arrival(7), kind=Kind.FLAT)
    assert sum(1 for _ in ledger.entries(NIGHT, CAMERA)) == 1234
    assert list(ledger.entries(states=[State.COMPLETE], kinds=[Kind.FLAT, Kind.DARK])) == [flat]
    assert list(ledger.entries(ids=[flat.exposure_id, "none"])) == [flat]
    assert list(ledger.entries(NIGHT.shifted(1))) == []
    assert ledger.refs(["none", flat.exposure_id]) == (flat.ref,)


def test_history_tells_who_did_what(ledger: Ledger, clock: Clock) -> None:
    (lease,) = claimed(ledger, 1, owner="runner")
    clock.now += 3
    commit(ledger, lease)
    ledger.retry([lease.exposure_id], owner="ada")
    events = ledger.history("/data/raw/0001.fits")
    told = [State.SEEN, State.COMPLETE, State.GROUPED, State.RUNNING, State.REDUCED, State.GROUPED]
    assert [event.after for event in events] == told
    assert [event.owner for event in events[3:]] == ["runner", "runner", "ada"]
    assert events[4].at == T0 + 3


def test_a_remark_is_in_the_history_once_and_so_is_its_end(ledger: Ledger, clock: Clock) -> None:
    good, odd = reduced(ledger, 1, 2)
    for _ in range(2):
        clock.now += 10
        ledger.remark({good: "", odd: "its level is 40 sigma off"}, quality=Quality.BAD, cause="RejectedFrame")
    entry = ledger.find(odd)
    assert (entry.state, entry.quality, entry.cause) == (State.REDUCED, Quality.BAD, "RejectedFrame")
    last = ledger.history(odd)[-1]
    assert (last.before, last.after, last.at) == (State.REDUCED, State.REDUCED, T0 + 10)
    assert (last.reason, last.owner) == ("its level is 40 sigma off", "RejectedFrame")
    assert ledger.history(good)[-1].before is State.RUNNING, "nothing was said of it"
    ledger.remark({odd: ""}, quality=Quality.BAD, cause="RejectedFrame")
    assert ledger.find(odd).quality is Quality.OK
    assert [event.reason for event in ledger.history(odd)[-2:]] == ["its level is 40 sigma off", ""]
    assert ledger.counts() == tallied(ledger)


def test_products_are_found_by_night_kind_and_subject(ledger: Ledger) -> None:
    (lease,) = claimed(ledger, 1)
    commit(ledger, lease)
    stack = Product(kind=ProductKind.STACK, key="g", path=Path("/s.fits"), checksum="1", size=2, inputs=("a", "b"))
    ledger.add_product(stack, night=NIGHT, camera=CAMERA)
    ledger.add_product(stack, night=NIGHT, camera=CAMERA)
    assert ledger.products(NIGHT, CAMERA, ProductKind.STACK) == (stack,)
    assert set(ledger.products(NIGHT)) == {stack, product(lease)}
    assert ledger.products_of("g") == (stack,)


def test_masters_are_found_by_kind_and_age_the_newest_first(ledger: Ledger) -> None:
    for item in (master("old", days=-40), master("now"), master("mid", days=-3), master("flat", kind=Kind.FLAT)):
        ledger.add_master(item)
    found = ledger.masters(CAMERA, Kind.BIAS, since=NIGHT.shifted(-30), until=NIGHT)
    assert [item.master_id for item in found] == ["now", "mid"]
    assert ledger.masters(CAMERA, night=NIGHT.shifted(-3)) == (master("mid", days=-3),)
    assert ledger.find_master("flat") == master("flat", kind=Kind.FLAT)
    assert ledger.find_master("none") is None


def test_late_runs_are_queued_until_they_are_reported(ledger: Ledger) -> None:
    runs = [
        RunRecord(run_id=f"r{n}", name="n", flow="f", night=NIGHT, camera=CAMERA, started_at=1, ended_at=9.0 - n)
        for n in range(3)
    ]
    for run in (*runs, runs[0]):
        ledger.record_run(run)
    assert ledger.unreported(2) == (runs[2], runs[1])
    ledger.mark_reported(["r2", "r1"], "flow-run-7")
    assert ledger.unreported() == (runs[0],)


def test_reconcile_names_every_difference(ledger: Ledger, tmp_path: Path) -> None:
    def arrived(number: int, *, size: int | None = None) -> Arrival:
        item = Arrival(tmp_path / f"{number}.fits", number, number)
        item.path.write_bytes(bytes(item.sighting.size if size is None else size))
        return item

    def run(number: int, *, made: Path, products: int = 1) -> str:
        (lease,) = ledger.claim([complete(ledger, arrived(number)).exposure_id], owner="me", lease_s=60)
        commit(ledger, lease, products=[product(lease, made)] * products)
        return lease.exposure_id

    good = tmp_path / "good.product"
    good.write_bytes(bytes(7))
    run(1, made=good)
    broken = run(2, made=tmp_path / "none.product")
    empty = run(3, made=good, products=0)
    waiting = complete(ledger, arrived(4)).exposure_id
    gone = arrived(5)
    ledger.reject(see(ledger, gone).key, Rejected("cut"))
    gone.path.unlink()
    see(ledger, arrived(6))
    arrived(6, size=5)
    elsewhere = arrived(7)
    ledger.complete(see(ledger, elsewhere).key, elsewhere.ref(NIGHT.shifted(-1)))
    stray = tmp_path / "stray.fits"
    stray.touch()
    result = ledger.reconcile(
        NIGHT,
        CAMERA,
        files=tmp_path.glob("*.fits"),
        expected=["0001", f"{CAMERA}/{NIGHT}/0099"],
        product_files=[good, tmp_path / "odd.product"],
    )
    kind = DifferenceKind
    assert [(item.kind, item.subject) for item in result.differences] == [
        (kind.CHANGED, str(tmp_path / "6.fits")),
        (kind.GONE, str(gone.path)),
        (kind.MISSING, f"{CAMERA}/{NIGHT}/0099"),
        (kind.NO_PRODUCT, empty),
        (kind.PRODUCT_GONE, broken),
        (kind.UNFINISHED, str(tmp_path / "6.fits")),
        (kind.UNFINISHED, waiting),
        (kind.UNKNOWN_PRODUCT, str(tmp_path / "odd.product")),
        (kind.UNRECORDED, str(stray)),
    ]
    assert not result.agrees
    assert "7 were written" not in str(result.differences[4])
    assert result.counts == ledger.counts(NIGHT, CAMERA)


def test_a_last_part_that_several_exposures_have_is_no_name(ledger: Ledger) -> None:
    first, second = reduced(ledger, 1, 2)
    assert ledger.find(second.rpartition("/")[2]).exposure_id == second
    for name in ("%", "000_", "", "21/0001", "1"):
        with pytest.raises(Misconfigured, match="has no exposure"):
            ledger.find(name)
    other = complete(ledger, arrival(9), exposure_id="lynx/20260822/0001").exposure_id
    with pytest.raises(Misconfigured, match="in several nights") as caught:
        ledger.find("0001")
    assert first in str(caught.value)
    assert other in str(caught.value)


@pytest.mark.parametrize("name", ["lynx/20260821/0001", "0001", "20260821/lynx/00000001", "/data/raw/0001.fits"])
def test_an_entry_is_found_by_id_key_or_path(ledger: Ledger, name: str) -> None:
    (wanted,) = reduced(ledger, 1)
    assert ledger.find(name).exposure_id == wanted
    assert ledger.knows(Path("/data/raw/0001.fits"), CAMERA)
    assert ledger.find(name).times["seen"] == DUSK.timestamp()
