"""One exposure becomes a cube: once, whole, with everything that can be read, and nothing is lost on the way."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nightglass.archive import ArchiveOutcome, Redo, plan_archive
from nightglass.cubes.records import CubeRequest, CubeSummary
from nightglass.errors import LeaseLost, Misconfigured, Rejected, Retryable, Waiting
from nightglass.ledger import ArchiveRecord, ArchiveState
from nightglass.model import Content
from nightglass.watch.owners import Owner
from tests.unit.archive.material import CAMERA, NIGHT, Site, joined


def record(site: Site, number: str, content: Content = Content.RAW) -> ArchiveRecord:
    found = site.ledger.find_archive(f"lynx/{NIGHT}/{number}", content)
    assert found is not None
    return found


def parts(site: Site) -> list[Path]:
    return sorted(site.root.rglob("*.part"))


def test_an_exposure_becomes_a_cube_once(site: Site) -> None:
    site.add("a.fits", "one", number="7")
    summary = site.archive("7")
    assert (summary.outcome, summary.path, summary.frames) == (ArchiveOutcome.ARCHIVED, site.cube("7"), 1)
    assert site.cube("7").read_text() == "one"
    assert parts(site) == []
    done = record(site, "7")
    assert (done.state, done.size, done.frames, done.is_safe) == (ArchiveState.ARCHIVED, 3, 1, True)
    manifest = json.loads(site.cube("7", ".fits.json").read_text())
    assert (manifest["checksum"], manifest["exposure"]) == (done.checksum, f"lynx/{NIGHT}/7")
    assert [item["content"] for item in manifest["files"]] == list(done.held)

    def never(*_: object, **__: object) -> CubeSummary:
        raise AssertionError

    site.assemble = never
    assert site.archive("7").outcome is ArchiveOutcome.CURRENT
    site.assemble = joined
    assert site.archive("7", redo=Redo.ALL).outcome is ArchiveOutcome.ARCHIVED


def test_what_the_assembler_is_asked_for(site: Site) -> None:
    asked: list[CubeRequest] = []

    def spy(request: CubeRequest, **options: Any) -> CubeSummary:
        asked.append(request)
        assert options["camera"].name == "lynx"
        return joined(request)

    site.settings = {"compress": "rice", "mode": "gather", "durable": False, "keep_cards": False}
    site.assemble = spy
    site.add("a.fits", "one", number="7")
    assert site.archive("7").path == site.cube("7", ".fits.fz")
    (request,) = asked
    assert request.compression is not None
    assert (request.compression.algorithm, request.compression.quantize) == ("rice", 0.0)
    assert (request.role, request.exposure, request.night, request.camera) == ("guide", "7", "20260821", "lynx")
    assert (request.mode, request.durable, request.keep_cards, request.skip_bad) == ("gather", False, False, True)
    assert request.out.parent == site.cube("7").parent
    assert request.out.name.endswith(".part")


def test_all_files_of_an_exposure_are_in_its_cube(site: Site) -> None:
    site.add("a.fits", "one", number="7-f0000", parent="7")
    frame = site.add("b.fits", "two", number="7-f0001", parent="7")
    site.ledger.reject(frame.key, Rejected("it cannot be reduced"))
    assert site.archive("7").frames == 2, "rejected frames are archived, too"
    assert site.archive("7-f0001").outcome is ArchiveOutcome.CURRENT, "a frame stands for its exposure"


def test_a_further_frame_or_a_changed_one_renews_the_cube(site: Site) -> None:
    site.add("a.fits", "one", number="7-f0000", parent="7")
    site.archive("7")
    site.add("b.fits", "two", number="7-f0001", parent="7")
    assert site.archive("7").outcome is ArchiveOutcome.ARCHIVED
    assert site.cube("7").read_text() == "onetwo"
    site.add("b.fits", "three", number="7-f0001", parent="7")
    assert site.archive("7").outcome is ArchiveOutcome.ARCHIVED
    assert site.cube("7").read_text() == "onethree"
    assert site.archive("7").outcome is ArchiveOutcome.CURRENT


def test_a_file_that_changed_unseen_is_archived_again_when_the_ledger_saw_it(site: Site) -> None:
    site.add("a.fits", "one", number="7")
    site.write("a.fits", "other")
    site.archive("7")
    assert site.cube("7").read_text() == "other"
    site.see("a.fits", "other")
    with pytest.raises(Waiting, match="is being replaced"):
        site.archive("7")
    site.add("a.fits", "other", number="7")
    assert site.archive("7").outcome is ArchiveOutcome.ARCHIVED
    assert site.archive("7").outcome is ArchiveOutcome.CURRENT


def test_bad_and_missing_frames_are_named_and_the_rest_archived(site: Site) -> None:
    site.add("a.fits", "one", number="7-f0000", parent="7")
    site.add("b.fits", "bad", number="7-f0001", parent="7")
    gone = site.add("c.fits", "two", number="7-f0002", parent="7")
    gone.path.rename(gone.path.with_suffix(".away"))
    summary = site.archive("7")
    assert summary.outcome is ArchiveOutcome.ARCHIVED
    assert [problem.partition(": ")[2] for problem in summary.problems] == [
        "it is cut off",
        "is not there (No such file or directory)",
    ]
    assert site.archive("7").outcome is ArchiveOutcome.CURRENT
    gone.path.with_suffix(".away").rename(gone.path)
    assert site.archive("7").outcome is ArchiveOutcome.ARCHIVED, "it is back"
    assert site.cube("7").read_text() == "onetwo"


def test_what_cannot_be_archived_fails_with_a_reason_and_keeps_its_frames(site: Site) -> None:
    entry = site.add("a.fits", "bad", number="7")
    with pytest.raises(Rejected):
        site.archive("7")
    failed = record(site, "7")
    assert (failed.state, failed.cause) == (ArchiveState.FAILED, "Rejected")
    assert entry.path.exists()
    assert not site.cube("7").exists()
    summary = site.archive("7")
    assert (summary.outcome, "can be read" in summary.error) == (ArchiveOutcome.FAILED, True)
    with pytest.raises(Rejected):
        site.archive("7", redo=Redo.FAILED)
    site.add("a.fits", "good", number="7")
    assert site.archive("7").outcome is ArchiveOutcome.ARCHIVED


def test_an_empty_file_has_nothing_to_archive_however_often_it_is_asked_for(site: Site) -> None:
    entry = site.see("empty.fits", "")
    site.ledger.reject(entry.key, Rejected("it is empty"))
    for _ in range(2):
        with pytest.raises(Rejected, match="is empty"):
            site.archive("empty-00000001", redo=Redo.FAILED)


def test_a_file_that_was_rejected_unread_has_a_cube_of_its_own(site: Site) -> None:
    entry = site.see("cut.fits", "stump")
    site.ledger.reject(entry.key, Rejected("no header"))
    assert site.archive("cut-00000001").outcome is ArchiveOutcome.ARCHIVED


def test_unknown_and_unready_exposures(site: Site) -> None:
    with pytest.raises(Misconfigured, match="no exposure"):
        site.archive("4711")
    site.add("a.fits", "one", number="7")
    site.see("b.fits", "two")
    with pytest.raises(Waiting, match="reduced yet"):
        site.archive("7", content=Content.REDUCED)


def test_reduced_products_by_choice(site: Site) -> None:
    site.reduce(site.add("a.fits", "one", number="7"))
    summary = site.archive("7", content=Content.REDUCED)
    assert summary.path == site.cube("7", "-reduced.fits")
    assert summary.path.read_text().startswith("reduced ")
    assert record(site, "7", Content.REDUCED).is_safe


def test_trouble_is_tried_again_and_leaves_nothing_behind(site: Site) -> None:
    def full(request: CubeRequest, **_: Any) -> CubeSummary:
        request.out.write_text("half")
        raise OSError(28, "No space left on device")

    site.add("a.fits", "one", number="7")
    site.assemble = full
    with pytest.raises(Retryable, match="No space left"):
        site.archive("7")
    waiting = record(site, "7")
    assert (waiting.state, waiting.retry_at) == (ArchiveState.PENDING, site.clock.now + 30)
    assert parts(site) == []
    site.assemble = joined
    assert site.archive("7").outcome is ArchiveOutcome.ARCHIVED


def test_no_room_is_said_before_anything_is_written(site: Site) -> None:
    site.settings = {"free_disk_gib": 1e9}
    site.add("a.fits", "one", number="7")
    with pytest.raises(Retryable, match="are to stay free"):
        site.archive("7")
    assert list((site.root / "lynx").rglob("*.fits*")) == []


def test_an_interrupted_writer_is_not_to_blame(site: Site) -> None:
    def interrupted(*_: Any, **__: Any) -> CubeSummary:
        raise KeyboardInterrupt

    site.add("a.fits", "one", number="7")
    site.assemble = interrupted
    with pytest.raises(KeyboardInterrupt):
        site.archive("7")
    assert record(site, "7").state is ArchiveState.PENDING


def test_what_a_killed_writer_left_is_swept_away(site: Site) -> None:
    site.add("a.fits", "one", number="7")
    site.cube("7").parent.mkdir(parents=True)
    other = site.cube("7").with_name("guide-00000007-reduced.fits.aa.part")
    half = site.cube("7", ".fits.0123.part"), site.cube("7", ".fits.0123.part.w1x00.part")
    for path in (*half, half[1].with_name(f"f12.{half[1].name}"), other):
        path.write_text("half")
    site.archive("7")
    assert parts(site) == [other], "of another cube"


def test_two_archivers_of_one_exposure(site: Site) -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow(request: CubeRequest, **_: Any) -> CubeSummary:
        began.set()
        assert go_on.wait(120)
        return joined(request)

    site.add("a.fits", "one", number="7")
    first: list[Any] = []
    site.assemble = slow
    thread = threading.Thread(target=lambda: first.append(site.archive("7")))
    thread.start()
    assert began.wait(120)
    site.assemble = joined
    assert site.archive("7").outcome is ArchiveOutcome.ELSEWHERE
    go_on.set()
    thread.join()
    assert first[0].outcome is ArchiveOutcome.ARCHIVED


def test_what_a_dead_archiver_held_is_free_at_once(site: Site) -> None:
    site.add("a.fits", "one", number="7")
    site.add("b.fits", "two", number="8")
    with subprocess.Popen(["true"]) as gone:
        dead = replace(Owner.here("archive"), pid=gone.pid)
    for number, owner in (("7", dead), ("8", "somebody on another host")):
        exposure = f"lynx/{NIGHT}/{number}"
        plan = plan_archive(exposure, ledger=site.ledger, observatory=site.observatory, camera=CAMERA)
        wanted = {"night": NIGHT, "camera": CAMERA.name, "wanted": plan.wanted}
        site.ledger.request_archive(exposure, Content.RAW, **wanted)
        assert site.ledger.claim_archive(exposure, Content.RAW, owner=str(owner), lease_s=60)
    assert site.archive("7").outcome is ArchiveOutcome.ARCHIVED
    assert site.archive("8").outcome is ArchiveOutcome.ELSEWHERE


def test_one_that_was_overtaken_publishes_nothing(site: Site) -> None:
    def overtaken(request: CubeRequest, **_: Any) -> CubeSummary:
        site.ledger.revoke_archives(owner_prefix="", owners=list(site.ledger.holders()))
        return joined(request)

    site.add("a.fits", "one", number="7")
    site.assemble = overtaken
    with pytest.raises(LeaseLost):
        site.archive("7")
    assert not site.cube("7").exists()
    assert parts(site) == []


def test_a_cube_that_was_published_before_a_crash_is_adopted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add("a.fits", "one", number="7")
    commit = site.ledger.commit_archive

    def die(*arguments: Any, publish: Any, **options: Any) -> None:
        publish()
        raise SystemExit  # the process ends between rename and commit

    monkeypatch.setattr(site.ledger, "commit_archive", die)
    with pytest.raises(SystemExit):
        site.archive("7")
    assert (record(site, "7").state, site.cube("7").exists()) == (ArchiveState.PENDING, True)
    monkeypatch.setattr(site.ledger, "commit_archive", commit)

    def never(*_: Any, **__: Any) -> CubeSummary:
        raise AssertionError

    site.assemble = never
    assert site.archive("7").outcome is ArchiveOutcome.ADOPTED
    assert record(site, "7").is_safe


@pytest.mark.parametrize("harm", ["cube", "manifest", "frames"])
def test_a_cube_that_is_not_the_one_that_is_wanted_is_not_adopted(site: Site, harm: str) -> None:
    site.add("a.fits", "one", number="7")
    site.archive("7")
    match harm:
        case "cube":
            site.cube("7").write_text("eno")
        case "manifest":
            site.cube("7", ".fits.json").write_text("{")
        case "frames":
            site.add("a.fits", "two", number="7")
    with site.ledger._store.write() as transaction:
        transaction.connection.exec_driver_sql("UPDATE ng_archives SET state = 'pending'")
    assert site.archive("7").outcome is ArchiveOutcome.ARCHIVED


def test_frames_that_are_only_in_the_cube_are_never_overwritten(site: Site) -> None:
    first = site.add("a.fits", "one", number="7-f0000", parent="7")
    site.archive("7")
    first.path.unlink()
    assert site.archive("7").outcome is ArchiveOutcome.CURRENT
    with pytest.raises(Rejected, match="only in its cube"):
        site.archive("7", redo=Redo.ALL)
    assert record(site, "7").is_safe, "the refusal changed nothing"
    late = site.add("b.fits", "two", number="7-f0001", parent="7")
    with pytest.raises(Rejected, match="only in its cube"):
        site.archive("7")
    assert site.cube("7").read_text() == "one"
    assert late.path.exists()
    first.path.write_text("one")  # taken out of the cube
    os.utime(first.path, ns=(first.mtime_ns, first.mtime_ns))
    assert site.archive("7", redo=Redo.FAILED).outcome is ArchiveOutcome.ARCHIVED
    assert site.cube("7").read_text() == "onetwo"


def test_a_cube_that_vanished_is_written_again(site: Site) -> None:
    site.add("a.fits", "one", number="7")
    site.archive("7")
    site.cube("7").unlink()
    assert site.archive("7").outcome is ArchiveOutcome.ARCHIVED
    assert site.cube("7").exists()


def test_the_former_cube_goes_when_its_name_changes(site: Site) -> None:
    site.add("a.fits", "one", number="7")
    site.archive("7")
    site.settings = {"compress": "rice"}
    assert site.archive("7").outcome is ArchiveOutcome.CURRENT, "other settings do not make a cube out of date"
    assert site.archive("7", redo=Redo.ALL).outcome is ArchiveOutcome.ARCHIVED
    assert [path.name for path in sorted(site.cube("7").parent.iterdir())] == [
        "guide-00000007.fits.fz",
        "guide-00000007.fits.fz.json",
    ]


def test_the_lease_is_prolonged_while_a_cube_is_written(site: Site) -> None:
    site.settings = {"lease_s": 1}
    site.add("a.fits", "one", number="7")

    def slow(request: CubeRequest, **_: Any) -> CubeSummary:
        before = record(site, "7").lease_until
        site.clock.now += 5
        for _ in range(2400):
            if (record(site, "7").lease_until or 0) > (before or 0):
                break
            threading.Event().wait(0.05)
        return joined(request)

    site.assemble = slow
    assert site.archive("7").outcome is ArchiveOutcome.ARCHIVED
