"""A camera that writes files into a watched directory, one after another, with faults."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path

from nightglass.errors import Misconfigured
from nightglass.simulate import hostile
from nightglass.simulate.faults import FaultPlan

__all__ = ["write_directory"]

_PIECES = 5


def write_directory(
    source: Path, target: Path, *, period_s: float, plan: FaultPlan, stopping: threading.Event
) -> Counter[str]:
    """Write each file of a directory into another, in the order of names; return what was done to how many.

    A late file comes after the next one; a duplicate also under a second name; a corrupt one ends in zeros; a torn one
    is cut off; a stalled one is written in pieces over the length of a silence.

    Raises
    ------
    Misconfigured
        If there are no files.
    """
    files = sorted(path for path in source.iterdir() if path.is_file())
    if not files or source.resolve() == target.resolve():
        message = f"{source} holds no files to write to {target}"
        raise Misconfigured(message, remedy="name a directory of FITS files, and another to write to")
    target.mkdir(parents=True, exist_ok=True)
    chance, counts, held = random.Random(plan.seed), Counter[str](), list[Path]()
    for number, path in enumerate(files):
        if number and stopping.wait(period_s):
            break
        fault = _draw(chance, plan)
        if fault == "missing":
            counts[fault] += 1
        elif fault == "late" and not held:
            held.append(path)
            continue
        else:
            _write(target / path.name, path.read_bytes(), fault, plan)
            counts[fault or "sent"] += 1
        while held:
            late = held.pop()
            hostile.write_whole(target / late.name, late.read_bytes())
            counts["late"] += 1
    for late in held:
        hostile.write_whole(target / late.name, late.read_bytes())
        counts["late"] += 1
    return counts


def _draw(chance: random.Random, plan: FaultPlan) -> str:
    """Return the fault of a file; empty for none."""
    drawn = [
        name
        for name in ("missing", "late", "duplicate", "corrupt", "torn", "stalled")
        if chance.random() < getattr(plan, name)
    ]
    return drawn[0] if drawn else ""


def _write(path: Path, content: bytes, fault: str, plan: FaultPlan) -> None:
    if fault == "stalled":
        hostile.slow(path, content, chunks=_PIECES, pause_s=plan.stall_s / _PIECES)
    elif fault == "corrupt":
        hostile.zero_tail(path, content)
    elif fault == "torn":
        hostile.truncated(path, content)
    else:
        hostile.write_whole(path, content)
    if fault == "duplicate":
        hostile.copy_under_another_name(path)
