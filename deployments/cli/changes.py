"""``nightglass retry``, ``skip`` and ``ledger reconcile``."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from deployments.cli.places import camera_named, product_files, raw_files
from deployments.cli.screen import STATE_STYLES, add_row, output, table
from deployments.cli.session import Session, open_session, tonight
from deployments.cli.view import alive, cameras_of, latest_night
from nightglass.errors import Misconfigured
from nightglass.model import Night

if TYPE_CHECKING:
    from nightglass.ledger import Entry, Ledger

__all__ = ["reconcile_command", "retry_command", "skip_command"]


def retry_command(exposures: Sequence[str], *, config: Path | None, root: Path | None) -> None:
    """Send exposures back to where they enter again."""
    session = open_session(config, root)
    with session.ledger() as ledger:
        _show(ledger.retry(_names(exposures), owner=f"retry by {getpass.getuser()}"))
    if not any(beat.phase == "watching" for beat in alive(session.layout.run)):
        output().print("no watch runs; they are taken up when one does: nightglass run", markup=False)


def skip_command(exposures: Sequence[str], *, config: Path | None, root: Path | None) -> None:
    """Leave exposures out."""
    with open_session(config, root).ledger() as ledger:
        who = getpass.getuser()
        _show(ledger.skip(_names(exposures), reason=f"skipped by {who}", owner=f"skip by {who}"))


def reconcile_command(*, night: str | None, camera: str | None, config: Path | None, root: Path | None) -> int:
    """Print every difference between ledger and disk; return 1 if there is one."""
    session, console = open_session(config, root), output()
    with session.ledger() as ledger:
        chosen = Night(night) if night else latest_night(ledger, camera) or tonight(session.observatory)
        cameras = cameras_of(ledger, chosen, camera)
        if not cameras:
            message = f"the ledger knows no night {chosen}" + (f" of camera {camera}" if camera else "")
            raise Misconfigured(message)
        differences = 0
        for name in cameras:
            differences += _reconcile(session, ledger, chosen, name)
    if not differences:
        console.print(f"[green]night {chosen}: ledger and disk agree[/]")
    return 1 if differences else 0


def _reconcile(session: Session, ledger: Ledger, night: Night, camera: str) -> int:
    found = ledger.reconcile(
        night,
        camera,
        files=raw_files(session.observatory, night, camera_named(camera, session.observatory)),
        product_files=product_files(session.layout, night, camera),
    )
    made = table("difference", "subject", "detail", title=f"{camera}, night {night}")
    for difference in found.differences:
        add_row(made, difference.kind.value, difference.subject, difference.detail)
    if found.differences:
        output().print(made)
    return len(found.differences)


def _names(exposures: Iterable[str]) -> list[str]:
    """Return ids as they are, and files that exist by their absolute path."""
    return [str(Path(name).absolute()) if Path(name).exists() else name for name in exposures]


def _show(entries: Iterable[Entry]) -> None:
    made = table("exposure", "now", "reason")
    for entry in entries:
        name = entry.exposure_id or str(entry.path)
        add_row(made, name, Text(entry.state.value, STATE_STYLES[entry.state]), entry.reason)
    output().print(made)
