"""Archives beside the reductions: asked for, written by one holder, committed once, renewed when a frame changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nightglass.errors import LeaseLost, Misconfigured, Rejected, Retryable
from nightglass.ledger import ArchivedFile, ArchiveLease, ArchiveRecord, ArchiveState, Ledger
from nightglass.model import Content, State
from tests.unit.ledger.material import CAMERA, NIGHT, Clock, arrival, complete, reduced, see

EXPOSURE = f"{CAMERA}/{NIGHT}/70965"


def ask(ledger: Ledger, *wanted: str, again: bool = False) -> ArchiveRecord:
    return ledger.request_archive(EXPOSURE, Content.RAW, night=NIGHT, camera=CAMERA, wanted=wanted, again=again)


def take(ledger: Ledger, *wanted: str, owner: str = "me") -> ArchiveLease:
    ask(ledger, *wanted)
    lease = ledger.claim_archive(EXPOSURE, Content.RAW, owner=owner, lease_s=60)
    assert lease is not None
    return lease


def end(
    ledger: Ledger, lease: ArchiveLease, publish: Callable[[], None] = lambda: None, **changes: Any
) -> ArchiveRecord:
    values: dict[str, Any] = {
        "path": Path("/data/cube.fits"),
        "checksum": "00",
        "size": 2880,
        "sources": 1,
        "frames": 2,
        "files": [ArchivedFile(Path("/data/raw/1.fits"), name) for name in lease.wanted],
        "verified": True,
    }
    return ledger.commit_archive(lease, publish=publish, **(values | changes))


def test_the_way_of_an_archive(ledger: Ledger, clock: Clock) -> None:
    record = ask(ledger, "b", "a")
    assert (record.state, record.wanted, record.key) == (
        ArchiveState.PENDING,
        ("a", "b"),
        f"{NIGHT}/{CAMERA}/00070965/raw",
    )
    lease = ledger.claim_archive(EXPOSURE, Content.RAW, owner="me", lease_s=60)
    assert lease is not None
    assert ledger.holders() == ("me",)
    assert ledger.claim_archive(EXPOSURE, Content.RAW, owner="you", lease_s=60) is None
    done = end(ledger, lease)
    assert done == ledger.find_archive(EXPOSURE)
    assert (done.state, done.held, done.archived_at, done.verified_at) == (
        *(ArchiveState.ARCHIVED, ("a", "b")),
        *(clock.now, clock.now),
    )
    assert done.is_safe
    assert ledger.holders() == ()
    assert ask(ledger, "a", "b").state is ArchiveState.ARCHIVED, "at most once"
    assert ledger.archive_counts(NIGHT, CAMERA)[ArchiveState.ARCHIVED] == 1


def test_a_cube_that_was_not_verified_is_not_safe(ledger: Ledger) -> None:
    record = end(ledger, take(ledger, "a"), verified=False)
    assert record.is_current
    assert not record.is_safe


def test_a_changed_frame_makes_an_archive_out_of_date(ledger: Ledger) -> None:
    end(ledger, take(ledger, "a"))
    renewed = ask(ledger, "a", "b")
    assert renewed.state is ArchiveState.PENDING
    assert renewed.path == Path("/data/cube.fits"), "the former cube is there until the new one is"
    assert not renewed.is_safe
    assert end(ledger, take(ledger, "a", "b")).held == ("a", "b")


def test_a_frame_that_comes_while_the_cube_is_written(ledger: Ledger) -> None:
    lease = take(ledger, "a")
    assert ask(ledger, "a", "b").state is ArchiveState.RUNNING
    record = end(ledger, lease)
    assert (record.state, record.held, record.is_current) == (ArchiveState.ARCHIVED, ("a",), False)
    assert ask(ledger, "a", "b").state is ArchiveState.PENDING


def test_only_the_holder_publishes(ledger: Ledger, clock: Clock) -> None:
    published: list[str] = []
    late = take(ledger, "a", owner="late")
    clock.now += 61
    with pytest.raises(LeaseLost, match="expired"):
        end(ledger, late, lambda: published.append("late"))
    other = ledger.claim_archive(EXPOSURE, Content.RAW, owner="other", lease_s=60)
    assert other is not None
    for act in (
        lambda: end(ledger, late, lambda: published.append("late")),
        lambda: ledger.extend_archive(late, lease_s=60),
        lambda: ledger.give_back_archive(late, Rejected("no"), max_attempts=1, retry_s=1),
    ):
        with pytest.raises(LeaseLost, match="taken"):
            act()
    end(ledger, other, lambda: published.append("other"))
    assert published == ["other"]


def test_an_expired_lease_that_nobody_took_can_be_prolonged(ledger: Ledger, clock: Clock) -> None:
    lease = take(ledger, "a")
    clock.now += 61
    ledger.extend_archive(lease, lease_s=60)
    assert end(ledger, lease).state is ArchiveState.ARCHIVED


def test_a_publication_that_fails_leaves_the_lease(ledger: Ledger) -> None:
    def refuse() -> None:
        raise Retryable("disk full")

    lease = take(ledger, "a")
    with pytest.raises(Retryable):
        end(ledger, lease, refuse)
    record = ledger.find_archive(EXPOSURE)
    assert record is not None
    assert (record.state, record.path) == (ArchiveState.RUNNING, None)


def test_what_fails_is_tried_again_or_given_up(ledger: Ledger, clock: Clock) -> None:
    state = ledger.give_back_archive(take(ledger, "a"), Retryable("full"), max_attempts=2, retry_s=30)
    record = ledger.find_archive(EXPOSURE)
    assert record is not None
    assert (state, record.retry_at, record.cause) == (ArchiveState.PENDING, clock.now + 30, "Retryable")
    assert ledger.give_back_archive(take(ledger, "a"), OSError("io"), max_attempts=2, retry_s=30) is ArchiveState.FAILED
    assert ask(ledger, "a").state is ArchiveState.FAILED, "nothing changed"
    assert ask(ledger, "a", again=True).state is ArchiveState.PENDING
    assert ledger.give_back_archive(take(ledger, "a"), Rejected("x"), max_attempts=9, retry_s=1) is ArchiveState.FAILED
    assert ask(ledger, "b").state is ArchiveState.PENDING, "another frame is another chance"


def test_what_the_dead_held_is_taken_back(ledger: Ledger) -> None:
    lease = take(ledger, "a", owner="host:1:flow-x")
    assert ledger.revoke_archives(owners=["somebody else"]) == ()
    (record,) = ledger.revoke_archives(owner_prefix="host:1:", reason="it died")
    assert (record.state, record.attempts, record.reason) == (ArchiveState.PENDING, 0, "it died")
    with pytest.raises(LeaseLost):
        end(ledger, lease)


def test_purging_is_noted(ledger: Ledger, clock: Clock) -> None:
    record = end(ledger, take(ledger, "a"))
    ledger.mark_purged([record])
    found = ledger.find_archive(EXPOSURE)
    assert found is not None
    assert found.purged_at == clock.now


def test_files_of_an_exposure(ledger: Ledger) -> None:
    frames = [
        complete(ledger, arrival(number), exposure_id=f"{EXPOSURE}-f{number:04d}", parent=EXPOSURE, frame=number)
        for number in (1, 2)
    ]
    other = complete(ledger, arrival(3))
    assert ledger.members(EXPOSURE) == tuple(frames)
    assert ledger.members(other.archive_id) == (other,)
    assert ledger.members(frames[0].exposure_id) == (), "a part is no exposure"
    assert ledger.members(f"{CAMERA}/{NIGHT}/4711") == ()


def test_two_files_that_claim_one_frame_get_cubes_of_their_own(ledger: Ledger) -> None:
    first = complete(ledger, arrival(1, content=1), exposure_id=f"{EXPOSURE}-f0001", parent=EXPOSURE, frame=1)
    second = complete(ledger, arrival(2, content=2), exposure_id=f"{EXPOSURE}-f0001", parent=EXPOSURE, frame=1)
    assert ledger.members(EXPOSURE) == (first,)
    assert second.archive_id == second.exposure_id != first.exposure_id
    assert ledger.members(second.archive_id) == (second,)


def test_a_file_that_was_never_understood_is_an_exposure_of_its_own(ledger: Ledger) -> None:
    entry = see(ledger, arrival(7, name="cut off.fits.fz"))
    rejected = ledger.reject(entry.key, Rejected("truncated"))
    assert rejected.archive_id == f"{CAMERA}/{NIGHT}/cut-off-00000001"
    assert ledger.members(rejected.archive_id) == (rejected,)
    assert ledger.members(f"{CAMERA}/{NIGHT}/other-00000001") == ()


def test_the_parent_survives_a_revision_and_a_restart(ledger: Ledger) -> None:
    item = arrival(1)
    complete(ledger, item, exposure_id=f"{EXPOSURE}-f0001", parent=EXPOSURE, frame=1)
    revised = see(ledger, arrival(1, content=9, mtime=2))
    assert (revised.state, revised.archive_id) == (State.SEEN, EXPOSURE)
    touched = ledger.complete(revised.key, item.ref(exposure_id=f"{EXPOSURE}-f0001", parent=EXPOSURE), revision=2)
    assert (touched.exposure_id, touched.parent) == (f"{EXPOSURE}-f0001", EXPOSURE)


def test_reduction_and_archive_stand_beside_each_other(ledger: Ledger) -> None:
    (name,) = reduced(ledger, 1)
    record = ledger.request_archive(name, Content.REDUCED, night=NIGHT, camera=CAMERA, wanted=["x"])
    assert ledger.find_archive(name, Content.REDUCED) == record
    assert ledger.find_archive(name, Content.RAW) is None
    assert ledger.find(name).state is State.REDUCED


def test_an_illegal_move_is_refused(ledger: Ledger) -> None:
    from nightglass.ledger.archives import ArchiveMove, _move

    record = ask(ledger, "a")
    with ledger._store.write() as transaction, pytest.raises(Misconfigured, match="cannot commit"):
        _move(transaction.connection, {"key": record.key, "exposure": "x", "state": "pending"}, ArchiveMove.COMMIT)
