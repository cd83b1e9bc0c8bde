"""Addresses of regions of interest, and of the stamps that are cut out of frames."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Response
from fastapi.responses import StreamingResponse

from nightglass.builder.records import RoiOrder
from nightglass.web.answers import Files, Sends, describe_sends
from nightglass.web.exposures import TAR, CubeAnswer
from nightglass.web.frames import ExtensionName, order_of
from nightglass.web.handing import PassingTar
from nightglass.web.orders import ExposureNumber, FrameNumber, Rois, RoisArchiving
from nightglass.web.problems import problem_responses

if TYPE_CHECKING:
    from nightglass.builder.service import Builder
    from nightglass.web.threads import Threads

__all__ = ["roi_routes"]

_OF = "/exposures/{expid}/rois"
_TAR: dict[int | str, dict[str, Any]] = {200: {"content": {TAR: {}}, "description": "FITS files of the stamps."}}


def roi_routes(builder: Builder, threads: Threads) -> APIRouter:
    """Return the addresses of the regions of a builder."""
    router = APIRouter(tags=["regions of interest"])
    _add_setting(router, builder)
    _add_output(router, builder, threads)
    return router


def _add_setting(router: APIRouter, builder: Builder) -> None:
    @router.get("/rois")
    def read_rois() -> dict[str, Any]:
        """Count regions, stamps and their bytes."""
        return builder.rois.status()

    @router.post("/rois", responses=problem_responses(409))
    def accept_rois(body: Rois, expid: ExposureNumber | None = None) -> dict[str, int]:
        """Set the regions of an exposure, or those of all exposures that bring none."""
        return {"accepted": builder.rois.accept(body.rois, expid=expid)}

    @router.delete("/rois")
    def clear_rois(
        expid: ExposureNumber | None = None,
        frame: FrameNumber | None = None,
        extension: ExtensionName | None = None,
    ) -> dict[str, int]:
        """Drop stamps."""
        return {"cleared": builder.rois.clear(expid, frame, extension.upper() if extension else None)}

    @router.post(f"{_OF}/finalize", responses=problem_responses(404, 409))
    def finalize_rois(expid: ExposureNumber) -> dict[str, int]:
        """Say that no further stamps come."""
        builder.exposure(expid)
        builder.rois.finalize(expid)
        return {"expid": expid}


def _add_output(router: APIRouter, builder: Builder, threads: Threads) -> None:
    @router.post(f"{_OF}/archive", responses=problem_responses(404, 409))
    async def archive_rois(
        expid: ExposureNumber, body: Annotated[RoisArchiving, Body(default_factory=RoisArchiving)]
    ) -> CubeAnswer:
        """Write the cube of the stamps."""
        view, order = builder.exposure(expid), order_of(RoiOrder, body)
        return CubeAnswer(archive=str(await threads.wait(builder.rois.archive, view, builder.options, order)))

    @router.post(f"{_OF}/send", responses=problem_responses(404, 409))
    async def send_rois(
        expid: ExposureNumber, body: Annotated[RoisArchiving, Body(default_factory=RoisArchiving)]
    ) -> Sends:
        """Send the stamps."""
        view, order = builder.exposure(expid), order_of(RoiOrder, body)
        return describe_sends(await threads.wait(builder.rois.send, view, builder.options, order))

    @router.post(f"{_OF}/write", responses=problem_responses(404, 409))
    async def write_rois(
        expid: ExposureNumber, body: Annotated[RoisArchiving, Body(default_factory=RoisArchiving)]
    ) -> Files:
        """Write the stamps of each frame."""
        view, order = builder.exposure(expid), order_of(RoiOrder, body)
        files = await threads.work(builder.rois.write, view, builder.options, order)
        return Files(files=[str(path) for path in files])

    @router.get(_OF, responses=_TAR | problem_responses(404), response_class=StreamingResponse)
    async def get_rois(expid: ExposureNumber, frame: FrameNumber | None = None) -> Response:
        """Hand out the stamps, a FITS file of each frame in one tar archive."""
        view = builder.exposure(expid)
        place = Path(await threads.work(tempfile.mkdtemp, prefix="nightglass-"))
        try:
            files = await threads.work(builder.rois.get, view, RoiOrder(frame=frame), place)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return PassingTar(files, directory=place)
