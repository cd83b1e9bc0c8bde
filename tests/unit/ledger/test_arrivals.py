"""Files that come, grow, are replaced, touched, renamed or copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightglass.errors import LeaseLost, Misconfigured, Rejected, Retryable
from nightglass.ledger import Ledger
from nightglass.model import Kind, State
from tests.unit.ledger.material import (
    CAMERA,
    DUSK,
    NIGHT,
    Arrival,
    Clock,
    arrival,
    claimed,
    commit,
    complete,
    group,
    grouped,
    product,
    reduced,
    see,
    states,
    tallied,
)


def test_a_sighting_makes_an_entry_whose_key_begins_with_the_night(ledger: Ledger) -> None:
    first, second = see(ledger, arrival(1)), see(ledger, arrival(2))
    assert first.key.startswith(f"{NIGHT}/{CAMERA}/")
    assert first.key < second.key
    assert (first.state, first.revision, first.ref) == (State.SEEN, 1, None)
    assert first.times == {"seen": DUSK.timestamp()}


def test_an_unchanged_file_is_a_no_op_in_any_state(ledger: Ledger) -> None:
    for item, wanted in ((arrival(1), State.SEEN), (arrival(2), State.REDUCED)):
        if wanted is State.REDUCED:
            reduced(ledger, item.number)
        else:
            see(ledger, item)
        before = ledger.history(str(item.path))
        assert see(ledger, item).state is wanted
        assert ledger.history(str(item.path)) == before


def test_a_burst_is_recorded_in_its_order_and_at_most_once(ledger: Ledger) -> None:
    burst = [arrival(number).sighting for number in range(1200)]
    entries = ledger.see_many([*burst, burst[0]], camera=CAMERA, night=NIGHT)
    assert [entry.path for entry in entries[:-1]] == [item.path for item in burst]
    assert [entry.key for entry in entries[:-1]] == sorted(entry.key for entry in entries[:-1])
    assert entries[-1] == entries[0]
    assert ledger.see_many(burst, camera=CAMERA, night=NIGHT) == entries[:-1]
    assert ledger.counts(NIGHT, CAMERA)[State.SEEN] == 1200


def test_a_file_that_still_grows_is_followed_without_revisions(ledger: Ledger) -> None:
    see(ledger, arrival(1, content=1))
    entry = see(ledger, arrival(1, content=2, mtime=2))
    assert (entry.revision, entry.size, entry.state) == (1, 2882, State.SEEN)
    assert len(ledger.history(entry.key)) == 1


def test_complete_gives_id_kind_and_reference(ledger: Ledger) -> None:
    entry = complete(ledger, arrival(1), kind=Kind.FLAT)
    assert (entry.state, entry.exposure_id, entry.kind) == (State.COMPLETE, f"{CAMERA}/{NIGHT}/0001", Kind.FLAT)
    assert entry.ref == arrival(1).ref(kind=Kind.FLAT)
    assert ledger.complete(entry.key, arrival(1).ref()) == entry, "a second time changes nothing"


def test_the_night_of_the_header_wins_and_counters_follow(ledger: Ledger) -> None:
    before = NIGHT.shifted(-1)
    entry = complete(ledger, arrival(1), night=before)
    assert entry.night == before
    assert entry.key.startswith(NIGHT.label), "the key is an identity, it never changes"
    assert ledger.counts(NIGHT, CAMERA)[State.SEEN] == 0
    assert ledger.counts(before, CAMERA)[State.COMPLETE] == 1
    assert [item.key for item in ledger.entries(before)] == [entry.key]


def test_one_number_with_two_contents_gets_a_suffix(ledger: Ledger) -> None:
    complete(ledger, arrival(1))
    other = complete(ledger, arrival(1, content=0xABC, name="again.fits"))
    assert other.state is State.COMPLETE
    assert other.exposure_id == f"{CAMERA}/{NIGHT}/0001-00000abc"
    assert other.ref is not None
    assert other.ref.exposure_id == other.exposure_id


def test_the_same_content_elsewhere_is_skipped_with_the_reason(ledger: Ledger, tmp_path: Path) -> None:
    first = Arrival(tmp_path / "a.fits", 1, 1)
    first.path.touch()
    complete(ledger, first)
    copy = complete(ledger, Arrival(tmp_path / "b.fits", 1, 1))
    assert copy.state is State.SKIPPED
    assert f"same content as {CAMERA}/{NIGHT}/0001" in copy.reason
    assert copy.exposure_id == ""


def test_a_renamed_file_stays_the_exposure_that_it_was(ledger: Ledger, tmp_path: Path) -> None:
    old, new = Arrival(tmp_path / "old.fits", 1, 1), Arrival(tmp_path / "new.fits", 1, 1, mtime=2)
    first = complete(ledger, old)
    ledger.fail(first.key, Retryable("no such file"))
    new.path.touch()
    second = complete(ledger, new)
    exposure = ledger.find(first.exposure_id)
    assert (exposure.path, exposure.state) == (new.path, State.COMPLETE), "what failed for its lost file runs again"
    assert exposure.ref is not None
    assert exposure.ref.path == new.path
    assert (second.path, second.state) == (old.path, State.SKIPPED)
    assert "moved from here" in second.reason
    assert see(ledger, new) == exposure, "the new name is known"
    assert ledger.counts() == tallied(ledger)


def test_a_file_replaced_while_running_fences_its_holder(ledger: Ledger) -> None:
    (lease,) = claimed(ledger, 1)
    entry = see(ledger, arrival(1, content=77, mtime=2))
    assert (entry.state, entry.revision, entry.token, entry.ref) == (State.SEEN, 2, "", None)
    published: list[str] = []
    with pytest.raises(LeaseLost):
        commit(ledger, lease, published)
    assert published == []
    again = complete(ledger, arrival(1, content=77, mtime=2))
    assert again.ref is not None
    assert (again.exposure_id, again.ref.revision) == (lease.exposure_id, 2)


def test_a_file_replaced_after_reduction_goes_through_again(ledger: Ledger) -> None:
    (name,) = reduced(ledger, 1)
    item = arrival(1, content=77, mtime=2)
    see(ledger, item)
    assert ledger.products_of(name) == (), "the old product is superseded at once"
    complete(ledger, item)
    group(ledger, [name], revision=2)
    (lease,) = ledger.claim([name], owner="me", lease_s=60)
    assert lease.revision == 2
    commit(ledger, lease)
    assert ledger.products_of(name) == (product(lease),)
    assert [event.after for event in ledger.history(name)].count(State.REDUCED) == 2


def test_a_file_that_is_only_touched_is_not_reduced_again(ledger: Ledger, clock: Clock) -> None:
    clock.now += 30
    (name,) = reduced(ledger, 1)
    before = ledger.find(name)
    entry = complete(ledger, arrival(1, mtime=99))
    assert entry.state is State.REDUCED
    assert "unchanged" in entry.reason
    assert len(ledger.products_of(name)) == 1
    assert (entry.masters, entry.latency_s, entry.ref) == (before.masters, before.latency_s, before.ref)
    assert ledger.latencies(NIGHT, CAMERA) == (30.0, 30.0)


def test_a_stale_inspection_changes_nothing(ledger: Ledger) -> None:
    entry = complete(ledger, arrival(1))
    newer = see(ledger, arrival(1, content=5, mtime=2))
    stale = ledger.complete(entry.key, arrival(1).ref(), revision=entry.revision)
    assert stale == newer
    assert ledger.reject(entry.key, Rejected("was bad"), revision=entry.revision) == newer


def test_copies_run_when_their_first_copy_becomes_something_else(ledger: Ledger, tmp_path: Path) -> None:
    first = Arrival(tmp_path / "a.fits", 1, 1)
    first.path.touch()
    complete(ledger, first)
    copy = complete(ledger, Arrival(tmp_path / "b.fits", 1, 1))
    see(ledger, Arrival(first.path, 9, 1, mtime=2))
    assert ledger.find(copy.key).state is State.SEEN
    assert copy.key in [entry.key for entry in ledger.pending(CAMERA)]


def test_judgements_keep_reason_cause_and_remedy(ledger: Ledger) -> None:
    entry = see(ledger, arrival(1))
    bad = ledger.reject(entry.key, Rejected("no DATE-OBS", remedy="name another keyword"))
    assert (bad.state, bad.cause) == (State.REJECTED, "Rejected")
    assert bad.reason == "no DATE-OBS (name another keyword)"
    failed = ledger.fail(see(ledger, arrival(2)).key, ValueError("odd"))
    assert (failed.state, failed.reason) == (State.FAILED, "ValueError: odd")
    with pytest.raises(Misconfigured, match="rejected, so one cannot wait"):
        ledger.wait(entry.key, Rejected("again"))


def test_retry_enters_where_the_exposure_belongs(ledger: Ledger) -> None:
    no_ref = ledger.reject(see(ledger, arrival(1)).key, Rejected("cut")).key
    no_group = ledger.fail(complete(ledger, arrival(2)).key, Retryable("x")).exposure_id
    (in_group,) = reduced(ledger, 3)
    (running,) = claimed(ledger, 4)
    ledger.retry([no_ref, no_group, in_group, running.exposure_id, in_group])
    wanted = [State.SEEN, State.COMPLETE, State.GROUPED, State.RUNNING]
    assert states(ledger, [no_ref, no_group, in_group, running.exposure_id]) == wanted
    assert [entry.exposure_id for entry in ledger.ready(CAMERA)] == [in_group]


def test_skip_by_a_person_fences_and_unknown_names_change_nothing(ledger: Ledger) -> None:
    (lease,) = claimed(ledger, 1)
    (other,) = grouped(ledger, 2)
    with pytest.raises(Misconfigured, match="no exposure 'nonsense'"):
        ledger.skip([other, "nonsense"])
    assert ledger.find(other).state is State.GROUPED
    (entry,) = ledger.skip([lease.exposure_id], owner="ada")
    assert (entry.state, entry.reason) == (State.SKIPPED, "skipped by ada")
    with pytest.raises(LeaseLost):
        commit(ledger, lease)
    assert ledger.skip([lease.exposure_id])[0] == entry
