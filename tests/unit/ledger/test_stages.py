"""Nights are opened once; a stage runs once, by one holder at a time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nightglass.errors import LeaseLost, Misconfigured, Retryable
from nightglass.ledger import Ledger, NightRecord, StageLease, StageState
from nightglass.model import Night, Stage
from tests.unit.ledger.material import CAMERA, DUSK, NIGHT, T0, Clock

HOUR = 3600.0


def opened(ledger: Ledger, night: Night = NIGHT) -> NightRecord:
    midway, final = DUSK + timedelta(hours=1), DUSK + timedelta(hours=2)
    return ledger.open_night(night, CAMERA, midway_due=midway, final_due=final)


def claim(ledger: Ledger, stage: Stage, owner: str = "me") -> StageLease | None:
    return ledger.claim_stage(NIGHT, CAMERA, stage, owner=owner, lease_s=60)


def taken(ledger: Ledger, stage: Stage) -> StageLease:
    lease = claim(ledger, stage)
    assert lease is not None
    return lease


def due(ledger: Ledger) -> list[Stage]:
    return [record.stage for record in ledger.stages_due()]


def test_a_night_is_opened_once(ledger: Ledger, clock: Clock) -> None:
    first = opened(ledger)
    clock.now += 500
    again = ledger.open_night(NIGHT, CAMERA, midway_due=DUSK, final_due=DUSK)
    assert again == first
    assert first.opened_at == T0
    assert first.stage(Stage.FINAL).due == DUSK + timedelta(hours=2)
    assert ledger.find_night(NIGHT.shifted(1), CAMERA) is None
    with pytest.raises(Misconfigured, match="never opened"):
        ledger.close_night(NIGHT.shifted(1), CAMERA)


def test_stages_come_due_and_are_run_once(ledger: Ledger, clock: Clock) -> None:
    opened(ledger)
    assert due(ledger) == []
    clock.now = T0 + HOUR
    assert due(ledger) == [Stage.MIDWAY]
    lease = taken(ledger, Stage.MIDWAY)
    assert claim(ledger, Stage.MIDWAY, "other") is None
    assert due(ledger) == []
    ledger.finish_stage(lease, {"stacks": 2})
    assert claim(ledger, Stage.MIDWAY) is None
    record = ledger.nights(CAMERA)[0].stage(Stage.MIDWAY)
    assert (record.state, record.summary, record.ended_at) == (StageState.DONE, {"stacks": 2}, clock.now)


def test_one_stage_of_a_night_runs_at_a_time_and_final_ends_midway(ledger: Ledger) -> None:
    opened(ledger)
    final = taken(ledger, Stage.FINAL)
    assert claim(ledger, Stage.MIDWAY) is None
    ledger.finish_stage(final)
    assert claim(ledger, Stage.MIDWAY) is None
    assert ledger.nights()[0].stage(Stage.MIDWAY).state is StageState.DONE


def test_a_stage_whose_holder_died_is_taken_by_another(ledger: Ledger, clock: Clock) -> None:
    opened(ledger)
    dead = taken(ledger, Stage.MIDWAY)
    clock.now = T0 + HOUR
    assert due(ledger) == [Stage.MIDWAY]
    alive = taken(ledger, Stage.MIDWAY)
    with pytest.raises(LeaseLost):
        ledger.finish_stage(dead)
    ledger.extend_stage(alive, lease_s=HOUR)
    assert ledger.holders() == ("me",)
    (revoked,) = ledger.revoke_stages(owners=["me"])
    assert revoked.stage is Stage.MIDWAY
    assert taken(ledger, Stage.MIDWAY).attempts == alive.attempts, "a death is not the stage's fault"


def test_a_stage_that_fails_is_tried_again_for_a_while(ledger: Ledger, clock: Clock) -> None:
    opened(ledger)
    clock.now = T0 + HOUR
    error = Retryable("cluster gone")
    assert ledger.fail_stage(taken(ledger, Stage.MIDWAY), error, max_attempts=2, retry_s=30) is StageState.PENDING
    assert due(ledger) == []
    clock.now += 30
    assert due(ledger) == [Stage.MIDWAY]
    assert ledger.fail_stage(taken(ledger, Stage.MIDWAY), error, max_attempts=2, retry_s=30) is StageState.FAILED
    clock.now += 100
    assert due(ledger) == []
    assert ledger.nights()[0].stage(Stage.MIDWAY).reason == "cluster gone"
    ledger.reset_stage(NIGHT, CAMERA, Stage.MIDWAY, due=DUSK)
    assert due(ledger) == [Stage.MIDWAY]


def test_a_closed_night_has_nothing_due_until_it_is_reopened(ledger: Ledger, clock: Clock) -> None:
    opened(ledger)
    opened(ledger, NIGHT.shifted(1))
    ledger.finish_stage(taken(ledger, Stage.FINAL))
    closed = ledger.close_night(NIGHT, CAMERA)
    assert ledger.close_night(NIGHT, CAMERA) == closed
    assert [record.night for record in ledger.open_nights(CAMERA)] == [NIGHT.shifted(1)]
    clock.now = T0 + 20 * HOUR
    assert NIGHT not in [record.night for record in ledger.stages_due()]
    again = ledger.reopen(NIGHT, CAMERA, final_due=DUSK + timedelta(hours=5))
    assert again.is_open
    assert taken(ledger, Stage.FINAL)
    assert ledger.reopen(NIGHT, CAMERA, final_due=DUSK) == ledger.find_night(NIGHT, CAMERA)
