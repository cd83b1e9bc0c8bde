"""The image builder: what an instrument control system calls."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, Final

from nightglass.builder.collection import Collection, Unsaved
from nightglass.builder.naming import Names
from nightglass.builder.options import change_options
from nightglass.builder.outputs import RoiBoard
from nightglass.builder.records import (
    ArchiveOrder,
    BuilderEvent,
    ExposureState,
    GetOrder,
    HookStage,
    SendOrder,
    SendReport,
    WriteOrder,
)
from nightglass.builder.refusals import Exists, Unknown
from nightglass.config import BuilderOptions, choose
from nightglass.errors import Rejected, Retryable
from nightglass.fitsio import content_id, write_atomic

__all__ = ["Builder"]


_LONGEST_WAIT_S: Final = 900.0
"""Wait for a cube: frames may have deadlines hours away, and whoever waits takes a place."""


class Builder(Collection):
    """Collects extensions into frames and exposures, and sees to what becomes of them.

    A context manager; everything may be called from any thread.

    Parameters
    ----------
    name : str
        Of the builder.
    options : BuilderOptions
        To begin with, and after `configure`.
    outputs : Outputs, optional
        What is done with built frames; without it they are collected only.
    on_frame : callable, optional
        Told the path of each frame that was published among the raw frames of its night, and the frame; it may come
        again after a restart. Without it nothing is published.
    on_alarm : callable, optional
        Told what a person should know.
    on_cube : callable, optional
        Told how each order to archive an exposure fares, and how it ends; the end may come again after a kill.
    """

    # what becomes of it
    def write(self, expid: int, frame: int | None = None, order: WriteOrder | None = None) -> tuple[Path, ...]:
        """Write a frame, or all of an exposure, now.

        Raises
        ------
        Unknown, Purged, Rejected
        Retryable
            If a frame is not built yet, or the file system refuses.
        """
        order = order or WriteOrder(overwrite=self.options.overwrite)
        return tuple(self._finisher.write_now(expid, number, order) for number in self._numbers(expid, frame))

    def get_images(self, expid: int, frame: int | None = None, order: GetOrder | None = None) -> tuple[Path, ...]:
        """Make a FITS file of each frame; the caller deletes them.

        Raises
        ------
        Unknown, Purged, Rejected, Retryable
            As `write`.
        """
        paths: list[Path] = []
        try:
            for number in self._numbers(expid, frame):
                handle, name = tempfile.mkstemp(f"-{expid:08d}-{number:04d}.fits", f"{self.name}-", self._passing())
                open(handle, "wb").close()  # noqa: PTH123 - only its name is wanted
                paths.append(Path(name))
                self._finisher.assemble_now(expid, number, order or GetOrder(), paths[-1])
        except BaseException:
            for path in paths:
                path.unlink(missing_ok=True)
            raise
        return tuple(paths)

    def send(
        self, expid: int, frame: int | None = None, order: SendOrder | None = None, *, wait_s: float = 30.0
    ) -> tuple[SendReport, ...]:
        """Send a frame, or all of an exposure; what is not delivered within `wait_s` is tried on.

        Raises
        ------
        Unknown, Purged, Rejected, Retryable
            As `write`.
        """
        order = order or SendOrder()
        reports: list[SendReport] = []
        for number in self._numbers(expid, frame):
            reports += self._finisher.send_now(expid, number, order, wait_s)
        return tuple(reports)

    def plot(self, expid: int, frame: int | None = None, **options: Any) -> tuple[Path, ...]:
        """Make pictures now; options are those of ``plot_`` without that word.

        Raises
        ------
        Unknown, Purged, Rejected, Retryable
            As `write`.
        """
        numbers = self._numbers(expid, frame)
        return tuple(path for number in numbers for path in self._finisher.plot_now(expid, number, options))

    def picture(self, expid: int, frame: int, extensions: str | None = None) -> Path:
        """Draw a frame as one PNG; the caller deletes it.

        Parameters
        ----------
        extensions : str, optional
            ``ALL``, or names or shell patterns with commas between them; None: as `plot_show` says.

        Raises
        ------
        Unknown
            If there is no such frame, or none of the extensions is an image.
        Purged, Rejected, Retryable
            As `write`.
        """
        handle, name = tempfile.mkstemp(".png", f"{self.name}-", self._passing())
        os.close(handle)
        try:
            return self._finisher.picture_now(expid, frame, extensions, Path(name))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def archive(
        self, expid: int, order: ArchiveOrder | None = None, *, wait: bool = False, wait_s: float = _LONGEST_WAIT_S
    ) -> Path | None:
        """Make the cube of an exposure, which is complete by that; None: it is made in the background.

        Raises
        ------
        Unknown
        Rejected
            If there is nothing to archive; with `wait` also what else goes wrong.
        Retryable
            With `wait`: if it cannot be made now, or not within `wait_s`; it is tried on in the background.
        Misconfigured
            If there are no outputs.
        """
        self._finisher.outputs()
        if not self.exposure(expid).frames:
            message = f"exposure {expid} has no frames"
            raise Rejected(message, remedy="there is nothing to archive")
        if self.exposure(expid).state is ExposureState.OPEN:
            self.finalize(expid)
        future = self._engine.archivist.submit(expid, order or ArchiveOrder())
        try:
            return future.result(wait_s) if wait else None
        except TimeoutError as error:
            message = f"exposure {expid} is not archived after {wait_s:g} s"
            raise Retryable(message, remedy="it will be: see its frames, and wait for archive_ready") from error
        except CancelledError as error:
            message = f"the builder ends before exposure {expid} is archived"
            raise Retryable(message, remedy="it is archived after the next start") from error

    def write_archive(self, expid: int, directory: Path, *, overwrite: bool = False) -> Path:
        """Copy the cube to a directory below those that the configuration names.

        Raises
        ------
        Unknown
            If there is none yet.
        Exists
            If another file has its name there, and is not to be overwritten.
        Misconfigured, Rejected
            If nothing may be written there.
        Retryable
            If the file system refuses.
        """
        source = self.get_archive(expid)
        names = Names.of(self.name, self._initial, layout=self._engine.layout, camera="")
        final = names.place(str(directory)) / source.name
        if os.path.lexists(final):
            if content_id(final) == content_id(source):
                return final
            if not overwrite:
                message = f"{final} is there already, and another one"
                raise Exists(message, remedy="ask for it to be overwritten, or name another directory")
        with write_atomic(final) as part:
            shutil.copyfile(source, part)
        return final

    def send_archive(
        self, expid: int, order: SendOrder | None = None, *, wait_s: float = 30.0
    ) -> tuple[SendReport, ...]:
        """Send the cube.

        Raises
        ------
        Unknown
            If there is none yet.
        """
        exposure = self.exposure(expid)
        path = self.get_archive(expid)
        options = self._engine.exposure_settings(exposure)
        return self._finisher.outputs().send_file(exposure, path, options, order or SendOrder(), wait_s=wait_s)

    def get_archive(self, expid: int) -> Path:
        """Return where the cube is.

        Raises
        ------
        Unknown
            If there is none yet.
        """
        path = self.exposure(expid).archive
        if path is None or not path.exists():
            message = f"there is no archive of exposure {expid}"
            raise Unknown(message, remedy="archive it first, and wait for archive_ready")
        return path

    @property
    def rois(self) -> RoiBoard:
        """Regions of interest.

        Raises
        ------
        Misconfigured
            If there are no outputs.
        """
        return self._finisher.outputs().rois

    # settings
    def set(self, **changes: Any) -> BuilderOptions:
        """Change options; see `nightglass.builder.options.change_options`.

        Raises
        ------
        Misconfigured
            If a key is unknown, or a value does not fit; nothing is changed then.
        """
        options = change_options(self.options, changes)
        self._engine.check(options)
        self._engine.use(options)
        self._engine.bulletin.events.add("status", what="options", changed=sorted(changes))
        return self.options

    def get(self, what: str, **options: Any) -> Any:
        """Answer by the names that control systems use; plain JSON values.

        Raises
        ------
        Misconfigured
            If it is unknown; the closest known name is told.
        Unknown
            If there is no such exposure, frame or extension.
        """
        return self._engine.answers.get(what, options)

    def configure(self, constants: str = "DEFAULT", *, unsaved: Unsaved = "refuse") -> None:
        """Begin anew: the options of the configuration, no exposures.

        Raises
        ------
        Unsaved
            If frames would be lost.
        Misconfigured
            If there are no such constants.
        """
        choose(constants, {"DEFAULT", self._initial.constants_version, *self._initial.constants}, what="constants")
        self.clear(unsaved=unsaved)
        self._engine.use(change_options(self._initial, {"constants_version": constants}))
        self._engine.bulletin.set_state("READY")

    # hooks, events
    def subscribe(self, stage: HookStage | str, target: str, args: Sequence[Any] = (), *, enabled: bool = True) -> str:
        """Have somebody told after a stage; returns an id.

        Raises
        ------
        Misconfigured
            If there is no such stage, or nobody of that name may be told.
        """
        chosen = HookStage(choose(str(stage), [item.value for item in HookStage], what="stage"))
        return self._finisher.outputs().hooks.subscribe(chosen, target, args, enabled=enabled)

    def unsubscribe(self, subscriber: str) -> None:
        """Tell it no more, for ever.

        Raises
        ------
        Rejected
            If there is none of that id.
        """
        self._finisher.outputs().hooks.unsubscribe(subscriber)

    def enable(self, subscriber: str, enabled: bool) -> None:  # noqa: FBT001 - what is set is what it is named after
        """Tell it again, or no more for now.

        Raises
        ------
        Rejected
            If there is none of that id.
        """
        self._finisher.outputs().hooks.enable(subscriber, enabled)

    def hooks(self) -> list[dict[str, Any]]:
        """Return the subscribers."""
        return self._finisher.outputs().hooks.listed()

    def events(self, after: int = 0) -> list[BuilderEvent]:
        """Return what happened after an event, oldest first, as far as it is kept."""
        return self._engine.bulletin.events.after(after)

    def wait_event(self, after: int, timeout_s: float) -> list[BuilderEvent]:
        """Wait for something to happen after an event; empty when nothing did."""
        return self._engine.bulletin.events.wait(after, timeout_s)

    def _numbers(self, expid: int, frame: int | None) -> tuple[int, ...]:
        if frame is not None:
            return (self.frame(expid, frame).frame,)
        numbers = self.exposure(expid).frames
        if not numbers:
            message = f"exposure {expid} has no frames"
            raise Rejected(message, remedy="collect one first")
        return numbers

    def _passing(self) -> Path:
        directory = self._engine.handed_out
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"{directory} cannot be made: {error.strerror}"
            raise Retryable(message, remedy="check the disk and the rights of the directory") from error
        return directory
