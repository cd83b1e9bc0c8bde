"""The grouping engines, sans-I/O: members in, groups out."""

from nightglass.groups.engine import GroupEngine
from nightglass.groups.sets import ReadyGroup
from nightglass.groups.timesteps import Timestep, TimestepEngine

__all__ = ["GroupEngine", "ReadyGroup", "Timestep", "TimestepEngine"]
