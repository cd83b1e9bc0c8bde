"""Processor time of a running observatory, by role: what a busy machine distorts less than the clock on the wall."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping

import psutil

from nightglass.watch.heartbeat import read_heartbeats
from tests.drill.harness import Observatory, wait_for

__all__ = ["cpu_by_role", "cpu_of", "describe", "machine_cpu", "spent", "wait_until_quiet"]

_QUIET_SHARE = 0.3
"""Of one core, over all processes of an observatory that has started and has nothing to do."""
_QUIET_S = 3.0
_PREFECT = frozenset({"server", "runner", "serve"})

Spent = Mapping[int, tuple[str, float]]


def cpu_by_role(observatory: Observatory) -> dict[int, tuple[str, float]]:
    """Return pid -> role and seconds of processor time so far, of every living process.

    The watch is home of the Dask scheduler and of the nannies, too. One more "role" is this process: what looks at the
    observatory takes time from it.
    """
    found = {os.getpid(): ("benchmark", cpu_of(psutil.Process()))}
    for role, processes in observatory.tree().items():
        for process in processes:
            try:
                found[process.pid] = (role, cpu_of(process))
            except psutil.NoSuchProcess:
                continue
    return found


def cpu_of(process: psutil.Process) -> float:
    """Return the seconds of processor time that a process has taken, without its children."""
    times = process.cpu_times()
    return float(times.user + times.system)


def machine_cpu() -> float:
    """Return the seconds of processor time that all processes of this machine have taken, over all cores."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def spent(before: Spent, after: Spent) -> Counter[str]:
    """Return role -> seconds of processor time between two looks; what lived only between them is not seen."""
    total: Counter[str] = Counter()
    for pid, (role, seconds) in after.items():
        total[role] += seconds - before.get(pid, (role, 0.0))[1]
    return total


def describe(total: Mapping[str, float]) -> str:
    """Return one line, the largest first."""
    parts = sorted(total.items(), key=lambda item: -item[1])
    return ", ".join(f"{role} {seconds:.1f}" for role, seconds in parts if seconds >= 0.05)


def wait_until_quiet(observatory: Observatory, *, with_prefect: bool, timeout_s: float = 240.0) -> None:
    """Wait until everything that an observatory starts is there and rests: starting up is no work on exposures."""

    def quiet() -> bool:
        if with_prefect and not (set(observatory.tree()) >= _PREFECT and _is_lit(observatory)):
            return False
        before = cpu_by_role(observatory)
        time.sleep(_QUIET_S)
        total = spent(before, cpu_by_role(observatory))
        return sum(total.values()) - total["benchmark"] < _QUIET_SHARE * _QUIET_S

    wait_for(quiet, timeout_s=timeout_s, what="everything is started and rests", period_s=1.0)


def _is_lit(observatory: Observatory) -> bool:
    """Whether exposures go through Prefect, not through the watch's own calls."""
    return any(beat.breaker.get("state") == "closed" for beat in read_heartbeats(observatory.layout.run))
