"""Stacks: the members of a group, aligned and combined by a clipped mean."""

from nightglass.stacks.align import Affine, Alignment, NoMatch, Sketch, align
from nightglass.stacks.stack import StackMember, StackResult, StackSpec, combine_group

__all__ = [
    "Affine",
    "Alignment",
    "NoMatch",
    "Sketch",
    "StackMember",
    "StackResult",
    "StackSpec",
    "align",
    "combine_group",
]
