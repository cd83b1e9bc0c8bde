"""The scheduled stages of a night: midway and final.

Opening a night schedules both. Whoever takes such a run (the serve child, a worker, or the watch itself when nobody
did for a minute) claims the stage in the ledger first, so that it runs once; a run that comes second says so and ends.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from nightglass.model import Stage
from tasks.archiving import archive_stage
from tasks.bench import workbench
from tasks.choosing import named_after
from tasks.forms import CameraName, ConfigurationPath, JobId, NightLabel
from tasks.postprocessing import (
    announce,
    finish_stage,
    flush_groups,
    reconcile_night,
    redo_exposures,
    refresh_masters,
    show_stage,
    stack_groups,
    stage_work,
    write_stage_reports,
)
from tasks.returning import return_work

__all__ = ["final_postprocess", "midway_postprocess"]


@flow(
    name="midway-postprocess",
    flow_run_name=named_after("midway"),
    persist_result=False,
    on_cancellation=[return_work],
    on_crashed=[return_work],
)
async def midway_postprocess(
    night: NightLabel = "",
    camera: CameraName = "",
    configuration: ConfigurationPath = "",
    job: JobId = "",
) -> Any:
    """Midway through a night: better masters, what waited is redone, report and notice.

    Args:
        night: As 20260821, the date of the evening; empty: tonight at the site.
        camera: Name of the camera; empty: the only one in the observatory file.
        configuration: Path of the observatory file; empty: NIGHTGLASS_CONFIG, or the defaults.
        job: Set by the watch and its schedule, which run a stage once. Left empty, a stage that is done runs again.
    """
    async with workbench(configuration), stage_work(Stage.MIDWAY, night, camera, job) as work:
        if work.idle:
            return work.skipped()
        await refresh_masters(work)
        await redo_exposures(work)
        await stack_groups(work)
        report = await write_stage_reports(work, None)
        await announce(work, report)
        summary = await finish_stage(work, report, None)
        await show_stage(work, summary)
        return summary.to_json()


@flow(
    name="final-postprocess",
    flow_run_name=named_after("final"),
    persist_result=False,
    on_cancellation=[return_work],
    on_crashed=[return_work],
)
async def final_postprocess(
    night: NightLabel = "",
    camera: CameraName = "",
    configuration: ConfigurationPath = "",
    job: JobId = "",
) -> Any:
    """After a night: last groups, masters, redo, archive, reconciliation, report and notice; then it is closed.

    Args:
        night: As 20260821, the date of the evening; empty: tonight at the site.
        camera: Name of the camera; empty: the only one in the observatory file.
        configuration: Path of the observatory file; empty: NIGHTGLASS_CONFIG, or the defaults.
        job: Set by the watch and its schedule, which run a stage once. Left empty, a stage that is done runs again.
    """
    async with workbench(configuration), stage_work(Stage.FINAL, night, camera, job) as work:
        if work.idle:
            return work.skipped()
        await flush_groups(work)
        await refresh_masters(work)
        await redo_exposures(work)
        await stack_groups(work)
        await archive_stage(work)
        reconciliation = await reconcile_night(work)
        report = await write_stage_reports(work, reconciliation)
        await announce(work, report)
        summary = await finish_stage(work, report, reconciliation)
        await show_stage(work, summary)
        return summary.to_json()
