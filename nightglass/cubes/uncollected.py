"""Many small records made at once, none of them garbage."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["uncollected"]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Let the collector of cyclic garbage rest for a moment, as a context or around a function.

    It would look through all records again and again while they come into being: for 10,000 frames that is half of the
    time of a survey. Threads that do this at the same time do not harm each other: at worst it wakes up early.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
