"""Exposures, nights, and any frames as data cubes.

Archiving is recorded in the ledger beside the reduction: an exposure becomes a cube once, whoever asks, and again when
a frame of it changed.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks.archiving import (
    archive_one,
    archive_several,
    assemble_frames,
    conclude_archives,
    show_archives,
    show_cube,
)
from tasks.bench import workbench
from tasks.choosing import named_after
from tasks.forms import (
    CameraName,
    CardRule,
    Compression,
    ConfigurationPath,
    CubeMode,
    CubePath,
    ExistingRule,
    ExposureName,
    ExtraCards,
    FrameList,
    JobId,
    NightLabel,
    RedoRule,
    RoleName,
    What,
)
from tasks.returning import return_work

__all__ = ["archive_exposure", "archive_night", "assemble_cube"]


@flow(
    name="archive-exposure",
    flow_run_name="{exposure}-archive",
    persist_result=False,
    on_cancellation=[return_work],
    on_crashed=[return_work],
)
async def archive_exposure(
    exposure: ExposureName,
    camera: CameraName = "",
    what: What = "",
    redo: RedoRule = "changed",
    configuration: ConfigurationPath = "",
    job: JobId = "",
) -> State[Any]:
    """Archive one exposure as a cube, whatever became of its reduction.

    Args:
        exposure: Its id, as lynx/20260821/17, or the path of one of its files.
        camera: Name of its camera; empty: the ledger knows it.
        what: raw for its frames, reduced for its products; empty: as the observatory file says.
        redo: changed for cubes that are missing or out of date, failed for those that failed too, all for any.
        configuration: Path of the observatory file; empty: NIGHTGLASS_CONFIG, or the defaults.
        job: Set by the watch; leave it empty.
    """
    async with workbench(configuration):
        summaries = await archive_one(exposure, camera, what, redo, job)
        await show_archives(exposure, summaries)
        return conclude_archives(summaries)


@flow(
    name="archive-night",
    flow_run_name=named_after("archive"),
    persist_result=False,
    on_cancellation=[return_work],
    on_crashed=[return_work],
)
async def archive_night(
    night: NightLabel = "",
    camera: CameraName = "",
    what: What = "",
    redo: RedoRule = "failed",
    configuration: ConfigurationPath = "",
    job: JobId = "",
) -> State[Any]:
    """Archive all exposures of a night; those that are archived already are left alone.

    Args:
        night: As 20260821, the date of the evening; empty: tonight at the site.
        camera: Names of the cameras, with commas between; empty: all in the observatory file.
        what: raw for frames, reduced for products; empty: as the observatory file says.
        redo: changed for cubes that are missing or out of date, failed for those that failed too, all for any.
        configuration: Path of the observatory file; empty: NIGHTGLASS_CONFIG, or the defaults.
        job: Set by the watch; leave it empty.
    """
    async with workbench(configuration):
        summaries = await archive_several(night, camera, what, redo, job)
        await show_archives(night or "tonight", summaries)
        return conclude_archives(summaries)


@flow(name="assemble-cube", flow_run_name="{out}", persist_result=False)
async def assemble_cube(
    frames: FrameList,
    out: CubePath,
    role: RoleName = "",
    compress: Compression = "",
    camera: CameraName = "",
    extra: ExtraCards = "",
    cards: CardRule = "keep",
    mode: CubeMode = "shared",
    existing: ExistingRule = "refuse",
    configuration: ConfigurationPath = "",
) -> str:
    """Assemble any FITS frames to one cube, beside the ledger.

    Args:
        frames: Paths of FITS files, shell patterns, or directories of them.
        out: Path of the cube, as /data/guide-00000017.fits.
        role: Name of the primary HDU, as guide; empty: that of the camera, or science.
        compress: rice or gzip; empty: not compressed.
        camera: Name of the camera that took them; empty: general rules.
        extra: Cards for the primary header, as OBSERVER=Ann; SEEING=0.8, with semicolons between.
        cards: keep to store every header card of every frame, or drop.
        mode: shared if the workers see frames and cube, gather if they see the frames only.
        existing: refuse or replace a file that is there.
        configuration: Path of the observatory file; empty: NIGHTGLASS_CONFIG, or the defaults.
    """
    async with workbench(configuration):
        cube = await assemble_frames(
            frames,
            out,
            role=role,
            compress=compress,
            camera=camera,
            extra=extra,
            cards=cards,
            mode=mode,
            existing=existing,
        )
        await show_cube(cube)
        return str(cube.path)
