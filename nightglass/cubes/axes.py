"""Coordinates of a cube: those of its first frame, and time along the third axis where frames are regular."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from nightglass.fitsio.product_cards import CardValue

__all__ = ["is_any_axis", "is_coordinate", "time_axis"]

_COORDINATE: Final = re.compile(
    r"(?:CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CNAME)[12]|(?:CD|PC)[12]_[12]|P[VS][12]_\d+|LONPOLE|LATPOLE"
    r"|RADESYS|RADECSYS|EQUINOX|EPOCH|[AB]P?_(?:ORDER|DMAX|\d_\d)"
)
"""Keywords of the first two axes, FITS Standard 4.0 table 22, and of the convention SIP for distortions.

Further axes of a frame have length 1, and give way to that of the frames."""
_ANY_AXIS: Final = re.compile(
    r"WCSAXES[A-Z]?|(?:CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CNAME)\d+[A-Z]?|(?:CD|PC)\d+_\d+[A-Z]?|P[VS]\d+_\d+[A-Z]?"
)
_EPOCH: Final = datetime(1858, 11, 17, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
_TOLERANCE: Final = 0.01
"""Of the interval: frames further from a straight line have their times in the table only."""


def is_coordinate(keyword: str) -> bool:
    """Tell whether a keyword belongs to the coordinates of the two axes of a plane."""
    return bool(_COORDINATE.fullmatch(keyword))


def is_any_axis(keyword: str) -> bool:
    """Tell whether a keyword belongs to the coordinates of any axis, in any of the systems of a header."""
    return is_coordinate(keyword) or bool(_ANY_AXIS.fullmatch(keyword))


def time_axis(starts: Sequence[datetime | None], *, matrix: bool) -> dict[str, CardValue]:
    """Return the cards of an axis of time, FITS Standard 4.0 section 9; empty where the frames have no regular one.

    Parameters
    ----------
    starts : sequence of datetime or None
        Of each plane, aware.
    matrix : bool
        Whether the other axes are described by ``CDi_j``, which excludes CDELT.
    """
    known = [start for start in starts if start is not None]
    if len(known) < 2 or len(known) < len(starts):
        return {}
    since = [(start - known[0]).total_seconds() for start in known]
    interval = since[-1] / (len(since) - 1)
    if interval <= 0 or any(abs(item - place * interval) > _TOLERANCE * interval for place, item in enumerate(since)):
        return {}
    day, rest = divmod(known[0] - _EPOCH, _DAY)
    return {
        "CTYPE3": ("TIME", "start of each frame"),
        "CUNIT3": "s",
        "CRPIX3": 1.0,
        "CRVAL3": (0.0, "since MJDREFI + MJDREFF"),
        "CD3_3" if matrix else "CDELT3": (round(interval, 9), "[s] from frame to frame"),
        "TIMESYS": "UTC",
        "DATEREF": (known[0].astimezone(UTC).replace(tzinfo=None).isoformat(), "start of the first frame"),
        "MJDREFI": (day, "[d] the same, whole days"),
        "MJDREFF": (rest / _DAY, "[d] and the rest of the day"),
    }
