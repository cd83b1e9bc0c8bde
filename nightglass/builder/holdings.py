"""Exposures and frames of one builder, for many threads: each change is on the disk before it is seen.

Changes of one frame follow each other; those of different frames do not wait for one another. The lock is held only
while a dictionary changes, never while pixels move or a disk syncs.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from nightglass.builder import journal
from nightglass.builder.gates import Gates
from nightglass.builder.headertext import merged_text
from nightglass.builder.instructions import merged
from nightglass.builder.landing import Delivery, Opening, content_sum, describe
from nightglass.builder.records import (
    ExposureState,
    ExposureView,
    ExtensionRecord,
    FrameState,
    FrameView,
)
from nightglass.builder.refusals import Complete, Unknown
from nightglass.builder.spool import Spool
from nightglass.builder.structure import Verdict, admit, is_saved, opened, purged, with_extension, without_extension
from nightglass.errors import Rejected, Retryable

__all__ = ["Holdings"]

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
        self._lent: Counter[tuple[int, int]] = Counter()
        self._going: set[tuple[int, int]] = set()
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
        key = expid, frame
        with self._changed:
            self._changed.wait_for(lambda: key not in self._going)
            self._lent[key] += 1
        try:
            yield self.frame(expid, frame)
        finally:
            with self._changed:
                self._lent[key] -= 1
                if not self._lent[key]:
                    del self._lent[key]

    # changing
    def change(
        self, expid: int, frame: int, transition: Callable[[FrameView], FrameView], *, opening: Opening | None = None
    ) -> FrameView:
        """Make the next state of a frame out of the present one.

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
        Retryable
            If the file system refuses.
        """
        with self._gate(expid, frame):
            before = self.find(expid, frame)
            current = self.frame(expid, frame) if opening is None else before or self._opened(expid, frame, opening)
            after = transition(current)
            if after != before:
                self._put(before, after)
            return after

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
            described = describe(delivery.body, delivery.name) if delivery.body is not None else None
            with self._gate(expid, frame):
                before = self.find(expid, frame)
                current = self.frame(expid, frame) if opening is None else before or self._opened(expid, frame, opening)
                there = next((item for item in current.extensions if item.name == delivery.name), None)
                sha256 = content_sum(delivery.body, delivery.cards)
                if admit(current, delivery.name, sha256, clobber=delivery.clobber) is Verdict.DUPLICATE and there:
                    return there, True
                now = time.time()
                if opening is not None and "assigned" not in current.times and current.state is FrameState.OPEN:
                    current = replace(current, deadline=opening.deadline)  # it is built when nothing comes any more
                current = replace(current, instructions=merged(current.instructions, delivery.instructions))
                record = self._record(current, there, described, delivery, sha256, now)
                try:
                    self._put(before, with_extension(current, record, primary_name=primary_name, now=now))
                except Retryable:
                    if there is None or there.path != record.path:
                        self._spool.remove([record.path])
                    raise
                if there is not None and there.path != record.path:
                    self._spool.remove([there.path])
                return record, False
        finally:
            if delivery.body is not None:
                self._spool.drop(delivery.body)  # nothing, if it has got its name

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
        """Delete the pixels of a frame, and note it; returns the bytes, 0 if somebody reads them.

        Raises
        ------
        Unknown
        Retryable
            If the file system refuses.
        """
        with self._gate(expid, frame), self._withdrawn(expid, frame) as withdrawn:
            if not withdrawn:
                return 0
            view = self.change(expid, frame, purged)
            return self._spool.remove(record.path for record in view.extensions)

    def drop_extension(self, expid: int, frame: int, name: str, *, primary_name: str) -> None:
        """Forget an extension and delete its file.

        Raises
        ------
        Unknown
        Retryable
            If somebody reads the frame, or the file system refuses.
        """
        with self._gate(expid, frame), self._withdrawn(expid, frame) as withdrawn:
            if not withdrawn:
                raise _busy(expid, frame)
            view = self.frame(expid, frame)
            self.change(expid, frame, lambda current: without_extension(current, name, primary_name=primary_name))
            self._spool.remove(record.path for record in view.extensions if record.name == name)

    def drop_frame(self, expid: int, frame: int) -> int:
        """Forget a frame and delete its files; returns how many extensions that were.

        Raises
        ------
        Unknown
        Retryable
            If somebody reads it.
        """
        with self._gate(expid, frame), self._withdrawn(expid, frame) as withdrawn:
            view = self.frame(expid, frame)
            if not withdrawn:
                raise _busy(expid, frame)
            with self._changed:
                del self._frames[expid][frame]
                self._changed.notify_all()
            self._spool.remove_tree(view.directory, [record.path for record in view.extensions])
            return 0 if view.purged else len(view.extensions)

    def drop_exposure(self, expid: int) -> int:
        """Forget an exposure with all its frames; returns how many extensions that were.

        Raises
        ------
        Unknown
        Retryable
            If somebody reads one of them, or frames come.
        """
        count = sum(self.drop_frame(expid, frame) for frame in self.exposure(expid).frames)
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

    def _record(
        self,
        view: FrameView,
        there: ExtensionRecord | None,
        described: ExtensionRecord | None,
        delivery: Delivery,
        sha256: str,
        now: float,
    ) -> ExtensionRecord:
        number = there.number + 1 if there is not None else 1
        if described is None or delivery.body is None:
            if there is None:
                message = f"{delivery.name} of frame {view.expid}/{view.frame} came without data"
                raise Rejected(message, remedy="send pixels, or give cards to an extension that is there")
            cards = merged_text(there.cards, delivery.cards)
            return replace(there, cards=cards, sha256=sha256, received_at=now, number=number)
        path = self._spool.place(replace(delivery.body, sha256=sha256), view.directory, delivery.name)
        return replace(
            described,
            path=path,
            source=delivery.source,
            cards=delivery.cards,
            sha256=sha256,
            received_at=now,
            number=number,
        )

    def _put(self, before: FrameView | None, after: FrameView) -> None:
        journal.write_frame(after, durable=self._spool.policy.durable)
        with self._changed:
            self._frames.setdefault(after.expid, {})[after.frame] = after
            self._changed.notify_all()
        self._on_change(before, after)

    @contextlib.contextmanager
    def _withdrawn(self, expid: int, frame: int) -> Iterator[bool]:
        """Keep the files of a frame from being lent, if nobody reads them."""
        key = expid, frame
        with self._changed:
            free = not self._lent[key]
            if free:
                self._going.add(key)
        try:
            yield free
        finally:
            with self._changed:
                if free:
                    self._going.discard(key)
                self._changed.notify_all()


def _busy(expid: int, frame: int) -> Retryable:
    message = f"frame {expid}/{frame} is being written or sent"
    return Retryable(message, remedy="clear it again in a moment")
