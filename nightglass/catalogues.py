"""Source tables: the columns that go into HDU ``CAT``, with units and meanings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["COLUMNS", "Column", "source_table"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a source table.

    Attributes
    ----------
    dtype : str
        As numpy writes it.
    unit : str
        As FITS writes it; ``{unit}`` stands for that of the pixels.
    ucd : str
        Unified content descriptor (IVOA UCD1+), for tools that look for meanings.
    """

    name: str
    dtype: str
    unit: str
    ucd: str
    doc: str


COLUMNS = {
    column.name: column
    for column in (
        Column("NUMBER", "i4", "", "meta.record", "running number, from 1, brightest first"),
        Column("X", "f8", "pix", "pos.cartesian.x", "centroid, FITS convention: 1 is the centre of the first pixel"),
        Column("Y", "f8", "pix", "pos.cartesian.y", "centroid, FITS convention"),
        Column("RA", "f8", "deg", "pos.eq.ra", "right ascension, if the header has a celestial WCS"),
        Column("DEC", "f8", "deg", "pos.eq.dec", "declination"),
        Column("FLUX", "f4", "{unit}", "phot.count", "in the Kron ellipse, sky subtracted"),
        Column("FLUXERR", "f4", "{unit}", "stat.error;phot.count", "1 sigma"),
        Column("MAG_INST", "f4", "mag", "phot.mag", "-2.5 log10(FLUX per second), no zero point"),
        Column("MAGERR", "f4", "mag", "stat.error;phot.mag", "1 sigma"),
        Column("FLUX_APER", "f4", "{unit}", "phot.count", "in the fixed circle that the header's APERRAD gives"),
        Column("FLUXERR_APER", "f4", "{unit}", "stat.error;phot.count", "1 sigma"),
        Column("SNR", "f4", "", "stat.snr", "FLUX / FLUXERR"),
        Column("PEAK", "f4", "{unit}", "phot.count;stat.max", "highest pixel, sky subtracted"),
        Column("FWHM", "f4", "pix", "phys.angSize", "twice the half-light radius"),
        Column("ELLIPTICITY", "f4", "", "src.ellipticity", "1 - minor/major"),
        Column("THETA", "f4", "deg", "pos.posAng", "major axis from +x towards +y"),
        Column("KRON_RADIUS", "f4", "", "", "in units of the semi-axes"),
        Column("NPIX", "i4", "pix", "", "pixels above the threshold"),
        Column(
            "FLAGS",
            "i2",
            "",
            "meta.code.qual",
            "of sep: 1 blended, 2 cut off by the edge, 8 aperture cut off, 16 masked pixels",
        ),
        Column("DQ", "i2", "", "meta.code.qual", "mask bits (see HDU DQ) within 3 pixels of the centre"),
    )
}
"""Columns in the order in which they are written."""


def source_table(values: Mapping[str, NDArray[Any]], *, unit: str) -> Table:
    """Make a source table; columns without values (RA and DEC without a WCS) are left out.

    Parameters
    ----------
    values : mapping of str to ndarray, (n,)
        By column name.
    unit : str
        Of the pixels.

    Raises
    ------
    KeyError
        If there are values for a column that is not in `COLUMNS`.
    """
    from astropy.table import Column as TableColumn  # late: importing tables takes half a second
    from astropy.table import Table

    unknown = sorted(set(values) - set(COLUMNS))
    if unknown:
        message = f"no such column: {', '.join(unknown)}"
        raise KeyError(message)
    made = []
    for name, column in COLUMNS.items():
        if name not in values:
            continue
        made.append(
            TableColumn(
                np.asarray(values[name], dtype=column.dtype),
                name=name,
                unit=column.unit.format(unit=unit) or None,
                description=column.doc,
                meta={"ucd": column.ucd} if column.ucd else {},
            )
        )
    return Table(made, copy=False)
