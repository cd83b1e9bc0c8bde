"""What goes into exposures: assignments, extensions, primary headers; and what is taken out of them again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nightglass.builder.caretaking import refuse_unsaved
from nightglass.builder.engine import Engine
from nightglass.builder.headertext import header_text, merged_text
from nightglass.builder.holdings import CheckFunction
from nightglass.builder.instructions import instructions_in, instructions_of, merged
from nightglass.builder.landing import (
    Delivery,
    Opening,
    content_sum,
    describe,
    primary_text,
    words_among,
    words_in,
)
from nightglass.builder.options import effective
from nightglass.builder.records import (
    NO_INSTRUCTIONS,
    ExposureState,
    ExposureView,
    ExtensionRecord,
    FrameState,
    FrameView,
    Instructions,
)
from nightglass.builder.refusals import Complete, Unknown, Unsaved
from nightglass.builder.spool import Body
from nightglass.builder.structure import assigned, check_numbers, closed, extension_name, with_primary
from nightglass.builder.turning import make_way
from nightglass.errors import Misconfigured, Rejected
from nightglass.model import Night
from nightglass.nights import night_of

__all__ = ["Assignment", "Intake"]

_GRACE_S = 2.0
_PATIENCE_S = 30.0
"""Wait for who writes, sends or archives a frame that is cleared."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What is said of a frame; None: as the options say."""

    sources: Sequence[str] | None = None
    extensions: Sequence[str] | None = None
    timeout_s: float | None = None
    instructions: Mapping[str, Any] | Instructions | None = None
    header: Mapping[str, Any] | None = None


class Intake:
    """Puts into exposures what comes, by the rules of `nightglass.builder.structure`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def assign(self, expid: int, frame: int, said: Assignment) -> FrameView:
        """Open a frame, or say what one consists of; begin to fetch it."""
        check_numbers(expid, frame)
        engine, options = self._engine, self._engine.options
        told = said.instructions if isinstance(said.instructions, Instructions) else None
        told = instructions_of(said.instructions or {}) if told is None else told  # type: ignore[arg-type]
        instructions = merged(instructions_in(said.header or {}), told)
        wanted = effective(options, instructions)
        if wanted is not options or instructions.cb_function:
            engine.check(wanted, instructions.cb_function or "")
        text = header_text(said.header or {})
        expected = [extension_name(name) for name in self._expected(said)]
        now = time.time()
        night = night_of(datetime.fromtimestamp(now, UTC), engine.site)
        self._make_way(expid, night)
        known = engine.holdings.find_exposure(expid)
        exptime_s = instructions.exptime_s or (known.instructions.exptime_s if known is not None else None)
        deadline = engine.deadline(said.timeout_s, exptime_s)

        def transition(view: FrameView) -> FrameView:
            is_open = view.state is FrameState.OPEN
            view = replace(view, primary=merged_text(view.primary, text)) if text and is_open else view
            view = assigned(
                view, expected, primary_name=options.primary, deadline=deadline, instructions=instructions, now=now
            )
            if text and not is_open:  # what was built has other cards
                view = with_primary(view, merged_text(view.primary, text), primary_name=options.primary, now=now)
            return view

        opening = Opening(night, deadline, instructions)
        view = engine.holdings.change(expid, frame, transition, opening=opening)
        engine.bulletin.frame("assigned", view, expected=view.expected)
        if view.state is FrameState.OPEN:
            engine.collector.collect(view, engine.holdings.exposure(expid).night)
        return view

    def build(self, expid: int, frame: int, said: Assignment, wait_s: float | None) -> FrameView:
        """Assign, unless that was done, and wait until the frame is built."""
        check_numbers(expid, frame)
        holdings = self._engine.holdings
        found = holdings.find(expid, frame)
        if found is None or said != Assignment():
            found = self.assign(expid, frame, said)
        if found.state is FrameState.OPEN and not found.expected and found.extensions:
            found = holdings.change(expid, frame, lambda view: closed(view, time.time()))
        if wait_s is None:
            wait_s = max(found.deadline - time.time(), 0.0) + _GRACE_S if found.state is FrameState.OPEN else 0.0
        return holdings.wait(expid, frame, lambda view: view.state is not FrameState.OPEN, wait_s)

    def accept(
        self,
        expid: int,
        frame: int,
        name: str,
        content: Body | Path | bytes | None,
        *,
        header: Mapping[str, Any],
        source: str,
        clobber: bool,
    ) -> tuple[ExtensionRecord, bool]:
        """Take an extension; a body is removed from the spool if it is refused."""
        engine = self._engine
        body: Body | None = content if isinstance(content, Body) else None
        try:
            check_numbers(expid, frame)
            name = extension_name(name)
            source = extension_name(source) if source else ""
            cards = header_text(header)
            if isinstance(content, Path):
                body = engine.spool.receive_file(content)
            elif isinstance(content, bytes):
                body = engine.spool.receive_bytes(content)
            said = merged(body.instructions if body is not None else NO_INSTRUCTIONS, instructions_in(header))
            effective(engine.options, said)
            if name in ("PRIMARY", engine.options.primary):
                text = primary_text(body) if body is not None else ""
                said = merged(self._fitting(words_among(text)), said)
                opening = self._opening(said)
                self._make_way(expid, None if opening is None else opening.night)
                text = merged_text(text, cards) if cards else text
                return self._accept_primary(expid, frame, text, said, opening, clobber=clobber)
            described = describe(body, name) if body is not None else None
            if body is not None and described is not None:
                said = merged(self._fitting(words_in(body, described)), said)
            opening = self._opening(said)
            delivery = Delivery(name, body, cards, source, clobber, said, described)
            primary_name = engine.options.primary
            if not self._belongs(expid, frame, delivery):
                self._make_way(expid, None if opening is None else opening.night)
            return engine.holdings.land(expid, frame, delivery, primary_name=primary_name, opening=opening)
        finally:
            if body is not None:
                engine.spool.drop(body)  # nothing, if it has got a name

    def set_primary(self, expid: int, frame: int, header: Mapping[str, Any], *, clobber: bool) -> FrameView:
        """Change the cards of the primary header, also of a frame that is built."""
        check_numbers(expid, frame)
        said = instructions_in(header)
        effective(self._engine.options, said)
        return self._primary(expid, frame, header_text(header), said, None, clobber=clobber)

    def clear(self, expid: int | None, frame: int | None, extension: str | None, *, discard: bool) -> int:
        """Drop extensions, frames or exposures; returns how many extensions."""
        engine = self._engine
        if expid is None and (frame is not None or extension is not None):
            message = "a frame or an extension of all exposures"
            raise Rejected(message, remedy="say of which exposure")
        if expid is not None:
            engine.holdings.exposure(expid)
            if frame is not None:
                engine.holdings.frame(expid, frame)
        unsaved = [] if discard else engine.caretaker.unsaved(expid, frame)
        if unsaved:
            first = unsaved[0]
            message = f"{len(unsaved)} frames lie nowhere else, as {first.expid}/{first.frame}"
            raise Unsaved(message, remedy='write, send to the ledger or archive them, or say unsaved="discard"')
        check = _let_go if discard else refuse_unsaved  # again, for something may have come in the meantime
        if extension is not None and expid is not None:
            count = self._clear_extension(expid, frame, extension_name(extension), check)
        elif frame is not None and expid is not None:
            count = engine.holdings.drop_frame(expid, frame, check=check, wait_s=_PATIENCE_S)
        else:
            cleared = [view.expid for view in engine.holdings.exposures()] if expid is None else [expid]
            count = sum(engine.holdings.drop_exposure(each, check=check, wait_s=_PATIENCE_S) for each in cleared)
        what = {"expid": expid, "frame": frame, "extension": extension}
        engine.bulletin.events.add("exposure", what="cleared", extensions=count, **what)
        engine.caretaker.tidy()
        return count

    def finalize(self, expid: int, details: Mapping[str, Any]) -> ExposureView:
        """Complete an exposure: no further frames are opened; those without a list are built with what is there."""
        engine = self._engine

        def complete(exposure: ExposureView) -> ExposureView:
            return replace(exposure, state=ExposureState.COMPLETE) if exposure.state is ExposureState.OPEN else exposure

        engine.holdings.change_exposure(expid, complete)
        for view in engine.holdings.frames(expid):
            if view.state is FrameState.OPEN and not view.expected:
                engine.holdings.change(expid, view.frame, lambda view: closed(view, time.time()))
        exposure = engine.holdings.exposure(expid)
        engine.bulletin.events.add("exposure", what="complete", expid=expid, frames=exposure.frames, details=details)
        engine.archive_if_over(expid)
        return engine.holdings.exposure(expid)

    def _make_way(self, expid: int, night: Night | None) -> None:
        """Let a number that comes again on another observing day mean another exposure, where frames may be opened."""
        engine = self._engine
        if night is not None and (former := make_way(engine.holdings, expid, night, time.time())) is not None:
            engine.forget(expid)
            engine.bulletin.events.add("exposure", what="made_way", expid=expid, night=former.night.label)

    def _belongs(self, expid: int, frame: int, delivery: Delivery) -> bool:
        """Tell whether a frame that is there waits for an extension, or has it already."""
        view = self._engine.holdings.find(expid, frame)
        if view is None:
            return False
        known = content_sum(delivery.body, delivery.cards)
        return bool({delivery.name, delivery.source} & set(view.missing)) or any(
            (item.name, item.sha256) == (delivery.name, known) for item in view.extensions
        )

    def _expected(self, said: Assignment) -> tuple[str, ...]:
        if said.sources is None and said.extensions is None:
            return self._engine.options.sources
        return (*(said.sources or ()), *(said.extensions or ()))

    def _opening(self, said: Instructions) -> Opening | None:
        """Say how a frame that nobody assigned is opened; None: it is not."""
        engine = self._engine
        if engine.options.unassigned == "refuse":
            return None
        night = night_of(datetime.now(UTC), engine.site)
        return Opening(night, engine.deadline(None, said.exptime_s), said)

    def _fitting(self, words: Instructions) -> Instructions:
        """Return control words of a file, if they can be followed."""
        try:
            effective(self._engine.options, words)
        except Misconfigured:
            return replace(NO_INSTRUCTIONS, exptime_s=words.exptime_s)
        return words

    def _accept_primary(
        self, expid: int, frame: int, text: str, said: Instructions, opening: Opening | None, *, clobber: bool
    ) -> tuple[ExtensionRecord, bool]:
        """Update the primary header with what came as an extension of that name."""
        before = self._engine.holdings.find(expid, frame)
        complete = before is not None and before.state is FrameState.BUILT and bool(before.expected)
        if complete and before is not None and merged_text(before.primary, text, clobber=clobber) != before.primary:
            message = f"frame {expid}/{frame} is complete, its primary header is not taken"
            raise Complete(message, remedy="set_primary changes it, and has the frame built again")
        view = self._primary(expid, frame, text, said, opening, clobber=clobber)
        record = ExtensionRecord(
            name=self._engine.options.primary,
            path=view.directory / "frame.json",
            sha256=content_sum(None, text),
            received_at=time.time(),
            cards=view.primary,
        )
        return record, before is not None and before.primary == view.primary

    def _primary(
        self, expid: int, frame: int, text: str, said: Instructions, opening: Opening | None, *, clobber: bool
    ) -> FrameView:
        name = self._engine.options.primary

        def transition(view: FrameView) -> FrameView:
            view = replace(view, instructions=merged(view.instructions, said))
            return with_primary(
                view, merged_text(view.primary, text, clobber=clobber), primary_name=name, now=time.time()
            )

        return self._engine.holdings.change(expid, frame, transition, opening=opening)

    def _clear_extension(self, expid: int, frame: int | None, name: str, check: CheckFunction) -> int:
        holdings, primary_name = self._engine.holdings, self._engine.options.primary
        views = holdings.frames(expid) if frame is None else (holdings.frame(expid, frame),)
        having = [view for view in views if any(item.name == name for item in view.extensions)]
        if not having:
            message = f"no frame of exposure {expid} that was meant has an extension {name}"
            raise Unknown(message, remedy="see what its frames hold")
        for view in having:
            holdings.drop_extension(expid, view.frame, name, primary_name=primary_name, check=check, wait_s=_PATIENCE_S)
        return len(having)


def _let_go(_: FrameView) -> None:
    """Let a frame be dropped, whether it is saved or not."""
