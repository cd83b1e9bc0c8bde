"""Which monitors run on this machine: each leaves a note below the root, for the page of the night to link to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["registered", "running_monitors"]

_MOST_BYTES = 4096


@contextmanager
def registered(run: Path, name: str, address: str) -> Iterator[None]:
    """Leave a note while a block runs; nothing where nobody ever ran a night."""
    if not run.is_dir():
        yield
        return
    directory = run / "monitors"
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}-{os.getpid()}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"name": name, "address": address, "pid": os.getpid()}))
    part.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def running_monitors(run: Path) -> tuple[dict[str, str], ...]:
    """Return name and address of the monitors of other processes that are alive."""
    found = []
    for path in sorted((run / "monitors").glob("*.json")):
        try:
            note = json.loads(path.read_bytes()[:_MOST_BYTES])
            name, address, pid = str(note["name"]), str(note["address"]), int(note["pid"])
        except (OSError, ValueError, KeyError, TypeError):  # it is going just now, or nothing that a monitor wrote
            continue
        # an address becomes a link: nothing but a page may be one
        if pid != os.getpid() and Path(f"/proc/{pid}").exists() and address.startswith("http://"):
            found.append({"name": name, "address": address})
    return tuple(found)
