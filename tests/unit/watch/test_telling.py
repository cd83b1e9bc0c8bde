"""What Prefect is told of image builders: noted first, told when somebody listens, crossed off when it was told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nightglass.watch.breaker import BreakerState
from nightglass.watch.dispatch import Dispatch
from nightglass.watch.jobs import Job, JobKind, JobPhase
from nightglass.watch.launcher import Launcher
from nightglass.watch.owners import Owner
from nightglass.watch.telling import Note, Teller
from nightglass.watch.work import Workbench
from tests.unit.watch.puppet import NIGHT, PuppetExecutor, open_bench

NOTE = Note(
    kind=JobKind.BUILD,
    exposure="lynx/20260821/17",
    builder="guider",
    camera="lynx",
    night=NIGHT.label,
    order="20260821T081320123",
)
LATE = 1e12
"""On any clock, all is due."""


class Desk:
    def __init__(self, bench: Workbench, directory: Path, *, visible: bool = True) -> None:
        self.main = PuppetExecutor(visible=visible)
        self.launcher = Launcher(
            bench=bench,
            owner=Owner.here("watch"),
            main=self.main,
            dark=PuppetExecutor(visible=False),
            queue=Dispatch(batch_limit=4, slots=1),
            on_over=lambda _: None,
            on_end=lambda job, report: self.teller.ended(job, report, 0.0),
        )
        self.directory = directory
        self.teller = Teller(self.launcher, directory)

    @property
    def files(self) -> int:
        return len(list(self.directory.glob("*")))

    def end(self, job: Job, *, error: str = "") -> None:
        self.main.say(job, JobPhase.ENDED, error=error)
        self.launcher.listen(0.0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    with open_bench(tmp_path) as opened:
        yield opened


def test_a_note_is_told_and_crossed_off(bench: Workbench, tmp_path: Path) -> None:
    desk = Desk(bench, tmp_path / "notes")
    desk.teller.put(NOTE)
    desk.teller.put(NOTE)
    assert desk.files == 1
    desk.teller.look(1.0)
    desk.teller.look(1.0)
    (job,) = desk.main.jobs
    assert (job.kind, job.exposures, job.builder, job.order) == (JobKind.BUILD, (NOTE.exposure,), "guider", NOTE.order)
    desk.end(job)
    desk.teller.look(LATE)
    assert (desk.files, desk.teller.notes, len(desk.main.jobs)) == (0, (), 1)


def test_what_was_not_told_is_told_again_later(bench: Workbench, tmp_path: Path) -> None:
    desk = Desk(bench, tmp_path / "notes")
    desk.teller.put(NOTE)
    desk.teller.look(1.0)
    desk.end(desk.main.jobs[0], error="the server is gone")
    desk.teller.look(1.9)
    assert (desk.files, len(desk.main.jobs)) == (1, 1)
    desk.teller.look(2.1)
    desk.end(desk.main.jobs[1])
    assert (desk.files, len(desk.main.jobs)) == (0, 2)


def test_nothing_is_told_in_the_dark_and_a_later_process_tells_it(bench: Workbench, tmp_path: Path) -> None:
    desk = Desk(bench, tmp_path / "notes")
    desk.launcher.breaker.trip("the server is gone", 0.0)
    assert desk.launcher.breaker.state is BreakerState.OPEN
    desk.teller.put(NOTE)
    desk.teller.look(LATE)
    assert (desk.files, desk.main.jobs) == (1, [])
    (tmp_path / "notes" / "x.json").write_text("[]")  # nobody's
    later = Desk(bench, tmp_path / "notes")
    later.teller.start()
    later.teller.look(0.0)
    (job,) = later.main.jobs
    later.end(job)
    assert later.files == 1


def test_what_goes_on_stays_noted_until_its_end_is_told(bench: Workbench, tmp_path: Path) -> None:
    desk = Desk(bench, tmp_path / "notes")
    desk.teller.put(replace(NOTE, progress="1 frame so far"))
    desk.teller.look(0.0)
    assert desk.main.jobs == []  # a short one needs no run that is opened first
    desk.teller.look(LATE)
    assert [job.progress for job in desk.main.jobs] == ["1 frame so far"]
    desk.end(desk.main.jobs[0])
    desk.teller.look(LATE)
    assert (desk.files, len(desk.main.jobs)) == (1, 1)
    desk.teller.put(replace(NOTE, progress="9 frames so far"))
    desk.teller.look(LATE)
    assert [job.progress for job in desk.main.jobs] == ["1 frame so far", "9 frames so far"]
    desk.teller.put(NOTE)  # it ends while that is told
    desk.teller.look(LATE)
    assert len(desk.main.jobs) == 2, "one at a time"
    desk.end(desk.main.jobs[1])
    assert [job.progress for job in desk.main.jobs[2:]] == [""]
    desk.end(desk.main.jobs[2])
    assert desk.files == 0


def test_where_nobody_listens_nothing_is_noted(bench: Workbench, tmp_path: Path) -> None:
    desk = Desk(bench, tmp_path / "notes", visible=False)
    desk.teller.put(NOTE)
    desk.teller.start()
    desk.teller.look(LATE)
    assert (desk.files, desk.main.jobs) == (0, [])


def test_few_are_told_at_once(bench: Workbench, tmp_path: Path) -> None:
    desk = Desk(bench, tmp_path / "notes")
    for number in range(5):
        desk.teller.put(replace(NOTE, order=f"{number}"))
    desk.teller.look(0.0)
    assert len(desk.main.jobs) == 2
    for count in range(5):
        desk.end(desk.main.jobs[count])
    assert (len(desk.main.jobs), desk.files) == (5, 0)


def test_a_job_of_a_builder_survives_the_pipe(bench: Workbench, tmp_path: Path) -> None:
    desk = Desk(bench, tmp_path / "notes")
    desk.teller.put(replace(NOTE, kind=JobKind.CUBE, progress="making"))
    desk.teller.look(LATE)
    (job,) = desk.main.jobs
    assert Job.from_json(job.to_json()) == job
