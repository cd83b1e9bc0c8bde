"""Addresses of frames and extensions: assign, push, build, write, send, plot, hand out, clear."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import StringConstraints

from nightglass.builder.records import GetOrder, SendOrder, WriteOrder
from nightglass.builder.refusals import Unknown
from nightglass.web.answers import (
    ExtensionAnswer,
    Files,
    FrameAnswer,
    Sends,
    describe_extension,
    describe_frame,
    describe_sends,
)
from nightglass.web.handing import PassingFile
from nightglass.web.orders import (
    Assignment,
    ExposureNumber,
    FrameNumber,
    Getting,
    Plotting,
    PrimaryCards,
    Sending,
    Waiting,
    Writing,
)
from nightglass.web.problems import problem_responses
from nightglass.web.uploads import BODIES, receive

if TYPE_CHECKING:
    from nightglass.builder.records import ExtensionRecord
    from nightglass.builder.service import Builder
    from nightglass.web.threads import Threads

__all__ = ["FITS", "frame_routes", "order_of"]

FITS = "application/fits"
_FRAME = "/exposures/{expid}/frames/{frame}"
_EXTENSION = f"{_FRAME}/extensions/{{name}}"
_IMAGE: dict[int | str, dict[str, Any]] = {200: {"content": {FITS: {}}, "description": "A FITS file."}}
_PNG = "image/png"
_PICTURE: dict[int | str, dict[str, Any]] = {200: {"content": {_PNG: {}}, "description": "A picture."}}
_THERE: dict[int | str, dict[str, Any]] = {200: {"model": ExtensionAnswer, "description": "It was there already."}}

ExtensionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
Seconds = Annotated[float, Query(ge=0, le=600, allow_inf_nan=False)]


def order_of(kind: type[Any], body: Any) -> Any:
    """Return a body as the order that the builder takes."""
    return kind(**{item.name: getattr(body, item.name) for item in fields(kind) if hasattr(body, item.name)})


def frame_routes(builder: Builder, threads: Threads) -> APIRouter:
    """Return the addresses of the frames of a builder."""
    router = APIRouter(tags=["frames"])
    _add_collecting(router, builder, threads)
    _add_pushing(router, builder, threads)
    _add_output(router, builder, threads)
    _add_images(router, builder, threads)
    _add_pictures(router, builder, threads)
    return router


def _add_collecting(router: APIRouter, builder: Builder, threads: Threads) -> None:
    @router.get(_FRAME, responses=problem_responses(404))
    def read_frame(expid: ExposureNumber, frame: FrameNumber) -> FrameAnswer:
        """Show a frame as it stands."""
        return describe_frame(builder.frame(expid, frame))

    @router.post(f"{_FRAME}/assign", status_code=202, responses=problem_responses(409))
    def assign_frame(
        expid: ExposureNumber, frame: FrameNumber, body: Annotated[Assignment, Body(default_factory=Assignment)]
    ) -> FrameAnswer:
        """Say what a frame consists of, begin to collect it, and return at once."""
        return describe_frame(builder.assign(expid, frame, **_assigned(body)))

    @router.post(f"{_FRAME}/build", responses=problem_responses(409))
    async def build_frame(
        expid: ExposureNumber, frame: FrameNumber, body: Annotated[Waiting, Body(default_factory=Waiting)]
    ) -> FrameAnswer:
        """Assign a frame, and wait until it is built; ``state`` says whether it is."""
        view = await threads.wait(builder.build, expid, frame, **_assigned(body), wait_s=body.wait_s)
        return describe_frame(view)

    @router.put(f"{_FRAME}/primary", responses=problem_responses(409))
    def set_primary(expid: ExposureNumber, frame: FrameNumber, body: PrimaryCards) -> FrameAnswer:
        """Give cards for the primary header."""
        return describe_frame(builder.set_primary(expid, frame, body.header, clobber=body.clobber))


def _add_pushing(router: APIRouter, builder: Builder, threads: Threads) -> None:
    @router.put(
        _EXTENSION,
        status_code=201,
        responses=_THERE | problem_responses(409, 413, 415),
        response_model=ExtensionAnswer,
        openapi_extra=BODIES,
    )
    async def push_extension(
        request: Request,
        expid: ExposureNumber,
        frame: FrameNumber,
        name: ExtensionName,
        source: Annotated[str, Query(max_length=64, description="Who delivers it, where it was assigned.")] = "",
        clobber: Annotated[bool, Query(description="Whether it replaces an extension of that name.")] = False,  # noqa: FBT002
    ) -> Response:
        """Push an extension: a FITS file, or bare pixels with a JSON header; it is on disk when this is answered."""
        async with receive(request, builder.spool, threads) as pushed:
            record, duplicate = await threads.work(
                builder.accept,
                expid,
                frame,
                name.upper(),
                pushed.content,
                header=pushed.cards or None,
                source=source,
                clobber=clobber,
            )
        answer = describe_extension(record, duplicate=duplicate)
        return JSONResponse(answer.model_dump(), status_code=200 if duplicate else 201)

    @router.get(_EXTENSION, responses=_IMAGE | problem_responses(404), response_class=FileResponse)
    def pull_extension(expid: ExposureNumber, frame: FrameNumber, name: ExtensionName) -> Response:
        """Hand out an extension as it was pushed or pulled."""
        record = _extension(builder, expid, frame, name.upper())
        return FileResponse(record.path, media_type=FITS, filename=f"{expid:08d}-{frame:04d}-{record.name}.fits")

    @router.delete(_EXTENSION, responses=problem_responses(404))
    def clear_extension(
        expid: ExposureNumber, frame: FrameNumber, name: ExtensionName, unsaved: Literal["refuse", "discard"] = "refuse"
    ) -> dict[str, int]:
        """Drop an extension; what is not saved stays, unless told."""
        return {"cleared": builder.clear(expid, frame, name.upper(), unsaved=unsaved)}

    @router.delete(_FRAME, responses=problem_responses(404))
    def clear_frame(
        expid: ExposureNumber, frame: FrameNumber, unsaved: Literal["refuse", "discard"] = "refuse"
    ) -> dict[str, int]:
        """Drop a frame; what is not saved stays, unless told."""
        return {"cleared": builder.clear(expid, frame, unsaved=unsaved)}


def _add_output(router: APIRouter, builder: Builder, threads: Threads) -> None:
    @router.post(f"{_FRAME}/write", responses=problem_responses(404, 409))
    async def write_frame(
        expid: ExposureNumber, frame: FrameNumber, body: Annotated[Writing, Body(default_factory=Writing)]
    ) -> Files:
        """Write a frame, under the name and in the directory that options and body say."""
        files = await threads.work(builder.write, expid, frame, order_of(WriteOrder, body))
        return Files(files=[str(path) for path in files])

    @router.post(f"{_FRAME}/send", responses=problem_responses(404, 409))
    async def send_frame(
        expid: ExposureNumber,
        frame: FrameNumber,
        body: Annotated[Sending, Body(default_factory=Sending)],
        wait_s: Seconds = 30.0,
    ) -> Sends:
        """Send a frame to receivers; what is not delivered in time is tried on."""
        return describe_sends(await threads.wait(builder.send, expid, frame, order_of(SendOrder, body), wait_s=wait_s))

    @router.post(f"{_FRAME}/plot", responses=problem_responses(404, 409))
    async def plot_frame(
        expid: ExposureNumber, frame: FrameNumber, body: Annotated[Plotting, Body(default_factory=Plotting)]
    ) -> Files:
        """Make pictures of a frame."""
        said = body.model_dump(exclude_none=True)
        files = await threads.work(
            builder.plot, expid, frame, **{name.removeprefix("plot_"): value for name, value in said.items()}
        )
        return Files(files=[str(path) for path in files])


def _add_images(router: APIRouter, builder: Builder, threads: Threads) -> None:
    async def image(expid: int, frame: int, order: GetOrder) -> Response:
        (path,) = await threads.work(builder.get_images, expid, frame, order)
        name = f"{builder.options.role or 'image'}-{expid:08d}-{frame:04d}.fits"
        return PassingFile(path, media_type=FITS, filename=name)

    @router.get(f"{_FRAME}/image", responses=_IMAGE | problem_responses(404), response_class=FileResponse)
    async def get_image(
        expid: ExposureNumber,
        frame: FrameNumber,
        dark_subtract: bool = False,  # noqa: FBT001, FBT002 - a query
        all_fields: bool = False,  # noqa: FBT001, FBT002
        exclude: Annotated[list[str] | None, Query(max_length=256)] = None,
    ) -> Response:
        """Hand out a frame as one FITS file."""
        excluded = tuple(exclude) if exclude is not None else None
        return await image(expid, frame, GetOrder(dark_subtract=dark_subtract, all_fields=all_fields, exclude=excluded))

    @router.post(f"{_FRAME}/image", responses=_IMAGE | problem_responses(404), response_class=FileResponse)
    async def get_image_with(
        expid: ExposureNumber, frame: FrameNumber, body: Annotated[Getting, Body(default_factory=Getting)]
    ) -> Response:
        """Hand out a frame as one FITS file, with further header cards."""
        return await image(expid, frame, order_of(GetOrder, body))


def _add_pictures(router: APIRouter, builder: Builder, threads: Threads) -> None:
    @router.get(f"{_FRAME}/picture", responses=_PICTURE | problem_responses(404, 409), response_class=FileResponse)
    async def get_picture(
        expid: ExposureNumber,
        frame: FrameNumber,
        extensions: Annotated[
            str | None, Query(max_length=256, description="Names or patterns, with commas; without: as plot_show says.")
        ] = None,
    ) -> Response:
        """Hand out a frame as a PNG to look at: its extensions side by side; nothing is written."""
        path = await threads.draw(builder.picture, expid, frame, extensions)
        name = f"{builder.options.role or 'image'}-{expid:08d}-{frame:04d}.png"
        return PassingFile(path, media_type=_PNG, filename=name, content_disposition_type="inline")


def _assigned(body: Assignment) -> dict[str, Any]:
    return {
        "sources": body.sources,
        "extensions": body.extensions,
        "timeout_s": body.timeout_s,
        "instructions": body.instructions,
        "header": body.header,
    }


def _extension(builder: Builder, expid: int, frame: int, name: str) -> ExtensionRecord:
    for record in builder.frame(expid, frame).extensions:
        if record.name == name:
            return record
    message = f"frame {frame} of exposure {expid} has no extension {name}"
    raise Unknown(message, remedy="it was not pushed yet, or its pixels were given back")
