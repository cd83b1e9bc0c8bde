"""Addresses of whole exposures: list, write, send, plot, hand out, finalise, archive, clear."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Body, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel

from nightglass.builder.records import ArchiveOrder, GetOrder, SendOrder, WriteOrder
from nightglass.web.answers import ExposureAnswer, Files, Sends, describe_exposure, describe_sends
from nightglass.web.frames import FITS, Seconds, order_of
from nightglass.web.handing import PassingTar
from nightglass.web.orders import Archiving, ExposureNumber, Finalizing, Getting, Plotting, Sending, Writing
from nightglass.web.problems import problem_responses

if TYPE_CHECKING:
    from nightglass.builder.service import Builder
    from nightglass.web.threads import Threads

__all__ = ["TAR", "CopyOrder", "CubeAnswer", "exposure_routes"]

TAR = "application/x-tar"
_ONE = "/exposures/{expid}"
_TAR: dict[int | str, dict[str, Any]] = {200: {"content": {TAR: {}}, "description": "A FITS file of each frame."}}
_CUBE: dict[int | str, dict[str, Any]] = {200: {"content": {FITS: {}}, "description": "The cube."}}


class CubeAnswer(BaseModel):
    """Where a cube is; None: it is being made."""

    archive: str | None


class CopyOrder(BaseModel, extra="forbid"):
    """Where a cube is copied to."""

    directory: str
    overwrite: bool = False
    """Whether another file of that name there may be replaced."""


def exposure_routes(builder: Builder, threads: Threads) -> APIRouter:
    """Return the addresses of the exposures of a builder."""
    router = APIRouter(tags=["exposures"])
    _add_looking(router, builder)
    _add_output(router, builder, threads)
    _add_archive(router, builder, threads)
    return router


def _add_looking(router: APIRouter, builder: Builder) -> None:
    @router.get("/exposures")
    def list_exposures() -> list[ExposureAnswer]:
        """List the exposures, in the order in which they were opened."""
        return [describe_exposure(view) for view in builder.exposures()]

    @router.get(_ONE, responses=problem_responses(404))
    def read_exposure(expid: ExposureNumber) -> ExposureAnswer:
        """Show an exposure as it stands."""
        return describe_exposure(builder.exposure(expid))

    @router.post(f"{_ONE}/finalize", responses=problem_responses(404, 409))
    def finalize_exposure(
        expid: ExposureNumber, body: Annotated[Finalizing, Body(default_factory=Finalizing)]
    ) -> ExposureAnswer:
        """Say that no further frames come."""
        return describe_exposure(builder.finalize(expid, **({"notes": body.notes} if body.notes else {})))

    @router.delete("/exposures", responses=problem_responses(409))
    def clear_all(unsaved: Literal["refuse", "discard"] = "refuse") -> dict[str, int]:
        """Drop all exposures; what is not saved stays, unless told."""
        return {"cleared": builder.clear(unsaved=unsaved)}

    @router.delete(_ONE, responses=problem_responses(404, 409))
    def clear_exposure(expid: ExposureNumber, unsaved: Literal["refuse", "discard"] = "refuse") -> dict[str, int]:
        """Drop an exposure; what is not saved stays, unless told."""
        return {"cleared": builder.clear(expid, unsaved=unsaved)}


def _add_output(router: APIRouter, builder: Builder, threads: Threads) -> None:
    @router.post(f"{_ONE}/write", responses=problem_responses(404, 409))
    async def write_exposure(expid: ExposureNumber, body: Annotated[Writing, Body(default_factory=Writing)]) -> Files:
        """Write all frames."""
        files = await threads.work(builder.write, expid, None, order_of(WriteOrder, body))
        return Files(files=[str(path) for path in files])

    @router.post(f"{_ONE}/send", responses=problem_responses(404, 409))
    async def send_exposure(
        expid: ExposureNumber, body: Annotated[Sending, Body(default_factory=Sending)], wait_s: Seconds = 30.0
    ) -> Sends:
        """Send all frames; what is not delivered in time is tried on."""
        order = order_of(SendOrder, body)
        return describe_sends(await threads.wait(builder.send, expid, None, order, wait_s=wait_s))

    @router.post(f"{_ONE}/plot", responses=problem_responses(404, 409))
    async def plot_exposure(expid: ExposureNumber, body: Annotated[Plotting, Body(default_factory=Plotting)]) -> Files:
        """Make pictures of all frames."""
        said = body.model_dump(exclude_none=True)
        options = {name.removeprefix("plot_"): value for name, value in said.items()}
        files = await threads.work(builder.plot, expid, None, **options)
        return Files(files=[str(path) for path in files])

    async def images(expid: int, order: GetOrder) -> Response:
        files = await threads.work(builder.get_images, expid, None, order)
        name = f'attachment; filename="{expid:08d}.tar"'
        return PassingTar(files, headers={"content-disposition": name})

    @router.get(f"{_ONE}/image", responses=_TAR | problem_responses(404), response_class=StreamingResponse)
    async def get_images(
        expid: ExposureNumber,
        dark_subtract: bool = False,  # noqa: FBT001, FBT002 - a query
        all_fields: bool = False,  # noqa: FBT001, FBT002
    ) -> Response:
        """Hand out all frames, each as a FITS file in one tar archive."""
        return await images(expid, GetOrder(dark_subtract=dark_subtract, all_fields=all_fields))

    @router.post(f"{_ONE}/image", responses=_TAR | problem_responses(404), response_class=StreamingResponse)
    async def get_images_with(
        expid: ExposureNumber, body: Annotated[Getting, Body(default_factory=Getting)]
    ) -> Response:
        """Hand out all frames, with further header cards."""
        return await images(expid, order_of(GetOrder, body))


def _add_archive(router: APIRouter, builder: Builder, threads: Threads) -> None:
    @router.post(f"{_ONE}/archive", responses=problem_responses(404, 409))
    async def archive_exposure(
        expid: ExposureNumber, body: Annotated[Archiving, Body(default_factory=Archiving)]
    ) -> CubeAnswer:
        """Make the cube of an exposure; at once, or while the answer waits for it."""
        crew = threads.wait if body.wait else threads.work
        path = await crew(builder.archive, expid, order_of(ArchiveOrder, body), wait=body.wait)
        return CubeAnswer(archive=str(path) if path else None)

    @router.get(f"{_ONE}/archive", responses=_CUBE | problem_responses(404), response_class=FileResponse)
    def get_archive(expid: ExposureNumber) -> Response:
        """Hand out the cube."""
        path = builder.get_archive(expid)
        return FileResponse(path, media_type=FITS, filename=path.name)

    @router.post(f"{_ONE}/archive/write", responses=problem_responses(404, 409))
    async def write_archive(expid: ExposureNumber, body: CopyOrder) -> CubeAnswer:
        """Copy the cube to a directory."""
        path = await threads.work(builder.write_archive, expid, Path(body.directory), overwrite=body.overwrite)
        return CubeAnswer(archive=str(path))

    @router.post(f"{_ONE}/archive/send", responses=problem_responses(404, 409))
    async def send_archive(
        expid: ExposureNumber, body: Annotated[Sending, Body(default_factory=Sending)], wait_s: Seconds = 30.0
    ) -> Sends:
        """Send the cube; where it is not delivered in time it is tried on."""
        order = order_of(SendOrder, body)
        return describe_sends(await threads.wait(builder.send_archive, expid, order, wait_s=wait_s))
