"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Directory of the real data sets; tests that need it are skipped without it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    place = Path(os.environ.get("NIGHTGLASS_DATA", beside))
    if not place.is_dir():
        pytest.skip(f"no real data at {place}; set NIGHTGLASS_DATA")
    return place
