"""The part of a frame that a small thing covers."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["window"]


def window(shape: Sequence[int], y0: float, x0: float, radius: float) -> tuple[slice, slice]:
    """Return rows and columns within a radius of a place, cut at the edges of the frame; empty when it lies outside.

    Parameters
    ----------
    shape : sequence of int
        Rows and columns of the frame.
    y0, x0 : float
        0-based pixels.
    radius : float
        Pixels.
    """
    return _span(y0, radius, shape[0]), _span(x0, radius, shape[1])


def _span(centre: float, radius: float, size: int) -> slice:
    start = min(max(0, round(centre - radius)), size)
    return slice(start, max(start, min(size, round(centre + radius) + 1)))
