"""Memory that is used again once nobody looks at it any more."""

from __future__ import annotations

import contextlib
import mmap
import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

__all__ = ["RecycledStorage"]

_ALIGNMENT = 64
"""Bytes; a cache line, and enough for every vector register."""
_HUGE = 2 << 20
"""Bytes of a huge page, as most processors have them."""


class RecycledStorage:
    """Lends memory, and takes it back when the last view of it is gone.

    Fresh memory costs a page fault for every 4 KiB, about a fifth of the time in which a socket fills it. A block comes
    back by itself, when its array and every view of it were collected, so that nobody can hold pixels that change.
    Large ones are taken in huge pages, where the system has them: to look at few bytes of many pages is cheaper then.

    Parameters
    ----------
    keep : int
        Blocks that are kept for later; more are given back to the system.
    """

    def __init__(self, keep: int = 4) -> None:
        self._free: deque[memoryview] = deque(maxlen=keep)

    def lend(self, size: int) -> NDArray[np.uint8]:
        """Return an array of so many bytes, aligned to 64 at least, with whatever it holds."""
        block = self._take(size)
        # from a memoryview, because numpy would let views of a plain slice refer to the block and not to what is lent
        lent = np.frombuffer(block[:size], np.uint8)
        weakref.finalize(lent, self._free.append, block).atexit = False
        return lent

    @property
    def free(self) -> int:
        """Bytes that are kept for later."""
        return sum(map(len, tuple(self._free)))

    def _take(self, size: int) -> memoryview:
        while self._free:
            try:
                block = self._free.pop()  # the last that came back is the likeliest to be in the processor's caches
            except IndexError:  # another thread was faster
                break
            if size <= len(block) <= 2 * size:
                return block
        if size >= _HUGE:
            return _take_huge(size)
        fresh = np.empty(size + _ALIGNMENT, np.uint8)
        offset = _offset(fresh, _ALIGNMENT)
        return fresh.data[offset : offset + size]


def _take_huge(size: int) -> memoryview:
    """Return memory in huge pages as far as it fills them, and not beyond: what is counted is what is held."""
    fresh = mmap.mmap(-1, size + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    offset = _offset(np.frombuffer(fresh, np.uint8), _HUGE)
    with contextlib.suppress(AttributeError, OSError):  # other systems have none, or do it by themselves
        fresh.madvise(mmap.MADV_HUGEPAGE, offset, size // _HUGE * _HUGE)
    return memoryview(fresh)[offset : offset + size]


def _offset(memory: NDArray[np.uint8], alignment: int) -> int:
    """Return the bytes before the first address that is aligned."""
    return int(-memory.ctypes.data % alignment)
