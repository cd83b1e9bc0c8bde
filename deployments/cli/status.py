"""``nightglass status``."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from deployments.cli.screen import night_screen, output
from deployments.cli.session import Session, open_session, tonight
from deployments.cli.view import NightView, as_json, latest_night, look, look_without_ledger
from nightglass.model import Night

__all__ = ["status_as_json", "status_command"]


def status_command(*, night: str | None, camera: str | None, config: Path | None, root: Path | None) -> None:
    """Print the screen of a night."""
    console = output()
    console.print(night_screen(_view(open_session(config, root), night, camera), width=console.width))


def status_as_json(*, night: str | None, camera: str | None, config: Path | None, root: Path | None) -> None:
    """Print the state of a night as JSON."""
    view = _view(open_session(config, root), night, camera)
    Console(highlight=False, soft_wrap=True).print(json.dumps(as_json(view), indent=2), markup=False)


def _view(session: Session, night: str | None, camera: str | None) -> NightView:
    asked = Night(night) if night else None
    if (early := look_without_ledger(session.observatory, asked or tonight(session.observatory))) is not None:
        return early
    with session.ledger() as ledger:
        chosen = asked or latest_night(ledger, camera) or tonight(session.observatory)
        return look(ledger, session.observatory, chosen, camera=camera)
