"""``nightglass camera test`` and ``camera list``."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from deployments.cli.screen import add_row, output, table
from deployments.cli.session import open_session
from nightglass.config import load_camera, packaged_cameras
from nightglass.errors import Rejected

__all__ = ["camera_list_command", "camera_test_command"]


def camera_test_command(file: Path, *, camera: str, config: Path | None) -> int:
    """Print what a camera makes of a file; return 1 if it would reject it."""
    from nightglass.dialects import tour

    observatory = open_session(config).observatory
    chosen = load_camera(camera, directories=observatory.camera_directories)
    console = output()
    made = table("field", "value", "from", title=f"{file.name} as camera {chosen.name} reads it")
    try:
        for field, value, origin in tour(file, chosen):
            add_row(made, field, str(value), Text(str(origin), "bright_black"))
    except Rejected as error:
        console.print(Text.assemble(("rejected: ", "bold red"), str(error)))
        return 1
    console.print(made)
    return 0


def camera_list_command(*, config: Path | None) -> None:
    """Print the cameras that can be named, packaged ones and those of the configured directories."""
    observatory = open_session(config).observatory
    local = {path.stem for place in observatory.camera_directories for path in place.expanduser().glob("*.toml")}
    made = table("camera", "description", "step lists", "")
    for name in sorted({*packaged_cameras(), *local}):
        camera = load_camera(name, directories=observatory.camera_directories)
        where = "yours" if name in local else "packaged"
        add_row(made, name, camera.description, ", ".join(sorted(camera.steps)), Text(where, "bright_black"))
    output().print(made)
