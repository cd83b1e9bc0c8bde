"""What people read: errors by cause, the exposure log, the page."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from nightglass.config import load_camera
from nightglass.errors import Rejected, Retryable
from nightglass.layout import Layout
from nightglass.ledger import Ledger
from nightglass.model import Content, Night, Sighting, Stage
from nightglass.report import error_table, error_text, exposure_log, write_reports
from nightglass.report.pictures import trend

NIGHT = Night("20260821")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A night in which three files came to nothing, for two causes."""
    made = Ledger.open(tmp_path / "ledger.sqlite")
    errors = {
        "a.fits": Rejected("a.fits: no EXPTIME, <b>bold</b> & more", remedy="add it"),
        "b.fits": Rejected("b.fits: no EXPTIME"),
        "c.fits": Retryable("c.fits: the disk was busy"),
    }
    for number, (name, error) in enumerate(errors.items()):
        sighting = Sighting(
            path=tmp_path / name,
            size=2880,
            mtime_ns=number,
            inode=number,
            seen_at=datetime(2026, 8, 21, 20, tzinfo=UTC),
        )
        made.reject(made.see(sighting, camera="lynx", night=NIGHT).key, error)
    return made


def test_errors_are_counted_by_cause_the_most_frequent_first(ledger: Ledger) -> None:
    lines = error_text(list(ledger.entries())).splitlines()
    assert lines[0] == "Rejected: 2 rejected"
    assert "no EXPTIME" in lines[1]
    assert "Retryable: 1 rejected" in lines
    assert error_text([]) == "No errors.\n"


def test_tables_have_a_row_for_each_exposure(ledger: Ledger) -> None:
    entries = list(ledger.entries())
    errors = list(csv.DictReader(io.StringIO(error_table(entries))))
    assert [row["cause"] for row in errors] == ["Rejected", "Rejected", "Retryable"]
    log = list(csv.DictReader(io.StringIO(exposure_log(entries))))
    assert [Path(row["file"]).name for row in log] == ["a.fits", "b.fits", "c.fits"]
    assert {row["state"] for row in log} == {"rejected"}


def test_text_from_headers_cannot_become_markup(ledger: Ledger, tmp_path: Path) -> None:
    report = write_reports(Stage.FINAL, NIGHT, load_camera("lynx"), ledger=ledger, layout=Layout(tmp_path))
    page = report.page.read_text()
    assert "<b>bold</b>" not in page
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; more" in page
    assert "0 of 3 exposures reduced" in report.subject
    assert all(path.is_file() for path in report.attachments)


def test_cubes_of_image_builders_are_counted_apart(ledger: Ledger, tmp_path: Path) -> None:
    for name, content in (("17", Content.RAW), ("18", Content.RAW), ("guider-00000017", Content.BUILT)):
        ledger.request_archive(f"lynx/{NIGHT}/{name}", content, night=NIGHT, camera="lynx", wanted=["x"])
    report = write_reports(Stage.FINAL, NIGHT, load_camera("lynx"), ledger=ledger, layout=Layout(tmp_path))
    assert "Archive: 2 pending, 1 pending by image builders" in report.text


def test_written_twice_is_the_same(ledger: Ledger, tmp_path: Path) -> None:
    pages = [
        write_reports(
            Stage.MIDWAY, NIGHT, load_camera("lynx"), ledger=ledger, layout=Layout(tmp_path)
        ).page.read_bytes()
        for _ in range(2)
    ]
    assert pages[0] == pages[1]


def test_a_trend_is_one_dot_a_point() -> None:
    picture = ET.fromstring(trend([0.0, 10.0, 20.0], [2.0, 2.0, 2.0]))
    assert len(picture.findall(".//circle")) == 3
    assert trend([0.0], [1.0]) == ""
