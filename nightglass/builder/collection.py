"""The half of the image builder that takes: its life, assignments, extensions, and what it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from nightglass.builder.cubeaccounts import CubeAccount
from nightglass.builder.engine import Engine
from nightglass.builder.intake import Assignment, Intake
from nightglass.builder.outputs import Outputs
from nightglass.builder.records import ExposureView, ExtensionRecord, FrameView, Instructions
from nightglass.builder.spool import Body, Spool
from nightglass.config import BuilderOptions, Camera, Site
from nightglass.layout import Layout

__all__ = ["Collection", "Unsaved"]

Unsaved = Literal["refuse", "discard"]
"""What is done about frames that lie nowhere else."""


class Collection:
    """What an image builder has collected, and how it is told to; see `nightglass.builder.service.Builder`."""

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
        on_cube: Callable[[CubeAccount], None] | None = None,
    ) -> None:
        self.name = name
        self._initial = options
        self._engine = Engine(
            name,
            options,
            layout=layout,
            camera=camera,
            site=site,
            outputs=outputs,
            on_frame=on_frame,
            on_alarm=on_alarm,
            on_cube=on_cube,
            deliver=lambda expid, frame, source, body: self._pulled(expid, frame, source, body),
        )
        self._intake = Intake(self._engine)
        self._finisher = self._engine.finisher

    # life
    def start(self) -> None:
        """Read the spool, and take up what was begun: pulls, writes, sends, archives.

        Raises
        ------
        Misconfigured
            If another process runs this builder.
        """
        self._engine.start()

    def close(self) -> None:
        """End the threads; everything that was acknowledged is on the disk."""
        self._engine.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def spool(self) -> Spool:
        """Where bodies are received."""
        return self._engine.spool

    @property
    def address(self) -> str:
        """Where it is reached by HTTP; set by who serves it."""
        return self._engine.address

    @address.setter
    def address(self, value: str) -> None:
        self._engine.address = value

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
        """Say what a frame consists of, begin to collect, and return at once.

        Parameters
        ----------
        sources, extensions : sequence of str, optional
            What the frame consists of, by who delivers it or by name; without both, the option `sources`. Those among
            the option `pull` are fetched.
        timeout_s : float, optional
            Instead of the option; exposure times `timeout_factor` are added to it.
        instructions : mapping or Instructions, optional
            What is to be done with the frame, as in the ``ib_instructions`` of a trigger.
        header : mapping, optional
            Keyword -> value, or pair of value and comment, for the primary header; control words in it are
            instructions.

        Raises
        ------
        Complete
            If its exposure is complete.
        Exists
            If something else was assigned before; the same again is no error.
        Misconfigured, Rejected
            If a number, a name or an instruction is none.
        Retryable
            If the file system refuses.
        """
        said = Assignment(sources, extensions, timeout_s, instructions, header)
        return self._intake.assign(expid, frame, said)

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
        """Assign, and wait until the frame is built, whole or in part, or for `wait_s`.

        A frame that was pushed and never assigned is built with what is there.

        Raises
        ------
        Complete, Exists, Misconfigured, Rejected, Retryable
            As `assign`.
        """
        said = Assignment(sources, extensions, timeout_s, instructions, header)
        return self._intake.build(expid, frame, said, wait_s)

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
        """Take an extension; returns it and whether it was there already, with the same contents.

        When this returns, it is on the disk. A name of PRIMARY updates the primary header instead.

        Parameters
        ----------
        content : Body, Path, bytes or None
            A FITS file: what `spool` received, or a file, which is copied, or its bytes. None: the header alone, for
            an extension that is there.
        header : mapping, optional
            Cards that go over those of the file.
        source : str
            Who delivers it, where that is not its name.
        clobber : bool
            Whether it may take the place of one of that name.

        Raises
        ------
        Unknown
            If nobody assigned the frame, and that is necessary.
        Complete, Exists
            If it is not taken, by the rules of `nightglass.builder.structure`.
        Purged
            If the spool gave the pixels of the frame back, and they are in no file that could be added to.
        Rejected, Misconfigured
            If it is no extension.
        SpoolFull, Retryable
            If there is no room, or the file system refuses.
        """
        return self._intake.accept(expid, frame, name, content, header=header or {}, source=source, clobber=clobber)

    def set_primary(self, expid: int, frame: int, header: Mapping[str, Any], *, clobber: bool = False) -> FrameView:
        """Update the cards of the primary header; `clobber`: put these in place of all others.

        A frame that is built already is built again, as a revision.

        Raises
        ------
        Unknown, Purged, Rejected, Retryable
        """
        return self._intake.set_primary(expid, frame, header, clobber=clobber)

    def clear(
        self,
        expid: int | None = None,
        frame: int | None = None,
        extension: str | None = None,
        *,
        unsaved: Unsaved = "refuse",
    ) -> int:
        """Drop what is in the spool; returns how many extensions. Written files and archives stay.

        A frame that is just being written, sent or archived is waited for, up to half a minute.

        Raises
        ------
        Unknown
        Unsaved
            If something would be lost, and that was not asked for.
        Retryable
            If a frame is still being written or sent then.
        """
        return self._intake.clear(expid, frame, extension, discard=unsaved == "discard")

    def finalize(self, expid: int, **details: Any) -> ExposureView:
        """Say that no further frames come; `details` are passed on in the event.

        Raises
        ------
        Unknown
        """
        return self._intake.finalize(expid, details)

    def frame(self, expid: int, frame: int) -> FrameView:
        """Return a frame as it stands.

        Raises
        ------
        Unknown
        """
        return self._engine.holdings.frame(expid, frame)

    def exposure(self, expid: int) -> ExposureView:
        """Return an exposure as it stands.

        Raises
        ------
        Unknown
        """
        return self._engine.holdings.exposure(expid)

    def exposures(self) -> tuple[ExposureView, ...]:
        """Return all exposures, in the order in which they were opened."""
        return self._engine.holdings.exposures()

    def status(self) -> dict[str, Any]:
        """Return the published variables and more; plain JSON values."""
        return self._engine.status()

    @property
    def options(self) -> BuilderOptions:
        """As they are now."""
        return self._engine.options

    def _pulled(self, expid: int, frame: int, source: str, body: Body) -> None:
        self._intake.accept(expid, frame, source, body, header={}, source=source, clobber=False)
