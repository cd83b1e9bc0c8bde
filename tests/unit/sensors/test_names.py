from __future__ import annotations

import pytest

from nightglass.config import Source
from nightglass.sensors.names import NameFilter

DEFAULTS = Source(camera="lynx", directory="x")


@pytest.fixture
def names() -> NameFilter:
    return NameFilter(DEFAULTS.patterns, DEFAULTS.ignore)


@pytest.mark.parametrize(
    "name",
    ["a.fits", "A.FITS", "b.fit", "c.fts", "d.fits.fz", "e.Fits.GZ", "f.fit.fz", "g h.fits", "ä.fits", "a\nb.fits"],
)
def test_fits_names_are_taken(names: NameFilter, name: str) -> None:
    assert names.takes(name)


@pytest.mark.parametrize(
    "name",
    [
        ".a.fits.Xy12",
        ".a.fits",
        "a.fits.part",
        "a.fits~",
        "a.fits.tmp",
        "a.fits.swp",
        "#a.fits#",
        "a.txt",
        "fits",
        "a.fits.solved",
    ],
)
def test_temporary_and_other_names_are_not(names: NameFilter, name: str) -> None:
    assert not names.takes(name)


def test_hidden_directories_are_not_entered(names: NameFilter) -> None:
    assert names.enters("20260821")
    assert not names.enters(".~tmp~")
    assert names.reaches(["raw", "deep", "a.fits"])
    assert not names.reaches(["raw", ".snapshot", "a.fits"])


def test_no_patterns_take_nothing() -> None:
    assert not NameFilter(()).takes("a.fits")
    assert NameFilter(()).enters("a")
