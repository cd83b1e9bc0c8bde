"""Records survive JSON, names from outside are harmless, errors survive pickling, paths stay under the root."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightglass import errors
from nightglass.errors import Misconfigured, NightglassError
from nightglass.layout import Layout
from nightglass.model import (
    ExposureRef,
    Kind,
    MasterRef,
    Night,
    Product,
    ProductKind,
    Quality,
    Sighting,
    Stage,
    StepRecord,
    content_key,
    sanitize,
)

NIGHT = Night("20260821")
REF = ExposureRef(
    exposure_id="lynx/20260821/42",
    night=NIGHT,
    camera="lynx",
    kind=Kind.SCIENCE,
    path=Path("/data/lynx/20260821/raw/lynx00042.fits"),
    size=8_392_320,
    content_id="c0ffee",
    started_at=datetime(2026, 8, 22, 3, 14, 15, 926535, tzinfo=timezone(timedelta(hours=-4))),
    exposure_time_s=60.0,
    filter="r",
    target="M 31",
    group_number=1,
    group_count=5,
)
MASTER = MasterRef(
    master_id="0123456789abcdef",
    kind=Kind.DARK,
    camera="lynx",
    night=NIGHT,
    path=Path("m.fits"),
    detector="A/1",
    exposure_time_s=0.5,
    inputs=("a", "b"),
    quality=Quality.WARNING,
)
RECORDS = [
    REF,
    MASTER,
    Sighting(path=Path("a.fits"), size=0, mtime_ns=1, inode=2, seen_at=datetime(2026, 8, 21, tzinfo=UTC)),
    StepRecord(step="dark", version="1", parameters={"scale": [1, 2.5]}, calibrations=("0123",), note="scaled"),
    Product(
        kind=ProductKind.QUICKLOOK, key="lynx/20260821/42", path=Path("q.png"), checksum="f", size=3, inputs=("c",)
    ),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_survive_json_and_pickle(record: ExposureRef) -> None:
    assert type(record).from_json(json.loads(json.dumps(record.to_json()))) == record
    assert pickle.loads(pickle.dumps(record)) == record


def test_a_record_of_another_version_is_refused() -> None:
    with pytest.raises(Misconfigured, match="ExposureRef has no field colour, shape"):
        ExposureRef.from_json(REF.to_json() | {"shape": 1, "colour": 2})


def test_a_ref_knows_its_name_and_its_revisions() -> None:
    assert REF.name == "42"
    assert REF.revised(3).revision == 3
    assert REF.revision == 1
    assert hash(REF) == hash(REF.revised(1))


@given(st.text())
def test_no_text_from_a_header_leaves_its_directory(text: str) -> None:
    name = sanitize(text)
    assert 1 <= len(name) <= 64
    assert Path("/a", name).resolve().parent == Path("/a")
    assert not name.startswith((".", "-"))
    assert name == sanitize(name)
    layout = Layout(Path("/archive"))
    for path in (layout.night(text, NIGHT), layout.stack(text, NIGHT, text), layout.archive(text, NIGHT, text)):
        assert path.resolve().is_relative_to("/archive")
        assert ".." not in path.parts


def test_a_content_key_depends_on_where_the_parts_end() -> None:
    assert content_key("ab", "c") != content_key("a", "bc")
    assert content_key("ab", "c") == content_key("ab", "c")
    assert len({content_key(*parts) for parts in ([], [""], ["", ""], ["a"], ["a", ""])}) == 5


def test_paths_are_a_function_of_keys() -> None:
    layout = Layout(Path("/archive"))
    assert layout.reduced(REF) == Path("/archive/lynx/20260821/reduced/42.fits")
    assert layout.quicklook(REF) == Path("/archive/lynx/20260821/quicklook/42.png")
    assert layout.master(MASTER) == Path("/archive/lynx/20260821/masters/dark-A-1-0p5s-01234567.fits")
    assert layout.report("lynx", NIGHT, Stage.FINAL, ".html").name == "20260821-final.html"
    assert layout.log("lynx", NIGHT) == Path("/archive/lynx/20260821/logs/20260821.log")
    assert layout.run == Path("/archive/run")


ERRORS = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_cross_processes_with_their_remedy(kind: type[NightglassError]) -> None:
    error = kind("a.fits: no EXPTIME", remedy="add it")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.message, copy.remedy) == (error.message, error.remedy)
    assert str(copy) == "a.fits: no EXPTIME (add it)"
    assert str(kind("plain")) == "plain"
