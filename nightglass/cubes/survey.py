"""What frames hold: which planes of which sources, in which order."""

from __future__ import annotations

from nightglass.config import Camera, Limits
from nightglass.cubes.records import CubeRequest, Survey
from nightglass.pool import Pool

__all__ = ["survey_frames"]


def survey_frames(
    request: CubeRequest, limits: Limits, *, camera: Camera | None = None, pool: Pool | None = None
) -> Survey:
    """Read the headers of all frames, and find their planes."""
    raise NotImplementedError
