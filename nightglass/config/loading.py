"""Finding and loading the observatory file and camera files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from nightglass.config.camera import Camera
from nightglass.config.observatory import Observatory
from nightglass.config.section import choose, load_toml, validate

__all__ = ["load_camera", "load_observatory", "packaged_cameras"]

_ENVIRONMENT = {
    "NIGHTGLASS_ROOT": ("root",),
    "NIGHTGLASS_LEDGER_URL": ("ledger_url",),
    "NIGHTGLASS_CLUSTER": ("cluster", "address"),
    "NIGHTGLASS_SMTP_PASSWORD": ("notices", "smtp", "password"),
    "NIGHTGLASS_MAIL_FROM": ("notices", "mail_from"),
}


def load_observatory(
    path: Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Observatory:
    """Load the observatory file; the command line goes before the environment, the environment before the file.

    Parameters
    ----------
    path : Path, optional
        The file; None: ``NIGHTGLASS_CONFIG``, or the defaults.
    overrides : mapping, optional
        Nested values from the command line.
    environment : mapping, optional
        Instead of ``os.environ``.

    Raises
    ------
    Misconfigured
        If the file is missing, is not TOML, or holds a value or key that does not fit.
    """
    environment = os.environ if environment is None else environment
    if path is None and environment.get("NIGHTGLASS_CONFIG"):
        path = Path(environment["NIGHTGLASS_CONFIG"])
    values = load_toml(path) if path is not None else {}
    for variable, place in _ENVIRONMENT.items():
        if environment.get(variable):
            _set(values, place, environment[variable])
    recipients = environment.get("NIGHTGLASS_MAIL_TO", "")
    if recipients:
        _set(values, ("notices", "mail_to"), [item.strip() for item in recipients.split(",") if item.strip()])
    _merge(values, overrides or {})
    return validate(Observatory, values, where=str(path) if path else "configuration")


def packaged_cameras() -> tuple[str, ...]:
    """Return the names of the camera files that come with Nightglass."""
    files = resources.files("nightglass.cameras").iterdir()
    return tuple(sorted(item.name.removesuffix(".toml") for item in files if item.name.endswith(".toml")))


def load_camera(name: str, *, directories: Sequence[Path] = ()) -> Camera:
    """Load a camera file by path, or by name from the given directories and then from the packaged ones.

    Raises
    ------
    Misconfigured
        If there is no such camera (the message names the choices) or its file does not fit.
    """
    if name.endswith(".toml") or "/" in name:
        path = Path(name).expanduser()
        return _camera(load_toml(path), str(path), base=path.parent)
    for directory in directories:
        path = directory.expanduser() / f"{name}.toml"
        if path.is_file():
            return _camera(load_toml(path), str(path), base=path.parent)
    local = [path.stem for directory in directories for path in directory.expanduser().glob("*.toml")]
    choose(name, [*packaged_cameras(), *local], what="camera")
    with resources.as_file(resources.files("nightglass.cameras") / f"{name}.toml") as path:
        return _camera(load_toml(path), f"packaged camera {name}", base=path.parent)


def _camera(values: dict[str, Any], where: str, *, base: Path) -> Camera:
    for detector in values.get("detectors", ()):
        if isinstance(detector, dict) and detector.get("bad_pixels"):
            detector["bad_pixels"] = str(base / detector["bad_pixels"])
    camera = validate(Camera, values, where=where)
    _check_steps(camera, where)
    return camera


def _check_steps(camera: Camera, where: str) -> None:
    from nightglass.steps import load_steps  # imported late: numpy is in it, which the observatory file does not need

    steps = load_steps()

    for list_name, by_kind in camera.steps.items():
        for kind, entries in by_kind.items():
            for entry in entries:
                place = f"{where}: steps.{list_name}.{kind}"
                choose(entry.step, steps, what=f"step (in {place})")
                validate(steps[entry.step].settings, entry.parameters, where=f"{place}: {entry.step}")


def _set(values: dict[str, Any], place: Sequence[str], value: Any) -> None:
    for part in place[:-1]:
        values = values.setdefault(part, {})
    values[place[-1]] = value


def _merge(values: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    for key, value in overrides.items():
        if isinstance(value, Mapping):
            if not isinstance(values.get(key), dict):
                values[key] = {}
            _merge(values[key], value)
        elif value is not None:
            values[key] = value
