"""No frame is lost because another one gets its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightglass.builder.records import WriteOrder
from nightglass.builder.refusals import Exists
from tests.unit.builder.desk import builder, image, pixels, wait_done

KEEPING = {"mem_purge_threshold": 100, "frame_purge_threshold": 100}


def test_raw_frames_of_a_number_that_was_cleared_stay(tmp_path: Path) -> None:
    published: list[Path] = []
    settings = {"outputs": True, "on_frame": lambda path, _: published.append(path)}
    for value in (1, 2, 2):
        with builder(tmp_path, **settings) as made:  # type: ignore[arg-type]
            made.accept(1, 0, "A", image(value))
            made.build(1, 0)
            wait_done(made, 1, 0)
            made.clear(1)
    assert [pixels(path) for path in published] == [1, 2, 2]
    assert len(set(published)) == 3


def test_a_revision_goes_over_what_was_published_of_its_frame(tmp_path: Path) -> None:
    published: list[Path] = []
    with builder(tmp_path, outputs=True, on_frame=lambda path, _: published.append(path), **KEEPING) as made:
        for value in (1, 2):
            made.accept(1, 0, "A", image(value), clobber=True)
            made.build(1, 0)
            view = wait_done(made, 1, 0)
    assert view.revision == 2
    assert len(set(published)) == 1
    assert pixels(published[0]) == 2


def test_a_frame_whose_file_is_replaced_is_not_saved_any_more(tmp_path: Path) -> None:
    with builder(tmp_path, outputs=True, add_frame=False, overwrite=True, local_copy=True, **KEEPING) as made:
        for frame in range(2):
            made.accept(1, frame, "A", image(frame))
            made.build(1, frame)
            wait_done(made, 1, frame)
        assert made.exposure(1).saved == {1}
        assert made.frame(1, 0).files == ()
        assert "replaced by frame 1/1" in made.frame(1, 0).notes[-1]
        (path,) = made.frame(1, 1).files
        assert pixels(path) == 1


def test_the_only_copy_of_a_frame_is_not_replaced(tmp_path: Path) -> None:
    thresholds = {"mem_purge_threshold": 0, "frame_purge_threshold": 0}
    with builder(tmp_path, outputs=True, add_frame=False, overwrite=True, local_copy=True, **thresholds) as made:
        for frame in range(2):
            made.accept(1, frame, "A", image(frame))
            made.build(1, frame)
            wait_done(made, 1, frame)
        assert made.frame(1, 0).purged
        with pytest.raises(Exists, match="all that is left of frame 1/0"):
            made.write(1, 1, WriteOrder(overwrite=True))
        (path,) = made.frame(1, 0).files
        assert pixels(path) == 0
        (other,) = made.write(1, 1, WriteOrder(add_frame=True))
        assert pixels(other) == 1


def test_a_frame_that_cannot_be_written_is_published_all_the_same(tmp_path: Path) -> None:
    published: list[Path] = []
    settings = {"outputs": True, "on_frame": lambda path, _: published.append(path), "local_copy": True}
    with builder(tmp_path, **settings) as made:  # type: ignore[arg-type]
        made.accept(1, 0, "A", image(1))
        made.build(1, 0)
        (path,) = wait_done(made, 1, 0).files
        made.clear(1)
        made.accept(1, 0, "A", image(2))
        made.build(1, 0)
        view = wait_done(made, 1, 0)
        assert view.files == ()  # another file has its name
        assert any(str(path) in alarm["text"] for alarm in made.status()["alarms"])
    assert pixels(path) == 1
    assert [pixels(item) for item in published] == [1, 2]
