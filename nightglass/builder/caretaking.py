"""What is given back, deleted and forgotten, each time a frame is through, an exposure archived, or the spool full."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from nightglass.builder.bulletin import Bulletin
from nightglass.builder.holdings import Holdings
from nightglass.builder.records import ExposureView, FrameView
from nightglass.builder.refusals import Unknown, Unsaved
from nightglass.builder.retention import find_old_files, find_surplus, for_room, is_idle, is_there
from nightglass.builder.structure import is_saved
from nightglass.config import BuilderOptions
from nightglass.errors import NightglassError, Retryable

__all__ = ["Caretaker", "refuse_unsaved"]

_log = logging.getLogger(__name__)

_FULL: Final = 0.8
"""How full the spool is when that is told, if nothing can be given back."""


class Caretaker:
    """Keeps the spool, the local files and the memory small; see `nightglass.builder.retention` for the rules."""

    def __init__(
        self,
        holdings: Holdings,
        bulletin: Bulletin,
        *,
        settings: Callable[[FrameView], BuilderOptions],
        held: Callable[[], int],
        limit: Callable[[], int],
        remembered: Callable[[], int],
    ) -> None:
        self._holdings = holdings
        self._bulletin = bulletin
        self._settings = settings
        self._held = held
        self._limit = limit
        self._remembered = remembered
        self._lock = threading.Lock()
        self._complained = False

    def tidy(self) -> None:
        """Give back what is beyond the thresholds; what is not saved stays, and is told."""
        try:
            with self._lock:
                frames = self._by_exposure()
                surplus = find_surplus([views for _, views in frames], self._settings)
                for view in surplus.free:
                    self._give_back(view)
                self._tell(surplus.unsaved)
                self._delete_files(frames)
                self._forget(frames)
        except NightglassError as error:
            _log.warning("the spool cannot be tidied: %s", error)

    def make_room(self, count: int) -> None:
        """Give back so many bytes, oldest first, if that much is saved."""
        for view in for_room([views for _, views in self._by_exposure()], self._settings):
            if count <= 0:
                return
            count -= self._give_back(view)
        if count > 0:
            text = f"the spool is full: {self._held()} of {self._limit()} bytes, and nothing more in it is saved"
            self._bulletin.alarm("spool", text)

    def unsaved(self, expid: int | None = None, frame: int | None = None) -> list[FrameView]:
        """Return frames that lie nowhere else."""
        views = self._holdings.frames(expid)
        return [view for view in views if frame in (None, view.frame) and not is_saved(view)]

    def _by_exposure(self) -> list[tuple[ExposureView, tuple[FrameView, ...]]]:
        return [(exposure, self._holdings.frames(exposure.expid)) for exposure in self._holdings.exposures()]

    def _give_back(self, view: FrameView) -> int:
        exposure = self._holdings.find_exposure(view.expid)
        if exposure is None or not is_there(view, exposure):
            text = (
                f"what frame {view.expid}/{view.frame} was saved as is gone: its pixels stay; write or archive it again"
            )
            self._bulletin.alarm(f"gone {view.expid}/{view.frame}", text)
            return 0
        self._bulletin.all_clear(f"gone {view.expid}/{view.frame}")
        with contextlib.suppress(Unknown):  # it was cleared meanwhile
            freed = self._holdings.give_back(view.expid, view.frame)
            if freed:
                self._bulletin.frame("purged", view, bytes=freed)
            return freed
        return 0

    def _tell(self, unsaved: tuple[FrameView, ...]) -> None:
        if unsaved and not self._complained:  # once while it lasts, whichever frame is the first by now
            first = unsaved[0]
            text = f"frames from {first.expid}/{first.frame} on are beyond the thresholds and not saved: they stay"
            self._bulletin.alarm("unsaved", text)
        if not unsaved:
            self._bulletin.all_clear("unsaved")
        self._complained = bool(unsaved)
        if self._held() < _FULL * self._limit():
            self._bulletin.all_clear("spool")

    def _delete_files(self, frames: list[tuple[ExposureView, tuple[FrameView, ...]]]) -> None:
        for view, files in find_old_files(frames, self._settings):
            for path in files:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    self._bulletin.alarm(f"delete {path.parent}", f"{path} cannot be deleted: {error.strerror}")
                    return
            with contextlib.suppress(Unknown):
                self._holdings.change(view.expid, view.frame, lambda current: replace(current, files=()))
                self._bulletin.frame("deleted", view, files=files)

    def _forget(self, frames: list[tuple[ExposureView, tuple[FrameView, ...]]]) -> None:
        for exposure, views in frames[: -self._remembered()]:
            over = all(is_idle(view) and (view.purged or not view.extensions) for view in views)
            if over and exposure.asked is None:
                with contextlib.suppress(Unknown, Retryable):
                    self._holdings.drop_exposure(exposure.expid, check=_refuse_pixels)


def refuse_unsaved(view: FrameView) -> None:
    """Refuse to drop a frame that lies nowhere else.

    Raises
    ------
    Unsaved
    """
    if not is_saved(view):
        message = f"frame {view.expid}/{view.frame} lies nowhere else"
        raise Unsaved(message, remedy='write, send to the ledger or archive it, or say unsaved="discard"')


def _refuse_pixels(view: FrameView) -> None:
    if view.extensions and not view.purged:
        message = f"something came to frame {view.expid}/{view.frame} just now"
        raise Retryable(message, remedy="it is looked at again when it is through")
