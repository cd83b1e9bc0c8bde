"""Raw frames that may go: those whose cube is archived, verified, and whole on disk right now."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nightglass.fitsio import content_id
from nightglass.ledger import ArchiveState
from nightglass.model import Content

if TYPE_CHECKING:
    from nightglass.config import Observatory, Purge
    from nightglass.ledger import ArchiveRecord, Entry, Ledger

__all__ = ["Purged", "purge"]

_log = logging.getLogger(__name__)

_DAY_S = 86400.0
_GIB = 2.0**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What a purge did.

    Attributes
    ----------
    exposures : tuple of str
        Whose raw frames were deleted.
    kept : tuple of str
        Exposures that a rule named and that were kept all the same, and why.
    """

    exposures: tuple[str, ...] = ()
    files: int = 0
    freed: int = 0
    kept: tuple[str, ...] = ()


def purge(
    *,
    ledger: Ledger,
    observatory: Observatory,
    camera: str,
    now: float | None = None,
    free_space: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
) -> Purged:
    """Delete raw frames by the rules of the observatory file; without a rule, nothing.

    A frame goes only if all of this is true now: its night is closed, its reduction is over, the ledger has its cube
    as verified and current, the cube is on disk with the checksum of the ledger, the frame is in the cube, and the
    file is the one that was archived.

    Parameters
    ----------
    now : float, optional
        Epoch seconds.
    free_space : callable
        Gives the free bytes of a directory's disk.
    """
    rules = observatory.archive.purge
    if not rules.active:
        return Purged()
    moment = time.time() if now is None else now
    records = ledger.archives(camera=camera, content=Content.RAW, states=[ArchiveState.ARCHIVED])
    exposures, kept = [], []
    files = freed = 0
    for record, limit in _chosen(records, rules, moment):
        doomed = [entry for entry in ledger.members(record.exposure) if _is_archived(entry, record)]
        if not doomed or free_space(doomed[0].path.parent) >= limit:
            continue
        reason = _reason_to_keep(record, ledger)
        if reason:
            kept.append(f"{record.exposure}: {reason}")
            continue
        ledger.mark_purged([record], now=moment)  # before the first is gone: reconciliation must not miss them
        freed += sum(_delete(entry) for entry in doomed)
        files += len(doomed)
        exposures.append(record.exposure)
    if exposures:
        _log.info("%d raw frames of %d archived exposures were deleted, %d bytes", files, len(exposures), freed)
    for text in kept:
        _log.warning("raw frames are kept: %s", text)
    return Purged(exposures=tuple(exposures), files=files, freed=freed, kept=tuple(kept))


def _chosen(records: tuple[ArchiveRecord, ...], rules: Purge, now: float) -> Iterator[tuple[ArchiveRecord, float]]:
    """Yield the archives that a rule names, the earliest first, and below how much free space their frames go."""
    for place, record in enumerate(records):
        if not record.is_safe:
            continue
        old = rules.age_days is not None and now - (record.verified_at or now) > rules.age_days * _DAY_S
        many = rules.keep_count is not None and len(records) - place > rules.keep_count
        if old or many:
            yield record, math.inf
        elif rules.free_gib is not None:
            yield record, rules.free_gib * _GIB


def _is_archived(entry: Entry, record: ArchiveRecord) -> bool:
    """Return whether what is on disk now is what is in the cube, and nobody needs it any more."""
    held = {item.content for item in record.files if not item.problem}
    if not entry.is_final or entry.is_duplicate or (entry.content_id or f"{entry.size}-{entry.mtime_ns}") not in held:
        return False
    try:
        status = entry.path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns)


def _reason_to_keep(record: ArchiveRecord, ledger: Ledger) -> str:
    night = ledger.find_night(record.night, record.camera)
    if night is not None and night.is_open:
        return f"night {record.night} is not closed"
    try:
        if record.path is None or record.path.stat().st_size != record.size:
            return f"its cube {record.path} has another size than the ledger says"
        if content_id(record.path) != record.checksum:
            return f"its cube {record.path} is not what was archived: its checksum differs"
    except OSError as error:
        return f"its cube cannot be read: {error}"
    return ""


def _delete(entry: Entry) -> int:
    entry.path.unlink(missing_ok=True)
    return entry.size
