"""Frames on their way through a builder with its real outputs: stages, revisions, archive, purge, restart."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from astropy.io import fits

from nightglass.builder.records import ExposureState, FrameState, FrameView, HookStage, WriteOrder
from nightglass.builder.refusals import Purged, Unknown
from nightglass.builder.service import Builder
from nightglass.builder.spool import SpoolFull
from nightglass.errors import Misconfigured, Rejected, Retryable
from tests.unit.builder import desk
from tests.unit.builder.desk import builder, image, pixels, wait_done, wait_for
from tests.unit.builder.receiving import receiver


def push(made: Builder, expid: int, frame: int, *, names: tuple[str, ...] = ("A", "B")) -> FrameView:
    made.assign(expid, frame, extensions=names, header={"EXPTIME": 1.0, "TILEID": 7})
    for index, name in enumerate(names):
        made.accept(expid, frame, name, image(10 * frame + index, (20, 30)))
    return wait_done(made, expid, frame)


def wait_purged(made: Builder, expid: int, frame: int) -> None:
    view = made._engine.holdings.wait(expid, frame, lambda view: view.purged, desk.PATIENCE_S)
    assert view.purged
    until = time.monotonic() + desk.PATIENCE_S
    while any(item.path.exists() for item in view.extensions):  # it is noted first, then done
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_frame_goes_through_all_stages(tmp_path: Path) -> None:
    told: list[tuple[Path, int]] = []
    made = builder(
        tmp_path,
        outputs=True,
        on_frame=lambda path, view: told.append((path, view.frame)),
        preset="guider",
        local_copy=True,
        plot_save=True,
        exposure_ready_mode="png",
    )
    with receiver() as there, made:
        made.set(receivers={"guider": there.url}, add_send_to=["guider", there.url])
        view = push(made, 70965, 3)
        wait_for(made, "frame", "sent")
        view = made.frame(70965, 3)
        assert {"built", "saved", "published", "queued", "sent", "plotted", "done"} <= set(view.times)
        (path,) = view.files
        assert path.name == "guide-00070965-0003.fits"
        assert view.published is not None
        assert told == [(view.published, 3)]
        assert path.samefile(view.published)
        assert view.published.relative_to(tmp_path).parts[2:] == ("raw", "guider", "guide-00070965-0003.fits")
        with fits.open(path, checksum=True) as hdus:
            assert [hdu.name for hdu in hdus][1:] == ["A", "B"]
            assert hdus[0].header["TILEID"] == 7
        assert len(there.bodies) == 2
        status = made.status()
        assert status["exposure_status"]["sent"] == [3]
        assert status["exposure_ready"]["frame"] == 3
        assert status["image_ready"]["path"] == str(path)
        assert status["guide_DISKSPACE"]["free"] > 0
        assert status["spool"]["unsaved"] == 0
        seconds = made.get("processing_times", expid=70965)["frames"]["3"]["seconds"]
        assert {"collect", "build", "write", "publish", "send", "plot", "total"} <= set(seconds)


def test_a_late_extension_is_written_and_published_again(tmp_path: Path) -> None:
    told: list[int] = []
    made = builder(
        tmp_path, outputs=True, on_frame=lambda _, view: told.append(view.revision), preset="guider", local_copy=True
    )
    with made:
        made.assign(1, 0, extensions=["A", "B"], timeout_s=0.05)
        made.accept(1, 0, "A", image(1))
        first = wait_done(made, 1, 0)
        assert (first.state, first.missing) == (FrameState.PARTIAL, ("B",))
        with fits.open(first.files[0]) as hdus:
            assert [hdu.name for hdu in hdus[1:]] == ["A"]
            assert hdus[0].header["PARTIAL"] is True
        made.accept(1, 0, "B", image(2))
        second = made._engine.holdings.wait(1, 0, lambda v: v.revision == 2 and "done" in v.times, desk.PATIENCE_S)
        assert (second.state, second.files) == (FrameState.BUILT, first.files)
        for path in (second.files[0], second.published):
            with fits.open(path) as hdus:
                assert [hdu.name for hdu in hdus[1:]] == ["A", "B"]
        assert told == [1, 2]


def test_a_restart_does_what_was_left(tmp_path: Path) -> None:
    """Collected by a process that died before its stages ran; the next one writes and archives."""
    before = builder(tmp_path, preset="spectrograph", archive="finalized")
    before.assign(1, 0, extensions=["A"])
    before.accept(1, 0, "A", image(4, (30, 30)))
    before.finalize(1)
    before.close()
    with builder(tmp_path, outputs=True, preset="spectrograph", archive="finalized") as after:
        (path,) = wait_done(after, 1, 0).files
        assert path.name.endswith(".fits.fz")
        cube = Path(str(wait_for(after, "archive", "archive_ready")["path"]))
        assert after.get_archive(1) == cube
        assert after.exposure(1).state is ExposureState.ARCHIVED
        with fits.open(cube) as hdus:
            assert {"A", "AT"} <= {hdu.name for hdu in hdus}


def test_an_archive_that_was_asked_for_survives_a_kill(tmp_path: Path) -> None:
    before = builder(tmp_path, outputs=True)
    before.accept(1, 0, "A", image(4))
    before.build(1, 0)
    before.archive(1)  # nobody runs yet who could make it
    before.close()
    with builder(tmp_path, outputs=True) as after:
        wait_for(after, "archive", "archive_ready")
        assert after.get_archive(1).exists()
        path = after.write_archive(1, tmp_path / "copies")
        assert path.read_bytes() == after.get_archive(1).read_bytes()
        with pytest.raises(Rejected, match="not below a directory"):
            after.write_archive(1, Path("/elsewhere"))
        # what changes afterwards is told
        after.set_primary(1, 0, {"OBJECT": "M31"})
        assert after.exposure(1).state is ExposureState.COMPLETE
        assert "archive it again" in after.status()["alarms"][-1]["text"]
        assert after.archive(1, wait=True) == after.get_archive(1)
        assert after.exposure(1).state is ExposureState.ARCHIVED


def test_that_nothing_is_saved_is_told_once_while_it_lasts(tmp_path: Path) -> None:
    alarms: list[str] = []
    with builder(tmp_path, alarms=alarms, mem_purge_threshold=9, frame_purge_threshold=1) as made:
        for frame in range(6):
            push(made, 1, frame)
            if frame > 3:  # the first that is beyond the threshold is another one each time
                made.clear(1, frame - 4, unsaved="discard")
    assert [text for text in alarms if "beyond the thresholds" in text] == [
        "image builder guider: frames from 1/0 on are beyond the thresholds and not saved: they stay"
    ]


def test_only_what_is_saved_is_given_back(tmp_path: Path) -> None:
    alarms: list[str] = []
    made = builder(
        tmp_path, outputs=True, alarms=alarms, local_copy=True, mem_purge_threshold=2, frame_purge_threshold=3
    )
    with made:
        for frame in range(5):
            push(made, 1, frame)
        wait_purged(made, 1, 1)
        assert [made.frame(1, frame).purged for frame in range(5)] == [True, True, False, False, False]
        made.set(local_copy=False)
        for expid in (2, 3, 4):
            push(made, expid, 0)
        for frame in range(5):
            wait_purged(made, 1, frame)
        wait_for(made, "alarm", "")
        assert not made.frame(2, 0).purged  # beyond the threshold, but it lies nowhere else
        assert any("from 2/0 on are beyond the thresholds and not saved" in text for text in alarms)
        assert made.write(2, 0)[0].exists()
        push(made, 5, 0)
        wait_purged(made, 2, 0)
        held = [item.path for view in made._engine.holdings.frames() for item in view.extensions if not view.purged]
        assert made.spool.held == sum(path.stat().st_size for path in held)
        with pytest.raises(Purged, match="were given back"):
            made.write(2, 0)
        assert made.accept(2, 0, "A", image(0, (20, 30)))[1]  # the same again is known, also now


def test_room_is_made_of_what_is_saved(tmp_path: Path) -> None:
    size = len(image(0, (300, 300)))
    most = (1 << 20) // size
    made = builder(tmp_path, outputs=True, local_copy=True, max_bytes=1 << 20, mem_purge_threshold=1000)
    with made:
        for expid in range(3 * most):
            made.accept(expid, 0, "F0", image(expid, (300, 300)))
            made.build(expid, 0)
            wait_done(made, expid, 0)
            assert made.spool.held <= made.options.max_bytes
        assert [made.frame(expid, 0).purged for expid in range(3 * most)] == [True] * 2 * most + [False] * most
        made.set(mem_purge=False)
        with pytest.raises(SpoolFull):
            made.accept(1000, 0, "F0", image(1, (300, 300)))
        assert [item["key"] for item in made.status()["alarms"]] == ["spool"]
        made.set(mem_purge=True)
        made.accept(1000, 0, "F0", image(1, (300, 300)))


def test_old_exposures_are_forgotten_when_they_are_saved(tmp_path: Path) -> None:
    made = builder(tmp_path, outputs=True, local_copy=True, mem_purge_threshold=1, record_threshold=3)
    with made:
        push(made, 1, 0)
        made.set(local_copy=False)
        push(made, 2, 0)
        made.set(local_copy=True)
        for expid in range(3, 9):
            push(made, expid, 0)
        made.clear(8, 0)  # tidies what may still be on its way
        assert [view.expid for view in made.exposures()] == [2, 6, 7, 8]
        assert sorted(path.name for path in (tmp_path / "generic").glob("*/builder/*"))[0] == "00000002"
        assert made.write(2)[0].exists()


def test_local_files_go_only_when_they_are_archived(tmp_path: Path) -> None:
    made = builder(tmp_path, outputs=True, local_copy=True, file_purge=True, file_purge_threshold=1)
    with made:
        for expid in (1, 2, 3):
            push(made, expid, 0)
        assert all(made.frame(expid, 0).files[0].exists() for expid in (1, 2, 3))
        written = made.frame(1, 0).files[0]
        made.archive(1, wait=True)
        wait_for(made, "frame", "deleted")
        assert not written.exists()
        assert made.frame(1, 0).files == ()
        assert made.frame(2, 0).files[0].exists()


def test_configure_begins_anew_when_nothing_is_lost(tmp_path: Path) -> None:
    made = builder(
        tmp_path, outputs=True, local_copy=True, constants={"LAB": {"TELESCOP": "lab"}}, software_version="7"
    )
    with made:
        made.set(local_copy=False, add_exclude="SECRET")
        with pytest.raises(Misconfigured, match="constants"):
            made.configure("NONE")
        made.configure("LAB")
        assert (made.options.local_copy, made.options.exclude) == (True, ())
        (path,) = push(made, 1, 0).files
        assert fits.getheader(path)["TELESCOP"] == "lab"
        assert fits.getheader(path)["SOFTVER"] == "7"
        made.configure()
        assert made.exposures() == ()
        assert path.exists()


def test_commands_on_what_is_not_there_or_not_ready(tmp_path: Path) -> None:
    made = builder(tmp_path, outputs=True)
    with made:
        for command in (made.write, made.send, made.plot, made.get_images, made.finalize, made.archive):
            with pytest.raises(Unknown):
                command(9)
        made.assign(1, 0, extensions=["A"])
        with pytest.raises(Retryable, match="A is missing"):
            made.write(1, 0)
        with pytest.raises(Unknown):
            made.get_archive(1)
        with pytest.raises(Misconfigured, match="stage"):
            made.subscribe("digitized", "http://127.0.0.1:1/")
    bare = builder(tmp_path / "bare")
    bare.accept(1, 0, "A", image(1))
    bare.build(1, 0)
    with pytest.raises(Misconfigured, match="has no outputs"):
        bare.write(1, 0)


def test_images_are_handed_out_and_swept_after_a_kill(tmp_path: Path) -> None:
    made = builder(tmp_path, outputs=True)
    with made:
        push(made, 1, 0)
        push(made, 1, 1)
        paths = made.get_images(1)
        assert [pixels(path) for path in paths] == [0, 10]
        with pytest.raises(Rejected):
            made.archive(made.assign(2, 0, extensions=["A"], timeout_s=0.01).expid, wait=True)  # nothing came of it
    with builder(tmp_path, outputs=True):
        assert not any(path.exists() for path in paths)


def test_a_file_that_is_there_is_not_overwritten_and_the_frame_goes_on(tmp_path: Path) -> None:
    made = builder(tmp_path, outputs=True, local_copy=True)
    with made:
        (path,) = push(made, 1, 0).files
        made.clear(1)
        made.assign(1, 0, extensions=["A", "B"])
        made.accept(1, 0, "A", image(50))
        made.accept(1, 0, "B", image(51))
        view = wait_done(made, 1, 0)
        assert "saved" not in view.times
        assert pixels(path) == 0
        assert any(item["key"] == "write 1/0" for item in made.status()["alarms"])
        assert pixels(made.write(1, 0, WriteOrder(overwrite=True))[0]) == 50


def test_subscribers_are_told_of_stages(tmp_path: Path) -> None:
    made = builder(tmp_path, outputs=True, local_copy=True)
    with receiver() as there, made:
        first = made.subscribe(HookStage.BUILT, there.url, ["x"])
        made.subscribe("saved", there.url)
        push(made, 1, 0)
        there.wait(2)
        assert {item["stage"] for item in made.get("builtCB")} == {"built"}
        made.enable(first, False)
        made.set(use_saved_callback=False)
        push(made, 1, 1)
        time.sleep(0.2)
        assert len(there.bodies) == 2
        made.unsubscribe(first)
        assert [item["stage"] for item in made.hooks()] == ["saved"]


def test_many_threads_at_once(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    names = tuple(f"GUIDE{index}" for index in range(6))
    made = builder(tmp_path, preset="guider", sources=names, timeout_s=60)
    with made, ThreadPoolExecutor(8) as threads:
        for frame in range(20):
            made.assign(1, frame)
        pushed = [
            threads.submit(made.accept, 1, frame, name, image(frame, (50, 60))) for frame in range(20) for name in names
        ]
        again = [threads.submit(made.accept, 1, frame, names[0], image(frame, (50, 60))) for frame in range(20)]
        duplicates = sum(item.result()[1] for item in (*pushed, *again))
        assert duplicates == 20  # of each pair of equals one was the first
        for frame in range(20):
            view = wait_done(made, 1, frame)
            assert (view.state, view.revision, len(view.extensions)) == (FrameState.BUILT, 1, 6)
        held = sum(path.stat().st_size for path in tmp_path.rglob("*.fits"))
        assert made.spool.held == held
