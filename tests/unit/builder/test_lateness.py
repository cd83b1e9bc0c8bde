"""What comes late, to frames whose pixels the spool gave back; what is cleared while it is read; what is on its way."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from nightglass.builder.caretaking import refuse_unsaved
from nightglass.builder.records import ExposureState, FrameState, FrameView
from nightglass.builder.refusals import Purged, Unsaved
from nightglass.builder.regaining import placed, regaining
from nightglass.builder.service import Builder
from nightglass.builder.structure import closed, marked, noted
from nightglass.errors import Retryable
from tests.unit.builder.desk import PATIENCE_S, builder, image, pixels, wait_done
from tests.unit.builder.making import verified


def partial(made: Builder, expid: int, *, purged: bool = True) -> FrameView:
    """Let a frame be built without B, written, and given back."""
    made.assign(expid, 0, extensions=["A", "B"], timeout_s=1000, header={"TILEID": 7})
    made.accept(expid, 0, "A", image(1, (40, 50), OBJECT="M31"), header={"AIRMASS": 1.2})
    made._engine.holdings.change(expid, 0, lambda view: closed(view, time.time()))
    wait_done(made, expid, 0)
    if purged:
        assert made._engine.holdings.give_back(expid, 0) > 0
        assert made.spool.held == 0
    view = made.frame(expid, 0)
    assert (view.state, view.missing, view.purged) == (FrameState.PARTIAL, ("B",), purged)
    return view


def again(made: Builder, expid: int, revision: int) -> FrameView:
    """Wait for a revision."""
    view = made._engine.holdings.wait(
        expid, 0, lambda item: item.revision == revision and "done" in item.times, PATIENCE_S
    )
    assert view.revision == revision
    return view


@pytest.mark.parametrize(
    "settings", [{"local_copy": True}, {"local_copy": True, "compress": True}, {"to_ledger": True}]
)
def test_an_extension_that_comes_after_the_pixels_went_is_added_to_its_frame(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    told: list[tuple[Path, int]] = []
    made = builder(
        tmp_path,
        outputs=True,
        on_frame=(lambda path, view: told.append((path, view.revision))) if "to_ledger" in settings else None,
        preset="guider",
        **settings,
    )
    with made:
        first = partial(made, 1)
        assert made.accept(1, 0, "A", image(1, (40, 50), OBJECT="M31"), header={"AIRMASS": 1.2})[1]  # no news
        record, duplicate = made.accept(1, 0, "B", image(2, (40, 50)))
        assert (duplicate, record.number) == (False, 1)
        second = again(made, 1, 2)
        assert (second.state, second.missing, second.purged) == (FrameState.BUILT, (), False)
        assert made.accept(1, 0, "A", image(1, (40, 50), OBJECT="M31"), header={"AIRMASS": 1.2})[1]
        assert second.files == first.files
        for path in (*second.files, *([second.published] if second.published else [])):
            with fits.open(path, checksum=True) as hdus:
                assert [hdu.name for hdu in hdus[1:]] == ["A", "B"]
                assert [int(np.median(hdu.data)) for hdu in hdus[1:]] == [1, 2]
                assert (hdus["A"].header["OBJECT"], hdus["A"].header["AIRMASS"]) == ("M31", 1.2)
                assert (hdus[0].header["TILEID"], "PARTIAL" in hdus[0].header) == (7, False)
            verified(path)
        assert [revision for _, revision in told] == ([1, 2] if told else [])
        assert made.spool.held == sum(path.stat().st_size for path in second.directory.glob("*.fits"))
        assert any("brought back" in note for note in second.notes)


def test_a_mark_that_is_set_while_pixels_are_copied_is_no_reason_to_refuse(tmp_path: Path) -> None:
    with builder(tmp_path, outputs=True, local_copy=True) as made:
        view = partial(made, 1)
        with regaining(made.spool, view) as regained:
            made._engine.holdings.change(1, 0, lambda item: noted(item, "sent meanwhile"))
            after = placed(made.spool, made.frame(1, 0), regained)
        assert (after.purged, pixels(after.extensions[0].path)) == (False, 1)


def test_the_primary_header_of_a_frame_whose_pixels_went_is_changed_and_its_archive_is_made_anew(
    tmp_path: Path,
) -> None:
    made = builder(tmp_path, outputs=True, local_copy=True, archive="finalized")
    with made:
        partial(made, 1, purged=False)
        made.finalize(1)
        made.archive(1, wait=True)
        made._engine.holdings.give_back(1, 0)
        made.set_primary(1, 0, {"SEEING": 1.1})
        view = again(made, 1, 2)
        assert fits.getheader(view.files[0])["SEEING"] == 1.1
        until = time.monotonic() + PATIENCE_S
        while made.exposure(1).state is not ExposureState.ARCHIVED:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert fits.getheader(made.get_archive(1))["SEEING"] == 1.1


def test_pixels_stay_where_what_they_were_saved_as_is_gone(tmp_path: Path) -> None:
    with builder(tmp_path, outputs=True, local_copy=True, mem_purge_threshold=1, file_purge=True) as made:
        view = partial(made, 1, purged=False)
        view.files[0].unlink()  # by a person
        partial(made, 2, purged=False)
        partial(made, 3, purged=False)
        made._engine.caretaker.tidy()
        assert [made.frame(expid, 0).purged for expid in (1, 2, 3)] == [False, True, False]
        assert any("write or archive it again" in item["text"] for item in made.status()["alarms"])
        (path,) = made.write(1)
        made._engine.caretaker.tidy()
        assert (made.frame(1, 0).purged, path.exists()) == (True, True)


def test_local_files_stay_where_the_archive_is_gone(tmp_path: Path) -> None:
    with builder(
        tmp_path, outputs=True, local_copy=True, file_purge=True, file_purge_threshold=0, mem_purge=False
    ) as made:
        made.assign(1, 0, extensions=["A"])
        made.accept(1, 0, "A", image(1))
        wait_done(made, 1, 0)
        made.set(file_purge=False)
        made.archive(1, wait=True)
        made.get_archive(1).unlink()
        made.set(file_purge=True)
        made._engine.caretaker.tidy()
        assert made.frame(1, 0).files[0].exists()


def test_what_comes_while_a_cube_is_made_is_in_it_all_the_same(tmp_path: Path) -> None:
    with builder(tmp_path, outputs=True, local_copy=True) as made:
        partial(made, 1, purged=False)
        outputs = made._engine.finisher.outputs()
        archive, late = outputs.archive, iter([image(2, (40, 50))])

        def slow(*args: Any) -> Any:
            cube = archive(*args)
            for body in late:
                made.accept(1, 0, "B", body)
            return cube

        outputs.archive = slow  # type: ignore[method-assign]
        with pytest.raises(Retryable, match="changed while"):
            made.archive(1, wait=True)
        until = time.monotonic() + PATIENCE_S
        while made.exposure(1).state is not ExposureState.ARCHIVED:
            assert time.monotonic() < until
            time.sleep(0.01)
        with fits.open(made.get_archive(1)) as hdus:
            assert {"A", "B"} <= {hdu.name for hdu in hdus}
        assert not [item for item in made.status()["alarms"] if item["key"].startswith("archive")]


def test_without_a_file_that_could_be_added_to_it_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    made = builder(tmp_path, outputs=True, local_copy=True)
    with made:
        view = partial(made, 1)
        view.files[0].unlink()
        with pytest.raises(Purged, match="no file of it is left"):
            made.accept(1, 0, "B", image(2))
        view.files[0].write_bytes(image(9))  # not ours
        with pytest.raises(Purged, match="no file of it is left"):
            made.accept(1, 0, "B", image(2))
        assert made.frame(1, 0) == view
        assert made.spool.held == 0
        assert list((tmp_path / "generic").rglob("*.part")) == []


def test_what_came_since_it_was_looked_at_is_neither_given_back_nor_cleared(tmp_path: Path) -> None:
    made = builder(tmp_path)  # not started: nobody writes
    made.accept(1, 0, "A", image(1))
    made.build(1, 0)
    holdings = made._engine.holdings
    holdings.change(1, 0, lambda view: marked(view, time.time(), "saved", "done"))
    made.accept(1, 0, "B", image(2))
    assert holdings.give_back(1, 0) == 0
    with pytest.raises(Unsaved):
        holdings.drop_frame(1, 0, check=refuse_unsaved)
    assert [pixels(item.path) for item in made.frame(1, 0).extensions] == [1, 2]


def test_clearing_waits_for_who_reads_and_nobody_reads_meanwhile(tmp_path: Path) -> None:
    made = builder(tmp_path)
    made.accept(1, 0, "A", image(1))
    made.build(1, 0)
    holdings = made._engine.holdings
    let_go, order = threading.Event(), []

    def read() -> None:
        with holdings.lent(1, 0) as view:
            reading.set()
            let_go.wait(PATIENCE_S)
            assert pixels(view.extensions[0].path) == 1
            order.append("read")

    with ThreadPoolExecutor(2) as threads:
        reading = threading.Event()
        reader = threads.submit(read)
        assert reading.wait(PATIENCE_S)
        with pytest.raises(Retryable, match="being written"):
            holdings.drop_frame(1, 0, check=lambda _: None, wait_s=0.05)
        assert holdings.give_back(1, 0) == 0
        clearing = threads.submit(made.clear, 1, 0, unsaved="discard")
        time.sleep(0.05)
        assert not clearing.done()
        let_go.set()
        assert clearing.result(PATIENCE_S) == 1
        reader.result(PATIENCE_S)
    assert order == ["read"]
    assert list((tmp_path / "generic").rglob("*.fits")) == []
