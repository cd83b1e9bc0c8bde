"""``nightglass calibrations``: masters in use, archival or tonight's, and what is still required."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from deployments.cli.places import camera_named
from deployments.cli.screen import add_row, output, table
from deployments.cli.session import open_session, tonight
from deployments.cli.view import cameras_of, latest_night
from nightglass.config import MissingCalibration
from nightglass.errors import Misconfigured
from nightglass.model import MasterRef, Night, Quality

if TYPE_CHECKING:
    from nightglass.calibrations import Requirement
    from nightglass.ledger import Ledger

__all__ = ["calibrations_command"]


def calibrations_command(*, night: str | None, camera: str | None, config: Path | None, root: Path | None) -> None:
    """Print, for each camera of a night, what its exposures need and what they get."""
    from nightglass.calibrations import requirements

    session, console = open_session(config, root), output()
    with session.ledger() as ledger:
        chosen = Night(night) if night else latest_night(ledger, camera) or tonight(session.observatory)
        names = cameras_of(ledger, chosen, camera)
        if not names:
            message = f"the ledger knows no night {chosen}" + (f" of camera {camera}" if camera else "")
            raise Misconfigured(message, remedy=f"it knows {_known(ledger, camera)}")
        for name in names:
            needed = requirements(chosen, camera_named(name, session.observatory), ledger)
            console.print(_needed(name, chosen, needed))
            spare = [item for item in ledger.masters(name, since=chosen, until=chosen) if not _serves(item, needed)]
            if spare:
                console.print("", _spare(spare))


def _known(ledger: Ledger, camera: str | None) -> str:
    return ", ".join(sorted({str(night) for night, _ in ledger.nights_seen(camera)})[-5:]) or "none at all"


def _serves(master: MasterRef, needed: Sequence[Requirement]) -> bool:
    return any(item.master is not None and item.master.master_id == master.master_id for item in needed)


def _needed(camera: str, night: Night, needed: Sequence[Requirement]) -> Table:
    made = table("kind", "for", ">exposures", "master", "from", ">frames", "quality", title=f"{camera}, night {night}")
    for item in needed:
        if item.master is None:
            waits = item.missing is MissingCalibration.WAIT
            text = "required, waited for" if waits else "required, gone without"
            style = "bold red" if waits else "yellow"
            add_row(made, item.kind.value, item.what, str(item.exposures), Text(text, style), "", "", "")
            continue
        master = item.master
        origin = Text("tonight", "green") if item.tonight else Text(f"archive, {master.night}", "yellow")
        add_row(
            made,
            item.kind.value,
            item.what,
            str(item.exposures),
            master.path.name,
            origin,
            str(master.frames),
            _quality(master.quality),
        )
    if not needed:
        add_row(made, Text("nothing is needed yet", "bright_black"), *[""] * 6)
    return made


def _spare(masters: Sequence[MasterRef]) -> Table:
    made = table("kind", "master", ">frames", "quality", title="made tonight, not needed by any exposure")
    for master in masters:
        add_row(made, master.kind.value, master.path.name, str(master.frames), _quality(master.quality))
    return made


def _quality(quality: Quality) -> Text:
    return Text(quality.value, {Quality.OK: "green", Quality.WARNING: "yellow", Quality.BAD: "red"}[quality])
