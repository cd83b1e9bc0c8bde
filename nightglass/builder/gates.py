"""Locks by key, which go when nobody holds on to them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from weakref import WeakValueDictionary

__all__ = ["Gates"]


class _Gate:
    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()


class Gates:
    """One lock for each exposure and frame; who holds one may take it again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gates: WeakValueDictionary[tuple[int, int], _Gate] = WeakValueDictionary()

    @contextlib.contextmanager
    def __call__(self, expid: int, frame: int) -> Iterator[None]:
        """Hold the lock of a frame, or with frame -1 that of an exposure."""
        with self._lock:
            gate = self._gates.get((expid, frame))
            if gate is None:
                gate = self._gates[expid, frame] = _Gate()
        with gate.lock:
            yield
