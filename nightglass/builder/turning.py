"""An exposure number that comes again on another observing day: what had it before makes way, once that is saved.

Control systems that number exposures anew each night, or after a restart, mean another exposure by the same number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nightglass.builder.holdings import Holdings
from nightglass.builder.records import ExposureState, ExposureView, FrameState, FrameView
from nightglass.builder.refusals import Unsaved
from nightglass.builder.retention import is_idle
from nightglass.builder.structure import is_saved
from nightglass.errors import Retryable
from nightglass.model import Night

__all__ = ["is_over", "make_way"]

_PAUSE_S: Final = 3600.0
"""An exposure that is open goes on over noon, if something of it came this lately."""


def is_over(exposure: ExposureView, frames: Sequence[FrameView], night: Night, now: float) -> bool:
    """Tell whether nothing more belongs to an exposure, for it is of an earlier observing day than `night`."""
    if exposure.night.label >= night.label:
        return False
    if exposure.state is not ExposureState.OPEN:
        return True
    came = [view.times[name] for view in frames for name in ("assigned", "last") if name in view.times]
    lately = now - max(came, default=0.0) < _PAUSE_S + (exposure.instructions.exptime_s or 0.0)
    return not lately and all(view.state is not FrameState.OPEN for view in frames)


def make_way(holdings: Holdings, expid: int, night: Night, now: float) -> ExposureView | None:
    """Forget the exposure that had this number on an earlier observing day; return it, or None if there is none.

    Written files and archives stay.

    Raises
    ------
    Unsaved
        If something of it lies nowhere else.
    Retryable
        If it is still being written or archived.
    """
    exposure = holdings.find_exposure(expid)
    if exposure is None or not is_over(exposure, holdings.frames(expid), night, now):
        return None

    def check(view: FrameView) -> None:
        if not is_saved(view):
            message = f"exposure {expid} of {exposure.night} has the same number, and frame {view.frame} is not saved"
            raise Unsaved(
                message, remedy='write or archive it, or clear it with unsaved="discard"; then send this again'
            )

    frames = holdings.frames(expid)
    for view in frames:
        check(view)
    if exposure.asked is not None or not all(is_idle(view) for view in frames):
        message = f"exposure {expid} of {exposure.night} has the same number, and is still being written or archived"
        raise Retryable(message, remedy="send this again in a moment")
    holdings.drop_exposure(expid, check=check)
    return exposure
