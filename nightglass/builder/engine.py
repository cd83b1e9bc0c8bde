"""The parts of an image builder, put together: who tells whom, what begins at the start, in which order it ends."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nightglass.builder.answers import Answers, Subject, disk_space
from nightglass.builder.archivist import Archivist
from nightglass.builder.bulletin import Bulletin
from nightglass.builder.caretaking import Caretaker
from nightglass.builder.clockwork import Clockwork
from nightglass.builder.collecting import Collector
from nightglass.builder.cubeaccounts import CubeAccount
from nightglass.builder.deliveries import is_awaited
from nightglass.builder.finishing import Finisher
from nightglass.builder.holdings import Holdings
from nightglass.builder.options import BuilderOptions, Effective
from nightglass.builder.outputs import Outputs
from nightglass.builder.ownership import Ownership
from nightglass.builder.records import ArchiveOrder, ExposureState, ExposureView, FrameState, FrameView
from nightglass.builder.restoring import restore
from nightglass.builder.retention import is_idle
from nightglass.builder.spool import Body, Spool, SpoolPolicy
from nightglass.builder.stages import StageLine
from nightglass.builder.structure import closed, noted
from nightglass.config import Camera, Site
from nightglass.errors import NightglassError
from nightglass.layout import Layout
from nightglass.model import sanitize

__all__ = ["Engine"]

DeliverFunction = Callable[[int, int, str, Body], None]
"""Takes what was fetched: exposure, frame, source, body."""


class Engine:
    """Everything behind the commands of one builder."""

    def __init__(
        self,
        name: str,
        options: BuilderOptions,
        *,
        layout: Layout,
        camera: Camera,
        site: Site,
        outputs: Outputs | None,
        on_frame: Callable[[Path, FrameView], None] | None,
        on_alarm: Callable[[str], None] | None,
        on_cube: Callable[[CubeAccount], None] | None,
        deliver: DeliverFunction,
    ) -> None:
        self.name = name
        self.layout = layout
        self.site = site
        self.options = options
        self.address = ""
        self._camera = camera.name
        self._outputs = outputs
        self._lock = threading.Lock()
        self._effective = Effective()
        self._closed = False
        self.bulletin = Bulletin(name, on_alarm or (lambda _: None))
        self.clockwork = Clockwork(f"{name}-clock")
        self.spool = Spool(
            layout, camera.name, _policy(options), make_room=lambda count: self.caretaker.make_room(count)
        )
        self._ownership = Ownership(self.spool.incoming)
        self.holdings = Holdings(self.spool, on_change=self._changed)
        self.caretaker = Caretaker(
            self.holdings,
            self.bulletin,
            settings=self.settings,
            held=lambda: self.spool.held,
            limit=lambda: self.options.max_bytes,
            remembered=lambda: self.options.record_threshold,
        )
        self._deliver = deliver
        self._on_cube = on_cube if on_cube is not None else lambda _: None
        self._make_stages(on_frame)

    def _make_stages(self, on_frame: Callable[[Path, FrameView], None] | None) -> None:
        """Make what collects frames and what they go through, each of which tells the next."""
        outputs = self._outputs
        self.finisher = Finisher(
            self.name,
            self.holdings,
            self.bulletin,
            outputs=outputs,
            settings=self.settings,
            raw_path=self._raw_path if on_frame is not None else None,
            on_frame=on_frame or (lambda *_: None),
            on_done=self._done,
            is_last=lambda expid, frame: self.line.passes(expid, frame) < 2,
        )
        self.line = StageLine(
            self.name, self.finisher.stages, self.clockwork, on_trouble=self._trouble, on_over=self._over
        )
        self.archivist = Archivist(
            self.name,
            self.holdings,
            self.finisher,
            self.line,
            self.bulletin,
            self.clockwork,
            settings=self.exposure_settings,
            on_archived=self.caretaker.tidy,
            on_account=self._on_cube,
            account_of=lambda exposure: CubeAccount.begun(self.name, self._camera, exposure),
        )
        self.collector = Collector(
            self.spool,
            self.clockwork,
            options=lambda: self.options,
            find=self.holdings.find,
            deliver=self._deliver,
            remark=self._remark,
        )
        subject = Subject(
            self.holdings, self.bulletin, outputs, lambda: self.options, self.status, lambda: self.address
        )
        self.answers = Answers(subject)

    # life
    def start(self) -> None:
        """Read the spool, and take up what was begun.

        Raises
        ------
        Misconfigured
            If another process runs this builder.
        """
        self._ownership.take()
        try:
            remarks = restore(self.spool, self.holdings)
        except BaseException:
            self._ownership.give_back()
            raise
        for remark in remarks:
            self.bulletin.alarm(f"restored {remark[:40]}", remark)
        for path in self.handed_out.glob("*"):
            path.unlink(missing_ok=True)
        self.clockwork.start()
        if self._outputs is not None:
            self._outputs.start(self.finisher.on_sent)
        self.line.start()
        for view in self.holdings.frames():
            if view.state is FrameState.OPEN:
                self._await(view)
                self.collector.collect(view, self.holdings.exposure(view.expid).night)
            elif not is_idle(view) or is_awaited(view):
                self.line.submit(view.expid, view.frame)
        self.archivist.start()
        self.bulletin.set_state("READY")

    def close(self) -> None:
        """End the threads; everything that was acknowledged is on the disk."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.bulletin.set_state("CLOSED")
        self.collector.close()
        self.line.close()
        self.archivist.close()
        if self._outputs is not None:
            self._outputs.close()
        self.clockwork.close()
        self.bulletin.events.close()
        self._ownership.give_back()

    @property
    def handed_out(self) -> Path:
        """Where files are made that are handed out, and deleted by who gets them."""
        return self.layout.run / f"handed-out-{sanitize(self.name)}"

    # settings
    def use(self, options: BuilderOptions) -> None:
        """Take over options."""
        with self._lock:
            renewed = options.pull_timeout_s != self.options.pull_timeout_s
            self.options = options
            self.spool.policy = _policy(options)
        if renewed:
            self.collector.renew()

    def check(self, options: BuilderOptions, callback: str = "") -> None:
        """Refuse options that could not be followed when it is time.

        Raises
        ------
        Misconfigured, Rejected
        """
        if self._outputs is not None:
            self._outputs.check(options, callback)

    def settings(self, view: FrameView) -> BuilderOptions:
        """Return the options as they are for a frame."""
        return self._effective(self.options, view.instructions)

    def exposure_settings(self, exposure: ExposureView) -> BuilderOptions:
        """Return the options as they are for an exposure."""
        return self._effective(self.options, exposure.instructions)

    def deadline(self, timeout_s: float | None, exptime_s: float | None) -> float:
        """Return until when a frame may be collected, from now: the longer it was exposed, the longer."""
        options = self.options
        return (
            time.time()
            + (options.timeout_s if timeout_s is None else timeout_s)
            + options.timeout_factor * (exptime_s or 0.0)
        )

    def status(self) -> dict[str, Any]:
        """Return the published variables, and how it fares."""
        holdings, options = self.holdings, self.options
        exposures = holdings.exposures()
        images = Path(os.path.expandvars(options.image_dir)).expanduser() if options.image_dir else self.layout.root
        return {
            "name": self.name,
            "camera": self._camera,
            "state": self.bulletin.state,
            "exposure_status": self.answers.exposure_status(),
            "processing_times": self.answers.processing_times(),
            "exposure_ready": self.bulletin.ready("exposure_ready"),
            "image_ready": self.bulletin.ready("image_ready"),
            "archive_ready": self.bulletin.ready("archive_ready"),
            f"{options.role or self.name}_DISKSPACE": disk_space(images),
            "spool": {
                "bytes": self.spool.held,
                "max_bytes": options.max_bytes,
                "exposures": len(exposures),
                "frames": sum(len(exposure.frames) for exposure in exposures),
                "unsaved": len(self.caretaker.unsaved()),
            },
            "waiting": self.line.waiting(),
            "alarms": self.bulletin.alarms,
            "outputs": self._outputs.status() if self._outputs is not None else {},
        }

    def forget(self, expid: int) -> None:
        """Let nothing that was set for an exposure hold for the next one of its number."""
        if self._outputs is not None:
            self._outputs.rois.forget(expid)

    def archive_if_over(self, expid: int) -> None:
        """Archive an exposure that is complete, if that is what the options say."""
        exposure = self.holdings.find_exposure(expid)
        if exposure is None or exposure.state is not ExposureState.COMPLETE or self._outputs is None:
            return
        wanted = self.exposure_settings(exposure).archive == "finalized" and exposure.asked is None
        if wanted and exposure.frames and all(is_idle(view) for view in self.holdings.frames(expid)):
            self.archivist.submit(expid, ArchiveOrder())

    # what parts tell
    def _changed(self, before: FrameView | None, after: FrameView) -> None:
        """See to what follows from a change of a frame."""
        if after.state is FrameState.OPEN:
            if before is None or before.deadline != after.deadline:
                self._await(after)
            if len(after.extensions) != (len(before.extensions) if before is not None else 0):
                self.bulletin.frame("accepted", after, extensions=[item.name for item in after.extensions])
            return
        if before is not None and before.state is not FrameState.OPEN and before.revision == after.revision:
            return
        self._collected(after)
        self.line.submit(after.expid, after.frame)

    def _collected(self, view: FrameView) -> None:
        if view.revision > 1:
            self.bulletin.frame("late", view, note=view.notes[-1] if view.notes else "")
            self._outdate(view)
        elif view.state is FrameState.PARTIAL:
            self.bulletin.frame("partial", view)
        else:
            self.bulletin.frame("collected", view)
        if view.missing:
            names = ", ".join(view.missing)
            self.bulletin.alarm("missing", f"{names} did not come before the deadline: frames are built without")
        else:
            self.bulletin.all_clear("missing")
        if self.options.exposure_ready_mode == "memory":
            self.bulletin.set_ready("exposure_ready", expid=view.expid, frame=view.frame, mode="memory")

    def _outdate(self, view: FrameView) -> None:
        """Say that an archive is older than one of its frames."""
        outdated: list[bool] = []

        def complete(current: ExposureView) -> ExposureView:
            outdated[:] = [current.state is ExposureState.ARCHIVED]
            return replace(current, state=ExposureState.COMPLETE) if outdated[0] else current

        self.holdings.change_exposure(view.expid, complete)  # whatever is being noted just now comes first
        if outdated[0]:
            text = f"frame {view.expid}/{view.frame} changed after exposure {view.expid} was archived: archive it again"
            self.bulletin.alarm(f"archive {view.expid}", text)

    def _await(self, view: FrameView) -> None:
        expid, frame, deadline = view.expid, view.frame, view.deadline
        began = view.times.get("assigned", view.times.get("first", time.time()))
        # not longer than it was to be, whatever became of the time of the day
        left = min(deadline - time.time(), max(deadline - began, 0.0))
        self.clockwork.after(left, lambda: self._expire(expid, frame, deadline))

    def _expire(self, expid: int, frame: int, deadline: float) -> None:
        """Build a frame with what is there, if it is time; its deadline may have been moved meanwhile."""

        def expired(view: FrameView) -> FrameView:
            return closed(view, time.time()) if view.deadline <= max(deadline, time.time()) else view

        try:
            if self.holdings.find(expid, frame) is not None:
                self.holdings.change(expid, frame, expired)
        except NightglassError as error:  # a disk that refuses: it is tried again
            self.bulletin.alarm(f"deadline {expid}/{frame}", f"frame {expid}/{frame} cannot be built: {error}")
            self.clockwork.after(1.0, lambda: self._expire(expid, frame, deadline))

    def _done(self, view: FrameView) -> None:
        self.caretaker.tidy()
        self.archive_if_over(view.expid)

    def _trouble(self, stage: str, expid: int, frame: int, error: Exception) -> None:
        text = f"frame {expid}/{frame}, {stage}: {error}"
        self._remark(expid, frame, f"{stage}: {error}")
        self.bulletin.alarm(f"{stage} {expid}/{frame}", text, expid=expid, frame=frame)

    def _over(self, stage: str, expid: int, frame: int) -> None:
        self.bulletin.all_clear(f"{stage} {expid}/{frame}")

    def _remark(self, expid: int, frame: int, text: str) -> None:
        with contextlib.suppress(NightglassError):  # it was cleared, or the disk refuses: the alarm was told
            self.holdings.change(expid, frame, lambda view: noted(view, text))

    def _raw_path(self, exposure: ExposureView, view: FrameView) -> Path:
        stem = f"{sanitize(self.options.role or self.name)}-{view.expid:08d}-{view.frame:04d}"
        return self.layout.received(self._camera, exposure.night, self.name) / f"{stem}.fits"


def _policy(options: BuilderOptions) -> SpoolPolicy:
    return SpoolPolicy(options.max_bytes, options.max_body_bytes, options.durable)
