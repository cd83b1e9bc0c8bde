"""Opens nights, and sees to it that their stages are run by somebody."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from nightglass.model import Night, Stage, State
from nightglass.watch.duetimes import due_times

if TYPE_CHECKING:
    from nightglass.config import Observatory
    from nightglass.ledger import Ledger, NightRecord, StageRecord
    from nightglass.watch.alarms import Alarms

__all__ = ["NightKeeper"]

_log = logging.getLogger(__name__)

_SECOND_FINAL = timedelta(minutes=15)
"""From the first late exposure of a closed night to its next final."""

_BUSY = (State.COMPLETE, State.GROUPED, State.RUNNING)

NightFunction = Callable[["NightRecord"], None]


class NightKeeper:
    """The nights of a watch.

    Parameters
    ----------
    ledger : Ledger
        Where nights and due times are kept; other processes may open nights there, too.
    observatory : Observatory
        For the site, and the rules when stages are due.
    cameras : collection of str
        Nights of other cameras are somebody else's.
    fallback_s : float
        How long after it is due a stage is left to others.
    alarms : Alarms
        Told about rules that cannot be kept.
    on_opened : callable
        Told each open night once, in a thread of its own: it may take its time, and may fail.
    """

    def __init__(
        self,
        ledger: Ledger,
        observatory: Observatory,
        *,
        cameras: frozenset[str],
        fallback_s: float,
        alarms: Alarms,
        on_opened: NightFunction | None = None,
    ) -> None:
        self._ledger = ledger
        self._rule = observatory.night
        self._site = observatory.site
        self._cameras = cameras
        self._fallback_s = fallback_s
        self._alarms = alarms
        self._on_opened = on_opened
        self._announced: set[tuple[str, Night]] = set()
        self._open: dict[tuple[str, Night], NightRecord] = {}
        self._closed: set[tuple[str, Night]] = set()

    @property
    def open_nights(self) -> tuple[NightRecord, ...]:
        """The open nights, as of the last `refresh`, earliest first."""
        return tuple(self._open.values())

    def refresh(self) -> None:
        """Read from the ledger which nights are open; other processes open and close nights, too."""
        records = [record for record in self._ledger.open_nights() if record.camera in self._cameras]
        before = set(self._open)
        self._open = {(record.camera, record.night): record for record in records}
        self._closed |= before - set(self._open)
        for record in records:
            self._announce(record)

    def open(self, camera: str, night: Night, now: datetime) -> NightRecord:
        """Open a night of a camera if it is not open; due times are computed once and kept.

        A closed night is opened again, for an exposure that came too late for its final: a second final is due
        15 minutes later.
        """
        known = self._open.get((camera, night))
        if known is not None:
            return known
        record = self._ledger.find_night(night, camera)
        if record is None:
            record = self._open_new(camera, night, now)
        elif not record.is_open:
            _log.warning("night %s of camera %s was closed and is opened again", night, camera)
            record = self._ledger.reopen(night, camera, final_due=now + _SECOND_FINAL)
        self._open[camera, night] = record
        self._announce(record)
        return record

    def reopen_if_busy(self, now: datetime) -> None:
        """Open nights again that were closed while exposures of them were still coming in."""
        for camera, night in self._closed:
            counts = self._ledger.counts(night, camera)
            if any(counts[state] for state in _BUSY):
                self.open(camera, night, now)
        self._closed = set()

    def due(self, now: datetime) -> tuple[StageRecord, ...]:
        """Return stages that nobody ran although they have been due for the time left to others."""
        latest = now - timedelta(seconds=self._fallback_s)
        found = self._ledger.stages_due(now=now.timestamp())
        return tuple(record for record in found if record.camera in self._cameras and record.due <= latest)

    def finals_due(self, now: datetime) -> tuple[tuple[str, Night], ...]:
        """Return open nights whose final is due: nothing more is waited for."""
        return tuple(
            (record.camera, record.night) for record in self._open.values() if record.stage(Stage.FINAL).due <= now
        )

    def _open_new(self, camera: str, night: Night, now: datetime) -> NightRecord:
        times = due_times(night, rule=self._rule, site=self._site, opened_at=now)
        if times.problem:
            self._alarms.raise_(f"due/{camera}/{night}", f"Night {night}: due times", times.problem)
        record = self._ledger.open_night(
            night, camera, midway_due=times.midway, final_due=times.final, now=now.timestamp()
        )
        _log.info("night %s of camera %s is open: midway %s, final %s", night, camera, times.midway, times.final)
        return record

    def _announce(self, record: NightRecord) -> None:
        key = (record.camera, record.night)
        if self._on_opened is None or key in self._announced:
            return
        self._announced.add(key)
        threading.Thread(target=self._tell, args=(record,), name=f"opened-{record.night}", daemon=True).start()

    def _tell(self, record: NightRecord) -> None:
        try:
            if self._on_opened is not None:
                self._on_opened(record)
        except Exception:  # noqa: BLE001 - a boundary: the watch runs the stages itself if nobody was told
            _log.exception("nobody could be told that night %s of camera %s is open", record.night, record.camera)
