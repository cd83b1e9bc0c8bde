"""Streams as people see them: one run that listens."""

from __future__ import annotations

from typing import Any

from prefect import flow

from nightglass.config import Observatory
from tasks.bench import find_observatory
from tasks.choosing import the_cameras, the_night
from tasks.forms import ConfigurationPath, Hours, Seconds, StreamName
from tasks.listening import camera_of_stream, follow_stream
from tasks.nightwatch import ensure_watch

__all__ = ["listen"]


@flow(name="listen", flow_run_name="listen-{source}", persist_result=False)
async def listen(
    source: StreamName, configuration: ConfigurationPath = "", hours: Hours = 24.0, poll_s: Seconds = 30.0
) -> dict[str, Any]:
    """Start the watch that receives a stream, or attach to the one that runs, and show how the stream fares.

    The watch is a process of its own, and receives by itself: cancelling or killing this run does not stop the stream.

    Args:
        source: Name of a stream in the observatory file.
        configuration: Path of the observatory file; empty: NIGHTGLASS_CONFIG, or the defaults.
        hours: How long to look on; the stream goes on afterwards.
        poll_s: Seconds between two looks.
    """
    observatory: Observatory = find_observatory(configuration)
    cameras = the_cameras(camera_of_stream(source, observatory), observatory)
    night = the_night("", observatory).label
    await ensure_watch(night, cameras, configuration)
    return await follow_stream(source, night, cameras, configuration, poll_s=poll_s, hours=hours)
