"""A plan becomes files, in order, with the headers that a camera writes."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from shutil import which

import pytest
from astropy.io import fits

from nightglass.errors import Misconfigured
from nightglass.model import Kind, Night
from nightglass.simulate import NightPlan, plan_exposures, write_night

SMALL = NightPlan(
    shape=(32, 48), biases=2, darks=2, flats=2, science=5, dithers=3, dark_exposures_s=(30.0, 60.0), fields=2
)


def test_plan_has_the_numbers_asked_for() -> None:
    exposures = plan_exposures(SMALL)
    counts = Counter((item.kind, item.filter) for item in exposures)
    assert counts == {
        (Kind.BIAS, ""): 2,
        (Kind.DARK, ""): 4,
        (Kind.FLAT, "g"): 2,
        (Kind.FLAT, "r"): 2,
        (Kind.SCIENCE, "g"): 10,
        (Kind.SCIENCE, "r"): 10,
    }
    assert [item.number for item in exposures] == list(range(1, len(exposures) + 1))
    starts = [item.started_at for item in exposures]
    assert starts == sorted(set(starts))
    assert starts[0] == datetime(2026, 8, 21, 18, 30, tzinfo=UTC)


def test_dither_sets_are_complete_but_for_the_last() -> None:
    sets: dict[tuple[int, str], list[int]] = {}
    for item in plan_exposures(SMALL):
        if item.kind is Kind.SCIENCE:
            sets.setdefault((item.field, item.filter), []).append(item.dither)
            assert item.dithers == 3
    assert set(map(tuple, sets.values())) == {(1, 2, 3, 1, 2)}
    assert {item.dithers for item in plan_exposures(NightPlan(dithers=1))} == {0}


def test_too_many_fields_are_refused() -> None:
    with pytest.raises(Misconfigured, match="5 fields"):
        NightPlan(fields=5)


def test_files_are_written_once_and_told_about(tmp_path: Path) -> None:
    told: list[tuple[Path, int, int]] = []
    night = write_night(tmp_path / "new" / "raw", SMALL, seed=3, progress=lambda *report: told.append(report))
    assert [path for path, _, _ in told] == list(night.paths)
    assert told[-1][1:] == (len(night.paths), len(night.paths))
    assert sorted((tmp_path / "new" / "raw").iterdir()) == sorted(night.paths)
    science = night.exposures[-1]
    header = fits.getheader(night.paths[-1])
    assert header["BITPIX"] == 16
    assert header["BZERO"] == 32768
    assert (header["NAXIS1"], header["NAXIS2"]) == (48 + 32, 32)
    assert (header["DATASEC"], header["BIASSEC"]) == ("[1:48,1:32]", "[49:80,1:32]")
    assert header["IMAGETYP"] == "science"
    assert (header["EXPNUM"], header["DITHNUM"], header["NUMDITHS"]) == (science.number, 2, 3)
    assert datetime.fromisoformat(header["DATE-OBS"]).replace(tzinfo=UTC) == science.started_at
    assert (header["GAIN"], header["RDNOISE"], header["SATURATE"]) == (1.5, 5.0, 60000.0)
    assert "DITHNUM" not in fits.getheader(night.paths[0])


def test_pace_is_kept(tmp_path: Path) -> None:
    plan = NightPlan(night=Night("20270101"), shape=(16, 16), biases=4, darks=0, flats=0, science=0)
    begin = time.monotonic()
    write_night(tmp_path, plan, seed=1, pace_s=0.05)
    assert time.monotonic() - begin >= 0.15


@pytest.mark.skipif(which("fitsverify") is None, reason="fitsverify is not installed")
def test_fitsverify_passes_every_kind(tmp_path: Path) -> None:
    plan = NightPlan(shape=(32, 48), biases=1, darks=1, flats=1, science=1, filters=("r",))
    night = write_night(tmp_path, plan, seed=1)
    result = subprocess.run(["fitsverify", "-q", *map(str, night.paths)], capture_output=True, text=True, check=False)
    assert result.stdout.count("OK") == len(night.paths), result.stdout
