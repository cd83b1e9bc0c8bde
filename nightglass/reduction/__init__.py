"""Reduction: from the reference of an exposure to its committed products."""

from nightglass.reduction.group import GroupJob, GroupOutcome, MemberOutcome, run_group
from nightglass.reduction.plan import plan
from nightglass.reduction.spec import Part, ReductionResult, ReductionSpec
from nightglass.reduction.warm import dask_setup, warm_up
from nightglass.reduction.worker import reduce_exposure, reduce_images

__all__ = [
    "GroupJob",
    "GroupOutcome",
    "MemberOutcome",
    "Part",
    "ReductionResult",
    "ReductionSpec",
    "dask_setup",
    "plan",
    "reduce_exposure",
    "reduce_images",
    "run_group",
    "warm_up",
]
