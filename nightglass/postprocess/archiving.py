"""The archive of a night as a piece of the final stage: told and alarmed when it fails, never a reason to stop."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from nightglass.errors import NightglassError
from nightglass.layout import Layout

if TYPE_CHECKING:
    from nightglass.archive import NightArchive
    from nightglass.config import Camera, Observatory
    from nightglass.ledger import Ledger
    from nightglass.model import Night
    from nightglass.pool import Pool

__all__ = ["archive_all", "archive_facts"]

_log = logging.getLogger(__name__)

_MOST_NAMED = 20


def archive_all(
    night: Night, camera: Camera, *, ledger: Ledger, pool: Pool, observatory: Observatory, owner: str
) -> NightArchive | None:
    """Archive all exposures of a night, and purge raw frames of earlier ones by the rules of the observatory file.

    Whatever goes wrong becomes a notice, and a line in the report of the stage.

    Returns
    -------
    NightArchive or None
        None if nothing is to be archived at the final stage, or the archive as a whole was not possible.
    """
    if observatory.archive.when == "never":
        return None
    from nightglass.archive import archive_night, purge

    try:
        result = archive_night(night, camera, ledger=ledger, pool=pool, observatory=observatory, owner=owner)
        if result.failures:
            lines = [f"{item.exposure}: {item.error}" for item in result.failures[:_MOST_NAMED]]
            lines += [f"and {len(result.failures) - _MOST_NAMED} more"] * (len(result.failures) > _MOST_NAMED)
            count = f"{len(result.failures)} of {len(result.exposures)} exposures"
            _alarm(f"{count} are not archived", lines, night, camera, observatory)
        purged = purge(ledger=ledger, observatory=observatory, camera=camera.name)
        if purged.kept:
            _alarm("raw frames are kept", list(purged.kept[:_MOST_NAMED]), night, camera, observatory)
    except Exception as error:  # noqa: BLE001 - a boundary: the night is closed, archived or not
        _log.exception("night %s of camera %s cannot be archived", night, camera.name)
        _alarm("the archive failed", [f"{type(error).__name__}: {error}"], night, camera, observatory)
        return None
    return result


def archive_facts(archive: NightArchive | None) -> dict[str, Any]:
    """Return what the summary of a stage says about the archive."""
    if archive is None:
        return {}
    good = sum(item.outcome.is_good for item in archive.exposures)
    return {"archived": good, "archive_failures": tuple(f"{item.exposure}: {item.error}" for item in archive.failures)}


def _alarm(what: str, lines: list[str], night: Night, camera: Camera, observatory: Observatory) -> None:
    from nightglass.notices import Notice, Outbox

    remedy = (
        f"Their frames stay where they are. Try again by: nightglass archive --night {night} --camera {camera.name}"
    )
    notice = Notice(subject=f"{camera.name} {night}: {what}", text="\n".join([*lines, "", remedy, ""]))
    try:
        Outbox(Layout(observatory.root).run / "outbox", observatory.notices).put(notice)
    except (NightglassError, OSError):
        _log.exception("nobody can be told that %s", notice.subject)
