"""What is done with postage stamps: accepted, cleared, archived, sent, handed out, written."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from astropy.io import fits

from nightglass.builder.cubing import ArchiveRules, archive_cube
from nightglass.builder.naming import Names
from nightglass.builder.records import ExposureView, FrameView, RoiOrder, SendReport
from nightglass.builder.refusals import Unknown
from nightglass.builder.sending import Dispatcher, Ticket
from nightglass.builder.stamps import StampStore
from nightglass.config import BuilderOptions, Camera, Limits
from nightglass.errors import Rejected, Retryable
from nightglass.pool import Pool

__all__ = ["StampBoard"]


class StampBoard:
    """Regions of interest and their stamps; see `nightglass.builder.outputs.RoiBoard`.

    Parameters
    ----------
    scratch : Path
        Where files are made that live for a moment.
    """

    def __init__(
        self,
        names: Names,
        store: StampStore,
        dispatcher: Dispatcher,
        *,
        camera: Camera,
        pool: Pool,
        limits: Limits,
        scratch: Path,
    ) -> None:
        self._names = names
        self._store = store
        self._dispatcher = dispatcher
        self._camera = camera
        self._pool = pool
        self._limits = limits
        self._scratch = scratch

    def accept(self, rois: Sequence[Mapping[str, Any]], *, expid: int | None = None) -> int:
        """Set the regions of an exposure, or those of all that bring none; returns how many.

        Each has ``extension``, centre ``x`` and ``y`` in FITS pixels, and ``width`` and ``height`` or ``size``.

        Raises
        ------
        Misconfigured
            If one makes no sense.
        """
        return self._store.table.accept(rois, expid)

    def clear(self, expid: int | None = None, frame: int | None = None, extension: str | None = None) -> int:
        """Drop stamps; returns how many files."""
        return self._store.clear(expid, frame, extension)

    def forget(self, expid: int) -> None:
        """Let regions that were set for an exposure hold no more: another one will have its number."""
        self._store.table.forget(expid)

    def finalize(self, expid: int) -> None:
        """No further stamps come."""
        self._store.note_complete(expid)

    def archive(self, exposure: ExposureView, options: BuilderOptions, order: RoiOrder) -> Path:
        """Write the cube of stamps, ``GUIDE5_0`` and ``GUIDE5_0T`` and so on, verified.

        Raises
        ------
        Unknown
            If there are no stamps.
        """
        snapshot = self._store.snapshot(exposure)
        if not snapshot:
            message = f"exposure {exposure.expid} has no stamps"
            raise Unknown(message, remedy="accept regions of interest before its frames are built")
        out = self._names.stamp_cube(exposure, options, order)
        archive_cube(
            tuple(snapshot),
            out,
            exposure=exposure,
            options=options,
            rules=ArchiveRules.of(options, order),
            camera=self._camera,
            pool=self._pool,
            limits=self._limits,
        )
        self._store.note_archived(exposure, snapshot)
        return out

    def send(self, exposure: ExposureView, options: BuilderOptions, order: RoiOrder) -> tuple[SendReport, ...]:
        """Send the stamps of frames; does not wait for their delivery."""
        receivers = options.send_to if order.send_to is None else order.send_to
        command = options.send_command if order.send_command is None else order.send_command
        reports: list[SendReport] = []
        for frame in self._frames(exposure, order):
            for receiver in receivers:
                reports += self._send(exposure, frame, order, receiver, command)
        return tuple(reports)

    def cut(self, exposure: ExposureView, frame: FrameView, options: BuilderOptions, primary: fits.Header) -> None:
        """Cut the stamps of a frame, and send them to the guider, if there is one.

        Raises
        ------
        Retryable
            If the disk takes no more stamps.
        Misconfigured, Rejected
            If the guider is not known, or an extension is damaged; they are cut then, as far as they can be.
        """
        self._store.cut(exposure, frame, options, primary)
        if options.guider_app and self._store.files(exposure, frame.frame):
            try:
                self._send(exposure, frame.frame, RoiOrder(), options.guider_app, "")
            except Retryable as error:  # the stamps are there; the frame does not wait for the guider
                message = f"the stamps cannot be sent to {options.guider_app}: {error}"
                raise Rejected(message, remedy="send them later by rois/send") from error

    def get(self, exposure: ExposureView, order: RoiOrder, directory: Path) -> tuple[Path, ...]:
        """Make FITS files of the stamps in a directory, one a frame."""
        return tuple(
            self._store.assemble(exposure, frame, order, directory / f"rois-{exposure.expid:08d}-{frame:04d}.fits")
            for frame in self._frames(exposure, order)
        )

    def write(self, exposure: ExposureView, options: BuilderOptions, order: RoiOrder) -> tuple[Path, ...]:
        """Write the stamps of frames by the names of images, with ``-rois`` in them."""
        return tuple(
            self._store.assemble(exposure, frame, order, self._names.stamps(exposure, frame, options, order))
            for frame in self._frames(exposure, order)
        )

    def status(self) -> dict[str, Any]:
        """Return counts: stamps, bytes."""
        return self._store.status()

    def _frames(self, exposure: ExposureView, order: RoiOrder) -> tuple[int, ...]:
        found = tuple(self._store.files(exposure, order.frame))
        if not found:
            which = "" if order.frame is None else f", frame {order.frame}"
            message = f"exposure {exposure.expid}{which} has no stamps"
            raise Unknown(message, remedy="accept regions of interest before its frames are built")
        return found

    def _send(
        self, exposure: ExposureView, frame: int, order: RoiOrder, receiver: str, command: str
    ) -> tuple[SendReport, ...]:
        name = f"rois-{exposure.expid:08d}-{frame:04d}.fits"
        ticket = Ticket(receiver=receiver, expid=exposure.expid, frame=frame, what="rois", command=command, name=name)
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="stamps-", dir=self._scratch) as scratch:
            path = self._store.assemble(exposure, frame, order, Path(scratch) / name)
            return self._dispatcher.send([ticket], path, 0)
