"""Which file names are looked at, and which directories are entered."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence

__all__ = ["NameFilter"]


class NameFilter:
    """Glob patterns of names, compared without regard to case.

    Parameters
    ----------
    patterns : iterable of str
        Names that are wanted.
    ignore : iterable of str
        Names that are never wanted; they go before `patterns`, and hold for directories too, so that the hidden
        directories of rsync and of snapshots stay out.
    """

    def __init__(self, patterns: Iterable[str], ignore: Iterable[str] = ()) -> None:
        self._patterns = _compile(patterns)
        self._ignore = _compile(ignore)

    def takes(self, name: str) -> bool:
        """Return whether a file of that name is wanted."""
        return self._patterns.match(name) is not None and self._ignore.match(name) is None

    def enters(self, name: str) -> bool:
        """Return whether a directory of that name is looked into."""
        return self._ignore.match(name) is None

    def reaches(self, parts: Sequence[str]) -> bool:
        """Return whether all directories on the way to a file or directory, the last part left out, are entered."""
        return all(self.enters(part) for part in parts[:-1])


def _compile(patterns: Iterable[str]) -> re.Pattern[str]:
    alternatives = "|".join(fnmatch.translate(pattern) for pattern in patterns)
    return re.compile(alternatives or r"(?!)", re.IGNORECASE)
