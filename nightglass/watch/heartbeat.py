"""The heartbeat: what the watch does now, as a small JSON file that others read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nightglass.errors import Misconfigured
from nightglass.model import sanitize

__all__ = ["Heartbeat", "choose_path", "read_heartbeats", "write_heartbeat"]

_FRESH_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """One beat.

    Attributes
    ----------
    at, started : float
        Now, and the start of the watch, in epoch seconds. A beat older than a few seconds is that of a
        watch that hangs or is gone.
    phase : str
        ``starting``, ``watching``, ``draining`` or ``stopped``.
    counts : dict
        ``<camera>/<night>`` -> state -> number of exposures.
    queued, running : int
        Groups ready, and groups given to an executor.
    lag_s : float
        How long the oldest ready group has waited.
    breaker : dict
        ``state``, ``reason``, ``since``, ``trips``.
    sources : list of dict
        ``camera``, ``directory``, ``night``, ``state``, ``error``.
    streams : list of dict
        See `nightglass.watch.streamline.StreamState`.
    builders : list of dict
        ``name``, ``camera``, ``role``, ``address``, ``exposures``, ``frames``, ``unsaved``, ``held_bytes``, ``last``.
    alarms : list of dict
        ``subject``, ``text``, ``since``.
    """

    pid: int
    at: float
    started: float
    phase: str
    cameras: list[str]
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    queued: int = 0
    running: int = 0
    lag_s: float = 0.0
    breaker: dict[str, Any] = field(default_factory=dict)
    cluster: str = ""
    sources: list[dict[str, Any]] = field(default_factory=list)
    streams: list[dict[str, Any]] = field(default_factory=list)
    builders: list[dict[str, Any]] = field(default_factory=list)
    alarms: list[dict[str, Any]] = field(default_factory=list)


def write_heartbeat(path: Path, beat: Heartbeat) -> None:
    """Put a beat in place of the last one; a reader sees the one or the other, whole."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    # no fsync: after a power cut nobody wants to know what the watch did before
    part.write_text(json.dumps(asdict(beat)))
    part.replace(path)


def choose_path(directory: Path, cameras: Iterable[str]) -> Path:
    """Return where a watch beats: ``watch.json``, or a name of its own beside another watch that beats there."""
    path = directory / "watch.json"
    try:
        beat = json.loads(path.read_text())
        taken = beat["pid"] != os.getpid() and beat["phase"] != "stopped" and time.time() - beat["at"] < _FRESH_S
    except (OSError, ValueError, KeyError, TypeError):
        taken = False  # none yet, or nothing that a watch wrote
    return directory / f"watch-{'-'.join(sorted(sanitize(name) for name in cameras))}.json" if taken else path


def read_heartbeats(directory: Path) -> tuple[Heartbeat, ...]:
    """Return the last beat of every watch that ever ran under a root, newest first.

    Parameters
    ----------
    directory : Path
        `nightglass.layout.Layout.run`.

    Raises
    ------
    Misconfigured
        If a file is not what `write_heartbeat` writes.
    """
    beats = []
    for path in directory.glob("watch*.json"):
        try:
            beats.append(Heartbeat(**json.loads(path.read_text())))
        except FileNotFoundError:
            continue  # a watch that just stopped
        except (ValueError, TypeError) as error:
            message = f"{path} is not the heartbeat of a watch: {error}"
            raise Misconfigured(message, remedy="delete it; a watch writes it anew every second") from error
    return tuple(sorted(beats, key=lambda beat: beat.at, reverse=True))
