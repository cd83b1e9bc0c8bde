"""What becomes of built frames: the outputs of one image builder, put together."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from astropy.io import fits

from nightglass.builder.cards import HeaderRules, compose_primary
from nightglass.builder.cubing import ArchiveRules, CubeKeeper, archive_cube, given_values, keeping, write_manifest
from nightglass.builder.darks import FindMasters, subtract_darks
from nightglass.builder.focusing import measure_extensions
from nightglass.builder.hooks import Hooks
from nightglass.builder.keeping import made_directory
from nightglass.builder.lanes import Patience
from nightglass.builder.naming import Names
from nightglass.builder.pictures import PlotRules, chosen, draw
from nightglass.builder.records import (
    ArchiveOrder,
    ExposureView,
    FrameView,
    GetOrder,
    HookStage,
    SendOrder,
    SendReport,
    WriteOrder,
)
from nightglass.builder.refusals import Purged
from nightglass.builder.rois import RoiTable
from nightglass.builder.sending import Dispatcher, Queued, Ticket
from nightglass.builder.stampboard import StampBoard
from nightglass.builder.stamps import StampStore
from nightglass.builder.writing import write_frame
from nightglass.config import BuilderOptions, Camera, Limits, Site
from nightglass.cubes import CubeSummary
from nightglass.errors import NightglassError, Retryable, Waiting
from nightglass.fitsio import write_atomic
from nightglass.layout import Layout
from nightglass.model import sanitize
from nightglass.pool import Pool, SerialPool

__all__ = ["CameraOutputs"]


class CameraOutputs:
    """The outputs of one builder; see `nightglass.builder.outputs.Outputs`.

    Parameters
    ----------
    options : BuilderOptions
        Those of the configuration: its directories, receivers and functions are the ones that may be used.
    masters : callable, optional
        Finds the masters for ``dark_subtract``.
    pool, cubes : Pool, CubeKeeper, optional
        Whose workers make cubes, and who knows of these.
    """

    def __init__(
        self,
        name: str,
        options: BuilderOptions,
        *,
        layout: Layout,
        camera: Camera,
        site: Site,
        pool: Pool | None = None,
        cubes: CubeKeeper | None = None,
        masters: FindMasters | None = None,
        limits: Limits | None = None,
        on_alarm: Callable[[str], None] | None = None,
    ) -> None:
        self._name = name
        self._camera = camera
        self._site = site
        self._pool = pool or SerialPool()
        self._cubes = cubes
        self._masters = masters
        self._limits = limits or Limits()
        self._on_alarm = on_alarm
        self._names = Names.of(name, options, layout=layout, camera=camera.name, night_role=camera.role)
        self._scratch = layout.run / f"making-{sanitize(name)}"
        patience = Patience(attempts=options.send_attempts, first_s=options.send_retry_s, limit=1000)
        self._dispatcher = Dispatcher(
            layout.run / f"outgoing-{sanitize(name)}",
            known=options.receivers,
            allowed=options.callables,
            patience=patience,
            limit_bytes=max(options.max_bytes // 4, 1 << 20),
            on_report=self._ended,
        )
        self._hooks = Hooks(name, layout.run, known=options.receivers, allowed=options.callables, on_alarm=on_alarm)
        table = RoiTable(layout.run / f"rois-{sanitize(name)}.json")
        self._store = StampStore(self._names, table, limits=self._limits, on_alarm=on_alarm)
        self._board = StampBoard(
            self._names,
            self._store,
            self._dispatcher,
            camera=camera,
            pool=self._pool,
            limits=self._limits,
            scratch=self._scratch,
        )
        self._on_sent: Callable[[SendReport], None] | None = None
        self._focus: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def hooks(self) -> Hooks:
        """Subscribers."""
        return self._hooks

    @property
    def rois(self) -> StampBoard:
        """Regions of interest."""
        return self._board

    @property
    def dispatcher(self) -> Dispatcher:
        """The queues of the receivers."""
        return self._dispatcher

    def start(self, on_sent: Callable[[SendReport], None] | None = None) -> None:
        """Take up what was left over: sends, hooks; `on_sent` is told of each delivery at its end."""
        self._on_sent = on_sent
        shutil.rmtree(self._scratch, ignore_errors=True)  # what a killed process was making
        self._dispatcher.start()
        self._hooks.start()

    def close(self) -> None:
        """End the threads; what waits is on the disk."""
        self._dispatcher.close()
        self._hooks.close()

    def check(self, options: BuilderOptions, callback: str = "") -> None:
        """See that files have places where they may be, and that receivers and a callback are known."""
        self._names.check(options)
        self._dispatcher.know(options.receivers, (*options.send_to, options.guider_app, options.donut_app))
        self._hooks.check(callback)

    def built(self, exposure: ExposureView, frame: FrameView, options: BuilderOptions) -> None:
        """Cut stamps, measure the focus, tell who was named for this frame alone."""
        if frame.instructions.rois is not None:
            self._board.accept(frame.instructions.rois, expid=exposure.expid)
        if options.use_guider and self._store.table.of(exposure.expid):
            self._cut_stamps(exposure, frame, options)
        wanted = options.use_donut if frame.instructions.use_donut is None else frame.instructions.use_donut
        if wanted:
            self._measure_focus(exposure, frame, options)
        if frame.instructions.cb_function:
            news = {"expid": exposure.expid, "frame": frame.frame, "missing": list(frame.missing)}
            self._hooks.tell(HookStage.BUILT, frame.instructions.cb_function, frame.instructions.cb_args or (), news)

    def primary(self, exposure: ExposureView, frame: FrameView, options: BuilderOptions) -> fits.Header:
        """Compose the primary header."""
        return compose_primary(exposure, frame, options, self._site, HeaderRules(exclude=options.exclude))

    def path(self, exposure: ExposureView, frame: FrameView, options: BuilderOptions, order: WriteOrder) -> Path:
        """Return where `write` writes."""
        return self._names.frame(exposure, frame.frame, options, order)

    def write(
        self,
        exposure: ExposureView,
        frame: FrameView,
        options: BuilderOptions,
        order: WriteOrder,
        *,
        replace: tuple[Path, ...] = (),
    ) -> Path:
        """Write one frame where names and options say.

        Raises
        ------
        Rejected
            If another file has that name, and is not to be overwritten; or a name leads elsewhere.
        Retryable
            If the file system refuses.
        """
        _refuse_purged(frame)
        rules = HeaderRules(exclude=_exclude(options, order.exclude), extra=order.extra_headers, clobber=order.clobber)
        return write_frame(
            frame.extensions,
            compose_primary(exposure, frame, options, self._site, rules),
            self.path(exposure, frame, options, order),
            rules=rules,
            compress=options.compress if order.compress is None else order.compress,
            replace=replace,
            overwrite=order.overwrite or options.overwrite,
            durable=options.durable,
            limits=self._limits,
        )

    def assemble(
        self, exposure: ExposureView, frame: FrameView, options: BuilderOptions, order: GetOrder, path: Path
    ) -> Path:
        """Write one frame to a given path, uncompressed.

        Raises
        ------
        Waiting
            If its dark is to be subtracted, and there is no master.
        Rejected
            If the spool has given its pixels back.
        """
        _refuse_purged(frame)
        rules = HeaderRules(
            exclude=_exclude(options, order.exclude),
            all_fields=order.all_fields,
            extra=order.extra_headers,
            clobber=order.clobber,
        )
        primary = compose_primary(exposure, frame, options, self._site, rules)
        write = partial(write_frame, frame.extensions, primary, rules=rules, overwrite=True, limits=self._limits)
        if not order.dark_subtract:
            return write(path, durable=options.durable)
        if self._masters is None:
            message = f"builder {self._name} has no masters to subtract"
            raise Waiting(message, remedy="run it within a night, whose ledger knows the masters")
        with self._making() as plain:
            write(plain)
            return subtract_darks(
                plain,
                path,
                camera=self._camera,
                masters=self._masters,
                site=self._site,
                night=exposure.night,
                limits=self._limits,
            )

    def send(
        self, exposure: ExposureView, frame: FrameView, options: BuilderOptions, order: SendOrder, *, wait_s: float
    ) -> tuple[SendReport, ...]:
        """Put a frame into the durable queue of each receiver; wait so long for its delivery."""
        return self._dispatcher.wait(self._queue(exposure, frame, options, order, "frame"), wait_s)

    def _queue(
        self, exposure: ExposureView, frame: FrameView, options: BuilderOptions, order: SendOrder, what: str
    ) -> Queued:
        receivers = options.send_to if order.send_to is None else order.send_to
        command = options.send_command if order.send_command is None else order.send_command
        name = self._names.frame(exposure, frame.frame, options, WriteOrder(compress=False)).name
        tickets = [
            Ticket.of_frame(exposure, frame, order, receiver=item, what=what, command=command, name=name)
            for item in receivers
        ]
        if not tickets:
            return ()
        self._dispatcher.know(options.receivers, receivers)
        with self._making() as path:
            self.assemble(exposure, frame, options, order, path)
            return self._dispatcher.keep(tickets, path)

    def send_file(
        self, exposure: ExposureView, path: Path, options: BuilderOptions, order: SendOrder, *, wait_s: float
    ) -> tuple[SendReport, ...]:
        """Send a file, as a cube."""
        receivers = options.send_to if order.send_to is None else order.send_to
        command = options.send_command if order.send_command is None else order.send_command
        tickets = [
            Ticket(receiver=receiver, expid=exposure.expid, what="archive", command=command, name=path.name)
            for receiver in receivers
        ]
        self._dispatcher.know(options.receivers)
        return self._dispatcher.send(tickets, path, wait_s)

    def plot(
        self, exposure: ExposureView, frame: FrameView, options: BuilderOptions, changes: Mapping[str, Any]
    ) -> tuple[Path, ...]:
        """Make pictures: one an extension, or one of all."""
        _refuse_purged(frame)
        rules = PlotRules.of(options, changes)
        drawn = chosen(frame.extensions, rules.extensions)
        if not drawn:
            return ()
        when = frame.primary_header.get("DATE-OBS", "")
        title = f"{self._names.role(options)} {exposure.expid:08d} frame {frame.frame}"
        subtitle = "   ".join(
            text for text in (exposure.night.label, str(when), "PARTIAL" if frame.missing else "") if text
        )
        if rules.assembles:
            path = self._names.picture(exposure, frame.frame, "", options)
            return (draw(path, drawn, rules, title=title, subtitle=subtitle),)
        return tuple(
            draw(
                self._names.picture(exposure, frame.frame, item.name, options),
                [item],
                rules,
                title=f"{title} {item.name}",
                subtitle=subtitle,
            )
            for item in drawn
        )

    def archive(
        self, exposure: ExposureView, frames: Sequence[FrameView], options: BuilderOptions, order: ArchiveOrder
    ) -> CubeSummary:
        """Make the cube, verified, and its manifest; the same again when called again."""
        rules = ArchiveRules.of(options, order)
        out = self._names.cube(exposure, options, order)
        given = given_values(order)
        with tempfile.TemporaryDirectory(prefix="frames-", dir=made_directory(self._scratch)) as scratch:
            paths = [self._frame_file(exposure, view, options, given, Path(scratch)) for view in frames]
            summary = archive_cube(
                paths,
                out,
                exposure=exposure,
                options=options,
                rules=rules,
                camera=self._camera,
                pool=self._pool,
                limits=self._limits,
                keep=keeping(self._cubes, exposure, frames),
            )
        write_manifest(self._names.manifest(out, exposure), summary, exposure, [view.frame for view in frames])
        return summary

    def status(self) -> dict[str, Any]:
        """Return what waits: sends, hooks; and the last focus."""
        with self._lock:
            focus = dict(self._focus)
        return {"sending": self._dispatcher.pending(), "hooks": self._hooks.listed(), "focus": focus}

    def _frame_file(
        self, exposure: ExposureView, view: FrameView, options: BuilderOptions, given: dict[str, Any], scratch: Path
    ) -> Path:
        """Return a file of a frame: made of the spool, or the one that was written before that was purged."""
        if not view.purged and view.extensions:
            name = self._names.frame(exposure, view.frame, options, WriteOrder(compress=False, add_frame=True)).name
            return self.assemble(exposure, view, options, GetOrder(extra_headers=given), scratch / name)
        for path in (view.published, *reversed(view.files)):
            if path is not None and path.is_file():
                return path
        message = f"frame {view.frame} of exposure {exposure.expid} is in no file any more"
        raise Purged(message, remedy="archive the others, or push it again")

    def _cut_stamps(self, exposure: ExposureView, frame: FrameView, options: BuilderOptions) -> None:
        try:
            self._board.cut(exposure, frame, options, self.primary(exposure, frame, options))
        except Retryable:  # the frame waits: its stamps cannot be had again
            raise
        except NightglassError as error:  # the frame goes its way without
            if self._on_alarm is not None:
                self._on_alarm(f"stamps of exposure {exposure.expid}, frame {frame.frame}: {error}")

    def _measure_focus(self, exposure: ExposureView, frame: FrameView, options: BuilderOptions) -> None:
        if options.donut_app:
            self._queue(exposure, frame, options, SendOrder(send_to=(options.donut_app,)), "focus")
            return
        measured = [item.to_json() for item in measure_extensions(frame.extensions)]
        record = {"expid": exposure.expid, "frame": frame.frame, "extensions": measured}
        with self._lock:
            self._focus = record
        path = self._names.picture(exposure, frame.frame, "focus", options).with_suffix(".json")
        with write_atomic(path) as part:
            part.write_text(json.dumps(record, indent=1) + "\n")

    @contextlib.contextmanager
    def _making(self) -> Iterator[Path]:
        """Give a passing name for a file."""
        path = made_directory(self._scratch) / f"{os.getpid()}-{secrets.token_hex(6)}.fits"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _ended(self, ticket: Ticket, report: SendReport) -> None:
        if not report.delivered and self._on_alarm is not None:
            which = "" if report.frame is None else f" (frame {report.frame})"
            what = f"{ticket.what} of exposure {report.expid}{which}"
            self._on_alarm(f"{what} was not delivered to {report.receiver}: {report.error}")
        if self._on_sent is not None and ticket.what in ("frame", "archive"):
            self._on_sent(report)


def _exclude(options: BuilderOptions, asked: tuple[str, ...] | None) -> tuple[str, ...]:
    return options.exclude if asked is None else tuple(item.upper() for item in asked)


def _refuse_purged(frame: FrameView) -> None:
    if frame.purged or not frame.extensions:
        where = f"; it is in {frame.files[-1]}" if frame.files else ""
        message = f"frame {frame.frame} of exposure {frame.expid} has no extensions in the spool{where}"
        raise Purged(message, remedy="push it again, or use its file or archive")
