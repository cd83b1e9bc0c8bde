"""Exposures as they arrive: one, a group, a batch of groups; and the masters of a night.

The watch runs these in its resident runner, or as deployment runs; people run them from the Prefect UI, with
``prefect deployment run reduce-exposure/nightglass``, or as ``asyncio.run(reduce_exposure("lynx/20260821/17"))``. The
last works with and without a server: where none is configured Prefect starts a temporary one, which takes half a minute
(set ``PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=90``).

All flows are ``async``: Prefect spends a second more on a synchronous one. None retries: the ledger does, by exposure.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks.bench import workbench
from tasks.calibrating import build_night_masters, show_masters
from tasks.choosing import named_after
from tasks.forms import CameraName, ConfigurationPath, ExposureName, GroupName, JobId, KindList, NightLabel
from tasks.reducing import conclude, reduce_groups, show_reduction, take_exposures, take_groups
from tasks.results import NOWHERE
from tasks.returning import return_work

__all__ = ["make_masters", "reduce_batch", "reduce_exposure", "reduce_group"]


@flow(
    name="reduce-exposure",
    flow_run_name="{exposure}",
    persist_result=False,
    result_storage=NOWHERE,
    on_cancellation=[return_work],
    on_crashed=[return_work],
)
async def reduce_exposure(
    exposure: ExposureName,
    camera: CameraName = "",
    configuration: ConfigurationPath = "",
    job: JobId = "",
) -> State[Any]:
    """Reduce one exposure now, whatever its state; its product is replaced.

    Args:
        exposure: Its id, as lynx/20260821/17, or the path of a FITS file.
        camera: Name of its camera; empty: what the id begins with, or the only one in the observatory file.
        configuration: Path of the observatory file; empty: NIGHTGLASS_CONFIG, or the defaults.
        job: Set by the watch; leave it empty.
    """
    async with workbench(configuration):
        work = await take_exposures([exposure], camera=camera, job=job)
        outcomes = await reduce_groups(exposure, work)
        await show_reduction(exposure, work)
        return conclude(work, outcomes)


@flow(
    name="reduce-group",
    flow_run_name="{group}",
    persist_result=False,
    result_storage=NOWHERE,
    on_cancellation=[return_work],
    on_crashed=[return_work],
)
async def reduce_group(
    group: GroupName,
    camera: CameraName = "",
    configuration: ConfigurationPath = "",
    job: JobId = "",
) -> State[Any]:
    """Reduce the exposures of one group together, and stack them where the camera's rule says so.

    Args:
        group: Id of the group.
        camera: Not needed: the ledger knows the camera of a group.
        configuration: Path of the observatory file; empty: NIGHTGLASS_CONFIG, or the defaults.
        job: Set by the watch; leave it empty.
    """
    del camera
    async with workbench(configuration):
        work = await take_groups([group], job=job)
        outcomes = await reduce_groups(group, work)
        await show_reduction(group, work)
        return conclude(work, outcomes)


@flow(
    name="reduce-batch",
    flow_run_name="{groups[0]} and others",
    persist_result=False,
    result_storage=NOWHERE,
    on_cancellation=[return_work],
    on_crashed=[return_work],
)
async def reduce_batch(
    groups: list[GroupName],
    camera: CameraName = "",
    configuration: ConfigurationPath = "",
    job: JobId = "",
) -> State[Any]:
    """Reduce several groups in one run, so that Prefect costs a backlog less.

    Args:
        groups: Ids of the groups.
        camera: Not needed: the ledger knows the camera of a group.
        configuration: Path of the observatory file; empty: NIGHTGLASS_CONFIG, or the defaults.
        job: Set by the watch; leave it empty.
    """
    del camera
    async with workbench(configuration):
        name = f"{len(groups)} groups from {groups[0]}"
        work = await take_groups(groups, job=job)
        outcomes = await reduce_groups(name, work)
        await show_reduction(name, work)
        return conclude(work, outcomes)


@flow(name="make-masters", flow_run_name=named_after("masters"), persist_result=False)
async def make_masters(
    night: NightLabel = "",
    camera: CameraName = "",
    kinds: KindList = "",
    configuration: ConfigurationPath = "",
    job: JobId = "",
) -> list[str]:
    """Combine the master calibrations of a night from its accepted frames; those that exist already are kept.

    Args:
        night: As 20260821, the date of the evening; empty: tonight at the site.
        camera: Name of the camera; empty: the only one in the observatory file.
        kinds: bias, dark, flat, or some of them with commas between; empty: all.
        configuration: Path of the observatory file; empty: NIGHTGLASS_CONFIG, or the defaults.
        job: Set by the watch; leave it empty.
    """
    async with workbench(configuration):
        masters = await build_night_masters(night, camera, kinds, job)
        await show_masters(masters)
        return [master.master_id for master in masters]
