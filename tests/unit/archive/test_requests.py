"""From the words of a person to a request: what is meant, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from nightglass.archive.requests import cube_request, extra_cards, find_frames, frame_range, time_range
from nightglass.config import Camera
from nightglass.errors import Misconfigured


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    for name in ("b.fits", "a.fits", "c.fits.fz", "notes.txt"):
        (tmp_path / name).write_text("x")
    return tmp_path


def names(*words: str | Path) -> list[str]:
    return [path.name for path in find_frames(words)]


def test_files_patterns_and_directories(frames: Path) -> None:
    assert names(frames / "b.fits", frames / "a.fits") == ["b.fits", "a.fits"]
    assert names(frames) == ["a.fits", "b.fits", "c.fits.fz"]
    assert names(frames / "*.fits") == ["a.fits", "b.fits"]
    assert names(frames / "b.fits", frames) == ["b.fits", "a.fits", "c.fits.fz"], "each once"


def test_a_name_with_brackets_is_a_name(frames: Path) -> None:
    (frames / "m[1].fits").write_text("x")
    assert names(frames / "m[1].fits") == ["m[1].fits"]


@pytest.mark.parametrize("word", ["nothing.fits", "*.none", "empty"])
def test_a_word_that_means_no_file_is_named(frames: Path, word: str) -> None:
    (frames / "empty").mkdir()
    with pytest.raises(Misconfigured, match="there is no frame"):
        find_frames([frames / word])
    with pytest.raises(Misconfigured, match="at least one"):
        find_frames([])


def test_cards() -> None:
    cards = extra_cards(["observer=Ann Lee", "N=3", "X=-2.5", "OK=T", "Q='it''s'", "E="])
    assert cards == {"OBSERVER": "Ann Lee", "N": 3, "X": -2.5, "OK": True, "Q": "it''s", "E": ""}
    assert type(cards["N"]) is int


@pytest.mark.parametrize("word", ["X", "=3", "TOO-LONG-A-WORD=1", "A B=1", "NAXIS=3", "ünit=m"])
def test_what_is_no_card(word: str) -> None:
    with pytest.raises(Misconfigured, match="no card"):
        extra_cards([word])


def test_ranges_of_frames() -> None:
    found = [frame_range(text) for text in ("", "3:9", "3:", ":9", "3", ":")]
    assert found == [None, slice(3, 9), slice(3, None), slice(None, 9), slice(3, 4), slice(None, None)]
    for text in ("a", "1:2:3", "-1:", "1-3"):
        with pytest.raises(Misconfigured, match="no range of frames"):
            frame_range(text)


def test_ranges_of_time() -> None:
    start = datetime(2026, 8, 22, 3, tzinfo=UTC)
    assert time_range("") == (None, None)
    assert time_range("2026-08-22T03:00:00..") == (start, None)
    assert time_range("..2026-08-22T00:00:00-03:00")[1] == start
    for text in ("2026-08-22", "..", "noon..", "2026-08-22T03:00:00..never"):
        with pytest.raises(Misconfigured, match="no range of times"):
            time_range(text)


def test_the_request(frames: Path) -> None:
    camera = Camera.model_validate(
        {"name": "lynx", "role": "guide", "steps": {}, "archive": {"metadata": ["TEMP*"], "primary": ["OBSERVER"]}}
    )
    request = cube_request([frames / "a.fits"], frames / "out.fits", camera=camera, compress="gzip")
    assert request.compression is not None
    assert request.compression.algorithm == "gzip"
    assert (request.role, request.camera, request.keywords.metadata) == ("guide", "lynx", ("TEMP*",))
    assert cube_request([frames / "a.fits"], frames / "out.fits").role == "science"
    with pytest.raises(Misconfigured, match="rice, gzip"):
        cube_request([frames / "a.fits"], frames / "out.fits", compress="zip")
    with pytest.raises(Misconfigured, match="one of the frames"):
        cube_request([frames], frames / "a.fits")
