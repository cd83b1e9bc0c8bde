"""The image builder: what an instrument control system calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from nightglass.builder.outputs import Outputs, RoiBoard
from nightglass.builder.records import (
    ArchiveOrder,
    BuilderEvent,
    ExposureView,
    ExtensionRecord,
    FrameView,
    GetOrder,
    HookStage,
    Instructions,
    SendOrder,
    SendReport,
    WriteOrder,
)
from nightglass.builder.spool import Body, Spool
from nightglass.config import BuilderOptions, Camera, Site
from nightglass.layout import Layout

__all__ = ["Builder"]


class Builder:
    """Collects extensions into frames and exposures, and sees to what becomes of them.

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
        again after a restart.
    on_alarm : callable, optional
        Told what a person should know.
    """

    def __init__(
        self,
        name: str,
        options: BuilderOptions,
        *,
        layout: Layout,
        camera: Camera,
        site: Site,
        outputs: Outputs | None = None,
        on_frame: Callable[[Path, FrameView], None] | None = None,
        on_alarm: Callable[[str], None] | None = None,
    ) -> None:
        raise NotImplementedError

    # life
    def start(self) -> None:
        """Read the spool, and take up what was begun: pulls, writes, sends."""
        raise NotImplementedError

    def close(self) -> None:
        """End the threads; everything that was acknowledged is on the disk."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError

    @property
    def spool(self) -> Spool:
        """Where bodies are received."""
        raise NotImplementedError

    # collecting
    def assign(
        self,
        expid: int,
        frame: int,
        *,
        sources: Sequence[str] | None = None,
        extensions: Sequence[str] | None = None,
        timeout_s: float | None = None,
        instructions: Mapping[str, Any] | Instructions | None = None,
        header: Mapping[str, Any] | None = None,
    ) -> FrameView:
        """Say what a frame consists of, begin to collect, and return at once."""
        raise NotImplementedError

    def build(
        self,
        expid: int,
        frame: int,
        *,
        sources: Sequence[str] | None = None,
        extensions: Sequence[str] | None = None,
        timeout_s: float | None = None,
        instructions: Mapping[str, Any] | Instructions | None = None,
        header: Mapping[str, Any] | None = None,
        wait_s: float | None = None,
    ) -> FrameView:
        """Assign, and wait until the frame is built, whole or in part, or for `wait_s`."""
        raise NotImplementedError

    def accept(
        self,
        expid: int,
        frame: int,
        name: str,
        content: Body | Path | bytes | None,
        *,
        header: Mapping[str, Any] | None = None,
        source: str = "",
        clobber: bool = False,
    ) -> tuple[ExtensionRecord, bool]:
        """Take an extension; returns it and whether it was there already."""
        raise NotImplementedError

    def set_primary(self, expid: int, frame: int, header: Mapping[str, Any], *, clobber: bool = False) -> FrameView:
        """Update the cards of the primary header; `clobber`: put these in place of all others."""
        raise NotImplementedError

    def frame(self, expid: int, frame: int) -> FrameView:
        """Return a frame as it stands."""
        raise NotImplementedError

    def exposure(self, expid: int) -> ExposureView:
        """Return an exposure as it stands."""
        raise NotImplementedError

    def exposures(self) -> tuple[ExposureView, ...]:
        """Return all exposures, in the order in which they were opened."""
        raise NotImplementedError

    # what becomes of it
    def write(self, expid: int, frame: int | None = None, order: WriteOrder | None = None) -> tuple[Path, ...]:
        """Write a frame, or all of an exposure, now."""
        raise NotImplementedError

    def get_images(self, expid: int, frame: int | None = None, order: GetOrder | None = None) -> tuple[Path, ...]:
        """Make a FITS file of each frame; the caller deletes them."""
        raise NotImplementedError

    def send(
        self, expid: int, frame: int | None = None, order: SendOrder | None = None, *, wait_s: float = 30.0
    ) -> tuple[SendReport, ...]:
        """Send a frame, or all of an exposure; what is not delivered within `wait_s` is tried on."""
        raise NotImplementedError

    def plot(self, expid: int, frame: int | None = None, **options: Any) -> tuple[Path, ...]:
        """Make pictures now; options are those of ``plot_`` without that word."""
        raise NotImplementedError

    def clear(
        self,
        expid: int | None = None,
        frame: int | None = None,
        extension: str | None = None,
        *,
        unsaved: Literal["refuse", "discard"] = "refuse",
    ) -> int:
        """Drop what is in the spool; returns how many extensions."""
        raise NotImplementedError

    def finalize(self, expid: int, **details: Any) -> ExposureView:
        """Say that no further frames come; `details` are passed on in the event."""
        raise NotImplementedError

    def archive(self, expid: int, order: ArchiveOrder | None = None, *, wait: bool = False) -> Path | None:
        """Make the cube of an exposure; without `wait` it is made in the background, and None returned."""
        raise NotImplementedError

    def write_archive(self, expid: int, directory: Path) -> Path:
        """Copy the cube to a directory."""
        raise NotImplementedError

    def send_archive(
        self, expid: int, order: SendOrder | None = None, *, wait_s: float = 30.0
    ) -> tuple[SendReport, ...]:
        """Send the cube."""
        raise NotImplementedError

    def get_archive(self, expid: int) -> Path:
        """Return where the cube is."""
        raise NotImplementedError

    @property
    def rois(self) -> RoiBoard:
        """Regions of interest."""
        raise NotImplementedError

    # settings
    @property
    def options(self) -> BuilderOptions:
        """As they are now."""
        raise NotImplementedError

    def set(self, **changes: Any) -> BuilderOptions:
        """Change options."""
        raise NotImplementedError

    def get(self, what: str, **options: Any) -> Any:
        """Answer by the names that control systems use; plain JSON values."""
        raise NotImplementedError

    def configure(self, constants: str = "DEFAULT", *, unsaved: Literal["refuse", "discard"] = "refuse") -> None:
        """Begin anew: the options of the configuration, no exposures."""
        raise NotImplementedError

    # hooks, events
    def subscribe(self, stage: HookStage | str, target: str, args: Sequence[Any] = (), *, enabled: bool = True) -> str:
        """Have somebody told after a stage; returns an id."""
        raise NotImplementedError

    def unsubscribe(self, subscriber: str) -> None:
        """Tell it no more, for ever."""
        raise NotImplementedError

    def enable(self, subscriber: str, enabled: bool) -> None:  # noqa: FBT001 - what is set is what it is named after
        """Tell it again, or no more for now."""
        raise NotImplementedError

    def hooks(self) -> list[dict[str, Any]]:
        """Return the subscribers."""
        raise NotImplementedError

    def status(self) -> dict[str, Any]:
        """Return the published variables and more; plain JSON values."""
        raise NotImplementedError

    def events(self, after: int = 0) -> list[BuilderEvent]:
        """Return what happened after an event, oldest first, as far as it is kept."""
        raise NotImplementedError

    def wait_event(self, after: int, timeout_s: float) -> list[BuilderEvent]:
        """Wait for something to happen after an event; empty when nothing did."""
        raise NotImplementedError
