"""Memory that is used again once nobody looks at it any more."""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

__all__ = ["RecycledStorage"]

_ALIGNMENT = 64
"""Bytes; a cache line, and enough for every vector register."""


class RecycledStorage:
    """Lends memory, and takes it back when the last view of it is gone.

    Fresh memory costs a page fault for every 4 KiB, about a fifth of the time in which a socket fills it. A block comes
    back by itself, when its array and every view of it were collected, so that nobody can hold pixels that change.

    Parameters
    ----------
    keep : int
        Blocks that are kept for later; more are given back to the system.
    """

    def __init__(self, keep: int = 4) -> None:
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=keep)

    def lend(self, size: int) -> NDArray[np.uint8]:
        """Return an array of so many bytes, aligned to 64, with whatever it holds."""
        block = self._take(size + _ALIGNMENT)
        offset = -block.ctypes.data % _ALIGNMENT
        # from a memoryview, because numpy would let views of a plain slice refer to the block and not to what is lent
        lent = np.frombuffer(block.data[offset : offset + size], np.uint8)
        weakref.finalize(lent, self._free.append, block).atexit = False
        return lent

    @property
    def free(self) -> int:
        """Bytes that are kept for later."""
        return sum(block.size for block in tuple(self._free))

    def _take(self, size: int) -> NDArray[np.uint8]:
        while self._free:
            try:
                block = self._free.popleft()
            except IndexError:  # another thread was faster
                break
            if size <= block.size <= 2 * size:
                return block
        return np.empty(size, np.uint8)
