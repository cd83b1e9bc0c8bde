"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# the same examples in every run: whoever hunts for new ones runs with --hypothesis-profile=default
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Directory of the real data sets; tests that need it are skipped without it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    place = Path(os.environ.get("NIGHTGLASS_DATA", beside))
    if not place.is_dir():
        pytest.skip(f"no real data at {place}; set NIGHTGLASS_DATA")
    return place
