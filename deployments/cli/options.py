"""The options that commands share; only what a parser needs is imported here, so that help comes at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Camera", "CameraNeeded", "Config", "NightAsked", "Root"]

_PLACES = "Where"

Config = Annotated[
    Path | None,
    typer.Option(help="Observatory file (TOML).", envvar="NIGHTGLASS_CONFIG", rich_help_panel=_PLACES),
]
Root = Annotated[
    Path | None,
    typer.Option(
        help="Where ledger, products, archive and logs are kept. (default: ~/nightglass)",
        envvar="NIGHTGLASS_ROOT",
        rich_help_panel=_PLACES,
    ),
]
Camera = Annotated[str | None, typer.Option(help="Only this camera.")]
CameraNeeded = Annotated[str, typer.Option(help="Name of a camera, or the path of its TOML file.")]
NightAsked = Annotated[str | None, typer.Option(help="Night, YYYYMMDD, the date of its evening. (default: the newest)")]
