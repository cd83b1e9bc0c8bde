"""``nightglass archive``: exposures of the ledger become cubes, and raw frames go by the rules."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from deployments.cli.bars import mebibytes, progress_bar, rate
from deployments.cli.places import camera_named
from deployments.cli.screen import add_row, duration, output, table
from deployments.cli.session import Session, open_session
from deployments.cli.view import cameras_of
from nightglass.errors import Misconfigured, NightglassError
from nightglass.model import Content, Night

if TYPE_CHECKING:
    from nightglass.archive import ArchiveSummary
    from nightglass.ledger import Ledger
    from nightglass.pool import Pool

__all__ = ["ArchiveWish", "archive_command"]

_STYLES = {"archived": "green", "adopted": "green", "current": "bright_black", "failed": "bold red"}
_FEW = 3
_MUCH = 1 << 30
"""Bytes of a night above which it pays to start workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveWish:
    """The options of ``nightglass archive`` as they were written."""

    exposures: tuple[str, ...] = ()
    night: str | None = None
    camera: str | None = None
    reduced: bool = False
    again: bool = False
    purge: bool = False


def archive_command(wish: ArchiveWish, *, config: Path | None, root: Path | None) -> int:
    """Archive what was asked for, print what became of it, and return 1 if an exposure has no cube.

    Raises
    ------
    Misconfigured
        If nothing was asked for, or the ledger does not know it.
    """
    if not (wish.exposures or wish.night or wish.purge) or (wish.exposures and wish.night):
        message = "which exposures?" if not wish.night else "exposures, or all of a night, not both"
        raise Misconfigured(
            message, remedy="nightglass archive lynx/20260821/17, or nightglass archive --night 20260821"
        )
    session, console = open_session(config, root), output()
    with session.ledger() as ledger:
        code = 0
        if wish.exposures or wish.night:
            summaries = _archived(wish, session, ledger, console)
            _show(summaries, console)
            code = 1 if any(item.error for item in summaries) else 0
        if wish.purge:
            _purge(wish, session, ledger, console)
    return code


def _archived(wish: ArchiveWish, session: Session, ledger: Ledger, console: Console) -> list[ArchiveSummary]:
    from nightglass.archive import Redo

    options: dict[str, Any] = {
        "ledger": ledger,
        "observatory": session.observatory,
        "content": Content.REDUCED if wish.reduced else None,
        "redo": Redo.ALL if wish.again else Redo.FAILED,
    }
    with ExitStack() as stack:
        if wish.night:
            return _night(Night(wish.night), wish, session, options, console, stack)
        options["pool"] = stack.enter_context(_pool(session, much=len(wish.exposures) > _FEW))
        return [_one(name, session, ledger, options, console) for name in wish.exposures]


def _night(
    night: Night, wish: ArchiveWish, session: Session, options: dict[str, Any], console: Console, stack: ExitStack
) -> list[ArchiveSummary]:
    from nightglass.archive import archive_night

    ledger: Ledger = options["ledger"]
    names = cameras_of(ledger, night, wish.camera)
    if not names:
        message = f"the ledger knows no night {night}" + (f" of camera {wish.camera}" if wish.camera else "")
        raise Misconfigured(message, remedy="look by: nightglass status")
    size = sum(entry.size for name in names for entry in ledger.entries(night, name))
    options["pool"] = stack.enter_context(_pool(session, much=size > _MUCH))
    done: list[ArchiveSummary] = []
    for name in names:
        with progress_bar(console, f"{name} {night}") as progress:
            result = archive_night(night, camera_named(name, session.observatory), progress=progress, **options)
        done += result.exposures
    return done


def _one(name: str, session: Session, ledger: Ledger, options: dict[str, Any], console: Console) -> ArchiveSummary:
    from nightglass.archive import ArchiveOutcome, ArchiveSummary, archive_exposure

    target = str(Path(name).absolute()) if Path(name).is_file() else name
    entries = ledger.members(target) or (ledger.find(target),)
    camera = camera_named(entries[0].camera, session.observatory)
    try:
        with progress_bar(console, name) as progress:
            return archive_exposure(target, camera=camera, progress=progress, **options)
    except Misconfigured:
        raise
    except NightglassError as error:
        content = options["content"] or session.observatory.archive.what
        return ArchiveSummary(
            exposure=entries[0].archive_id, content=content, outcome=ArchiveOutcome.FAILED, error=str(error)
        )


def _show(summaries: Sequence[ArchiveSummary], console: Console) -> None:
    made = table("exposure", "outcome", ">sources", ">frames", ">size", ">time", ">rate")
    for item in summaries:
        outcome = Text(item.outcome.value, _STYLES.get(item.outcome.value, "yellow"))
        spent = duration(item.seconds) if item.seconds else ""
        numbers = (str(item.source_count), str(item.frames), mebibytes(item.size)) if item.frames else ("", "", "")
        add_row(made, item.exposure, outcome, *numbers, spent, rate(item.pixel_bytes, item.seconds))
    console.print(made if summaries else "nothing to archive")
    for item in summaries:
        if item.path is not None and len(summaries) <= _FEW:
            console.print(Text.assemble(("cube  ", "bright_black"), str(item.path)), soft_wrap=True)
        for problem in item.problems:
            console.print(Text(f"  {item.exposure}, left out: {problem}", "yellow"), soft_wrap=True)
        if item.error:
            console.print(Text(f"  {item.exposure}: {item.error}", "red"), soft_wrap=True)
    good = [item for item in summaries if item.outcome.is_good]
    if len(summaries) > 1:
        size, spent_s = sum(item.size for item in good), sum(item.seconds for item in good)
        console.print(f"{len(good)} of {len(summaries)} archived, {mebibytes(size)}, {duration(spent_s)} of work")


def _purge(wish: ArchiveWish, session: Session, ledger: Ledger, console: Console) -> None:
    from nightglass.archive import purge

    if not session.observatory.archive.purge.active:
        message = "the observatory file has no rule by which raw frames may go"
        raise Misconfigured(message, remedy="set age_days, keep_count or free_gib in [archive.purge]")
    for name in sorted({camera for _, camera in ledger.nights_seen(wish.camera)}):
        done = purge(ledger=ledger, observatory=session.observatory, camera=name)
        count = f"{done.files} raw frames of {len(done.exposures)} archived exposures"
        console.print(f"{name}: {count} deleted, {mebibytes(done.freed)} freed")
        for text in done.kept:
            console.print(Text(f"  kept: {text}", "yellow"), soft_wrap=True)


def _pool(session: Session, *, much: bool) -> Pool:
    """Return workers that are there already, new ones where it pays, or this thread."""
    from nightglass.cluster import connect
    from nightglass.cluster.starting import published_address
    from nightglass.pool import SerialPool

    settings = session.observatory.cluster
    there = settings.address or settings.factory or published_address(session.layout)
    return connect(settings, layout=session.layout) if there or much else SerialPool()
