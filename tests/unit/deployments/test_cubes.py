"""``nightglass cube`` and ``nightglass archive``: what they do, what they say, and how they end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from deployments.cli import main
from nightglass import byhand
from nightglass.config import load_camera, load_observatory
from nightglass.ledger import ArchiveState, Ledger
from nightglass.model import Night, State
from nightglass.simulate import NightPlan, write_night

NIGHT = Night("20260821")
PLAN = NightPlan(night=NIGHT, biases=2, darks=0, flats=0, science=1, dithers=1, filters=("g",), shape=(64, 64))


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, " ".join(out.split()), err


Call = Callable[..., Result]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Path) -> Call:
    """Call the command line in this process, under a root of its own."""
    for name in ("NIGHTGLASS_CONFIG", "NIGHTGLASS_CLUSTER", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NIGHTGLASS_ROOT", str(root))
    monkeypatch.setenv("COLUMNS", "160")

    def invoke(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["nightglass", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return invoke


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Four frames of two sources."""
    place = tmp_path / "frames"
    place.mkdir()
    rng = np.random.default_rng(1)
    for number in range(4):
        images = [
            fits.ImageHDU(rng.integers(0, 60000, (20, 30)).astype(np.uint16), name=name)
            for name in ("GUIDE0", "GUIDE2")
        ]
        cards = fits.Header({"FRAME": number, "DATE-OBS": f"2026-08-22T03:00:{number:02d}"})
        fits.HDUList([fits.PrimaryHDU(header=cards), *images]).writeto(place / f"g-{number}.fits")
    return place


def test_frames_become_a_cube_and_come_back(call: Call, frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "cube.fits"
    made = call("cube", frames, "-o", out, "--role", "guide", "--extra", "OBSERVER=Ann", "--extra", "SEEING=0.8")
    assert made.code == 0, made.err
    assert "GUIDE0 4 30x20 int16" in made.out
    assert "4 frames" in made.out
    header = fits.getheader(out)
    assert (header["EXTNAME"], header["OBSERVER"], header["SEEING"]) == ("GUIDE", "Ann", 0.8)
    verified = call("cube", "--verify", out, frames / "*.fits")
    assert (verified.code, "agrees with its frames" in verified.out) == (0, True)
    taken = call("cube", "--extract", out, "--frames", "1:3", "-o", tmp_path / "back")
    assert (taken.code, "2 files" in taken.out) == (0, True)
    for name in ("g-1.fits", "g-2.fits"):
        assert (tmp_path / "back" / name).read_bytes() == (frames / name).read_bytes()
    part = call(
        "cube", "--extract", out, "--source", "GUIDE2", "--time", "2026-08-22T03:00:03..", "-o", tmp_path / "one"
    )
    assert part.code == 0, part.err
    (path,) = (tmp_path / "one").iterdir()
    with fits.open(path) as opened:
        assert [hdu.name for hdu in opened][1:] == ["GUIDE2"]


def test_a_difference_is_named_and_is_an_exit_code(call: Call, frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "cube.fits"
    assert call("cube", frames, "-o", out, "--no-cards").code == 0
    with fits.open(frames / "g-2.fits", mode="update") as opened:
        opened["GUIDE2"].data[3, 4] += 1
    verified = call("cube", "--verify", out, frames)
    assert (verified.code, "DIFFERS" in verified.out, "GUIDE2" in verified.out) == (1, True, True)


def test_a_frame_that_is_left_out_is_named_and_is_an_exit_code(call: Call, frames: Path, tmp_path: Path) -> None:
    whole = (frames / "g-3.fits").read_bytes()
    (frames / "g-3.fits").write_bytes(whole[:5000])
    made = call("cube", frames, "-o", tmp_path / "cube.fits")
    assert (made.code, "left out:" in made.out, "g-3.fits" in made.out) == (1, True, True)
    assert fits.getdata(tmp_path / "cube.fits", "GUIDE0").shape == (3, 20, 30)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["{frames}"], "where should the cube go"),
        (["{frames}/none*", "-o", "x.fits"], "there is no frame"),
        (["{frames}", "-o", "{frames}/g-0.fits"], "is one of the frames"),
        (["{frames}", "-o", "{frames}/x.fits", "--compress", "zip"], "choices: rice, gzip"),
        (["{frames}", "-o", "{frames}/x.fits", "--extra", "NAXIS=2"], "no card"),
        (["{frames}", "-o", "{frames}/x.fits", "--frames", "1:2"], "give --extract"),
        (["--verify", "a", "--extract", "b"], "two commands"),
        (["--extract", "{frames}/g-0.fits"], "name a directory"),
        (["--extract", "{frames}/g-0.fits", "more.fits", "-o", "d"], "frames come out of the cube"),
        (["{frames}", "-o", "{frames}/x.fits", "--camera", "linx"], "did you mean 'lynx'"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(call: Call, frames: Path, words: list[str], reason: str) -> None:
    before = sorted(frames.iterdir())
    result = call("cube", *(word.format(frames=frames) for word in words))
    assert result.code == 2, result.out
    assert reason in result.err
    assert sorted(frames.iterdir()) == before


def test_a_cube_that_is_there_is_not_replaced_unasked(call: Call, frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "cube.fits"
    out.write_text("precious")
    assert call("cube", frames, "-o", out).code == 2
    assert out.read_text() == "precious"
    assert call("cube", frames, "-o", out, "--replace").code == 0


@pytest.fixture
def names(root: Path, tmp_path: Path) -> list[str]:
    """A night of three exposures in the ledger, one of them skipped."""
    raw = write_night(tmp_path / "raw", PLAN, seed=2).paths
    observatory = load_observatory(overrides={"root": str(root)}, environment={})
    camera = load_camera("lynx")
    root.mkdir()
    with Ledger.open(root / "ledger.sqlite") as ledger:
        entries = [byhand.take_in(path, camera, ledger=ledger, observatory=observatory) for path in raw]
        ledger.skip([entries[0].exposure_id])
        assert ledger.find(entries[0].exposure_id).state is State.SKIPPED
    return [entry.exposure_id for entry in entries]


def counts(root: Path) -> dict[ArchiveState, int]:
    with Ledger.open(root / "ledger.sqlite") as ledger:
        return ledger.archive_counts(NIGHT)


def test_a_night_is_archived_once(call: Call, names: list[str], root: Path) -> None:
    done = call("archive", "--night", NIGHT)
    assert done.code == 0, done.out + done.err
    assert "3 of 3 archived" in done.out
    assert counts(root)[ArchiveState.ARCHIVED] == 3
    again = call("archive", "--night", NIGHT, "--camera", "lynx")
    assert (again.code, again.out.count("current")) == (0, 3)
    status = call("status")
    assert "3 archived" in status.out
    assert '"archived": 3' in call("status", "--json").out


def test_one_exposure_by_id_or_path(call: Call, names: list[str], root: Path) -> None:
    done = call("archive", names[1])
    assert (done.code, "archived 1 1" in done.out) == (0, True)
    path = root / "lynx" / NIGHT.label / "archive" / "00000002" / "science-00000002.fits"
    assert str(path) in done.out
    assert fits.getheader(path)["NIGHT"] in (int(NIGHT.label), NIGHT.label)
    raw = next((root.parent / "raw").rglob("*0002*"), None)
    if raw is not None:
        assert "current" in call("archive", raw).out
    assert "archived" in call("archive", names[1], "--again").out


def test_what_cannot_be_archived_is_an_exit_code(call: Call, names: list[str], root: Path) -> None:
    reduced = call("archive", names[1], "--reduced")
    assert (reduced.code, "is reduced yet" in reduced.out) == (1, True)
    assert call("archive", "lynx/20260821/4711").code == 2
    assert call("archive").code == 2
    assert call("archive", names[1], "--night", NIGHT).code == 2
    assert call("archive", "--night", "20250101").code == 2


def test_raw_frames_go_only_by_a_rule(call: Call, names: list[str], root: Path, tmp_path: Path) -> None:
    assert call("archive", "--night", NIGHT).code == 0
    refused = call("archive", "--purge")
    assert (refused.code, "[archive.purge]" in refused.err) == (2, True)
    config = tmp_path / "observatory.toml"
    config.write_text("[archive.purge]\nkeep_count = 0\n")
    done = call("archive", "--purge", "--config", config)
    assert done.code == 0
    assert "1 raw frames of 1 archived exposures deleted" in done.out, "only what was skipped is decided"
