"""From a sighted file to an exposure that is complete: sensors, checks, and their entries in the ledger."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nightglass.dialects import describe
from nightglass.errors import Misconfigured, NightglassError, Rejected, Retryable
from nightglass.fitsio import inspect
from nightglass.model import ExposureRef, Night, Sighting, State
from nightglass.nights import night_of
from nightglass.sensors.transfer import TransferBench
from nightglass.watch.sources import Place

if TYPE_CHECKING:
    from nightglass.config import Camera, Observatory
    from nightglass.ledger import Entry, Ledger

__all__ = ["Intake"]

_log = logging.getLogger(__name__)

_BITE = 100
"""Sightings in one transaction: enough for a burst of thousands, few enough to keep the ledger free for others."""
_BITES = 10
"""In one call, so that a burst does not keep the watch from its other work."""
_OUTCOMES = 10
"""Of checks, in one call: while a burst is checked, what is complete goes on to the workers."""

_Outcome = ExposureRef | NightglassError


class Intake:
    """Takes sightings in, has them checked, and records what comes of it.

    `sight` is for the threads of sensors; everything else is called from the one thread of the watch. What cannot be
    recorded, because the ledger is locked, stays here and is tried again by the next `work`.

    Parameters
    ----------
    wake : callable
        Called, from any thread, when there is something to `work` on.
    on_complete : callable
        Told the entry of each exposure that is complete and new.

    Attributes
    ----------
    touched : set of (str, Night)
        Cameras and nights of all files that were sighted.
    """

    def __init__(
        self,
        ledger: Ledger,
        observatory: Observatory,
        *,
        wake: Callable[[], None],
        on_complete: Callable[[Entry], None],
    ) -> None:
        self._ledger = ledger
        self._observatory = observatory
        self._wake = wake
        self._on_complete = on_complete
        self._sighted: deque[tuple[Place, Sighting]] = deque()
        self._checked: deque[tuple[Camera, Sighting, _Outcome]] = deque()
        self._benches: dict[Place, TransferBench[ExposureRef]] = {}
        self._entries: dict[tuple[str, Path], Entry] = {}
        self._bite = _BITE
        self.touched: set[tuple[str, Night]] = set()

    def __len__(self) -> int:
        """Return the number of files that are neither complete nor rejected yet."""
        return len(self._sighted) + len(self._entries)

    def sight(self, place: Place, sighting: Sighting) -> None:
        """Take a sighting; returns at once, safe from any thread."""
        self._sighted.append((place, sighting))
        self._wake()

    def work(self) -> None:
        """Record what came in since the last call, or some of it: see `busy`.

        Raises
        ------
        Retryable
            If the ledger is busy; nothing is lost.
        """
        for _ in range(min(len(self._checked), _OUTCOMES)):
            checked = self._checked.popleft()
            try:
                self._conclude(*checked)
            except Retryable:
                self._checked.appendleft(checked)
                raise
        for _ in range(_BITES):
            if not self._record_some():
                break

    @property
    def busy(self) -> bool:
        """Whether `work` would find something now."""
        return bool(self._sighted or self._checked)

    def resume(self, entry: Entry, place: Place) -> None:
        """Check the file of an entry that is SEEN in the ledger but not on the bench: after a restart, or a retry."""
        if (entry.camera, entry.path) in self._entries:
            return
        try:
            status = entry.path.stat()
        except OSError as error:
            _log.debug("%s is not there to be checked: %s", entry.path, error)
            return  # reconciliation names it; if it comes back, the sensor sees it
        seen_at = datetime.fromtimestamp(entry.times.get("seen", time.time()), UTC)
        self._offer(place, Sighting.of(entry.path, status, seen_at), entry)

    def retire(self, places: Collection[Place]) -> None:
        """Stop the benches of places that are not watched any more, once nothing is left on them."""
        for place in [place for place, bench in self._benches.items() if place not in places and not bench.pending]:
            self._benches.pop(place).stop()

    def stop(self) -> None:
        """Stop all checks."""
        for bench in self._benches.values():
            bench.stop()
        for bench in self._benches.values():
            bench.join(1.0)

    def _record_some(self) -> bool:
        """Record sightings of one place and night, up to a bite; return whether there were any."""
        if not self._sighted:
            return False
        place, night, bite = self._next_bite()
        try:
            entries = self._ledger.see_many(bite, camera=place.camera.name, night=night)
        except Retryable:
            raise
        except Exception:
            # one of them cannot be recorded at all: the others go alone, and that one is left out with an alarm
            if len(bite) == 1:
                self._sighted.popleft()
                self._bite = _BITE
            else:
                self._bite = 1
            raise
        for sighting, entry in zip(bite, entries, strict=True):
            self._sighted.popleft()
            self.touched.add((entry.camera, entry.night))
            if entry.state is State.SEEN:
                self._offer(place, sighting, entry)
        return True

    def _next_bite(self) -> tuple[Place, Night, list[Sighting]]:
        place, first = self._sighted[0]
        night = self._around(place, first)
        bite = []
        for index in range(min(len(self._sighted), self._bite)):  # by index: sensors append meanwhile
            other, sighting = self._sighted[index]
            if other != place or self._around(other, sighting) != night:
                break
            bite.append(sighting)
        return place, night, bite

    def _around(self, place: Place, sighting: Sighting) -> Night:
        """Return the night under which a file is filed until its header was read."""
        if place.night is not None:
            return place.night
        return night_of(datetime.fromtimestamp(sighting.mtime_ns / 1e9, UTC), self._observatory.site)

    def _offer(self, place: Place, sighting: Sighting, entry: Entry) -> None:
        self._entries[entry.camera, sighting.path] = entry
        self._bench(place).offer(sighting)

    def _bench(self, place: Place) -> TransferBench[ExposureRef]:
        bench = self._benches.get(place)
        if bench is None:
            # one bench a place: an archive that is copied in slowly does not hold up another camera
            bench = self._benches[place] = TransferBench(
                partial(self._check, place),
                on_complete=partial(self._hear, place.camera),
                on_failed=partial(self._hear, place.camera),
                transfer_timeout_s=place.source.transfer_timeout_s,
            )
            bench.start()
        return bench

    def _check(self, place: Place, path: Path) -> ExposureRef:
        """Prove a file whole and read its header; called in a thread of the bench."""
        inspection = inspect(path, place.camera, self._observatory.limits)
        return describe(
            path,
            inspection.headers,
            place.camera,
            site=self._observatory.site,
            night=place.night,
            content_id=inspection.content_id,
            size=inspection.size,
            mtime=path.stat().st_mtime,
        )

    def _hear(self, camera: Camera, sighting: Sighting, outcome: _Outcome) -> None:
        self._checked.append((camera, sighting, outcome))
        self._wake()

    def _conclude(self, camera: Camera, sighting: Sighting, outcome: _Outcome) -> None:
        key = (camera.name, sighting.path)
        entry = self._entries.get(key)
        if entry is None:
            return  # concluded by a check of the same file before
        if (sighting.size, sighting.mtime_ns) != (entry.size, entry.mtime_ns):
            if _state(sighting.path) != (sighting.size, sighting.mtime_ns):
                return  # an outcome of the past: what is there now is on the bench, or will be sighted
            # it grew while it was checked; recorded now, or its last event would look like a replacement
            entry = self._ledger.see(sighting, camera=camera.name, night=entry.night)
        if isinstance(outcome, ExposureRef):
            entry = self._ledger.complete(entry.key, outcome, revision=entry.revision)
        else:
            entry = self._reject(entry, outcome)
        del self._entries[key]
        self.touched.add((entry.camera, entry.ref.night if entry.ref else entry.night))
        _log.info("%s: %s%s", sighting.path, entry.state, f" ({entry.reason})" if entry.reason else "")
        if entry.state is State.COMPLETE:
            self._on_complete(entry)

    def _reject(self, entry: Entry, error: NightglassError) -> Entry:
        if not isinstance(error, (Rejected, Misconfigured)):
            error = Rejected(error.message, remedy=error.remedy or "it is tried again when it changes")
        return self._ledger.reject(entry.key, error, revision=entry.revision)


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
