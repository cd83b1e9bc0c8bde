"""The resident loop: sensors to ledger to groups to an executor, with leases, a breaker and due stages.

`Watch` is imported when it is asked for: runners and workers need the records of this package, not the watch itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nightglass.watch.dark import DarkExecutor
    from nightglass.watch.loop import Watch, WatchPhase, WatchResult

__all__ = ["DarkExecutor", "Watch", "WatchPhase", "WatchResult"]


def __getattr__(name: str) -> Any:
    if name == "DarkExecutor":
        from nightglass.watch.dark import DarkExecutor

        return DarkExecutor
    if name in ("Watch", "WatchPhase", "WatchResult"):
        from nightglass.watch import loop

        return getattr(loop, name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
