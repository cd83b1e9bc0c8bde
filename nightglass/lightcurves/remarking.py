"""What the ledger is told of images whose noise is an outlier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from nightglass.model import Quality

if TYPE_CHECKING:
    from nightglass.ledger import Entry, Ledger

__all__ = ["OUTLIER", "remark_outliers"]

OUTLIER = "NoiseOutlier"
"""The cause of the remark."""


def remark_outliers(ledger: Ledger, entries: Iterable[Entry], outliers: Mapping[str, tuple[str, ...]]) -> None:
    """Give exposures a warning whose images are outliers, and take it back where they are none; worse verdicts stay.

    Parameters
    ----------
    outliers : mapping
        Exposure id -> what was said of its images; others are left alone.
    """
    reasons = {
        entry.exposure_id: "; ".join(outliers[entry.exposure_id])
        for entry in entries
        if entry.exposure_id in outliers
        and entry.quality is not Quality.BAD
        and (outliers[entry.exposure_id] or entry.cause == OUTLIER)
    }
    if reasons:
        ledger.remark(reasons, quality=Quality.WARNING, cause=OUTLIER)
