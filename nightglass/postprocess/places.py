"""Where the raw files of a night lie."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from nightglass.config import Source

if TYPE_CHECKING:
    from nightglass.config import Observatory
    from nightglass.ledger import Entry

__all__ = ["raw_files"]


def raw_files(entries: Iterable[Entry], observatory: Observatory) -> list[Path]:
    """Return the raw files on disk in all directories from which exposures of a night came.

    So a file that no sensor ever saw is found beside those that were seen. Files that the ledger knows under other
    nights are among them.
    """
    from nightglass.sensors.names import NameFilter

    defaults = Source.model_fields
    patterns = {pattern for source in observatory.sources for pattern in source.patterns}
    ignored = {pattern for source in observatory.sources for pattern in source.ignore}
    names = NameFilter(
        sorted(patterns) or defaults["patterns"].default,
        sorted(ignored) or defaults["ignore"].default,
    )
    known = {entry.path for entry in entries}
    found = {path for path in known if path.exists()}
    for directory in {path.parent for path in known}:
        if directory.is_dir():
            found |= {path for path in directory.iterdir() if names.takes(path.name) and path.is_file()}
    return sorted(found)
