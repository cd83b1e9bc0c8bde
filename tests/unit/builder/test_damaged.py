"""Records that a disk gives back damaged: a builder begins all the same, with what is known otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.builder.desk import builder, image, pixels

JUNK = [None, True, -1, 1.5, 1e300, "", "../../etc", [], {}, [{}], {"a": 1}, "a\0b", 10**30]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    with builder(root, sources=("A", "B")) as made:
        words = {"sub_dir": "x", "archive_primary": ["TILEID"]}
        made.assign(1, 0, header={"X": 1}, instructions=words, timeout_s=3600)
        made.accept(1, 0, "A", image(5), header={"EXPTIME": 2.0})
        made.accept(1, 1, "A", image(6))
        made.accept(1, 1, "B", image(7))
        made.finalize(1)
    return root


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Give each place of a JSON value that can hold something else."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


@given(data=st.data())
def test_whatever_a_record_holds(whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    root = tmp_path_factory.mktemp("damaged")
    shutil.copytree(whole, root, dirs_exist_ok=True)
    path = data.draw(st.sampled_from(sorted(root.rglob("*.json"))))
    record = json.loads(path.read_text())
    holder, key = data.draw(st.sampled_from(list(places(record))))
    holder[key] = data.draw(st.sampled_from(JUNK))
    path.write_text(json.dumps(record))
    with builder(root, sources=("A", "B")) as made:
        made.status()
        made.get("exposure")
        made.get("processing_times")
        (view,) = made.exposures()
        assert (view.expid, view.frames) == (1, (0, 1))
        for frame in view.frames:
            made.frame(1, frame).primary_header  # noqa: B018 - it is parsed
    shutil.rmtree(root)


def test_a_frame_of_another_directory_is_made_anew_from_its_files(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    path = next(tmp_path.rglob("0001/frame.json"))
    path.write_text(path.read_text().replace('"frame": 1', '"frame": 2'))
    with builder(tmp_path, sources=("A", "B")) as made:
        view = made.build(1, 1)
        assert {item.name: pixels(item.path) for item in view.extensions} == {"A": 6, "B": 7}
