"""The light curves of a night as one FITS file, made of the reduced exposures that the ledger has."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nightglass.errors import NightglassError
from nightglass.fitsio.atomic import write_atomic
from nightglass.fitsio.checksums import content_id
from nightglass.fitsio.product_cards import CardValue, make_cards
from nightglass.fitsio.products import read_product
from nightglass.fitsio.sequences import ReadyHdu, write_hdus
from nightglass.fitsio.tables import lay_out_table
from nightglass.layout import Layout
from nightglass.lightcurves.curves import LightCurves
from nightglass.model import Night, Product, ProductKind, State

if TYPE_CHECKING:
    from nightglass.config import Camera
    from nightglass.ledger import Ledger

__all__ = ["light_curve_path", "make_light_curves", "write_light_curves"]

_log = logging.getLogger(__name__)

_UNITS = {
    "frequency": "Hz",
    "mjd": "d",
    "ra": "deg",
    "dec": "deg",
    "position_error": "deg",
}


def light_curve_path(camera: str, night: Night, layout: Layout) -> Path:
    """Return where the light curves of a night are kept."""
    return layout.night(camera, night) / "lightcurves" / f"{night.label}.fits"


def make_light_curves(night: Night, camera: Camera, *, ledger: Ledger, layout: Layout) -> Path | None:
    """Make the light curves of a night from all its reduced exposures, in the order of time.

    The same exposures give the same bytes, in whatever order they came.

    Returns
    -------
    Path or None
        None if the camera makes no light curves, or nothing is reduced.

    Raises
    ------
    Retryable
        If the disk refuses.
    """
    if camera.lightcurves is None:
        return None
    reduced = {
        product.key: product.path
        for product in ledger.products(night, camera.name)
        if product.kind is ProductKind.REDUCED
    }
    refs = [entry.ref for entry in ledger.entries(night, camera.name) if entry.state is State.REDUCED and entry.ref]
    curves = LightCurves(camera.lightcurves)
    for ref in sorted(refs, key=lambda ref: (ref.started_at, ref.exposure_id)):
        if ref.exposure_id not in reduced:
            continue
        try:
            curves.add(ref.exposure_id, ref.started_at, read_product(reduced[ref.exposure_id]))
        except (NightglassError, OSError) as error:
            _log.warning("%s is not in the light curves: %s", ref.exposure_id, error)
    if not curves.steps:
        return None
    path = light_curve_path(camera.name, night, layout)
    write_light_curves(path, curves, camera=camera.name, night=night)
    product = Product(
        kind=ProductKind.REPORT,
        key=f"{camera.name}/{night}/lightcurves",
        path=path,
        checksum=content_id(path),
        size=path.stat().st_size,
    )
    ledger.add_product(product, night=night, camera=camera.name)
    return path


def write_light_curves(path: Path, curves: LightCurves, *, camera: str, night: Night) -> None:
    """Write tables SOURCES, CURVES and STEPS; an existing file is replaced at once.

    Raises
    ------
    Retryable
        If the disk refuses.
    """
    primary: dict[str, CardValue] = {
        "SIMPLE": (True, "conforms to the FITS standard"),
        "BITPIX": 8,
        "NAXIS": 0,
        "EXTEND": True,
        "CAMERA": camera,
        "NIGHT": night.label,
        "NSTEPS": (len(curves.steps), "time steps"),
        "NSKIPPED": (curves.skipped, "images without coordinates or catalogue"),
    }
    steps = np.array([(number, key) for number, key in enumerate(curves.steps)], [("step", "i4"), ("exposure", "U80")])
    hdus = [
        ReadyHdu(make_cards(primary)),
        _table("SOURCES", curves.summary),
        _table("CURVES", curves.curves),
        _table("STEPS", steps),
    ]
    with write_atomic(path) as part:
        write_hdus(part, hdus)


def _table(name: str, rows: NDArray[np.void]) -> ReadyHdu:
    from astropy.table import Table

    table = Table(rows, copy=False)
    for column, unit in _UNITS.items():
        if column in table.colnames:
            table[column].unit = unit
    cards, data = lay_out_table(table)
    return ReadyHdu(cards + make_cards({"EXTNAME": name}), data)
