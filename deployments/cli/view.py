"""What a person wants to know about a night, gathered from ledger, heartbeat and disk."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightglass.layout import Layout
from nightglass.model import Night, State
from nightglass.watch.heartbeat import Heartbeat, read_heartbeats

if TYPE_CHECKING:
    from nightglass.config import Observatory
    from nightglass.ledger import ArchiveState, Entry, ErrorSummary, Ledger, StageRecord

__all__ = [
    "Disk",
    "NightView",
    "alive",
    "as_json",
    "cameras_of",
    "latest_night",
    "look",
    "look_without_ledger",
    "prefect_ui",
]

_FRESH_S = 10.0
_GIB = 2.0**30


@dataclass(frozen=True, slots=True)
class Disk:
    """Space where the root lies, in GiB."""

    free_gib: float
    total_gib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NightView:
    """One night at one moment.

    Attributes
    ----------
    at : float
        Epoch seconds.
    latency_s : tuple of float or None
        Median and 95th percentile from sighting to product; None while nothing is reduced.
    lag_s : float
        How long the exposure that waits longest has been ready.
    waiting : dict
        Reason -> number of exposures.
    recent : tuple of Entry
        The exposures reduced last, the newest first.
    watches : tuple of Heartbeat
        Of the watches that are alive.
    archives : dict
        How many exposures are archived, or fail to be.
    built : dict
        The same of the cubes of image builders.
    """

    at: float
    night: Night
    cameras: tuple[str, ...]
    counts: dict[State, int]
    latency_s: tuple[float, float] | None
    lag_s: float
    waiting: dict[str, int]
    errors: tuple[ErrorSummary, ...]
    stages: tuple[StageRecord, ...]
    recent: tuple[Entry, ...]
    disk: Disk
    watches: tuple[Heartbeat, ...]
    ui_url: str
    archives: dict[ArchiveState, int] = field(default_factory=dict)
    built: dict[ArchiveState, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many exposures were seen."""
        return sum(self.counts.values())


def alive(run: Path) -> tuple[Heartbeat, ...]:
    """Return the heartbeats of the watches and servers that live, newest first.

    Parameters
    ----------
    run : Path
        `nightglass.layout.Layout.run`.
    """
    beats = read_heartbeats(run) if run.is_dir() else ()
    return tuple(beat for beat in beats if time.time() - beat.at < _FRESH_S and beat.phase != "stopped")


def look(
    ledger: Ledger, observatory: Observatory, night: Night, *, camera: str | None = None, recent: int = 8
) -> NightView:
    """Gather the view of a night.

    Parameters
    ----------
    camera : str, optional
        None: all cameras of that night together.
    recent : int
        How many exposures to list.
    """
    layout, now = Layout(observatory.root), time.time()
    records = [item for item in ledger.nights(camera) if item.night == night]
    watches = alive(layout.run)
    return NightView(
        at=now,
        night=night,
        cameras=cameras_of(ledger, night, camera) or tuple(sorted({name for beat in watches for name in beat.cameras})),
        counts=ledger.counts(night, camera),
        latency_s=ledger.latencies(night, camera),
        lag_s=ledger.lag(camera, now=now),
        waiting=ledger.waiting_reasons(night, camera),
        errors=ledger.errors(night, camera),
        stages=tuple(stage for item in records for stage in item.stages),
        recent=ledger.latest(night, camera, limit=recent) if recent else (),
        disk=_disk(observatory.root),
        watches=watches,
        ui_url=prefect_ui(observatory),
        archives=ledger.archive_counts(night, camera),
        built=ledger.archive_counts(night, camera, built=True),
    )


def look_without_ledger(observatory: Observatory, night: Night) -> NightView | None:
    """Return what there is to see before the first exposure; None: nothing lives under the root."""
    layout = Layout(observatory.root)
    if layout.ledger.exists() or observatory.ledger_url or not (watches := alive(layout.run)):
        return None
    return NightView(
        at=time.time(),
        night=night,
        cameras=tuple(sorted({name for beat in watches for name in beat.cameras})),
        counts=dict.fromkeys(State, 0),
        latency_s=None,
        lag_s=0.0,
        waiting={},
        errors=(),
        stages=(),
        recent=(),
        disk=_disk(observatory.root),
        watches=watches,
        ui_url=prefect_ui(observatory),
    )


def latest_night(ledger: Ledger, camera: str | None = None) -> Night | None:
    """Return the newest night of which the ledger knows exposures, or that was opened."""
    opened = (record.night for record in ledger.nights(camera))
    return max((*opened, *(night for night, _ in ledger.nights_seen(camera))), default=None)


def cameras_of(ledger: Ledger, night: Night, camera: str | None = None) -> tuple[str, ...]:
    """Return the cameras that took part in a night, or the one that is asked for if it did."""
    seen = {name for known, name in ledger.nights_seen(camera) if known == night}
    return tuple(sorted(seen | {record.camera for record in ledger.nights(camera) if record.night == night}))


def as_json(view: NightView) -> dict[str, Any]:
    """Return a view as plain JSON values; what `nightglass status --json` prints."""
    p50, p95 = view.latency_s or (None, None)
    return {
        "night": view.night.label,
        "cameras": list(view.cameras),
        "total": view.total,
        "counts": {state.value: count for state, count in view.counts.items()},
        "latency_s": {"p50": p50, "p95": p95},
        "lag": round(view.lag_s, 3),
        "waiting": view.waiting,
        "errors": [
            {
                "state": item.state.value,
                "cause": item.cause,
                "reason": item.reason,
                "count": item.count,
                "examples": list(item.examples),
            }
            for item in view.errors
        ],
        "stages": [
            {
                "camera": stage.camera,
                "stage": stage.stage.value,
                "due": stage.due.isoformat(),
                "state": stage.state.value,
                "reason": stage.reason,
            }
            for stage in view.stages
        ],
        "disk": {"free_gib": round(view.disk.free_gib, 2), "total_gib": round(view.disk.total_gib, 2)},
        "watches": [
            {
                "pid": beat.pid,
                "phase": beat.phase,
                "cameras": beat.cameras,
                "queued": beat.queued,
                "running": beat.running,
                "breaker": beat.breaker,
                "streams": beat.streams,
                "builders": beat.builders,
                "alarms": beat.alarms,
                "cluster": beat.cluster,
            }
            for beat in view.watches
        ],
        "prefect_ui": view.ui_url,
        "archives": {state.value: count for state, count in view.archives.items()},
        "built_archives": {state.value: count for state, count in view.built.items()},
    }


def prefect_ui(observatory: Observatory) -> str:
    """Return the address of the Prefect user interface: the configured server's, or that of one we started."""
    from deployments.environment import configured_api_url

    if url := configured_api_url(observatory):
        return url.removesuffix("/api")
    try:
        record = json.loads((Layout(observatory.root).run / "server.json").read_text())
        return f"http://127.0.0.1:{int(record['port'])}" if Path(f"/proc/{int(record['pid'])}").exists() else ""
    except (OSError, ValueError, KeyError, TypeError):  # no server was started, or its file is half written
        return ""


def _disk(root: Path) -> Disk:
    place = next(path for path in (root, *root.parents) if path.exists())
    usage = shutil.disk_usage(place)
    return Disk(usage.free / _GIB, usage.total / _GIB)
