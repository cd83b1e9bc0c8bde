"""Light curves while the night goes on: each time step is added soon after it is reduced."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from nightglass.errors import NightglassError
from nightglass.layout import Layout
from nightglass.model import Night, ProductKind, State

if TYPE_CHECKING:
    from nightglass.config import Camera
    from nightglass.ledger import Entry, Ledger
    from nightglass.lightcurves import CurveJournal, LightCurves

__all__ = ["CurveDesk"]

_log = logging.getLogger(__name__)

_SETTLE_S = 1.0
"""So long a time step waits for earlier ones whose reduction took longer."""
_LOOK_S = 0.25
_OPEN_NIGHTS = 3
"""Of each camera, whose light curves are kept in memory."""
_TIDY_S = 30.0
_LAST_S = 10.0
_STEP_S = 2.0
"""In which the step that is at hand is added even on a busy machine."""


@dataclass(slots=True)
class _Book:
    """The light curves of a night, in memory and on disk."""

    curves: LightCurves
    journal: CurveJournal


class CurveDesk:
    """Adds reduced exposures of cameras with ``[lightcurves]`` to tables on disk, in a thread of its own.

    Steps are added in the order of time, as far as they are reduced within a second of one another; one that comes
    later is added at the end. Midway and final make all of them anew, in order, from the products, and final removes
    these: to a night that is closed nothing is added. What is on disk survives any kill, and what a watch did not come
    to is added by the next one, once.

    Parameters
    ----------
    cameras : mapping of str to Camera
        By their own names.
    """

    def __init__(self, cameras: Mapping[str, Camera], *, ledger: Ledger, layout: Layout) -> None:
        self._cameras = {name: camera for name, camera in cameras.items() if camera.lightcurves is not None}
        self._ledger = ledger
        self._layout = layout
        self._noted: queue.SimpleQueue[tuple[float, Entry]] = queue.SimpleQueue()
        self._pending: dict[tuple[str, Night], dict[str, tuple[float, Entry]]] = {}
        self._books: dict[tuple[str, Night], _Book] = {}
        self._tidy_at = 0.0
        self._stopping, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="light-curves", daemon=True)

    def start(self) -> None:
        """Begin, with what an earlier watch left of the open nights; without a camera that wants it nothing begins."""
        if not self._cameras:
            return
        for record in self._ledger.open_nights():
            if record.camera in self._cameras:
                self.note(self._ledger.entries(record.night, record.camera, [State.REDUCED]))
        self._thread.start()

    def note(self, entries: Iterable[Entry]) -> None:
        """Note exposures that are reduced; all others are left out. Returns at once."""
        now = time.monotonic()
        for entry in entries:
            if entry.camera in self._cameras and entry.state is State.REDUCED and entry.ref is not None:
                self._noted.put((now, entry))

    def stop(self, *, hurry: Callable[[], bool]) -> None:
        """End, after what was noted is added or there is no time for it: the next watch does the rest."""
        self._stopping.set()
        end = time.monotonic() + _LAST_S
        while self._thread.is_alive() and not hurry() and time.monotonic() < end:
            self._thread.join(_LOOK_S)
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(_STEP_S)

    def _run(self) -> None:
        last = False
        while not last:
            last = self._stopping.is_set()
            self._take_in(wait_s=0.0 if last else _LOOK_S)
            for key in list(self._pending):
                try:
                    self._proceed(key, settled=float("inf") if last else time.monotonic() - _SETTLE_S)
                except Exception:  # noqa: BLE001 - a boundary: without light curves the night goes on, and midway makes them
                    _log.exception("the light curves of %s, night %s, cannot be gone on with now", *key)
                    self._forget(key)
            if time.monotonic() >= self._tidy_at:
                self._tidy()
        for key in list(self._books):
            self._forget(key)

    def _tidy(self) -> None:
        """Close the files of nights that are over."""
        self._tidy_at = time.monotonic() + _TIDY_S
        try:
            over = [key for key in self._books if self._is_closed(key)]
        except NightglassError as error:
            _log.warning("light curves of closed nights stay open for now: %s", error)
            return
        for key in over:
            self._forget(key)

    def _is_closed(self, key: tuple[str, Night]) -> bool:
        camera, night = key
        record = self._ledger.find_night(night, camera)
        return record is not None and not record.is_open

    def _take_in(self, *, wait_s: float) -> None:
        try:
            noted = self._noted.get(timeout=wait_s) if wait_s else self._noted.get_nowait()
            while True:
                self._pending.setdefault((noted[1].camera, noted[1].night), {})[noted[1].exposure_id] = noted
                noted = self._noted.get_nowait()
        except queue.Empty:
            return

    def _proceed(self, key: tuple[str, Night], *, settled: float) -> None:
        """Add the steps that have waited long enough, and with them all that are earlier."""
        pending = self._pending[key]
        until = max((_began(entry) for noted_at, entry in pending.values() if noted_at <= settled), default=None)
        if until is None:
            return
        if self._is_closed(key):
            del self._pending[key]
            self._forget(key)
            return
        due = sorted((entry for _, entry in pending.values() if _began(entry) <= until), key=_began)
        for entry in due:
            if self._over.is_set():
                return
            del pending[entry.exposure_id]
            self._add(key, entry)
        if not pending:
            del self._pending[key]

    def _add(self, key: tuple[str, Night], entry: Entry) -> None:
        from nightglass.lightcurves import open_frames, remark_outliers

        book = self._book(key)
        if entry.exposure_id in book.curves and entry.revision == 1:
            return
        paths = [
            product.path
            for product in self._ledger.products_of(entry.exposure_id)
            if product.kind is ProductKind.REDUCED
        ]
        try:
            for path in paths[:1]:
                with open_frames(path) as frames:
                    additions = book.curves.add(entry.exposure_id, _began(entry), frames)
                book.journal.append(additions)
                if additions.outliers:
                    remark_outliers(self._ledger, [entry], {entry.exposure_id: additions.outliers})
        except NightglassError as error:
            _log.warning("%s is not in the light curves before midway: %s", entry.exposure_id, error)
            self._forget(key)  # memory and disk may differ now

    def _book(self, key: tuple[str, Night]) -> _Book:
        from nightglass.lightcurves import CurveJournal, LightCurves, live_paths

        if key not in self._books:
            while len(self._books) >= _OPEN_NIGHTS * len(self._cameras):
                self._forget(min(self._books, key=lambda other: other[1]))
            rule = self._cameras[key[0]].lightcurves
            assert rule is not None
            book = _Book(LightCurves(rule), CurveJournal(*live_paths(*key, self._layout)))
            self._books[key] = book
            book.journal.replay(book.curves)
        return self._books[key]

    def _forget(self, key: tuple[str, Night]) -> None:
        book = self._books.pop(key, None)
        if book is not None:
            book.journal.close()


def _began(entry: Entry) -> datetime:
    assert entry.ref is not None
    return entry.ref.started_at
