"""Pixels that the spool gave back, brought in again out of a file of their frame: something came late, or changed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from nightglass.builder.landing import describe
from nightglass.builder.records import ExtensionRecord, FrameView
from nightglass.builder.refusals import Purged
from nightglass.builder.spool import Body, Spool
from nightglass.builder.structure import noted
from nightglass.config import Limits
from nightglass.errors import Rejected, Retryable
from nightglass.fitsio import HduInfo, scan_headers
from nightglass.fitsio.product_cards import make_cards
from nightglass.fitsio.sealing import seal

__all__ = ["Regained", "placed", "regaining"]

_PIECE: Final = 1 << 20
_LIMITS: Final = Limits(hdus=1024)


@dataclass(frozen=True, slots=True)
class Regained:
    """The extensions of a purged frame, each as a body that has no name in the spool yet."""

    view: FrameView
    source: Path
    bodies: tuple[Body, ...]


@contextlib.contextmanager
def regaining(spool: Spool, view: FrameView) -> Iterator[Regained]:
    """Read the extensions of a purged frame out of the file that was made of it as it is now.

    Raises
    ------
    Purged
        If there is no such file any more.
    SpoolFull, Retryable
        If there is no room, or the file system refuses.
    """
    bodies: list[Body] = []
    try:
        source, infos = _source(view) if view.extensions else (Path(), ())
        bodies.extend(_copied(spool, source, info) for info in infos)
        yield Regained(view, source, tuple(bodies))
    finally:
        for body in bodies:
            spool.drop(body)  # nothing, if it has got its name


def placed(spool: Spool, current: FrameView, regained: Regained | None) -> FrameView:
    """Give what was regained its names; a frame whose extensions are others by now stays as it is.

    Raises
    ------
    SpoolFull
        If the file system refuses.
    """
    if regained is None or not current.purged or current.extensions != regained.view.extensions:
        return current
    records: list[ExtensionRecord] = []
    try:
        for record, body in zip(current.extensions, regained.bodies, strict=True):
            found = describe(body, record.name)
            # it is known by what was delivered, so that the same again is no news
            path = spool.place(replace(body, sha256=record.sha256), current.directory, record.name)
            found = replace(found, path=path, number=record.number, source=record.source)
            records.append(replace(found, sha256=record.sha256, received_at=record.received_at))
    except Retryable:
        spool.remove(record.path for record in records)
        raise
    after = replace(current, extensions=tuple(records), purged=False)
    return noted(after, f"its pixels were brought back from {regained.source}")


def _source(view: FrameView) -> tuple[Path, tuple[HduInfo, ...]]:
    """Find the file that holds all extensions of this revision of a frame, and where in it each of them is."""
    candidates = [view.published] if "published" in view.times else []
    candidates += view.files[::-1] if "saved" in view.times else ()
    for path in candidates:
        if path is None:
            continue
        try:
            infos = scan_headers(path, _LIMITS)
        except (Rejected, Retryable):
            continue  # it was deleted, or is no file of ours
        named = {info.name.upper(): info for info in infos[1:]}
        own = (infos[0].header.get("EXPID"), infos[0].header.get("FRAME")) == (view.expid, view.frame)
        if own and all(record.name in named for record in view.extensions):
            return path, tuple(named[record.name] for record in view.extensions)
    message = f"the pixels of frame {view.expid}/{view.frame} were given back, and no file of it is left to add to"
    raise Purged(
        message, remedy="they are in its archive: push the whole frame under a number of its own, or clear it first"
    )


def _copied(spool: Spool, path: Path, info: HduInfo) -> Body:
    """Copy one HDU byte by byte, behind an empty primary HDU."""
    first = seal(make_cards({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "EXTEND": True}), 0)
    left = info.end - info.header_offset
    try:
        with path.open("rb", buffering=0) as stream, spool.receive(size=len(first) + left) as body:
            body.write(first)
            stream.seek(info.header_offset)
            while left and (piece := stream.read(min(_PIECE, left))):
                body.write(piece)
                left -= len(piece)
            return body.finish()
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise Retryable(message, remedy="check that it is still there and readable") from error
