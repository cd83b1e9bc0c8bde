"""The grouping engine, sans-I/O: members in, groups out."""

from nightglass.groups.engine import GroupEngine
from nightglass.groups.sets import ReadyGroup

__all__ = ["GroupEngine", "ReadyGroup"]
