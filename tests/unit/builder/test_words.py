"""Control words, wherever they stand: in a block, in the header of pixels, of a file, of the primary."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits

from nightglass.builder.service import Builder
from tests.unit.builder.desk import builder, image, wait_done

WORDS = {"LOCAL_COPY": True, "SUB_DIR": "cloudy", "IMAGE_NAME": "acq", "COMPRESS": True, "KEPT": 5}


def bare(header: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    hdu = fits.PrimaryHDU()
    for keyword, value in header.items():
        hdu.header[keyword if len(keyword) <= 8 else f"HIERARCH {keyword}"] = value
    hdu.writeto(stream)
    return stream.getvalue()


def push_file(made: Builder) -> None:
    made.accept(1, 0, "A", image(1, **{key if len(key) < 9 else f"HIERARCH {key}": WORDS[key] for key in WORDS}))


def push_beside(made: Builder) -> None:
    made.accept(1, 0, "A", image(1, KEPT=5), header=WORDS)


def push_primary(made: Builder) -> None:
    made.accept(1, 0, "PRIMARY", bare(WORDS))
    made.accept(1, 0, "A", image(1))


def push_primary_cards(made: Builder) -> None:
    made.accept(1, 0, "PRIMARY", None, header=WORDS)
    made.accept(1, 0, "A", image(1))


def set_primary(made: Builder) -> None:
    made.set_primary(1, 0, WORDS)
    made.accept(1, 0, "A", image(1))


@pytest.mark.parametrize("push", [push_file, push_beside, push_primary, push_primary_cards, set_primary])
def test_they_are_followed_and_left_out(tmp_path: Path, push: Any) -> None:
    with builder(tmp_path, outputs=True, role="guide") as made:
        made.assign(1, 0, sources=["A"])
        push(made)
        view = wait_done(made, 1, 0)
        (path,) = view.files
    assert path.parts[-2:] == ("cloudy", "acq-00000001-0000.fits.fz")
    with fits.open(path) as hdus:
        every = {keyword for hdu in hdus for keyword in hdu.header}
    assert "KEPT" in every
    assert not every & {"LOCAL_COPY", "SUB_DIR", "IMAGE_NAME", "COMPRESS"}


@pytest.mark.parametrize("cards", [{"COMPRESS": "RICE_1"}, {"SEND_TO": 5}, {"EXPTIME": "long"}, {"LOCAL_COPY": "x"}])
def test_a_camera_may_mean_something_else_by_them(tmp_path: Path, cards: dict[str, Any]) -> None:
    with builder(tmp_path) as made:
        made.accept(1, 0, "A", image(1, **{key if len(key) < 9 else f"HIERARCH {key}": cards[key] for key in cards}))
        assert [item.name for item in made.build(1, 0).extensions] == ["A"]


def test_the_exposure_time_of_a_file_makes_the_deadline_later(tmp_path: Path) -> None:
    with builder(tmp_path, timeout_s=10.0) as made:
        made.accept(1, 0, "A", image(1, EXPTIME=1000.0))
        view = made.frame(1, 0)
    assert view.deadline - view.times["first"] > 1000


def test_other_cards_for_a_built_frame_are_a_revision(tmp_path: Path) -> None:
    with builder(tmp_path, outputs=True, local_copy=True) as made:
        made.assign(1, 0, sources=["A"], header={"TILEID": 1})
        made.accept(1, 0, "A", image(1))
        wait_done(made, 1, 0)
        assert made.assign(1, 0, sources=["A"], header={"TILEID": 1}).revision == 1
        assert made.assign(1, 0, sources=["A"], header={"TILEID": 2}).revision == 2
        (path,) = wait_done(made, 1, 0).files
    assert fits.getheader(path)["TILEID"] == 2
