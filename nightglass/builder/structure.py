"""The rules of a frame under construction, without files, clocks or threads: a frame goes in, the next one comes out.

====================== ============================ ==================================== ===============================
an extension comes     OPEN                         PARTIAL, or closed without a list    BUILT as it was assigned
====================== ============================ ==================================== ===============================
equal to one there     acknowledged again           acknowledged again                   acknowledged again
of a new name          taken; the last one builds   taken, built again as a revision     refused: complete
of a name that is      refused, or with `clobber`   refused, or with `clobber` taken,    refused: complete
there, other contents  taken in its place           built again as a revision
====================== ============================ ==================================== ===============================

What a frame consists of may be told before, between or after its extensions. An item of that list is fulfilled by an
extension of that name, or by one whose source has it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nightglass.builder.instructions import merged
from nightglass.builder.records import (
    LARGEST_EXPID,
    LARGEST_FRAME,
    MOST_EXTENSIONS,
    ExtensionRecord,
    FrameState,
    FrameView,
    Instructions,
)
from nightglass.builder.refusals import Complete, Exists, Purged, Unknown
from nightglass.errors import Rejected

__all__ = [
    "Verdict",
    "admit",
    "assigned",
    "check_numbers",
    "closed",
    "extension_name",
    "is_saved",
    "marked",
    "noted",
    "opened",
    "purged",
    "with_extension",
    "with_primary",
    "without_extension",
]

_NAME = re.compile(r"[A-Z0-9_-]{1,32}")
_MOST_NOTES = 32
_AFTER_BUILT = ("built", "saved", "queued", "sent", "plotted", "published", "archived", "done")
"""Times of what has to be done again for a revision."""


class Verdict(enum.Enum):
    """What becomes of an extension that is not refused."""

    NEW = enum.auto()
    DUPLICATE = enum.auto()
    REPLACES = enum.auto()


def check_numbers(expid: int, frame: int | None = None) -> None:
    """See that an exposure id and a frame number are in range.

    Raises
    ------
    Rejected
    """
    for value, largest, what in ((expid, LARGEST_EXPID, "exposure id"), (frame, LARGEST_FRAME, "frame number")):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest):
            message = f"{what} {value!r}"
            raise Rejected(message, remedy=f"an integer from 0 to {largest}")


def extension_name(name: str) -> str:
    """Return the name of an extension in capitals.

    Raises
    ------
    Rejected
        If it is none.
    """
    upper = str(name).strip().upper()
    if not _NAME.fullmatch(upper):
        message = f"{name!r} is no name for an extension"
        raise Rejected(message, remedy="letters, digits, _ and -, at most 32")
    return upper


def opened(expid: int, frame: int, *, directory: Path, deadline: float, instructions: Instructions) -> FrameView:
    """Return an empty frame, of which nobody said what it consists of."""
    return FrameView(
        expid=expid,
        frame=frame,
        state=FrameState.OPEN,
        directory=directory,
        deadline=deadline,
        instructions=instructions,
    )


def assigned(
    view: FrameView,
    expected: Sequence[str],
    *,
    primary_name: str,
    deadline: float,
    instructions: Instructions,
    now: float,
) -> FrameView:
    """Say what a frame consists of; the same again changes nothing.

    Raises
    ------
    Exists
        If something else was said before.
    Purged
        If it was built, is not complete by this list, and its pixels were given back.
    """
    expected = tuple(dict.fromkeys(expected))
    if "assigned" in view.times:
        if set(expected) == set(view.expected):
            return view
        message = f"frame {view.expid}/{view.frame} was assigned {', '.join(view.expected) or 'nothing'}"
        raise Exists(message, remedy="clear the frame first, or assign the same again")
    instructions = merged(view.instructions, instructions)
    after = replace(view, expected=expected, instructions=instructions, times={**view.times, "assigned": now})
    after = _in_order(after, primary_name)
    if view.state is FrameState.OPEN:
        after = replace(after, deadline=deadline)
        return _built(after, now) if expected and not after.missing else after
    if not after.missing:
        return after
    _check_pixels(view)
    return replace(_reopened(after), state=FrameState.OPEN, deadline=deadline)


def admit(view: FrameView, name: str, sha256: str, *, clobber: bool) -> Verdict:
    """Judge an extension by name and checksum.

    Raises
    ------
    Complete, Exists, Purged, Rejected
        If it is not taken.
    """
    there = next((record for record in view.extensions if record.name == name), None)
    if there is not None and there.sha256 == sha256:
        return Verdict.DUPLICATE
    if view.state is FrameState.BUILT and view.expected:
        message = f"frame {view.expid}/{view.frame} is complete, {name} is not taken"
        raise Complete(message, remedy="clear the frame first if it should be collected anew")
    if there is not None and not clobber:
        message = f"{name} of frame {view.expid}/{view.frame} is there, with other contents"
        raise Exists(message, remedy="send it with clobber=true to put it in the other's place")
    _check_pixels(view)
    if there is None and len(view.extensions) >= MOST_EXTENSIONS:
        message = f"frame {view.expid}/{view.frame} has {MOST_EXTENSIONS} extensions"
        raise Rejected(message, remedy="no frame has more")
    return Verdict.NEW if there is None else Verdict.REPLACES


def with_extension(view: FrameView, record: ExtensionRecord, *, primary_name: str, now: float) -> FrameView:
    """Add an extension that was admitted, or put it in the place of the one of its name."""
    others = tuple(item for item in view.extensions if item.name != record.name)
    times = {"first": now, **view.times, "last": now}
    after = replace(view, extensions=(*others, record), times=times)
    after = _in_order(after, primary_name)
    if view.state is not FrameState.OPEN:
        after = noted(_reopened(after), f"{record.name} came after the frame was built: revision {view.revision + 1}")
        return _built(after, now)
    return _built(after, now) if after.expected and not after.missing else after


def with_primary(view: FrameView, text: str, *, primary_name: str, now: float) -> FrameView:
    """Set the cards of the primary header; a frame that was built is built again.

    Raises
    ------
    Purged
        If its pixels were given back.
    """
    if text == view.primary:
        return view
    after = _in_order(replace(view, primary=text), primary_name)
    if view.state is not FrameState.OPEN:
        _check_pixels(view)
        return _built(noted(_reopened(after), f"the primary header was changed: revision {view.revision + 1}"), now)
    return _built(after, now) if after.expected and not after.missing else after


def closed(view: FrameView, now: float) -> FrameView:
    """Build a frame with what is there: at its deadline, or because somebody asks for it."""
    return _built(view, now) if view.state is FrameState.OPEN else view


def without_extension(view: FrameView, name: str, *, primary_name: str) -> FrameView:
    """Drop one extension; what was assigned is missing again.

    Raises
    ------
    Unknown
        If there is none of that name.
    """
    if all(record.name != name for record in view.extensions):
        message = f"frame {view.expid}/{view.frame} has no extension {name}"
        raise Unknown(message, remedy=f"there are {', '.join(item.name for item in view.extensions) or 'none'}")
    rest = tuple(record for record in view.extensions if record.name != name)
    after = _in_order(replace(view, extensions=rest), primary_name)
    if after.state is FrameState.BUILT and after.missing:
        after = replace(after, state=FrameState.PARTIAL)
    return after


def marked(view: FrameView, now: float, *names: str, revision: int | None = None) -> FrameView:
    """Note when something was done; what was done to an earlier revision is not noted."""
    if revision is not None and view.revision != revision:
        return view
    return replace(view, times={**view.times, **dict.fromkeys(names, now)})


def noted(view: FrameView, note: str) -> FrameView:
    """Add a remark, once; the oldest of many go."""
    return view if note in view.notes else replace(view, notes=(*view.notes, note)[-_MOST_NOTES:])


def purged(view: FrameView) -> FrameView:
    """Note that the spool gave the pixels back."""
    return replace(view, purged=True)


def is_saved(view: FrameView) -> bool:
    """Tell whether a frame, as it is now, lies somewhere else than in the spool alone; an empty one cannot be lost."""
    return not view.extensions or any(name in view.times for name in ("saved", "published", "archived"))


def _built(view: FrameView, now: float) -> FrameView:
    state = FrameState.PARTIAL if view.missing else FrameState.BUILT
    return replace(view, state=state, deadline=float("inf"), times={**view.times, "collected": now})


def _reopened(view: FrameView) -> FrameView:
    """Forget what was done with a frame: it was done with something else."""
    times = {name: at for name, at in view.times.items() if name not in _AFTER_BUILT}
    return replace(view, times=times, sends={}, revision=view.revision + 1)


def _in_order(view: FrameView, primary_name: str) -> FrameView:
    """Put extensions in the order of the list, then of arrival, and see what is missing."""
    place = {name: index for index, name in enumerate(view.expected)}
    last = len(place)
    ordered = sorted(
        view.extensions,
        key=lambda item: (place.get(item.name, place.get(item.source, last)), item.received_at, item.name),
    )
    there = {record.name for record in ordered} | {record.source for record in ordered}
    there |= {primary_name} if view.primary else set()
    return replace(view, extensions=tuple(ordered), missing=tuple(name for name in view.expected if name not in there))


def _check_pixels(view: FrameView) -> None:
    if view.purged:
        message = f"the pixels of frame {view.expid}/{view.frame} were given back, it cannot be built again"
        raise Purged(message, remedy="it is in its files; raise mem_purge_threshold to keep exposures for longer")
