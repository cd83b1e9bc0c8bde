"""The night as people see it: one run from opening to closing."""

from __future__ import annotations

from prefect import flow

from nightglass.config import Observatory
from tasks.bench import find_observatory
from tasks.choosing import named_after, the_cameras, the_night
from tasks.forms import CameraName, ConfigurationPath, NightLabel, Seconds
from tasks.nightwatch import ensure_watch, follow_night

__all__ = ["run_night"]


@flow(name="run-night", flow_run_name=named_after("night"), persist_result=False)
async def run_night(
    night: NightLabel = "",
    camera: CameraName = "",
    configuration: ConfigurationPath = "",
    poll_s: Seconds = 10.0,
) -> list[str]:
    """Open a night, start its watch or attach to the one that runs, and show its progress until it is closed.

    The watch is a process of its own: cancelling or killing this run does not stop the night, and the next run
    attaches to it. One scheduled deployment serves every night, because an empty night means tonight at the site.

    Args:
        night: As 20260821, the date of the evening; empty: tonight at the site.
        camera: Names of the cameras, with commas between; empty: all in the observatory file.
        configuration: Path of the observatory file; empty: NIGHTGLASS_CONFIG, or the defaults.
        poll_s: Seconds between two looks at the ledger.
    """
    observatory: Observatory = find_observatory(configuration)
    label = the_night(night, observatory).label
    cameras = the_cameras(camera, observatory)
    await ensure_watch(label, cameras, configuration, asked=night)
    return await follow_night(label, cameras, configuration, asked=night, poll_s=poll_s)
