"""When midway and final of a night are due, whatever the site's rules say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from nightglass.errors import Misconfigured
from nightglass.model import Night, Stage
from nightglass.nights import Hours, due_time, parse_due

if TYPE_CHECKING:
    from nightglass.config import NightRule, Site

__all__ = ["DueTimes", "due_times"]

_FALLBACK = {Stage.MIDWAY: Hours(16), Stage.FINAL: Hours(48)}
_CATCH_UP = timedelta(minutes=15)
"""Time for the exposures of a night that is opened after its stages were due, as in a replay."""
_MIDWAY_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class DueTimes:
    """When the stages are due, UTC, and what about the rules could not be kept."""

    midway: datetime
    final: datetime
    problem: str = ""


def due_times(night: Night, *, rule: NightRule, site: Site, opened_at: datetime) -> DueTimes:
    """Return when the stages of a night are due.

    A rule that cannot be kept (the sun at a polar site) falls back to 16 and 48 hours, because a night must not
    fail on it; a midway after final moves to 0.95 of the time to final; a stage whose time has passed when the
    night is opened is due 15 minutes later.
    """
    problems = []
    due = {}
    for stage, text in ((Stage.MIDWAY, rule.midway), (Stage.FINAL, rule.final)):
        try:
            moment = due_time(stage, parse_due(text), night=night, opened_at=opened_at, site=site)
        except Misconfigured as error:
            problems.append(f"{error}; {stage} is due {_FALLBACK[stage].hours:g} h after opening instead")
            moment = due_time(stage, _FALLBACK[stage], night=night, opened_at=opened_at, site=site)
        due[stage] = max(moment, opened_at + _CATCH_UP) if moment <= opened_at else moment
    if due[Stage.MIDWAY] >= due[Stage.FINAL]:
        due[Stage.MIDWAY] = opened_at + _MIDWAY_SHARE * (due[Stage.FINAL] - opened_at)
        problems.append(
            f"midway ({rule.midway}) is not before final ({rule.final}) and was moved to {due[Stage.MIDWAY]}"
        )
    return DueTimes(due[Stage.MIDWAY], due[Stage.FINAL], "; ".join(problems))
