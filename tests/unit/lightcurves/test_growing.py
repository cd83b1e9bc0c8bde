"""A table that grows, and shrinks, as others read it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from astropy.io import fits

from nightglass.lightcurves.growing import GrowingTable


def test_checksums_go_on_whatever_the_width_of_rows(tmp_path: Path) -> None:
    dtype = np.dtype([("name", "U3"), ("value", "i4"), ("good", "?")])
    rows = np.array([(f"{n:03d}", n * 7919, n % 2 == 0) for n in range(1500)], dtype)
    with contextlib.closing(GrowingTable(tmp_path / "t.fits", "T", dtype, {"value": "s"})) as table:
        for first, last in ((0, 1), (1, 3), (3, 1000), (1000, 1500)):
            table.append(rows[first:last])
            with fits.open(table.path, checksum=True) as hdus:
                assert hdus["T"].data["value"].tolist() == rows["value"][:last].tolist()
        for count in (777, 3, 0):
            table.keep(count)
            np.testing.assert_array_equal(table.rows(), rows[:count])
            with fits.open(table.path, checksum=True) as hdus:
                assert len(hdus["T"].data) == count
