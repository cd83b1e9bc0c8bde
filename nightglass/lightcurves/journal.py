"""Light curves on disk while they grow: two tables, of which that of images says what is in."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path

from nightglass.closing import Closing
from nightglass.errors import Rejected
from nightglass.lightcurves.curves import CURVE_DTYPE, IMAGE_DTYPE, Additions, LightCurves
from nightglass.lightcurves.growing import GrowingTable

__all__ = ["UNITS", "CurveJournal"]

_log = logging.getLogger(__name__)

UNITS = {"frequency": "Hz", "mjd": "d", "ra": "deg", "dec": "deg", "position_error": "deg"}
_IMAGES_AT_ONCE = 1000


class CurveJournal(Closing):
    """What was added to light curves, in order; a context manager.

    Measurements are written first, and the images that they are of then: those of a step that was not finished when the
    process was killed are forgotten at the next start. Files that are damaged, or do not fit together, are made anew.

    Parameters
    ----------
    curves, images : Path
        Of the tables CURVES and IMAGES, see `nightglass.lightcurves.curves`.

    Raises
    ------
    Retryable
        If the file system refuses.
    """

    def __init__(self, curves: Path, images: Path) -> None:
        try:
            self.curves, self.images = _open(curves, images)
        except Rejected as error:
            _log.warning("light curves are begun anew: %s", error)
            for path in (images, curves):
                path.unlink(missing_ok=True)
            self.curves, self.images = _open(curves, images)

    def close(self) -> None:
        """Close both files."""
        self.curves.close()
        self.images.close()

    def append(self, additions: Additions) -> None:
        """Add what a time step added.

        Raises
        ------
        Retryable
            If the file system refuses: then nothing was added.
        """
        before = len(self.curves)
        try:
            self.curves.append(additions.curves)
            self.images.append(additions.images)
        except BaseException:
            self.curves.keep(before)
            raise

    def replay(self, into: LightCurves) -> None:
        """Let light curves that are still empty take in all that was added.

        Raises
        ------
        Retryable
            If the file system refuses.
        """
        done = 0
        for first in range(0, len(self.images), _IMAGES_AT_ONCE):
            images = self.images.rows(first, first + _IMAGES_AT_ONCE)
            end = int(images["rows"][-1])
            into.replay(images, self.curves.rows(done, end))
            done = end


def _open(curves_path: Path, images_path: Path) -> tuple[GrowingTable, GrowingTable]:
    """Open both tables, and forget measurements of which no image knows.

    Raises
    ------
    Rejected
        If one is not what it should be, or measurements are missing.
    Retryable
        If the file system refuses.
    """
    with ExitStack() as opened:
        curves = GrowingTable(curves_path, "CURVES", CURVE_DTYPE, UNITS)
        opened.callback(curves.close)
        images = GrowingTable(images_path, "IMAGES", IMAGE_DTYPE, UNITS)
        opened.callback(images.close)
        known = int(images.rows(len(images) - 1)["rows"][0]) if len(images) else 0
        if known > len(curves):
            message = f"{images_path} tells of {known} measurements, and {curves_path} has {len(curves)}"
            raise Rejected(message, remedy="move them away: they are made anew")
        curves.keep(known)
        opened.pop_all()
    return curves, images
