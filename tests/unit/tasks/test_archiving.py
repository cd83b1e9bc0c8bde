"""Cubes from flows: named, concluded, and never a reason for a night to stay open."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits

import nightglass.archive
from nightglass import byhand
from nightglass.archive import ArchiveOutcome, ArchiveSummary
from nightglass.config import Observatory
from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.ledger import ArchiveState
from nightglass.model import Content, Night, Stage
from nightglass.postprocess import run_stage
from nightglass.postprocess.archiving import archive_all
from nightglass.simulate import SimulatedNight
from nightglass.watch.jobs import Job, JobKind
from nightglass.watch.work import Workbench
from tasks.archiving import archive_one, archive_several, assemble_frames, conclude_archives
from tasks.bench import Handover, handed_over

NIGHT = Night("20260821")


def take_in(bench: Workbench, night: SimulatedNight) -> list[str]:
    camera = bench.camera("lynx")
    return [
        byhand.take_in(path, camera, ledger=bench.ledger, observatory=bench.observatory).exposure_id
        for path in night.paths
    ]


async def test_one_exposure_by_id_and_by_path(bench: Workbench, small_night: SimulatedNight) -> None:
    names = take_in(bench, small_night)
    (summary,) = await archive_one.fn(names[0], "", "", "changed", "")
    assert (summary.outcome, summary.frames) == (ArchiveOutcome.ARCHIVED, 1)
    assert summary.path is not None
    with fits.open(summary.path) as cube, fits.open(small_night.paths[0]) as frame:
        assert cube["CCD1"].data.shape == (1, *frame[0].data.shape)
        assert (cube["CCD1"].data[0] == frame[0].data).all()
        assert cube[0].header["EXPID"] in (1, "1")
    (again,) = await archive_one.fn(str(small_night.paths[0]), "lynx", "raw", "changed", "")
    assert again.outcome is ArchiveOutcome.CURRENT
    with pytest.raises(Misconfigured, match="no exposure"):
        await archive_one.fn("lynx/20260821/4711", "", "", "changed", "")


async def test_a_night_and_the_exposures_of_a_job(bench: Workbench, small_night: SimulatedNight) -> None:
    names = take_in(bench, small_night)
    job = Job(
        job_id="j",
        kind=JobKind.ARCHIVE,
        key="k",
        camera="lynx",
        night=NIGHT,
        deadline_s=9,
        exposures=(names[1], names[2]),
    )
    told: list[str] = []
    with handed_over(Handover(job, lambda phase, *_: told.append(phase.value), lambda: False)):
        some = await archive_several.fn(NIGHT.label, "lynx", "", "changed", "j")
    assert ([item.exposure for item in some], told) == ([names[1], names[2]], ["working"])
    assert await archive_several.fn(NIGHT.label, "lynx", "", "changed", "taken back") == ()
    everything = await archive_several.fn(NIGHT.label, "", "", "failed", "")
    assert [item.outcome.value for item in everything].count("current") == 2
    assert len(everything) == len(names)


def summary(outcome: ArchiveOutcome, error: str = "") -> ArchiveSummary:
    return ArchiveSummary(exposure="lynx/20260821/1", content=Content.RAW, outcome=outcome, error=error)


@pytest.mark.parametrize(
    ("summaries", "name", "message"),
    [
        ([], "Skipped", "nothing to archive"),
        ([summary(ArchiveOutcome.ARCHIVED), summary(ArchiveOutcome.ELSEWHERE)], "Completed", "1 of 2 archived"),
        (
            [summary(ArchiveOutcome.CURRENT), summary(ArchiveOutcome.WAITING, "Retryable: disk full")],
            "Failed",
            "1 of 2 archived; lynx/20260821/1: Retryable: disk full",
        ),
    ],
)
def test_how_a_run_ends(summaries: list[ArchiveSummary], name: str, message: str) -> None:
    state = conclude_archives(summaries)
    assert state.name == name
    assert message in (state.message or "")


async def test_any_frames_become_a_cube(bench: Workbench, small_night: SimulatedNight, tmp_path: Path) -> None:
    out = tmp_path / "cube.fits"
    options: dict[str, Any] = {
        "role": "sky",
        "compress": "",
        "camera": "lynx",
        "extra": "OBSERVER=Ann; SEEING=0.8",
        "cards": "keep",
        "mode": "shared",
        "existing": "refuse",
    }
    frames = [str(small_night.paths[0].parent)]
    cube = await assemble_frames.fn(frames, str(out), **options)
    assert cube.frames == len(small_night.paths)
    header = fits.getheader(out)
    assert (header["EXTNAME"], header["OBSERVER"], header["SEEING"]) == ("SKY", "Ann", 0.8)
    with pytest.raises(Misconfigured):
        await assemble_frames.fn(frames, str(out), **options)
    await assemble_frames.fn(frames, str(out), **(options | {"existing": "replace"}))


def with_notices(bench: Workbench, path: Path) -> Observatory:
    notices = bench.observatory.notices.model_copy(update={"file": path})
    return bench.observatory.model_copy(update={"notices": notices})


@pytest.mark.parametrize("error", [Rejected("no frame"), Retryable("disk full"), ZeroDivisionError()])
def test_an_archive_that_fails_is_told_and_the_night_is_closed(
    bench: Workbench,
    small_night: SimulatedNight,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    take_in(bench, small_night)
    monkeypatch.setattr("nightglass.cubes.assembling.assemble_cube", fail)
    due = datetime.now(UTC) + timedelta(hours=1)
    bench.ledger.open_night(NIGHT, "lynx", midway_due=due, final_due=due)
    observatory = with_notices(bench, tmp_path / "notices.txt")
    camera = bench.camera("lynx")
    done = run_stage(Stage.FINAL, NIGHT, camera, ledger=bench.ledger, pool=bench.pool, observatory=observatory)
    assert done is not None
    assert (done.archived, len(done.archive_failures)) == (0, len(small_night.paths))
    record = bench.ledger.find_night(NIGHT, "lynx")
    assert record is not None
    assert not record.is_open
    told = [path.read_text() for path in (bench.observatory.root / "run" / "outbox").rglob("*.json")]
    assert any("exposures are not archived" in text for text in told)
    counts = bench.ledger.archive_counts(NIGHT, "lynx")
    assert counts[ArchiveState.FAILED] + counts[ArchiveState.PENDING] == len(small_night.paths)


def test_an_archive_that_is_impossible_as_a_whole(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("the root is gone")

    monkeypatch.setattr(nightglass.archive, "archive_night", fail)
    observatory = with_notices(bench, tmp_path / "notices.txt")
    found = archive_all(
        NIGHT, bench.camera("lynx"), ledger=bench.ledger, pool=bench.pool, observatory=observatory, owner="me"
    )
    assert found is None
    told = [path.read_text() for path in (bench.observatory.root / "run" / "outbox").rglob("*.json")]
    assert any("the root is gone" in text for text in told)


def test_a_site_that_does_not_archive(bench: Workbench) -> None:
    rules = bench.observatory.archive.model_copy(update={"when": "never"})
    observatory = bench.observatory.model_copy(update={"archive": rules})
    assert (
        archive_all(
            NIGHT, bench.camera("lynx"), ledger=bench.ledger, pool=bench.pool, observatory=observatory, owner="me"
        )
        is None
    )
