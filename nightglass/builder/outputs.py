"""What becomes of built frames, as the service sees it: writing, sending, pictures, stamps, hooks, cubes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from astropy.io import fits

from nightglass.builder.records import (
    ArchiveOrder,
    ExposureView,
    FrameView,
    GetOrder,
    HookStage,
    RoiOrder,
    SendOrder,
    SendReport,
    WriteOrder,
)
from nightglass.config import BuilderOptions
from nightglass.cubes import CubeSummary

__all__ = ["HookBoard", "Outputs", "RoiBoard"]


class HookBoard(Protocol):
    """Subscribers of the stages."""

    def subscribe(self, stage: HookStage, target: str, args: Sequence[Any] = (), *, enabled: bool = True) -> str:
        """Add a subscriber, ``module:function`` or URL; return its id."""

    def unsubscribe(self, subscriber: str) -> None:
        """Remove one. Raises Rejected if there is none of that id."""

    def enable(self, subscriber: str, enabled: bool) -> None:  # noqa: FBT001 - what is set is what it is named after
        """Let one be told again, or no more."""

    def listed(self) -> list[dict[str, Any]]:
        """Return the subscribers, each with ``id``, ``stage``, ``target``, ``args``, ``enabled`` and what it did."""

    def fire(self, stage: HookStage, expid: int, frame: int | None, **data: Any) -> None:
        """Tell the subscribers of a stage; returns at once, and never raises for what they do."""


class RoiBoard(Protocol):
    """Regions of interest, and the stamps that are cut out of frames."""

    def accept(self, rois: Sequence[Mapping[str, Any]], *, expid: int | None = None) -> int:
        """Set the regions of an exposure, or those of all that bring none; return how many."""

    def clear(self, expid: int | None = None, frame: int | None = None, extension: str | None = None) -> int:
        """Drop stamps; return how many."""

    def forget(self, expid: int) -> None:
        """Let regions that were set for an exposure hold no more: another one will have its number."""

    def finalize(self, expid: int) -> None:
        """No further stamps come."""

    def archive(self, exposure: ExposureView, options: BuilderOptions, order: RoiOrder) -> Path:
        """Write the cube of stamps."""

    def send(self, exposure: ExposureView, options: BuilderOptions, order: RoiOrder) -> tuple[SendReport, ...]:
        """Send the stamps of frames."""

    def get(self, exposure: ExposureView, order: RoiOrder, directory: Path) -> tuple[Path, ...]:
        """Make FITS files of the stamps in a directory."""

    def write(self, exposure: ExposureView, options: BuilderOptions, order: RoiOrder) -> tuple[Path, ...]:
        """Write the stamps of frames."""

    def status(self) -> dict[str, Any]:
        """Return counts: regions, stamps, bytes."""


class Outputs(Protocol):
    """What is done with built frames.

    Everything is called from several threads, never twice at the same time for one frame. `options` are those of the
    frame: instructions are in them already. Whatever is raised is told, and tried again later if it is `Retryable`.
    """

    @property
    def hooks(self) -> HookBoard:
        """Subscribers."""

    @property
    def rois(self) -> RoiBoard:
        """Regions of interest."""

    def start(self, on_sent: Callable[[SendReport], None]) -> None:
        """Take up what was left over: sends, hooks. `on_sent` is told of each send that ends, delivered or given up."""

    def check(self, options: BuilderOptions, callback: str = "") -> None:
        """Refuse directories that are not allowed, and receivers that nobody knows."""

    def built(self, exposure: ExposureView, frame: FrameView, options: BuilderOptions) -> None:
        """Do what a kind of camera does with each built frame: cut stamps, measure the focus; tell `cb_function`."""

    def primary(self, exposure: ExposureView, frame: FrameView, options: BuilderOptions) -> fits.Header:
        """Compose the primary header."""

    def path(self, exposure: ExposureView, frame: FrameView, options: BuilderOptions, order: WriteOrder) -> Path:
        """Return where `write` would write."""

    def write(
        self,
        exposure: ExposureView,
        frame: FrameView,
        options: BuilderOptions,
        order: WriteOrder,
        *,
        replace: tuple[Path, ...] = (),
    ) -> Path:
        """Write one frame where names and options say; files in `replace` are its own earlier ones."""

    def assemble(
        self, exposure: ExposureView, frame: FrameView, options: BuilderOptions, order: GetOrder, path: Path
    ) -> Path:
        """Write one frame to a given path, uncompressed: to be handed out, or published among the raw frames."""

    def send(
        self, exposure: ExposureView, frame: FrameView, options: BuilderOptions, order: SendOrder, *, wait_s: float
    ) -> tuple[SendReport, ...]:
        """Put a frame into the durable queue of each receiver; wait so long for its delivery.

        What is in a queue needs nothing of the spool any more.
        """

    def plot(
        self, exposure: ExposureView, frame: FrameView, options: BuilderOptions, changes: Mapping[str, Any]
    ) -> tuple[Path, ...]:
        """Make pictures; `changes` holds options without ``plot_``."""

    def archive(
        self, exposure: ExposureView, frames: Sequence[FrameView], options: BuilderOptions, order: ArchiveOrder
    ) -> CubeSummary:
        """Make the cube, verified, and its manifest; atomic, and the same again when called again."""

    def send_file(
        self, exposure: ExposureView, path: Path, options: BuilderOptions, order: SendOrder, *, wait_s: float
    ) -> tuple[SendReport, ...]:
        """Send a file, as a cube."""

    def status(self) -> dict[str, Any]:
        """Return what waits: sends, hooks."""

    def close(self) -> None:
        """End the threads; what waits is on the disk."""
