"""The options of an image builder while it runs: how they are changed, and what an instrument calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nightglass.builder.records import Instructions
from nightglass.config import BuilderOptions, choose, validate
from nightglass.errors import Misconfigured

__all__ = ["BuilderOptions", "Effective", "change_options", "effective", "plot_options", "settable"]

_LISTS = {
    "add_send_to": ("send_to", True),
    "remove_send_to": ("send_to", False),
    "add_exclude": ("exclude", True),
    "remove_exclude": ("exclude", False),
}
"""Changes of one entry of a list -> the list, and whether it is added."""
_FILE_ONLY = {"callables", "directories", "constants", "pull"}
"""Settings that widen what commands may do: whoever may send commands may not change them."""
_ALIASES = {"add_frames": "add_frame", "guiderApp": "guider_app", "donutApp": "donut_app"}
_MISSPELT = {"expsure_ready_mode": "exposure_ready_mode"}
_REMEMBERED = 256
_INSTRUCTED = tuple(sorted(name for name in Instructions.__dataclass_fields__ if name in BuilderOptions.model_fields))
_EMPTY = {"image_name", "sub_dir", "image_dir", "png_dir", "archive_dir", "add_on", "mode", "send_command"}
"""Text for which None, as control systems write it, means that nothing is set."""
_LISTED = {"send_to", "exclude", "archive_primary", "archive_secondary", "archive_metadata", "sources"}


def settable() -> tuple[str, ...]:
    """Return the names that `change_options` knows."""
    return tuple(sorted({*BuilderOptions.model_fields, *_LISTS, *_ALIASES} - _FILE_ONLY))


def change_options(options: BuilderOptions, changes: Mapping[str, Any], *, where: str = "set") -> BuilderOptions:
    """Return the options with some of them changed.

    Besides every option there are ``add_send_to``, ``remove_send_to``, ``add_exclude`` and ``remove_exclude``, each
    with one entry or several.

    Raises
    ------
    Misconfigured
        If a key is unknown (the closest known one is named) or a value does not fit.
    """
    values = options.model_dump()
    for key, value in changes.items():
        if key in _MISSPELT:
            message = f"{where}: {key!r} is misspelt"
            raise Misconfigured(message, remedy=f"it is called {_MISSPELT[key]!r} here")
        if key in _FILE_ONLY:
            message = f"{where}: {key!r} cannot be changed by a command"
            raise Misconfigured(message, remedy="set it in the section of the builder in the observatory file")
        if key in _LISTS:
            name, added = _LISTS[key]
            values[name] = _changed(values[name], _entries(value), added=added, name=name)
            continue
        name = choose(_ALIASES.get(key, key), settable(), what=f"option (in {where})")
        values[name] = "" if value is None and name in _EMPTY else _entries(value) if name in _LISTED else value
    made = validate(BuilderOptions, values, where=where)
    if "constants_version" in changes:
        choose(made.constants_version, {"DEFAULT", *made.constants}, what="constants_version")
    return made


def effective(options: BuilderOptions, instructions: Instructions) -> BuilderOptions:
    """Return the options as they are for one frame: what a trigger says goes before what is set.

    Raises
    ------
    Misconfigured
        If an instruction holds a value that does not fit.
    """
    said = _said(instructions)
    return change_options(options, said, where="instructions") if said else options


class Effective:
    """What `effective` returns, remembered while the options are the same: thousands of frames are asked about."""

    def __init__(self) -> None:
        self._known: tuple[BuilderOptions | None, dict[tuple[tuple[str, Any], ...], BuilderOptions]] = (None, {})

    def __call__(self, options: BuilderOptions, instructions: Instructions) -> BuilderOptions:
        """Return the options as they are for one frame; see `effective`."""
        said = _said(instructions)
        if not said:
            return options
        of, known = self._known
        if of is not options or len(known) >= _REMEMBERED:
            known = {}
            self._known = (options, known)
        key = tuple(said.items())
        if (found := known.get(key)) is None:
            found = known[key] = effective(options, instructions)
        return found


def plot_options(options: BuilderOptions) -> dict[str, Any]:
    """Return the options of pictures alone."""
    return {name: value for name, value in options.model_dump().items() if name.startswith("plot_")}


def _said(instructions: Instructions) -> dict[str, Any]:
    return {name: value for name in _INSTRUCTED if (value := getattr(instructions, name)) is not None}


def _entries(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    if not isinstance(value, (str, list, tuple)):
        return (value,)  # told to be no text
    return (value,) if isinstance(value, str) else tuple(value)


def _changed(present: tuple[str, ...], entries: tuple[Any, ...], *, added: bool, name: str) -> tuple[str, ...]:
    entries = tuple(str(item).upper() for item in entries) if name == "exclude" else entries
    if added:
        return tuple(dict.fromkeys((*present, *entries)))
    absent = [item for item in entries if item not in present]
    if absent:
        choose(str(absent[0]), present, what=f"entry of {name}")
    return tuple(item for item in present if item not in entries)
