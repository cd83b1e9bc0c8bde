"""Bytes put into files through the page cache, by pieces of a size that the system takes well."""

from __future__ import annotations

import errno
import os
from io import FileIO
from typing import Final

__all__ = ["append", "move_within", "write_at"]

_PIECE: Final = 64 << 10
"""Bytes. Of larger pieces the system makes huge pages, which a virtual machine often has to get from its host first:
writes of 1 MiB took two to five times as long as these."""

_MOVED: Final = 1 << 20
"""Bytes that are moved at a time."""


def append(stream: FileIO, data: bytes | bytearray | memoryview) -> None:
    """Write bytes where an unbuffered file stands, all of them.

    Raises
    ------
    OSError
        If the file system refuses.
    """
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += stream.write(view[done : done + _PIECE])


def write_at(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write bytes at a place, all of them.

    Raises
    ------
    OSError
        If the file system refuses.
    """
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done : done + _PIECE], offset + done)


def move_within(descriptor: int, source: int, target: int, size: int) -> None:
    """Move bytes of a file to another place in it, which they may overlap; the file must be that long.

    Raises
    ------
    OSError
        If the file system refuses.
    """
    if source == target:
        return
    starts = range(0, size, _MOVED)
    for start in reversed(starts) if target > source else starts:
        left = min(_MOVED, size - start)
        piece = os.pread(descriptor, left, source + start)
        if len(piece) < left:
            message = f"the file ends at byte {source + start + len(piece)}"
            raise OSError(errno.EIO, message)
        write_at(descriptor, piece, target + start)
