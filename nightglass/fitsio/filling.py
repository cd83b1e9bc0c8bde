"""Bytes put into files through the page cache, by pieces of a size that the system takes well."""

from __future__ import annotations

import os
from io import FileIO
from typing import Final

__all__ = ["append", "write_at"]

_PIECE: Final = 64 << 10
"""Bytes. Of larger pieces the system makes huge pages, which a virtual machine often has to get from its host first:
writes of 1 MiB took two to five times as long as these."""


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
