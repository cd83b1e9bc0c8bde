"""Where the heaps of a cube end so far: told by whoever knows it, to the one whose heap comes next, in a small file.

Workers do not hear of one another, but they see the file. Each slot is written once, or again with the same number; one
that was half written when it is read is told from a whole one, so nobody has to lock anything.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Final

__all__ = ["SPOILT", "read_end", "tell_end", "wait_for_end"]

SPOILT: Final = -1
"""Instead of an end: the cube will be planned anew, without some frame."""
_SLOT: Final = struct.Struct(">qq")
"""A number and its complement: in a file that was empty before, no part of these bytes looks like another number."""
_SHORT_S: Final = 0.001
_LONG_S: Final = 0.01


def tell_end(path: Path, number: int, end: int) -> None:
    """Tell where a heap ends.

    Parameters
    ----------
    path : Path
        Of the file, which is there already.
    number : int
        How many heaps come before.
    end : int
        Bytes from the beginning of the first one; or `SPOILT`.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, _SLOT.pack(end, ~end), number * _SLOT.size)
    finally:
        os.close(descriptor)


def read_end(path: Path, number: int) -> int | None:
    """Return where a heap ends, `SPOILT`, or None if nobody has told it yet; 0 for the one before the first.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    if number < 0:
        return 0
    # opened each time: a network file system looks for what others wrote only then
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.pread(descriptor, _SLOT.size, number * _SLOT.size)
    finally:
        os.close(descriptor)
    if len(found) < _SLOT.size:
        return None
    end, complement = _SLOT.unpack(found)
    return int(end) if complement == ~end else None


def wait_for_end(path: Path, number: int, patience_s: float) -> int | None:
    """Return where a heap ends as soon as it is told; None if that takes too long.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    limit = time.monotonic() + patience_s
    pause = _SHORT_S
    while (end := read_end(path, number)) is None and time.monotonic() < limit:
        time.sleep(pause)
        pause = min(2 * pause, _LONG_S)
    return end
