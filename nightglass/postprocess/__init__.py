"""Midway and final: masters made anew, worse reductions redone, reports written, people told, the night closed."""

from nightglass.postprocess.archiving import archive_facts
from nightglass.postprocess.redo import GroupFunction, Redo, find_open, find_redo, reduce_groups
from nightglass.postprocess.stage import Postprocess, StageSummary, run_stage

__all__ = [
    "GroupFunction",
    "Postprocess",
    "Redo",
    "StageSummary",
    "archive_facts",
    "find_open",
    "find_redo",
    "reduce_groups",
    "run_stage",
]
