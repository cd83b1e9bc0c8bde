"""What a watch does before it watches: it takes up what another one, that died, left behind."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nightglass.errors import Misconfigured
from nightglass.fitsio import remove_stale_parts
from nightglass.groups import ReadyGroup
from nightglass.ledger import ArchiveState
from nightglass.watch.owners import Owner

if TYPE_CHECKING:
    from nightglass.config import Camera
    from nightglass.layout import Layout
    from nightglass.ledger import Entry, Ledger, NightRecord, StageRecord

__all__ = ["Recovered", "bury", "closed_groups", "recover"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was taken back from the dead.

    Attributes
    ----------
    exposures, stages : tuple
        Whose leases were revoked.
    parts : tuple of Path
        Half-written files that were removed.
    """

    exposures: tuple[Entry, ...] = ()
    stages: tuple[StageRecord, ...] = ()
    parts: tuple[Path, ...] = ()


def recover(ledger: Ledger, layout: Layout, *, cameras: Collection[str]) -> Recovered:
    """Revoke the leases of owners that are known to be dead, and remove the parts that they were writing.

    A product that was renamed into place before its commit needs no special care: the exposure runs again, and the
    same inputs give the same bytes under the same name.
    """
    buried = bury(ledger)
    alive = {entry.token for entry in ledger.running()}
    alive |= {record.token for record in ledger.archives(states=[ArchiveState.RUNNING])}
    nights = {(record.camera, record.night) for record in ledger.open_nights() if record.camera in cameras}
    nights |= {(entry.camera, entry.night) for entry in buried.exposures}
    parts: list[Path] = []
    for camera, night in sorted(nights):
        directory = layout.night(camera, night)
        if directory.is_dir():
            parts += remove_stale_parts(directory, alive)
    if parts:
        _log.warning("%d half-written files were removed", len(parts))
    return Recovered(buried.exposures, buried.stages, tuple(parts))


def bury(ledger: Ledger) -> Recovered:
    """Revoke the leases of owners that are known to be dead; their attempts do not count."""
    dead = [owner for owner in ledger.holders() if _is_dead(owner)]
    if not dead:
        return Recovered()
    exposures = ledger.revoke(owners=dead, reason="its holder died")
    stages = ledger.revoke_stages(owners=dead)
    archives = ledger.revoke_archives(owners=dead, reason="its holder died")
    counts = (len(exposures), len(stages), len(archives))
    _log.warning("taken back from the dead: %d exposures, %d stages, %d archives", *counts)
    return Recovered(exposures, stages)


def closed_groups(ledger: Ledger, camera: Camera, nights: Iterable[NightRecord]) -> tuple[ReadyGroup, ...]:
    """Return the closed sets of open nights, so that a late member still finds its own after a restart."""
    rules = {rule.name: rule for rule in camera.groups}
    found = []
    for night in nights:
        if night.camera != camera.name:
            continue
        for name, rule in rules.items():
            for record in ledger.groups(night.night, camera.name, rule=name):
                members = ledger.refs(record.members)
                if members:
                    found.append(
                        ReadyGroup(
                            group_id=record.group_id,
                            rule=rule,
                            members=members,
                            complete=record.complete,
                            revision=record.revision,
                            reason=record.reason,
                        )
                    )
    return tuple(found)


def _is_dead(owner: str) -> bool:
    try:
        return Owner.parse(owner).is_dead
    except Misconfigured:
        _log.warning("nothing is known about lease holder %r; its leases expire by themselves", owner)
        return False
