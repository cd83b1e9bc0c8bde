"""What frames bring besides images is in their archive, all of it: an archived frame may be given back."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from astropy.io import fits

from tests.unit.builder.desk import builder, image
from tests.unit.builder.making import verified


def table(*values: float, **cards: object) -> bytes:
    stream = io.BytesIO()
    columns = fits.BinTableHDU.from_columns([fits.Column("GMAG", "E", array=np.array(values))], fits.Header(cards))
    fits.HDUList([fits.PrimaryHDU(), columns]).writeto(stream)
    return stream.getvalue()


def bare(**cards: object) -> bytes:
    stream = io.BytesIO()
    fits.PrimaryHDU(header=fits.Header(cards)).writeto(stream)
    return stream.getvalue()


def test_what_differs_is_kept_and_what_is_the_same_once(tmp_path: Path) -> None:
    with builder(tmp_path, outputs=True) as made:
        for frame, values in enumerate([(1.0,), (1.0,), (2.0, 3.0)]):
            made.accept(7, frame, "GUIDE0", image(frame))
            made.accept(7, frame, "PMGSTARS", table(*values))
            made.accept(7, frame, "GUIDE0T", table(9.0))  # the cube has a table of that name
            made.accept(7, frame, "WEATHER", bare(HUMIDITY=frame // 2))
            made.build(7, frame)
        made.finalize(7)
        path = made.archive(7, wait=True)
    assert path is not None
    verified(path)
    with fits.open(path) as hdus:
        names = [hdu.name for hdu in hdus]
        assert len(names) == len(set(names))
        assert [hdus[name].data["GMAG"].tolist() for name in ("PMGSTARS", "PMGSTARS_0002")] == [[1.0], [2.0, 3.0]]
        assert hdus["GUIDE0T_2"].data["GMAG"].tolist() == [9.0]
        assert len(hdus["GUIDE0T"].data) == 3
        assert [hdus[name].header["HUMIDITY"] for name in ("WEATHER", "WEATHER_0002")] == [0, 1]
        assert not [name for name in names if name.startswith(("PMGSTARS", "WEATHER"))][4:]
