from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nightglass.ledger import Ledger
from tests.unit.archive.material import Site
from tests.unit.ledger.material import Clock


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    clock = Clock()
    with Ledger.open(tmp_path / "ledger.sqlite", clock=clock) as ledger:
        yield Site(tmp_path, ledger, clock)
