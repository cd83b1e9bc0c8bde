"""Tasks around a stream: the watch receives it, a run shows how it fares."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nightglass.config import Observatory
from nightglass.errors import Misconfigured, Retryable
from nightglass.layout import Layout
from nightglass.watch.heartbeat import read_heartbeats
from tasks.artifacts import artifact_key, show_table
from tasks.bench import find_observatory
from tasks.nightwatch import ensure_watch, watch_holder

__all__ = ["camera_of_stream", "follow_stream"]

_MOST_STARTS = 5
_SHOWN = ("messages", "bytes", "files", "partial", "late", "lost", "dropped", "waiting", "lag_s", "silent_s", "error")


def camera_of_stream(name: str, observatory: Observatory) -> str:
    """Return what the stream of a name calls its camera.

    Raises
    ------
    Misconfigured
        If the observatory file has no such stream.
    """
    for stream in observatory.streams:
        if stream.name == name:
            return stream.camera
    known = ", ".join(stream.name for stream in observatory.streams) or "none"
    message = f"there is no stream {name!r} in the observatory file"
    raise Misconfigured(message, remedy=f"write it as [[streams]]; there are: {known}")


async def follow_stream(
    name: str, night: str, cameras: Sequence[str], configuration: str, *, poll_s: float, hours: float
) -> dict[str, Any]:
    """Show how a stream fares until the time is over or the watch ends; keep the watch running meanwhile.

    Raises
    ------
    Retryable
        If the watch ends again and again.
    """
    observatory = find_observatory(configuration)
    run = Layout(observatory.root).run
    end = time.monotonic() + hours * 3600.0
    starts = 0
    state: dict[str, Any] = {}
    while True:
        beat = next((beat for beat in read_heartbeats(run) if _of(beat.streams, name)), None)
        state = (_of(beat.streams, name) if beat is not None else None) or state
        await _show(name, state)
        if time.monotonic() >= end or (beat is not None and beat.phase == "stopped"):
            return state
        if watch_holder(run, cameras) is None:
            starts += 1
            if starts > _MOST_STARTS:
                message = f"the watch of stream {name} ended {starts} times"
                raise Retryable(message, remedy=f"read {run / 'watch.log'}")
            await ensure_watch(night, cameras, configuration)
        await asyncio.sleep(min(poll_s, max(end - time.monotonic(), 0.0)))


async def _show(name: str, state: Mapping[str, Any]) -> None:
    row = {key: state[key] for key in _SHOWN if key in state}
    await show_table([row], key=artifact_key("stream", name), description=f"Stream {name}")


def _of(streams: Sequence[dict[str, Any]], name: str) -> dict[str, Any] | None:
    return next((state for state in streams if state["name"] == name), None)
