"""Exposures and frames of one builder, for many threads: each change is on the disk before it is seen.

Changes of one frame follow each other; those of different frames do not wait for one another. The lock is held only
while a dictionary changes, never while pixels move or a disk syncs.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from nightglass.builder import journal
from nightglass.builder.gates import Gates
from nightglass.builder.instructions import merged
from nightglass.builder.landing import Delivery, Opening, content_sum, recorded
from nightglass.builder.lending import Lending
from nightglass.builder.records import ExposureState, ExposureView, ExtensionRecord, FrameState, FrameView
from nightglass.builder.refusals import Complete, Purged, Unknown
from nightglass.builder.regaining import Regained, placed, regaining
from nightglass.builder.spool import Spool
from nightglass.builder.structure import Verdict, admit, is_saved, opened, purged, with_extension, without_extension
from nightglass.errors import Retryable

__all__ = ["Holdings"]

T = TypeVar("T")

CheckFunction = Callable[[FrameView], None]
"""Told a frame that is about to be dropped; raises if it may not be."""
ChangeFunction = Callable[[FrameView | None, FrameView], None]
"""Told a frame as it was (None: it is new) and as it is; quick, and in the order of the changes of each frame."""


class Holdings:
    """What the builder holds.

    Parameters
    ----------
    spool : Spool
        The files.
    on_change : callable
        See `ChangeFunction`.
    """

    def __init__(self, spool: Spool, *, on_change: ChangeFunction) -> None:
        self._spool = spool
        self._on_change = on_change
        self._changed = threading.Condition()
        self._exposures: dict[int, ExposureView] = {}
        self._frames: dict[int, dict[int, FrameView]] = {}
        self._lending = Lending()
        self._gate = Gates()

    # reading
    def exposures(self) -> tuple[ExposureView, ...]:
        """Return all exposures, in the order in which they were opened."""
        with self._changed:
            return tuple(self._exposure(expid) for expid in self._exposures)

    def exposure(self, expid: int) -> ExposureView:
        """Return an exposure.

        Raises
        ------
        Unknown
        """
        found = self.find_exposure(expid)
        if found is None:
            message = f"there is no exposure {expid}"
            raise Unknown(message, remedy="assign a frame of it first")
        return found

    def find_exposure(self, expid: int) -> ExposureView | None:
        """Return an exposure, if it is there."""
        with self._changed:
            return self._exposure(expid) if expid in self._exposures else None

    def frames(self, expid: int | None = None) -> tuple[FrameView, ...]:
        """Return the frames of an exposure, or all, in order."""
        with self._changed:
            expids = list(self._frames) if expid is None else [expid]
            return tuple(frame for each in expids for _, frame in sorted(self._frames.get(each, {}).items()))

    def frame(self, expid: int, frame: int) -> FrameView:
        """Return a frame.

        Raises
        ------
        Unknown
        """
        found = self.find(expid, frame)
        if found is None:
            message = f"there is no frame {frame} of exposure {expid}"
            raise Unknown(message, remedy="assign it first")
        return found

    def find(self, expid: int, frame: int) -> FrameView | None:
        """Return a frame, if it is there."""
        with self._changed:
            return self._frames.get(expid, {}).get(frame)

    def wait(self, expid: int, frame: int, ready: Callable[[FrameView], bool], timeout_s: float) -> FrameView:
        """Wait until a frame is as somebody wants it, or for so long; return it as it is then.

        Raises
        ------
        Unknown
            If it is cleared meanwhile.
        """
        until = time.monotonic() + timeout_s
        with self._changed:
            while (view := self._frames.get(expid, {}).get(frame)) is not None and not ready(view):
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
        return self.frame(expid, frame)

    @contextlib.contextmanager
    def lent(self, expid: int, frame: int) -> Iterator[FrameView]:
        """Give a frame whose files stay while the block runs.

        Raises
        ------
        Unknown
        """
        with self._lending.lent(expid, frame):
            yield self.frame(expid, frame)

    # changing
    def change(
        self, expid: int, frame: int, transition: Callable[[FrameView], FrameView], *, opening: Opening | None = None
    ) -> FrameView:
        """Make the next state of a frame out of the present one; if that needs pixels, they are brought back.

        Parameters
        ----------
        transition : callable
            Pure; what it raises goes through, and nothing has changed.
        opening : Opening, optional
            Opens the frame if it is not there.

        Raises
        ------
        Unknown
            If it is not there.
        Complete
            If it cannot be opened, because its exposure is complete.
        Purged
            If the pixels are needed and are in no file any more.
        Retryable
            If the file system refuses.
        """

        def changed(regained: Regained | None) -> FrameView:
            with self._gate(expid, frame):
                before, current = self._current(expid, frame, opening, regained)
                after = transition(current)
                if after != before:
                    self._put(before, after)
                return after

        return self._with_pixels(expid, frame, changed)

    def land(
        self, expid: int, frame: int, delivery: Delivery, *, primary_name: str, opening: Opening | None
    ) -> tuple[ExtensionRecord, bool]:
        """Take an extension into a frame; returns it, and whether it was there already.

        Raises
        ------
        Unknown, Complete, Exists, Purged, Rejected
            If it is refused.
        Retryable
            If the file system refuses.
        """
        try:
            described = delivery.described

            def landed(regained: Regained | None) -> tuple[ExtensionRecord, bool]:
                with self._gate(expid, frame):
                    before, current = self._current(expid, frame, opening, regained)
                    return self._land(before, current, delivery, described, primary_name, opening)

            return self._with_pixels(expid, frame, landed)
        finally:
            if delivery.body is not None:
                self._spool.drop(delivery.body)  # nothing, if it has got its name

    def _land(
        self,
        before: FrameView | None,
        current: FrameView,
        delivery: Delivery,
        described: ExtensionRecord | None,
        primary_name: str,
        opening: Opening | None,
    ) -> tuple[ExtensionRecord, bool]:
        there = next((item for item in current.extensions if item.name == delivery.name), None)
        sha256 = content_sum(delivery.body, delivery.cards)
        if admit(current, delivery.name, sha256, clobber=delivery.clobber) is Verdict.DUPLICATE and there:
            return there, True
        now = time.time()
        if opening is not None and "assigned" not in current.times and current.state is FrameState.OPEN:
            current = replace(current, deadline=opening.deadline)  # it is built when nothing comes any more
        current = replace(current, instructions=merged(current.instructions, delivery.instructions))
        record = recorded(self._spool, current, described, delivery, now)
        new = there is None or there.path != record.path
        try:
            self._put(before, with_extension(current, record, primary_name=primary_name, now=now))
        except Retryable:
            if new:
                self._spool.remove([record.path])
            raise
        if there is not None and new:
            self._spool.remove([there.path])
        return record, False

    def change_exposure(self, expid: int, transition: Callable[[ExposureView], ExposureView]) -> ExposureView:
        """Make the next state of an exposure out of the present one.

        Raises
        ------
        Unknown
        Retryable
            If the file system refuses.
        """
        with self._gate(expid, -1):
            before = self.exposure(expid)
            after = transition(before)
            if after != before:
                journal.write_exposure(after, durable=self._spool.policy.durable)
                with self._changed:
                    self._exposures[expid] = after
                    self._changed.notify_all()
            return self.exposure(expid)

    def give_back(self, expid: int, frame: int) -> int:
        """Delete the pixels of a frame that is saved, and note it; returns the bytes, 0 if somebody reads them.

        Raises
        ------
        Unknown
        Retryable
            If the file system refuses.
        """
        with self._lending.withdrawn(expid, frame) as free, self._gate(expid, frame):
            view = self.frame(expid, frame)
            if not free or view.purged or not is_saved(view):  # something may have come since it was looked at
                return 0
            view = self.change(expid, frame, purged)
            return self._spool.remove(record.path for record in view.extensions)

    def drop_extension(
        self, expid: int, frame: int, name: str, *, primary_name: str, check: CheckFunction, wait_s: float = 0.0
    ) -> None:
        """Forget an extension and delete its file; wait so long for who reads the frame.

        Raises
        ------
        Unknown
        Retryable
            If somebody still reads the frame, or the file system refuses.
        """
        with self._withdrawn(expid, frame, wait_s) as view:
            check(view)
            self.change(expid, frame, lambda current: without_extension(current, name, primary_name=primary_name))
            self._spool.remove(record.path for record in view.extensions if record.name == name)

    def drop_frame(self, expid: int, frame: int, *, check: CheckFunction, wait_s: float = 0.0) -> int:
        """Forget a frame and delete its files; wait so long for who reads it; returns how many extensions that were.

        Raises
        ------
        Unknown, Retryable
            As `drop_extension`.
        """
        with self._withdrawn(expid, frame, wait_s) as view:
            check(view)
            with self._changed:
                del self._frames[expid][frame]
                self._changed.notify_all()
            self._spool.remove_tree(view.directory, [record.path for record in view.extensions])
            return 0 if view.purged else len(view.extensions)

    def drop_exposure(self, expid: int, *, check: CheckFunction, wait_s: float = 0.0) -> int:
        """Forget an exposure with all its frames; returns how many extensions that were.

        Raises
        ------
        Unknown
        Retryable
            If somebody still reads one of them, or frames come.
        """
        count = sum(self.drop_frame(expid, frame, check=check, wait_s=wait_s) for frame in self.exposure(expid).frames)
        with self._gate(expid, -1):  # not before: who opens a frame holds the gate of the frame, and waits for this one
            view = self.exposure(expid)
            with self._changed:
                if self._frames.get(expid):
                    message = f"frames of exposure {expid} come while it is cleared"
                    raise Retryable(message, remedy="clear it again in a moment")
                self._exposures.pop(expid, None)
                self._frames.pop(expid, None)
                self._changed.notify_all()
            self._spool.remove_tree(view.directory, ())
            return count

    def adopt(self, exposure: ExposureView, frames: list[FrameView]) -> None:
        """Take in what an earlier process left."""
        with self._changed:
            self._exposures[exposure.expid] = exposure
            self._frames[exposure.expid] = {frame.frame: frame for frame in frames}
        held = sum(item.size for frame in frames if not frame.purged for item in frame.extensions)
        self._spool.adopt(held)

    def _exposure(self, expid: int) -> ExposureView:
        frames = self._frames.get(expid, {})
        saved = frozenset(number for number, frame in frames.items() if frame.extensions and is_saved(frame))
        return replace(self._exposures[expid], frames=tuple(sorted(frames)), saved=saved)

    def _opened(self, expid: int, frame: int, opening: Opening) -> FrameView:
        with self._gate(expid, -1):
            exposure = self._exposures.get(expid)
            if exposure is None:
                directory = self._spool.exposure_directory(opening.night, expid)
                exposure = ExposureView(
                    expid=expid,
                    night=opening.night,
                    state=ExposureState.OPEN,
                    instructions=opening.instructions,
                    directory=directory,
                    opened_at=time.time(),
                )
                journal.write_exposure(exposure, durable=self._spool.policy.durable)
                with self._changed:
                    self._exposures[expid] = exposure
            if exposure.state is not ExposureState.OPEN:
                message = f"exposure {expid} is complete, frame {frame} is not taken"
                raise Complete(message, remedy="clear the exposure first if it should be collected anew")
            directory = self._spool.frame_directory(exposure.night, expid, frame)
            return opened(
                expid, frame, directory=directory, deadline=opening.deadline, instructions=exposure.instructions
            )

    def _current(
        self, expid: int, frame: int, opening: Opening | None, regained: Regained | None
    ) -> tuple[FrameView | None, FrameView]:
        """Return a frame as it is (None: it is not there), and as a change finds it."""
        before = self.find(expid, frame)
        if before is None and opening is not None:
            return None, self._opened(expid, frame, opening)
        return before, placed(self._spool, self.frame(expid, frame), regained)

    def _with_pixels(self, expid: int, frame: int, work: Callable[[Regained | None], T]) -> T:
        """Do something to a frame; where that needs pixels which were given back, bring them back first.

        They are copied without the gate of the frame: what makes room for them takes the gates of other frames.
        """
        try:
            return work(None)
        except Purged:
            view = self.frame(expid, frame)
            with regaining(self._spool, view) as regained:
                try:
                    return work(regained)
                finally:
                    if (self.find(expid, frame) or view).purged:  # it was refused all the same
                        self._spool.remove(record.path for record in view.extensions)

    def _put(self, before: FrameView | None, after: FrameView) -> None:
        with contextlib.ExitStack() as stack:
            if before is None:
                stack.enter_context(self._gate(after.expid, -1))
                if after.expid not in self._exposures or not all(item.path.exists() for item in after.extensions):
                    message = f"exposure {after.expid} was cleared while frame {after.frame} of it was opened"
                    raise Retryable(message, remedy="send it again")
            journal.write_frame(after, durable=self._spool.policy.durable)
            with self._changed:
                self._frames.setdefault(after.expid, {})[after.frame] = after
                self._changed.notify_all()
        self._on_change(before, after)

    @contextlib.contextmanager
    def _withdrawn(self, expid: int, frame: int, wait_s: float) -> Iterator[FrameView]:
        """Give a frame that nobody reads or changes while the block runs."""
        with self._lending.withdrawn(expid, frame, wait_s=wait_s) as free:
            if not free:
                message = f"frame {expid}/{frame} is being written, sent or archived"
                raise Retryable(message, remedy="clear it again in a moment")
            with self._gate(expid, frame):
                yield self.frame(expid, frame)
