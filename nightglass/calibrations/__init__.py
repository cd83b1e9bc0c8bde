"""Master calibrations: combined in strips, chosen by rule, bad frames rejected with a reason."""

from nightglass.calibrations.checks import FrameStatistics, judge_frames, measure_frame
from nightglass.calibrations.choose import Choice, Requirement, choose, choose_masters, requirements
from nightglass.calibrations.combine import CombineSpec, combine_frames
from nightglass.calibrations.frames import FrameSet, frame_sets
from nightglass.calibrations.index import rebuild_index
from nightglass.calibrations.kernel import clipped_mean, clipped_mean_numpy
from nightglass.calibrations.masters import REJECTED_FRAME, build_masters, master_identity

__all__ = [
    "REJECTED_FRAME",
    "Choice",
    "CombineSpec",
    "FrameSet",
    "FrameStatistics",
    "Requirement",
    "build_masters",
    "choose",
    "choose_masters",
    "clipped_mean",
    "clipped_mean_numpy",
    "combine_frames",
    "frame_sets",
    "judge_frames",
    "master_identity",
    "measure_frame",
    "rebuild_index",
    "requirements",
]
