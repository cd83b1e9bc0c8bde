"""The plan of a cube: every header and table of it, and which plane goes where."""

from __future__ import annotations

from nightglass.config import Camera
from nightglass.cubes.records import CubePlan, CubeRequest, Survey

__all__ = ["plan_cube"]


def plan_cube(survey: Survey, request: CubeRequest, *, camera: Camera | None = None) -> CubePlan:
    """Decide how the planes of a survey become a cube."""
    raise NotImplementedError
