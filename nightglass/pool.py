"""What runs pure functions elsewhere, as the rest of the library knows it; `nightglass.cluster` makes the real one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, Self

from nightglass.closing import Closing

__all__ = ["Pool", "PoolBase", "SerialPool", "Worker"]


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker; ``pid`` is 0 where it runs on another host."""

    address: str
    pid: int = 0


class Pool(Protocol):
    """Runs pure functions elsewhere."""

    @property
    def address(self) -> str:
        """Address under which another process can connect; empty where there is none."""

    def submit(
        self, function: Callable[..., Any], *args: Any, key: str | None = None, priority: int = 0
    ) -> Future[Any]:
        """Start ``function(*args)`` and return its future.

        Parameters
        ----------
        function : callable
            Importable by the workers; the same arguments may be computed twice, so every effect must be keyed.
        key : str, optional
            What is computed, for error messages; need not be unique.
        priority : int
            Higher runs first; equal ones in the order of submission.

        Raises
        ------
        Retryable
            By the future: if the workers died, or the cluster went away.
        """

    def map_small(
        self, function: Callable[..., Any], items: Iterable[Any], *, priority: int = 0, timeout: float | None = None
    ) -> list[Any]:
        """Return ``function(item)`` for each item, in order; the first error is raised."""

    def workers(self) -> tuple[Worker, ...]:
        """Return the workers that are alive."""

    def close(self) -> None:
        """Stop what this pool started; twice is once."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class PoolBase(Closing):
    """What every pool shares."""

    def map_small(
        self, function: Callable[..., Any], items: Iterable[Any], *, priority: int = 0, timeout: float | None = None
    ) -> list[Any]:
        """See `Pool.map_small`."""
        futures = [self.submit(function, item, priority=priority) for item in items]
        try:
            return [future.result(timeout) for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def submit(
        self, function: Callable[..., Any], *args: Any, key: str | None = None, priority: int = 0
    ) -> Future[Any]:
        """See `Pool.submit`."""
        raise NotImplementedError

    def close(self) -> None:
        """See `Pool.close`."""


class SerialPool(PoolBase):
    """Computes in the calling thread: for one exposure at a prompt, and for tests that need no cluster."""

    @property
    def address(self) -> str:
        """Empty: nobody can connect to a thread."""
        return ""

    def submit(
        self, function: Callable[..., Any], *args: Any, key: str | None = None, priority: int = 0
    ) -> Future[Any]:
        """Compute now and return a future that is done."""
        del key, priority
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(function(*args))
        except Exception as error:  # noqa: BLE001 - handed on, to whoever asks for the result
            future.set_exception(error)
        return future

    def workers(self) -> tuple[Worker, ...]:
        """Return this process."""
        return (Worker("", os.getpid()),)
