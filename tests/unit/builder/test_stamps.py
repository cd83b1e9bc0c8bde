"""Stamps that find no room, and such as are cut while a cube of the others is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.builder.naming import Names
from nightglass.builder.records import RoiOrder
from nightglass.builder.rois import RoiTable
from nightglass.builder.stamps import StampStore
from nightglass.config import BuilderOptions, Limits
from nightglass.errors import Retryable
from nightglass.layout import Layout
from tests.unit.builder.desk import builder, image, wait_done
from tests.unit.builder.making import exposure, extension, frame, noise

ROIS = [{"extension": "A", "x": 10, "y": 10, "size": 8}]
OPTIONS = BuilderOptions(use_guider=True)


def store(root: Path) -> StampStore:
    names = Names.of("guider", OPTIONS, layout=Layout(root), camera="generic")
    made = StampStore(names, RoiTable(root / "rois.json"), limits=Limits())
    made.table.accept(ROIS, None)
    return made


def test_where_the_disk_takes_no_stamps_the_frame_waits_and_is_cut_then(tmp_path: Path) -> None:
    made = builder(tmp_path, outputs=True, use_guider=True, local_copy=True)
    with made:
        made.rois.accept(ROIS)
        made.accept(1, 0, "A", image(3, (20, 30)))
        night = made.exposure(1).night.label
        place = tmp_path / "generic" / night / "stamps"
        place.write_text("in the way")
        made.build(1, 0)
        made.accept(2, 0, "B", image(4))
        made.build(2, 0)
        wait_done(made, 2, 0)  # others go on
        assert "built" not in made.frame(1, 0).times
        assert any(item["key"] == "build 1/0" for item in made.status()["alarms"])
        place.unlink()
        assert wait_done(made, 1, 0).files
        assert not [item for item in made.status()["alarms"] if item["key"] == "build 1/0"]
        (path,) = made.rois.get(made.exposure(1), RoiOrder(), tmp_path / "got")
        with fits.open(path) as hdus:
            assert np.all(hdus["A_0"].data == 3)


def test_stamps_that_are_cut_while_a_cube_is_made_are_not_taken_for_archived(tmp_path: Path) -> None:
    made, whole = store(tmp_path), exposure(1, (0, 1))
    view = frame([extension(tmp_path / "spool", "A", noise((20, 30)))], expid=1)
    made.cut(whole, view, OPTIONS, fits.Header())
    seen = made.snapshot(whole)
    made.cut(whole, frame(view.extensions, expid=1, number=1), OPTIONS, fits.Header())
    made.note_archived(whole, seen)
    assert not list(tmp_path.rglob(".archived"))
    made.note_archived(whole, made.snapshot(whole))
    assert len(list(tmp_path.rglob(".archived"))) == 1
    made.cut(whole, view, OPTIONS, fits.Header())  # a revision
    assert not list(tmp_path.rglob(".archived"))


def test_archived_stamps_go_oldest_first_and_no_more_of_them_than_need_be(tmp_path: Path) -> None:
    made = store(tmp_path)
    made.table.accept([{"extension": "A", "x": 300, "y": 300, "size": 500}], None)
    records = [extension(tmp_path / "spool", "A", noise((600, 600)))]
    options = OPTIONS.model_copy(update={"stamp_mib": 1})
    for expid in (1, 2, 3):
        whole = exposure(expid)
        made.cut(whole, frame(records, expid=expid), options, fits.Header())
        made.note_archived(whole, made.snapshot(whole))
    made.cut(exposure(4), frame(records, expid=4), options, fits.Header())
    assert [len(made.snapshot(exposure(expid))) for expid in (1, 2, 3, 4)] == [0, 1, 1, 1]


def test_a_disk_that_refuses_is_no_damage_to_the_frame(tmp_path: Path) -> None:
    made = store(tmp_path)
    view = frame([extension(tmp_path / "spool", "A", noise((20, 30)))], expid=1)
    made.directory(exposure(1)).parent.parent.mkdir(parents=True)
    made.directory(exposure(1)).parent.write_text("")
    with pytest.raises(Retryable):
        made.cut(exposure(1), view, OPTIONS, fits.Header())


def test_an_exposure_whose_stamps_are_complete_is_told_until_they_are_cleared(tmp_path: Path) -> None:
    with builder(tmp_path, outputs=True, use_guider=True) as made:
        made.rois.accept(ROIS)
        for expid in (1, 2):
            made.accept(expid, 0, "A", image(3, (20, 30)))
            made.rois.finalize(expid)  # before anything is cut
            made.build(expid, 0)
            wait_done(made, expid, 0)
        assert made.rois.status()["complete"] == [1, 2]
        assert made.rois.status()["stamps"] == 2
        made.rois.clear(1)
        assert made.rois.status()["complete"] == [2]
