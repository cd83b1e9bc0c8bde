"""A table that grows, and shrinks, as others read it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from nightglass.errors import Retryable
from nightglass.lightcurves.growing import GrowingTable

DTYPE = np.dtype([("name", "U3"), ("value", "i4"), ("good", "?")])
ROWS = np.array([(f"{n:03d}", n * 7919, n % 2 == 0) for n in range(1500)], DTYPE)


def test_checksums_go_on_whatever_the_width_of_rows(tmp_path: Path) -> None:
    with contextlib.closing(GrowingTable(tmp_path / "t.fits", "T", DTYPE, {"value": "s"})) as table:
        for first, last in ((0, 1), (1, 3), (3, 1000), (1000, 1500)):
            table.append(ROWS[first:last])
            with fits.open(table.path, checksum=True) as hdus:
                assert hdus["T"].data["value"].tolist() == ROWS["value"][:last].tolist()
        for count in (777, 3, 0):
            table.keep(count)
            np.testing.assert_array_equal(table.rows(), ROWS[:count])
            with fits.open(table.path, checksum=True) as hdus:
                assert len(hdus["T"].data) == count


@pytest.mark.parametrize("refused", [1, 2])
def test_a_disk_that_refuses_costs_nothing_that_was_there(
    tmp_path: Path, refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, or the header that counts them."""
    written = os.pwrite
    with contextlib.closing(GrowingTable(tmp_path / "t.fits", "T", DTYPE, {})) as table:
        table.append(ROWS[:10])
        calls = itertools.count(1)

        def refusing(*arguments: Any) -> int:
            if next(calls) == refused:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return written(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", refusing)
            with pytest.raises(Retryable, match="No space left"):
                table.append(ROWS[10:20])
        for last in (10, 20):
            with fits.open(table.path, checksum=True) as hdus:
                assert hdus["T"].data["value"].tolist() == ROWS["value"][:last].tolist()
            table.append(ROWS[last : last + 10])
