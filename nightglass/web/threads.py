"""Threads for what blocks: the event loop itself waits for nobody."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from nightglass.errors import Retryable

__all__ = ["Threads"]

T = TypeVar("T")

_WORKING = 32
_WAITING = 64
_UNDRAWN = 16


class Threads:
    """Crews: one for work, one for those who wait, so that whoever waits for long holds up no work, and a painter."""

    def __init__(self) -> None:
        self._painting = anyio.CapacityLimiter(1)
        self._working = anyio.CapacityLimiter(_WORKING)
        self._waiting = anyio.CapacityLimiter(_WAITING)

    async def work(self, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Make a call that takes a moment."""
        return await anyio.to_thread.run_sync(partial(call, *arguments, **options), limiter=self._working)

    async def draw(self, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Make a call that draws: one at a time, since each takes a core and the memory of an image.

        Raises
        ------
        Retryable
            If too many pictures are wanted already.
        """
        if self._painting.statistics().tasks_waiting >= _UNDRAWN:
            message = f"{_UNDRAWN} pictures are waited for already"
            raise Retryable(message, remedy="ask for the newest one only")
        return await anyio.to_thread.run_sync(partial(call, *arguments, **options), limiter=self._painting)

    async def wait(self, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Make a call that may take long.

        Raises
        ------
        Retryable
            If too many wait already.
        """
        if self._waiting.available_tokens < 1:
            message = f"{_WAITING} requests wait already"
            raise Retryable(message, remedy="ask without waiting, and look at the state or at the events")
        return await anyio.to_thread.run_sync(partial(call, *arguments, **options), limiter=self._waiting)
