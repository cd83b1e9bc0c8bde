"""What a flight's phases, leases and clock say about it; and records that cross a pipe."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from nightglass.errors import Misconfigured
from nightglass.model import Kind, Stage
from nightglass.reduction import GroupJob
from nightglass.watch.executor import Terms
from nightglass.watch.flights import Flights, Trouble
from nightglass.watch.jobs import Job, JobKind, JobPhase, JobReport
from nightglass.watch.work import Workbench
from tests.unit.watch.puppet import NIGHT, open_bench, stock

TERMS = Terms(capacity=2, start_s=3, silence_s=2, visible=True)


@pytest.fixture
def dither(tmp_path: Path) -> Job:
    """Two exposures of one group whose rule asks for a stack."""
    with open_bench(tmp_path) as bench:
        ids = [stock(bench.ledger, number) for number in (1, 2)]
        group = GroupJob(
            job_id="j",
            group_id="dither-1",
            camera="lynx",
            refs=bench.ledger.refs(ids),
            leases=bench.ledger.claim(ids, owner="x", lease_s=60),
            lists=("realtime",),
            rule="dither",
        )
    return Job(
        job_id="j", kind=JobKind.GROUP, key="dither-1", camera="lynx", night=NIGHT, deadline_s=30, groups=(group,)
    )


def batch(bench: Workbench, job_id: str, *numbers: int) -> Job:
    """Return a job of groups of one exposure each."""
    groups = []
    for number in numbers:
        exposure = stock(bench.ledger, number)
        groups.append(
            GroupJob(
                job_id=job_id,
                group_id=exposure,
                camera="lynx",
                refs=bench.ledger.refs([exposure]),
                leases=bench.ledger.claim([exposure], owner="x", lease_s=60),
                lists=("realtime",),
            )
        )
    return Job(
        job_id=job_id, kind=JobKind.GROUP, key="k", camera="lynx", night=NIGHT, deadline_s=30, groups=tuple(groups)
    )


def test_jobs_and_reports_survive_a_pipe(dither: Job) -> None:
    for job in (
        dither,
        Job(job_id="s", kind=JobKind.STAGE, key="k", camera="c", night=NIGHT, deadline_s=1, stage=Stage.FINAL),
        Job(job_id="m", kind=JobKind.MASTERS, key="k", camera="c", night=NIGHT, deadline_s=1, kinds=(Kind.BIAS,)),
    ):
        assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job
    report = JobReport(job_id="j", phase=JobPhase.DONE, group_id="g", error="x", flow_run_id="f", summary={"n": 1})
    assert JobReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    with pytest.raises(Misconfigured, match="one version"):
        Job.from_json({"job_id": "j"})
    with pytest.raises(Misconfigured, match="one version"):
        JobReport.from_json({"job_id": "j", "phase": "gone"})


def test_a_stack_keeps_the_slot_after_the_leases_are_over(dither: Job) -> None:
    flights = Flights()
    flights.launch(dither, terms=TERMS, dark=False, now=0)
    flights.hear(JobReport(job_id="j", phase=JobPhase.WORKING), 0)
    flights.settle("j", [lease.exposure_id for lease in dither.groups[0].leases], 1)
    assert flights.busy(dark=False) == 1
    assert flights.verdicts(20) == ()
    flights.hear(JobReport(job_id="j", phase=JobPhase.DONE, group_id="dither-1"), 20)
    assert flights.busy(dark=False) == 0
    assert [verdict.trouble for verdict in flights.verdicts(23)] == [Trouble.SILENT]


def test_slots_are_in_batches_while_each_has_several_groups_left(tmp_path: Path) -> None:
    flights = Flights()
    with open_bench(tmp_path) as bench:
        three, two = batch(bench, "three", 1, 2, 3), batch(bench, "two", 4, 5)
    assert not flights.in_batches
    flights.launch(three, terms=TERMS, dark=False, now=0)
    assert not flights.in_batches  # a slot is free
    flights.launch(two, terms=TERMS, dark=False, now=0)
    assert flights.in_batches
    flights.settle("three", [three.groups[0].group_id], 1)
    assert flights.in_batches
    flights.settle("two", [two.groups[1].group_id], 1)
    assert not flights.in_batches


def test_progress_moves_the_deadline(dither: Job) -> None:
    flights = Flights()
    flights.launch(dither, terms=TERMS, dark=False, now=0)
    flights.hear(JobReport(job_id="j", phase=JobPhase.WORKING), 1)
    flights.settle("j", [dither.groups[0].leases[0].exposure_id], 25)
    assert flights.verdicts(54) == ()
    assert [verdict.trouble for verdict in flights.verdicts(56)] == [Trouble.STALLED]


def test_phases_only_go_forward_and_unknown_jobs_are_ignored(dither: Job) -> None:
    flights = Flights()
    flight = flights.launch(dither, terms=TERMS, dark=False, now=0)
    for phase in (JobPhase.WORKING, JobPhase.ACCEPTED):
        flights.hear(JobReport(job_id="j", phase=phase), 1)
    assert flight.phase("dither-1") is JobPhase.WORKING
    assert flights.retreatable() == ()
    assert flights.hear(JobReport(job_id="other", phase=JobPhase.ENDED), 1) is None


def test_where_working_is_never_told_nobody_waits_for_it(dither: Job) -> None:
    patient = Terms(capacity=2, start_s=math.inf, silence_s=math.inf, visible=True)
    flights = Flights()
    flights.launch(dither, terms=patient, dark=False, now=0)
    assert flights.verdicts(29) == ()
    assert [verdict.trouble for verdict in flights.verdicts(31)] == [Trouble.STALLED]
