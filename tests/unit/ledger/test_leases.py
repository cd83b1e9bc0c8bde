"""Who may reduce what, until when, and how it ends."""

from __future__ import annotations

import pytest

from nightglass.errors import LeaseLost, Misconfigured, NightglassError, Rejected, Retryable, Waiting
from nightglass.ledger import Lease, Ledger
from nightglass.model import Quality, State
from tests.unit.ledger.material import (
    CAMERA,
    NIGHT,
    T0,
    Clock,
    arrival,
    claimed,
    commit,
    complete,
    group,
    grouped,
    product,
    reduced,
    states,
    tallied,
)


def test_group_is_idempotent_and_grows_by_revisions(ledger: Ledger) -> None:
    ids = [complete(ledger, arrival(number)).exposure_id for number in (1, 2)]
    assert group(ledger, ids)
    assert not group(ledger, ids)
    assert states(ledger, ids) == [State.GROUPED] * 2
    late = complete(ledger, arrival(3)).exposure_id
    assert group(ledger, [*ids, late], revision=2)
    assert not group(ledger, ids), "an older revision changes nothing"
    (record,) = ledger.groups(NIGHT, CAMERA)
    assert (record.members, record.revision) == ((*ids, late), 2)
    assert ledger.find(late).group_id == record.group_id


def test_a_group_is_claimed_whole_or_not_at_all(ledger: Ledger) -> None:
    ids = grouped(ledger, 1, 2, 3)
    (first,) = ledger.claim(ids[:1], owner="a", lease_s=60)
    assert ledger.claim(ids, owner="b", lease_s=60) == ()
    assert ledger.claim([*ids[1:], "lynx/20260821/none"], owner="b", lease_s=60) == ()
    assert states(ledger, ids) == [State.RUNNING, State.GROUPED, State.GROUPED]
    rest = ledger.claim(ids[1:], owner="b", lease_s=60)
    assert [lease.exposure_id for lease in rest] == ids[1:]
    assert len({first.token, *(lease.token for lease in rest)}) == 3
    assert ledger.holders() == ("a", "b")
    assert Lease.from_json(first.to_json()) == first


def test_commit_publishes_inside_and_records_everything(ledger: Ledger, clock: Clock) -> None:
    (lease,) = claimed(ledger, 1)
    clock.now = T0 + 1.5
    published: list[str] = []
    commit(ledger, lease, published)
    entry = ledger.find(lease.exposure_id)
    assert published == [lease.exposure_id]
    assert (entry.state, entry.quality, entry.masters) == (State.REDUCED, Quality.OK, ("bias-1",))
    assert (entry.measured, entry.timings, entry.latency_s) == ({"seeing": 1.5}, {"bias": 0.1}, 1.5)
    assert (entry.token, entry.owner, entry.lease_until) == ("", "", None)
    assert set(entry.times) == {"seen", "complete", "grouped", "running", "reduced"}
    assert ledger.products(NIGHT, CAMERA) == (product(lease),)
    with pytest.raises(LeaseLost):
        commit(ledger, lease, published)
    assert len(published) == 1


def test_a_publish_that_fails_leaves_no_trace(ledger: Ledger) -> None:
    (lease,) = claimed(ledger, 1)

    def full_disk() -> None:
        message = "no space"
        raise OSError(message)

    with pytest.raises(OSError, match="no space"):
        commit(ledger, lease, publish=full_disk)
    assert ledger.find(lease.exposure_id).state is State.RUNNING
    assert ledger.products(NIGHT) == ()
    commit(ledger, lease)


def test_an_expired_lease_cannot_commit_even_before_the_sweep(ledger: Ledger, clock: Clock) -> None:
    (lease,) = claimed(ledger, 1, lease_s=60)
    clock.now += 60
    published: list[str] = []
    with pytest.raises(LeaseLost, match="expired"):
        commit(ledger, lease, published)
    assert published == []


def test_a_prolonged_lease_lives_on(ledger: Ledger, clock: Clock) -> None:
    (lease,) = claimed(ledger, 1, lease_s=60)
    clock.now += 50
    longer = ledger.extend(lease, lease_s=60)
    clock.now += 50
    assert ledger.sweep() == ()
    commit(ledger, longer)
    with pytest.raises(LeaseLost):
        ledger.extend(longer, lease_s=60)


def test_the_sweep_returns_expired_leases_and_gives_up_at_last(ledger: Ledger, clock: Clock) -> None:
    (lease,) = claimed(ledger, 1, lease_s=10)
    for attempt in (1, 2, 3):
        assert ledger.sweep(max_attempts=3) == ()
        clock.now += 11
        (entry,) = ledger.sweep(max_attempts=3)
        assert entry.state is (State.FAILED if attempt == 3 else State.GROUPED)
        assert f"attempt {attempt}" in entry.reason
        if attempt < 3:
            (lease,) = ledger.claim([lease.exposure_id], owner="me", lease_s=10)
            assert lease.attempts == attempt + 1


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Rejected("cut"), State.REJECTED),
        (Waiting("no flat"), State.WAITING),
        (Misconfigured("bug"), State.FAILED),
        (Retryable("busy"), State.GROUPED),
        (ValueError("odd"), State.GROUPED),
    ],
)
def test_the_class_of_the_error_decides(ledger: Ledger, error: Exception, state: State) -> None:
    (lease,) = claimed(ledger, 1)
    assert ledger.give_back(lease, error, max_attempts=3, retry_s=5) is state
    entry = ledger.find(lease.exposure_id)
    assert entry.state is state
    assert entry.cause == type(error).__name__
    with pytest.raises(LeaseLost):
        ledger.give_back(lease, error, max_attempts=3, retry_s=5)


def test_retries_back_off_and_end(ledger: Ledger, clock: Clock) -> None:
    (lease,) = claimed(ledger, 1)
    waits = []
    while ledger.give_back(lease, Retryable("busy"), max_attempts=4, retry_s=5) is State.GROUPED:
        assert ledger.ready(CAMERA) == ()
        retry_at = ledger.find(lease.exposure_id).retry_at
        assert retry_at is not None
        waits.append(retry_at - clock.now)
        clock.now = retry_at
        (due,) = ledger.ready(CAMERA)
        (lease,) = ledger.claim([due.exposure_id], owner="me", lease_s=60)
    assert waits == [5, 10, 20]
    assert ledger.find(lease.exposure_id).state is State.FAILED


def test_a_lease_that_ran_out_may_still_be_given_back(ledger: Ledger, clock: Clock) -> None:
    (lease,) = claimed(ledger, 1, lease_s=10)
    clock.now += 20
    assert ledger.give_back(lease, Rejected("cut"), max_attempts=3, retry_s=5) is State.REJECTED


def test_waiting_exposures_can_be_claimed_when_their_input_came(ledger: Ledger) -> None:
    (lease,) = claimed(ledger, 1)
    ledger.give_back(lease, Waiting("no flat"), max_attempts=3, retry_s=5)
    assert ledger.waiting_reasons(NIGHT, CAMERA) == {"no flat": 1}
    (again,) = ledger.claim([lease.exposure_id], owner="me", lease_s=60)
    assert again.attempts == 1
    commit(ledger, again)


@pytest.mark.parametrize("error", [Rejected("cut"), Waiting("no flat"), Misconfigured("bug"), Retryable("busy")])
def test_a_redo_that_comes_to_nothing_keeps_the_product(ledger: Ledger, clock: Clock, error: NightglassError) -> None:
    (name,) = reduced(ledger, 1)
    latency = ledger.find(name).latency_s
    assert ledger.claim([name], owner="me", lease_s=60) == (), "claim alone never takes what is reduced"
    (lease,) = ledger.claim_again([name], owner="me", lease_s=60)
    assert ledger.give_back(lease, error, max_attempts=3, retry_s=5) is State.REDUCED
    entry = ledger.find(name)
    assert (entry.reason, entry.latency_s) == (error.message, latency)
    assert len(ledger.products_of(name)) == 1
    clock.now += 1000
    (lease,) = ledger.claim_again([name], owner="me", lease_s=60)
    commit(ledger, lease, masters=["bias-2"])
    assert ledger.find(name).masters == ("bias-2",)
    assert ledger.find(name).latency_s == latency, "a redo is no latency"


@pytest.mark.parametrize("end", ["revoke", "sweep"])
def test_a_redo_whose_holder_is_lost_never_goes_to_the_queue(ledger: Ledger, clock: Clock, end: str) -> None:
    """There it would be run with the step lists for new exposures, over the better product."""
    (name,) = reduced(ledger, 1)
    (lease,) = ledger.claim_again([name], owner="me", lease_s=10)
    clock.now += 11
    (entry,) = ledger.revoke(owners=["me"]) if end == "revoke" else ledger.sweep(max_attempts=3)
    assert (entry.state, entry.cause) == (State.REDUCED, "LeaseLost")
    assert ledger.ready() == ()
    with pytest.raises(LeaseLost):
        commit(ledger, lease)
    (lease,) = ledger.claim_again([name], owner="me", lease_s=10)
    commit(ledger, lease)
    assert ledger.find(name).reason == ""
    assert ledger.counts() == tallied(ledger)


def test_revoked_leases_run_again_and_do_not_count(ledger: Ledger) -> None:
    mine, theirs = claimed(ledger, 1, owner="host:7:x:watch"), claimed(ledger, 2, owner="host:8:x:watch")
    (entry,) = ledger.revoke(owners=["host:7:x:watch"])
    assert (entry.exposure_id, entry.state, entry.attempts) == (mine[0].exposure_id, State.GROUPED, 0)
    with pytest.raises(LeaseLost):
        commit(ledger, mine[0])
    assert [entry.exposure_id for entry in ledger.running(CAMERA)] == [theirs[0].exposure_id]
    assert len(ledger.revoke(leases=theirs, reason="the runner was silent")) == 1
    assert ledger.revoke(owner_prefix="host:") == ()
    with pytest.raises(Misconfigured):
        ledger.revoke()
    assert ledger.counts() == tallied(ledger)
