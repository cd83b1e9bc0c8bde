"""How a cube calls the files its frames came from: without directories that mean nothing elsewhere, in ASCII."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote_to_bytes

from nightglass.errors import Rejected

__all__ = ["file_names", "file_path"]

_SAFE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def file_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each file: its own name, or, where two files share one, its path below their common parent.

    What is not printable ASCII is percent-encoded, so that a FITS table can hold it; so is a blank at the end.
    """
    names = [path.name for path in paths]
    if len({*names}) < len({*paths}):
        top = Path(os.path.commonpath([path.absolute().parent for path in paths]))
        names = [path.absolute().relative_to(top).as_posix() for path in paths]
    return [_encoded(name) for name in names]


def file_path(name: str) -> PurePosixPath:
    """Return the relative path that a name of `file_names` stands for.

    Raises
    ------
    Rejected
        If it would lead out of the directory that files are written to.
    """
    path = PurePosixPath(os.fsdecode(unquote_to_bytes(name)))
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in str(path):
        message = f"file name {name!r} in the cube leads elsewhere"
        raise Rejected(message, remedy="the cube was damaged or tampered with: take another copy")
    return path


def _encoded(name: str) -> str:
    text = quote(os.fsencode(name), safe=_SAFE)
    return text[:-1] + "%20" if text.endswith(" ") else text
