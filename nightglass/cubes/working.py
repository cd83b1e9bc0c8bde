"""Tasks on a pool, a few at a time, and again where a worker died."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from typing import Any, Final, TypeVar

from nightglass.errors import Retryable
from nightglass.pool import Pool

__all__ = ["run_tasks"]

_log = logging.getLogger(__name__)

_ATTEMPTS: Final = 3
_DRAIN_S: Final = 10.0
"""What runs is left to end for so long after a failure: a call that is cancelled costs its worker."""
_AHEAD: Final = 2
"""Tasks in hand for each worker: one that runs and one that is on its way."""

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")


def run_tasks(
    pool: Pool, function: Callable[[TaskT], ResultT], tasks: Iterable[TaskT], *, key: str
) -> Iterator[tuple[TaskT, ResultT]]:
    """Run a function over tasks, and yield each task with its result, in the order in which they end.

    Only a few are in hand at a time, so that neither tasks nor results pile up. Tasks must be such that doing one twice
    is as doing it once: one whose worker died is done again.

    Parameters
    ----------
    key : str
        What this is, for error messages.

    Raises
    ------
    Retryable
        If a task failed so three times.
    """
    waiting: deque[tuple[TaskT, int]] = deque()
    source = iter(tasks)
    width = _AHEAD * max(len(pool.workers()), 1)
    running: dict[Future[Any], tuple[TaskT, int]] = {}
    try:
        while True:
            waiting.extend((task, 1) for task in islice(source, max(width - len(running) - len(waiting), 0)))
            while waiting and len(running) < width:
                task, attempt = waiting.popleft()
                running[pool.submit(function, task, key=key)] = (task, attempt)
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                task, attempt = running.pop(future)
                try:
                    result = future.result()
                except Retryable as error:
                    if attempt >= _ATTEMPTS:
                        raise
                    _log.warning("%s: %s; it is tried again", key, error)
                    waiting.append((task, attempt + 1))
                else:
                    yield task, result
    finally:
        if running:
            wait(running, timeout=_DRAIN_S)
        for future in running:
            future.cancel()
