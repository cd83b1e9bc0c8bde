"""What each stage does with a frame: build, write and publish, send, plot; and the same when somebody asks for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from nightglass.builder.bulletin import Bulletin
from nightglass.builder.claiming import Claims
from nightglass.builder.deliveries import Deliveries, is_awaited
from nightglass.builder.gates import Gates
from nightglass.builder.holdings import Holdings
from nightglass.builder.outputs import Outputs
from nightglass.builder.pictures import PlotRules, chosen, draw
from nightglass.builder.records import (
    ExposureView,
    FrameState,
    FrameView,
    GetOrder,
    HookStage,
    SendOrder,
    SendReport,
    WriteOrder,
)
from nightglass.builder.refusals import Purged, Unknown
from nightglass.builder.stages import Stage
from nightglass.builder.structure import marked
from nightglass.config import BuilderOptions
from nightglass.cubes.publishing import sync_upwards
from nightglass.errors import Misconfigured, NightglassError, Rejected, Retryable

__all__ = ["Finisher"]

_ENDS: Final = ("delivered", "given up")


class Finisher:
    """Hands frames to the outputs, and notes what was done.

    Parameters
    ----------
    outputs : Outputs or None
        None: frames are only collected.
    settings : callable
        The options as they are for a frame.
    raw_path : callable
        Where a frame is published; None: it is not.
    on_frame : callable
        Told what was published.
    on_done : callable
        Told each frame that is through.
    is_last : callable
        Tells whether a frame that has come to the end is not on its way once more.
    """

    def __init__(
        self,
        name: str,
        holdings: Holdings,
        bulletin: Bulletin,
        *,
        outputs: Outputs | None,
        settings: Callable[[FrameView], BuilderOptions],
        raw_path: Callable[[ExposureView, FrameView], Path] | None,
        on_frame: Callable[[Path, FrameView], None],
        on_done: Callable[[FrameView], None],
        is_last: Callable[[int, int], bool],
    ) -> None:
        self._is_last = is_last
        self._holdings = holdings
        self._bulletin = bulletin
        self._outputs = outputs
        self._settings = settings
        self._raw_path = raw_path
        self._on_frame = on_frame
        self._on_done = on_done
        self._gate = Gates()
        self._claims = Claims(holdings)
        self._deliveries = Deliveries(name, holdings, bulletin, outputs=self.outputs, on_sent=self._sent)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What a frame goes through."""
        return (
            Stage("build", self._build),
            Stage("write", self._write),
            Stage("send", self._send),
            Stage("plot", self._plot),
            Stage("end", self._end),
        )

    def outputs(self) -> Outputs:
        """Return the outputs.

        Raises
        ------
        Misconfigured
            If there are none.
        """
        if self._outputs is None:
            message = "this image builder has no outputs"
            raise Misconfigured(message, remedy="give it outputs, as nightglass serve does")
        return self._outputs

    # now
    def write_now(self, expid: int, frame: int, order: WriteOrder) -> Path:
        """Write a frame, whatever was written before."""
        with self._whole(expid, frame) as (exposure, view):
            return self._written(exposure, view, self._settings(view), order)

    def assemble_now(self, expid: int, frame: int, order: GetOrder, path: Path) -> Path:
        """Make a FITS file of a frame under a path."""
        with self._whole(expid, frame) as (exposure, view):
            return self.outputs().assemble(exposure, view, self._settings(view), order, path)

    def send_now(self, expid: int, frame: int, order: SendOrder, wait_s: float) -> tuple[SendReport, ...]:
        """Send a frame, whatever was sent before."""
        with self._whole(expid, frame) as (exposure, view):
            return self._deliveries.send(exposure, view, self._settings(view), order, wait_s)

    def plot_now(self, expid: int, frame: int, changes: Mapping[str, Any]) -> tuple[Path, ...]:
        """Make pictures of a frame."""
        with self._whole(expid, frame) as (exposure, view):
            paths = self.outputs().plot(exposure, view, self._settings(view), changes)
        self._mark(view, "plotted")
        return paths

    def picture_now(self, expid: int, frame: int, wanted: str | None, path: Path) -> Path:
        """Draw the extensions of a frame that are wanted (None: as options say) side by side, under a path."""
        with self._whole(expid, frame) as (exposure, view):
            options = self._settings(view)
            if wanted is None:
                wanted = options.plot_show_ext if options.plot_show else "ALL"
            if not (drawn := chosen(view.extensions, wanted)):
                message = f"frame {expid}/{frame} has no image {wanted!r}"
                raise Unknown(message, remedy=f"it has {', '.join(item.name for item in view.extensions)}")
            title = f"{options.role} {expid:08d} frame {frame}".strip()
            state = "PARTIAL" if view.missing else ""
            return draw(
                path, drawn, PlotRules.of(options, {}), title=title, subtitle=f"{exposure.night}   {state}".rstrip()
            )

    def fire(self, stage: HookStage, expid: int, frame: int | None, options: BuilderOptions, **data: Any) -> None:
        """Tell the subscribers of a stage, unless all of them are switched off."""
        if self._outputs is not None and getattr(options, f"use_{stage.value}_callback"):
            self._outputs.hooks.fire(stage, expid, frame, **data)

    def on_sent(self, report: SendReport) -> None:
        """Note what became of a send."""
        self._deliveries.on_report(report)

    def _sent(self, view: FrameView, report: SendReport) -> None:
        lists = {state: sorted(name for name, found in view.sends.items() if found == state) for state in _ENDS}
        data = {"receiver": report.receiver, "receivers": lists[_ENDS[0]], "undelivered": lists[_ENDS[1]]}
        self.fire(HookStage.SENT, view.expid, view.frame, self._settings(view), **data)

    # stages
    def _build(self, expid: int, frame: int) -> None:
        with self._output(expid, frame, "built") as (exposure, view, options):
            if view is None:
                return
            if self._outputs is not None and view.extensions:
                self._outputs.built(exposure, view, options)
            told = {"state": view.state.value, "missing": list(view.missing), "revision": view.revision}
            self.fire(HookStage.BUILT, expid, frame, options, **told)
            self._mark(view, "built")
        self._bulletin.frame("built", view)
        self._announce("built", view, options)

    def _write(self, expid: int, frame: int) -> None:
        with self._output(expid, frame, "") as (exposure, view, options):
            if view is None or self._outputs is None or not view.extensions:
                return
            path, failure = None, None
            if options.local_copy and "saved" not in view.times:
                try:
                    path = self._written(exposure, view, options, WriteOrder(overwrite=options.overwrite))
                    self._announce("fits", view, options)
                except NightglassError as error:  # the night gets its frame all the same
                    failure = error
            if self._raw_path is not None and options.to_ledger and "published" not in view.times:
                self._publish(exposure, view, options, path)
            if failure is not None:
                raise failure

    def _send(self, expid: int, frame: int) -> None:
        with self._output(expid, frame, "sent") as (exposure, view, options):
            if view is None or self._outputs is None or not view.extensions:
                return
            if is_awaited(view) or (options.send_to and "queued" not in view.times):
                self._deliveries.queue(exposure, view, options)
                self._mark(view, "queued")

    def _plot(self, expid: int, frame: int) -> None:
        with self._output(expid, frame, "plotted") as (exposure, view, options):
            if view is None or self._outputs is None or not view.extensions or not options.use_plotter:
                return
            if options.plot_save:
                paths = self._outputs.plot(exposure, view, options, {})
                self._mark(view, "plotted")
                self._bulletin.frame("plotted", view, files=paths)
                self._announce("png", view, options)

    def _end(self, expid: int, frame: int) -> None:
        def through(view: FrameView) -> FrameView:
            # what came late is handed in before its change can be seen here: it is on its way behind this one
            over = view.state is not FrameState.OPEN and self._is_last(expid, frame)
            return marked(view, time.time(), "done") if over else view

        with contextlib.suppress(Unknown):  # it may have been cleared meanwhile
            view = self._holdings.change(expid, frame, through)
            if "done" in view.times:
                self._on_done(view)

    # pieces
    def _written(self, exposure: ExposureView, view: FrameView, options: BuilderOptions, order: WriteOrder) -> Path:
        path = self.outputs().path(exposure, view, options, order)

        def note(current: FrameView) -> FrameView:
            files = (*(item for item in current.files if item != path), path)
            return replace(marked(current, time.time(), "saved", revision=view.revision), files=files)

        with self._claims.writing(path):
            if order.overwrite or options.overwrite:
                self._claims.take_over(view, path)
            view = self._claims.claim(view, path)
            self.outputs().write(exposure, view, options, order, replace=(*view.files, *view.claims))
            after = self._holdings.change(view.expid, view.frame, note)
        self.fire(HookStage.SAVED, view.expid, view.frame, options, path=str(path), revision=view.revision)
        self._bulletin.frame("saved", after, path=path)
        self._bulletin.set_ready("image_ready", expid=view.expid, frame=view.frame, path=path)
        return path

    def _publish(self, exposure: ExposureView, view: FrameView, options: BuilderOptions, written: Path | None) -> None:
        if self._raw_path is None:
            return
        view, path = self._claims.another(view, self._raw_path(exposure, view))
        if written is None or options.exclude or options.compress or not _linked(written, path, options):
            self.outputs().assemble(exposure, view, options, GetOrder(exclude=()), path)
        view = self._holdings.change(view.expid, view.frame, lambda current: replace(current, published=path))
        self._on_frame(path, view)  # before it is noted: after a kill in between it is told again
        self._mark(view, "published")
        self._bulletin.frame("published", view, path=path)

    def _announce(self, mode: str, view: FrameView, options: BuilderOptions) -> None:
        if options.exposure_ready_mode == mode:
            self._bulletin.set_ready("exposure_ready", expid=view.expid, frame=view.frame, mode=mode)

    def _mark(self, view: FrameView, name: str) -> FrameView:
        with contextlib.suppress(Unknown):  # it may have been cleared meanwhile
            return self._holdings.change(
                view.expid, view.frame, lambda current: marked(current, time.time(), name, revision=view.revision)
            )
        return view

    @contextlib.contextmanager
    def _output(self, expid: int, frame: int, mark: str) -> Iterator[Any]:
        """Give a built frame of which something is not done yet; None if there is nothing to do."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._gate(expid, frame))
            view: FrameView | None = None
            with contextlib.suppress(Unknown):
                view = stack.enter_context(self._holdings.lent(expid, frame))
            exposure = self._holdings.find_exposure(expid)
            if view is None or exposure is None or view.state is FrameState.OPEN or view.purged or mark in view.times:
                yield None, None, None
            else:
                yield exposure, view, self._settings(view)

    @contextlib.contextmanager
    def _whole(self, expid: int, frame: int) -> Iterator[tuple[ExposureView, FrameView]]:
        """Give a frame whose pixels are in the spool, for something that is asked for now."""
        with self._gate(expid, frame), self._holdings.lent(expid, frame) as view:
            if view.purged:
                where = ", ".join(str(path) for path in (*view.files, view.published) if path) or "the archive"
                message = f"the pixels of frame {expid}/{frame} were given back"
                raise Purged(message, remedy=f"it is in {where}")
            if view.state is FrameState.OPEN:
                message = f"frame {expid}/{frame} is not built yet, {', '.join(view.missing) or 'nothing'} is missing"
                raise Retryable(message, remedy="build it, or wait for its deadline")
            if not view.extensions:
                message = f"frame {expid}/{frame} has no extensions"
                raise Rejected(message, remedy="nothing came of it before its deadline")
            yield self._holdings.exposure(expid), view


def _linked(written: Path, path: Path, options: BuilderOptions) -> bool:
    """Let a file appear under a second name without copying it; where that is not possible, say so."""
    if written.suffix == ".fz":
        return False
    part = path.with_name(f".{path.name}.link")  # one name for all processes: what a killed one left goes with the next
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        part.hardlink_to(written)
        part.replace(path)
        if options.durable:
            sync_upwards(path.parent)
    except OSError:
        return False
    part.unlink(missing_ok=True)  # it is left where both names were of the same file already
    return True
