"""Exposures that an image builder put together, as people see them: one run each, and one for each archive of them."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from nightglass.config import Observatory
from tasks.bench import find_observatory
from tasks.building import (
    conclude_account,
    conclude_cube,
    find_account,
    find_cube,
    show_account,
    show_built_cube,
    show_look,
    show_stage,
    show_step,
)
from tasks.forms import BuilderName, CameraName, ConfigurationPath, ExposureName, JobId, OrderName

__all__ = ["archive_built_exposure", "build_exposure"]


@flow(name="build-exposure", flow_run_name="{exposure}-build", persist_result=False)
async def build_exposure(
    exposure: ExposureName,
    builder: BuilderName = "",
    camera: CameraName = "",
    configuration: ConfigurationPath = "",
    job: JobId = "",
) -> State[Any]:
    """Show what an image builder did for an exposure: its steps, and a table of its frames.

    The frames are collected, built, written and sent in the watch, at once; this run shows it, and cancelling it
    changes nothing.

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


@flow(name="archive-built-exposure", flow_run_name="{exposure}-archive-exposure", persist_result=False)
async def archive_built_exposure(
    exposure: ExposureName,
    builder: BuilderName = "",
    camera: CameraName = "",
    order: OrderName = "",
    configuration: ConfigurationPath = "",
    job: JobId = "",
) -> State[Any]:
    """Show what an image builder made of an exposure that was archived: the cube and its sources, or why there is none.

    The cube is made in the watch, at once; this run shows it, and cancelling it changes nothing.

    Args:
        exposure: Its id, as guider/20260821/17.
        builder: Name of the image builder; empty: the one of the camera.
        camera: Name of its camera; empty: the first part of the id.
        order: Which order to archive it, by its time, as 20260821T081320123; empty: the last one.
        configuration: Path of the observatory file; empty: NIGHTGLASS_CONFIG, or the defaults.
        job: Set by the watch; leave it empty.
    """
    observatory: Observatory = find_observatory(configuration)
    account = await find_cube(exposure, builder, camera, order, observatory, job)
    for stage, seconds in account.stages.items():
        await show_stage(stage, seconds)
    await show_built_cube(account)
    if account.path:
        await show_look(account, observatory)
    return conclude_cube(account)
