"""What may be changed from outside: whoever may push images may not have any file written, or any code run.

Functions of Python, and directories that are pulled from, are named in the observatory file alone. Files go below the
directories that it names, or below its root.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from nightglass.config import BuilderOptions
from nightglass.errors import Rejected

__all__ = ["check_changes"]

_TARGETS = ("guider_app", "donut_app", "guiderApp", "donutApp")
_TABLES = ("pull", "receivers")


def check_changes(changes: Mapping[str, Any], options: BuilderOptions) -> None:
    """Refuse changes by which a request would name code or directories of its own.

    Raises
    ------
    Rejected
        Naming the option.
    """
    present = {
        *options.pull.values(),
        *options.receivers.values(),
        *options.send_to,
        options.guider_app,
        options.donut_app,
    }
    for name, target in _named(changes):
        if target not in present and urlsplit(target).scheme not in {"http", "https"}:
            message = f"{name}: {target[:80]!r} is no address with http://"
            raise Rejected(message, remedy="functions and directories are named in the observatory file")


def _named(changes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in _TARGETS:
        if isinstance(changes.get(name), str) and changes[name]:
            yield name, changes[name]
    for name in _TABLES:
        table = changes.get(name)
        for target in table.values() if isinstance(table, dict) else ():
            yield name, str(target)
