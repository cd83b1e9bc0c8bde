"""Paths are pure functions of keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightglass.layout import Layout
from nightglass.model import Content, Night

NIGHT = Night("20260821")


@pytest.mark.parametrize(
    ("exposure", "role", "content", "compressed", "expected"),
    [
        ("70965", "guide", Content.RAW, False, "00070965/guide-00070965.fits"),
        ("70965", "guide", Content.RAW, True, "00070965/guide-00070965.fits.fz"),
        ("70965", "sci", Content.REDUCED, False, "00070965/sci-00070965-reduced.fits"),
        ("m13-01234567", "sci", Content.RAW, False, "m13-01234567/sci-m13-01234567.fits"),
        ("../../etc", "../sci", Content.RAW, False, "etc/sci-etc.fits"),
    ],
)
def test_cubes(exposure: str, role: str, content: Content, compressed: bool, expected: str) -> None:
    path = Layout(Path("/data")).cube("lynx", NIGHT, exposure, role=role, content=content, compressed=compressed)
    assert path == Path("/data/lynx/20260821/archive") / expected
