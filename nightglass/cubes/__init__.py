"""FITS data cubes: planned from headers, moved as bytes, joined when compressed, verified, and taken apart again."""

from nightglass.cubes.assembling import assemble_cube
from nightglass.cubes.records import Compression, CubeRequest, CubeSummary, Keywords, Problem, Progress, SourceSummary
from nightglass.cubes.verifying import Verification, verify_cube

__all__ = [
    "Compression",
    "CubeRequest",
    "CubeSummary",
    "Keywords",
    "Problem",
    "Progress",
    "SourceSummary",
    "Verification",
    "assemble_cube",
    "verify_cube",
]
