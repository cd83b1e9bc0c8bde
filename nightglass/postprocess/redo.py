"""What midway and final reduce again, and the reduction of it."""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nightglass.config import Camera
from nightglass.errors import NightglassError, Waiting
from nightglass.fitsio import scan_headers
from nightglass.fitsio.headers import card_value
from nightglass.groups import GroupEngine, ReadyGroup
from nightglass.ledger import Entry, GroupRecord
from nightglass.model import CALIBRATION_KINDS, ExposureRef, Night, ProductKind, State
from nightglass.reduction import GroupJob, GroupOutcome
from nightglass.reduction.plan import plan
from nightglass.reduction.spec import configuration_key
from nightglass.watch.recovery import closed_groups

if TYPE_CHECKING:
    from nightglass.config import Observatory
    from nightglass.ledger import Ledger

__all__ = ["Redo", "find_open", "find_redo", "reduce_groups"]

_log = logging.getLogger(__name__)

GroupFunction = Callable[[GroupJob], GroupOutcome]
"""Reduces one group: plainly, or as a Prefect task."""
_OPEN = {State.COMPLETE, State.GROUPED}


@dataclass(frozen=True, slots=True)
class Redo:
    """Exposures that are reduced together, and why."""

    group_id: str
    rule: str
    refs: tuple[ExposureRef, ...]
    lists: tuple[str, ...]
    reason: str


def find_open(night: Night, camera: Camera, ledger: Ledger, lists: Sequence[str]) -> tuple[Redo, ...]:
    """Return the groups that were never closed or never ran: the last ones of the night are flushed."""
    entries = [entry for entry in ledger.entries(night=night, camera=camera.name, states=_OPEN) if entry.ref]
    closed = [entry for entry in entries if entry.state is State.GROUPED and ledger.find_group(entry.group_id)]
    kept = {entry.key for entry in closed}
    loose = {entry.exposure_id: entry.ref for entry in entries if entry.ref is not None and entry.key not in kept}
    record = ledger.find_night(night, camera.name)
    engine = GroupEngine(camera.groups)
    ready: list[ReadyGroup] = []
    # a late member finds the set that was closed without it, and makes a revision of it
    ready += engine.restore(loose.values(), 0.0, closed=closed_groups(ledger, camera, [record] if record else []))
    ready += engine.flush()
    for group in ready:
        ledger.group(GroupRecord.of(group))
    latest = {group.group_id: group for group in ready}  # several late members make several revisions
    waiting = ((entry, "never ran") for entry in closed)  # as they were closed: the others of their group may be done
    return (
        *_grouped(waiting, tuple(lists), ledger),
        *(_left_open(group, loose, tuple(lists)) for group in latest.values()),
    )


def _left_open(group: ReadyGroup, loose: Mapping[str, ExposureRef], lists: tuple[str, ...]) -> Redo:
    """Return the members of a group that never ran; those that are reduced already come into the stack as they are."""
    refs = tuple(ref for ref in group.members if ref.exposure_id in loose)
    return Redo(group.group_id, group.rule.name if group.rule else "", refs, lists, "left open")


def find_redo(
    night: Night, camera: Camera, *, ledger: Ledger, observatory: Observatory, lists: Sequence[str]
) -> tuple[Redo, ...]:
    """Return what waited, and what would come out otherwise today: better masters, or other steps or settings.

    Parameters
    ----------
    lists : sequence of str
        The step lists that science is to be reduced with; those that the camera lacks are left out.
    """
    known = tuple(name for name in lists if name in camera.steps) or observatory.reduction.realtime
    chosen: list[tuple[Entry, str]] = []
    for entry in ledger.entries(night=night, camera=camera.name, states={State.WAITING, State.REDUCED}):
        if entry.ref is None or entry.ref.kind in CALIBRATION_KINDS:
            continue
        reason = _reason(entry, entry.ref, known, camera, ledger, observatory)
        if reason:
            chosen.append((entry, reason))
    return tuple(_grouped(chosen, known, ledger))


def _reason(
    entry: Entry, ref: ExposureRef, lists: Sequence[str], camera: Camera, ledger: Ledger, observatory: Observatory
) -> str:
    """Say why an exposure is to be reduced again; empty: there is no need."""
    try:
        spec = plan(ref, lists, token="", ledger=ledger, observatory=observatory, camera=camera)
    except Waiting as error:
        if entry.state is State.REDUCED:
            return ""
        _log.info("%s goes on waiting: %s", ref.exposure_id, error)
        return ""
    if entry.state is State.WAITING:
        return "what it waited for is here"
    if set(entry.masters) != {master.master_id for master in spec.masters}:
        return "better masters"
    made_with = _settings_of(entry, ledger)
    return "" if made_with == configuration_key(spec) else "other steps or settings"


def _settings_of(entry: Entry, ledger: Ledger) -> str:
    """Return the hash of the settings in the header of the product; empty where there is no whole product."""
    for product in ledger.products_of(entry.exposure_id):
        if product.kind is not ProductKind.REDUCED:
            continue
        try:
            return _settings_in(product.path)
        except NightglassError as error:
            _log.warning("%s is made again: %s", product.path, error)
    return ""


def _settings_in(path: Path) -> str:
    from nightglass.config import Limits

    return str(card_value(scan_headers(path, Limits())[0].header, "CFGHASH") or "")


def _grouped(chosen: Iterable[tuple[Entry, str]], lists: tuple[str, ...], ledger: Ledger) -> Iterator[Redo]:
    """Bring the members of a group together, so that their stack is made once."""
    ordered = sorted(chosen, key=lambda item: (item[0].group_id or item[0].exposure_id, item[0].key))
    for group_id, members in itertools.groupby(ordered, key=lambda item: item[0].group_id or item[0].exposure_id):
        picked = list(members)
        record = ledger.find_group(group_id)
        refs = tuple(entry.ref for entry, _ in picked if entry.ref is not None)
        yield Redo(group_id, record.rule if record else "", refs, lists, picked[0][1])


def reduce_groups(
    redos: Sequence[Redo],
    *,
    camera: Camera,
    ledger: Ledger,
    observatory: Observatory,
    owner: str,
    reduce: GroupFunction,
) -> tuple[GroupOutcome, ...]:
    """Claim and reduce groups, as many at once as there may be workers; what somebody else holds is left to them.

    What fails for a passing reason is tried again here, as often as the configuration says: the queue of the watch
    would run it with the step lists for exposures as they arrive.
    """
    rules = observatory.reduction

    def one(redo: Redo) -> GroupOutcome | None:
        job = _claimed(redo, camera=camera, ledger=ledger, observatory=observatory, owner=owner)
        return None if job is None else reduce(job)

    outcomes: list[GroupOutcome] = []
    left = list(redos)
    with ThreadPoolExecutor(observatory.cluster.workers, thread_name_prefix="redo") as threads:
        for attempt in range(rules.attempts):
            time.sleep(max(attempt - 1, 0) * rules.retry_s)  # the first time at once, before the watch looks
            ended = list(threads.map(one, left))
            outcomes += [outcome for outcome in ended if outcome is not None]
            left = [again for pair in zip(left, ended, strict=True) if (again := _again(*pair)) is not None]
            if not left:
                break
    return tuple(outcomes)


def _again(redo: Redo, outcome: GroupOutcome | None) -> Redo | None:
    """Return what is left of a redo, for another attempt; None: nothing."""
    names = {member.exposure_id for member in outcome.members if member.again} if outcome else ()
    refs = tuple(ref for ref in redo.refs if ref.exposure_id in names)
    return replace(redo, refs=refs) if refs else None


def _claimed(redo: Redo, *, camera: Camera, ledger: Ledger, observatory: Observatory, owner: str) -> GroupJob | None:
    ids = [ref.exposure_id for ref in redo.refs]
    leases = ledger.claim_again(ids, owner=owner, lease_s=observatory.reduction.lease_s * max(1, len(ids)))
    if not leases:
        _log.info("%s is left to whoever holds it", redo.group_id)
        return None
    return GroupJob(
        job_id=f"redo-{secrets.token_hex(6)}",
        group_id=redo.group_id,
        camera=camera.name,
        refs=redo.refs,
        leases=leases,
        lists=redo.lists,
        rule=redo.rule,
    )
