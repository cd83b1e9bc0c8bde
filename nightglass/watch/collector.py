"""From complete exposures to queued groups: the group engines of all cameras, and the record of what they say."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from nightglass.errors import Retryable
from nightglass.groups import GroupEngine, ReadyGroup
from nightglass.ledger import GroupRecord
from nightglass.model import CALIBRATION_KINDS, Night
from nightglass.watch.dispatch import Dispatch, ReadyItem

if TYPE_CHECKING:
    from nightglass.config import Camera
    from nightglass.ledger import Entry, Ledger

__all__ = ["Collector"]

_log = logging.getLogger(__name__)

_OVERHEAD_S = 5.0
"""Read-out and transfer of one exposure, added to the time-out of its group."""


class Collector:
    """Groups what is complete. Times are those of the watch's own clock.

    Parameters
    ----------
    cameras : mapping of str to Camera
        By name.
    queue : Dispatch
        Where ready groups go once the ledger has them.
    """

    def __init__(self, ledger: Ledger, cameras: Mapping[str, Camera], queue: Dispatch) -> None:
        self._ledger = ledger
        self._queue = queue
        self._engines = {name: GroupEngine(camera.groups, overhead_s=_OVERHEAD_S) for name, camera in cameras.items()}
        self._ready: deque[ReadyGroup] = deque()

    def __len__(self) -> int:
        """Return the number of exposures that wait for others of their group."""
        return sum(len(engine) for engine in self._engines.values())

    def add(self, entry: Entry, now: float) -> None:
        """Take in an exposure that is complete; one that is known changes nothing."""
        if entry.ref is not None and entry.camera in self._engines:
            self._ready.extend(self._engines[entry.camera].add(entry.ref, now))

    def restore(self, camera: str, closed: Iterable[ReadyGroup], entries: Iterable[Entry], now: float) -> None:
        """Take up work after a restart: sets that are closed, then exposures that are in none."""
        refs = [entry.ref for entry in entries if entry.ref is not None]
        self._ready.extend(self._engines[camera].restore(refs, now, closed=closed))

    def tick(self, now: float) -> None:
        """Close groups whose time-out is over."""
        for engine in self._engines.values():
            self._ready.extend(engine.tick(now))

    def flush(self, camera: str | None = None, night: Night | None = None) -> None:
        """Close all groups, of one camera and night or of all: nothing more will come."""
        for name, engine in self._engines.items():
            if camera in (None, name):
                self._ready.extend(engine.flush(night))

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do."""
        deadlines = [engine.next_deadline() for engine in self._engines.values()]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def work(self, now: float) -> None:
        """Record groups that are ready, and queue them.

        Raises
        ------
        Retryable
            If the ledger is busy; what was not recorded waits for the next call.
        """
        while self._ready:
            group = self._ready.popleft()
            try:
                self._ledger.group(GroupRecord.of(group))
            except Retryable:
                self._ready.appendleft(group)
                raise
            self._queue.add(_item(group, now))
            if group.rule is not None:
                _log.info("group %s: %d members %s", group.group_id, len(group.members), group.reason)


def _item(group: ReadyGroup, now: float) -> ReadyItem:
    return ReadyItem(
        group_id=group.group_id,
        camera=group.camera,
        night=group.night,
        started_at=max(ref.started_at.timestamp() for ref in group.members),
        ready_at=now,
        calibration=all(ref.kind in CALIBRATION_KINDS for ref in group.members),
        members=tuple(ref.exposure_id for ref in group.members),
        rule=group.rule.name if group.rule else "",
    )
