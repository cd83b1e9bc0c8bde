"""The light curves of a night as one FITS file, made of the reduced exposures that the ledger has."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nightglass.errors import NightglassError
from nightglass.fitsio.atomic import part_path, write_atomic
from nightglass.fitsio.checksums import content_id
from nightglass.fitsio.product_cards import CardValue, make_cards
from nightglass.fitsio.sequences import ReadyHdu, write_hdus
from nightglass.layout import Layout
from nightglass.lightcurves.curves import CURVE_DTYPE, IMAGE_DTYPE, SUMMARY_DTYPE, LightCurves
from nightglass.lightcurves.frames import open_frames
from nightglass.lightcurves.growing import store_rows, table_cards
from nightglass.lightcurves.journal import UNITS, CurveJournal
from nightglass.lightcurves.remarking import remark_outliers
from nightglass.model import Night, Product, ProductKind, State

if TYPE_CHECKING:
    from nightglass.config import Camera
    from nightglass.ledger import Ledger

__all__ = ["drop_live", "light_curve_path", "live_paths", "make_light_curves", "write_light_curves"]

_log = logging.getLogger(__name__)


def light_curve_path(camera: str, night: Night, layout: Layout) -> Path:
    """Return where the light curves of a night are kept."""
    return layout.night(camera, night) / "lightcurves" / f"{night.label}.fits"


def live_paths(camera: str, night: Night, layout: Layout) -> tuple[Path, Path]:
    """Return where measurements and images are kept that a watch adds while the night goes on."""
    path = light_curve_path(camera, night, layout)
    return path.with_name(f"{night.label}-live-curves.fits"), path.with_name(f"{night.label}-live-images.fits")


def drop_live(camera: str, night: Night, layout: Layout) -> None:
    """Remove what a watch added to a night whose light curves were made anew; the log tells what cannot be removed."""
    if not light_curve_path(camera, night, layout).exists():
        return
    for path in live_paths(camera, night, layout):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s is of no use any more, and cannot be removed: %s", path, error)


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
    path = light_curve_path(camera.name, night, layout)
    curves = LightCurves(camera.lightcurves)
    with _passing_journal(path) as journal:
        _add_all(night, camera.name, ledger=ledger, curves=curves, journal=journal)
        if not curves.steps:
            return None
        write_light_curves(path, curves, journal, camera=camera.name, night=night)
    product = Product(
        kind=ProductKind.REPORT,
        key=f"{camera.name}/{night}/lightcurves",
        path=path,
        checksum=content_id(path),
        size=path.stat().st_size,
    )
    ledger.add_product(product, night=night, camera=camera.name)
    return path


def _add_all(night: Night, camera: str, *, ledger: Ledger, curves: LightCurves, journal: CurveJournal) -> None:
    reduced = {
        product.key: product.path for product in ledger.products(night, camera) if product.kind is ProductKind.REDUCED
    }
    entries = [entry for entry in ledger.entries(night, camera) if entry.state is State.REDUCED and entry.ref]
    outliers: dict[str, tuple[str, ...]] = {}
    for entry in sorted(entries, key=lambda entry: (entry.ref.started_at if entry.ref else 0, entry.exposure_id)):
        if entry.ref is None or entry.exposure_id not in reduced:
            continue
        try:
            with open_frames(reduced[entry.exposure_id]) as frames:
                additions = curves.add(entry.exposure_id, entry.ref.started_at, frames)
        except NightglassError as error:
            _log.warning("%s is not in the light curves: %s", entry.exposure_id, error)
            continue
        journal.append(additions)
        outliers[entry.exposure_id] = additions.outliers
    remark_outliers(ledger, entries, outliers)


@contextlib.contextmanager
def _passing_journal(path: Path) -> Iterator[CurveJournal]:
    """Give a journal whose files go away afterwards; those of a process that died are swept up as every part is."""
    token = f"w{os.getpid()}x{secrets.token_hex(4)}"
    paths = [part_path(path.with_name(f"{path.stem}-{name}.fits"), token) for name in ("curves", "images")]
    try:
        with CurveJournal(*paths) as journal:
            yield journal
    finally:
        for part in paths:
            part.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # of a night without any


def write_light_curves(path: Path, curves: LightCurves, journal: CurveJournal, *, camera: str, night: Night) -> None:
    """Write tables SOURCES, CURVES and IMAGES; an existing file is replaced at once.

    Parameters
    ----------
    journal : CurveJournal
        With all that was added to `curves`.

    Raises
    ------
    Retryable
        If the disk refuses.
    """
    sources = curves.summary
    primary: dict[str, CardValue] = {
        "SIMPLE": (True, "conforms to the FITS standard"),
        "BITPIX": 8,
        "NAXIS": 0,
        "EXTEND": True,
        "CAMERA": camera,
        "NIGHT": night.label,
        "NSTEPS": (len(curves.steps), "time steps"),
        "NLEFTOUT": (curves.left_out, "images that were left out, see IMAGES"),
    }
    hdus = [
        ReadyHdu(make_cards(primary)),
        ReadyHdu(table_cards("SOURCES", SUMMARY_DTYPE, UNITS, rows=len(sources)), store_rows(sources)),
        ReadyHdu(table_cards("CURVES", CURVE_DTYPE, UNITS, rows=len(journal.curves)), journal.curves.view()),
        ReadyHdu(table_cards("IMAGES", IMAGE_DTYPE, UNITS, rows=len(journal.images)), journal.images.view()),
    ]
    with write_atomic(path) as part:
        write_hdus(part, hdus)
