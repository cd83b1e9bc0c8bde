"""Exposures that an image builder put together, as people see them: one run each, not one for each frame."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from nightglass.config import Observatory
from tasks.bench import find_observatory
from tasks.building import conclude_account, find_account, show_account, show_step
from tasks.forms import BuilderName, CameraName, ConfigurationPath, ExposureName, JobId

__all__ = ["build_exposure"]


@flow(name="build-exposure", flow_run_name="{exposure}-build", persist_result=False)
async def build_exposure(
    exposure: ExposureName,
    builder: BuilderName = "",
    camera: CameraName = "",
    configuration: ConfigurationPath = "",
    job: JobId = "",
) -> State[Any]:
    """Show what an image builder did for an exposure: its steps, and a table of its frames.

    The frames are collected, built, written and sent in the watch, at once; this run comes when the exposure is
    complete, and cancelling it changes nothing.

    Args:
        exposure: Its id, as guider/20260821/17.
        builder: Name of the image builder; empty: the one of the camera.
        camera: Name of its camera; empty: the first part of the id.
        configuration: Path of the observatory file; empty: NIGHTGLASS_CONFIG, or the defaults.
        job: Set by the watch; leave it empty.
    """
    observatory: Observatory = find_observatory(configuration)
    account = await find_account(exposure, builder, camera, observatory, job)
    for step in ("collect", "build", "write", "send", "plot"):
        await show_step(step, account.summary(step))
    await show_account(account)
    return conclude_account(account)
