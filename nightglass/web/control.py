"""Addresses of a builder as a whole: status, options, events, hooks."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import JsonValue

from nightglass.builder.passwords import without_passwords
from nightglass.errors import Retryable
from nightglass.web.handing import CountedStream
from nightglass.web.orders import Configuring, ExposureNumber, FrameNumber, HookChange, HookOrder
from nightglass.web.permits import check_changes
from nightglass.web.problems import problem_responses

if TYPE_CHECKING:
    from nightglass.builder.records import BuilderEvent
    from nightglass.builder.service import Builder
    from nightglass.config import BuilderOptions
    from nightglass.web.threads import Threads

__all__ = ["control_routes"]

_MOST_LISTENERS = 64
_LOOK_S = 0.05
_KEEP_ALIVE_S = 15.0
_LARGEST_NUMBER = 2**63 - 1
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "Events: frame, exposure, archive, status, alarm."}
}
Name = Annotated[str, Query(max_length=64)]


def control_routes(builder: Builder, threads: Threads, closing: threading.Event) -> APIRouter:
    """Return the addresses of a builder as a whole."""
    router = APIRouter(tags=["builder"])
    _add_state(router, builder, threads)
    _add_events(router, builder, closing)
    _add_hooks(router, builder)
    return router


def _add_state(router: APIRouter, builder: Builder, threads: Threads) -> None:
    @router.get("/status")
    def read_status() -> dict[str, Any]:
        """Show the state: exposures, times, what is ready, disk space."""
        return builder.status()

    @router.get("/config")
    def read_config() -> dict[str, Any]:
        """Show the options; addresses without their passwords."""
        return _shown(builder.options)

    @router.patch("/config", responses=problem_responses())
    def change_config(body: dict[str, JsonValue]) -> dict[str, Any]:
        """Change options; also add_send_to, remove_send_to, add_exclude, remove_exclude."""
        check_changes(body, builder.options)
        return _shown(builder.set(**body))

    @router.post("/configure", responses=problem_responses(409))
    async def configure(body: Annotated[Configuring, Body(default_factory=Configuring)]) -> dict[str, Any]:
        """Begin anew, with the options of the configuration; refused while there is something that is not saved."""
        await threads.work(builder.configure, body.constants, unsaved=body.unsaved)
        return await threads.work(builder.status)

    @router.get("/get/{what}", responses=problem_responses(404))
    def get(
        what: Annotated[str, Path(max_length=64)],
        expid: ExposureNumber | None = None,
        frame: FrameNumber | None = None,
        mode: Name | None = None,
        extheader: Name | None = None,
        extdata: Name | None = None,
    ) -> Any:
        """Answer by the names that instrument control systems use."""
        given = {"expid": expid, "frame": frame, "mode": mode, "extheader": extheader, "extdata": extdata}
        return builder.get(what, **{name: value for name, value in given.items() if value is not None})


def _add_events(router: APIRouter, builder: Builder, closing: threading.Event) -> None:
    listeners: set[object] = set()

    @router.get("/events", responses=_EVENTS | problem_responses(), response_class=StreamingResponse)
    async def events(
        request: Request,
        after: Annotated[
            int | None, Query(ge=0, le=_LARGEST_NUMBER, description="Number of the last event that is known.")
        ] = None,
        most: Annotated[int | None, Query(ge=0, le=10_000, description="End after so many events.")] = None,
    ) -> StreamingResponse:
        """Stream what happens, as server-sent events; without ``after``, from now on."""
        if len(listeners) >= _MOST_LISTENERS:
            message = f"{_MOST_LISTENERS} listeners are served already"
            raise Retryable(message, remedy="close one")
        last = request.headers.get("last-event-id", "")
        known = builder.events()
        begin = int(last) if last.isascii() and last.isdecimal() else after
        newest = known[-1].number if known else 0
        # a number that is not reached yet is of a time before the clock was set back
        begin = newest if begin is None else begin if begin <= newest else 0
        return CountedStream(_stream(builder, begin, most, closing), among=listeners)


def _add_hooks(router: APIRouter, builder: Builder) -> None:
    @router.get("/hooks")
    def list_hooks() -> list[dict[str, Any]]:
        """List the subscribers."""
        return builder.hooks()

    @router.post("/hooks", status_code=201, responses=problem_responses())
    def subscribe(body: HookOrder) -> dict[str, str]:
        """Have somebody told when frames are built, saved or sent, or exposures archived."""
        return {"id": builder.subscribe(body.stage, body.target, body.args, enabled=body.enabled)}

    @router.patch("/hooks/{subscriber}", responses=problem_responses(404))
    def enable_hook(subscriber: str, body: HookChange) -> dict[str, bool]:
        """Tell a subscriber again, or no more for now."""
        builder.enable(subscriber, body.enabled)
        return {"enabled": body.enabled}

    @router.delete("/hooks/{subscriber}", responses=problem_responses(404))
    def unsubscribe(subscriber: str) -> dict[str, str]:
        """Tell a subscriber no more."""
        builder.unsubscribe(subscriber)
        return {"unsubscribed": subscriber}


async def _stream(builder: Builder, after: int, most: int | None, closing: threading.Event) -> AsyncIterator[str]:
    """Give each event once, in order; whoever is slow gets what is still kept."""
    given, silent_s = 0, 0.0
    yield "retry: 1000\n\n"
    while not closing.is_set() and (most is None or given < most):
        for event in builder.events(after)[: None if most is None else most - given]:
            after, silent_s, given = event.number, 0.0, given + 1
            yield _text(event)
        if silent_s >= _KEEP_ALIVE_S:
            silent_s = 0.0
            yield ": still here\n\n"
        if most is None or given < most:
            # looking is cheaper than a waiting thread for each listener
            await asyncio.sleep(_LOOK_S)
            silent_s += _LOOK_S


def _shown(options: BuilderOptions) -> dict[str, Any]:
    shown: dict[str, Any] = without_passwords(options.model_dump(mode="json"))
    return shown


def _text(event: BuilderEvent) -> str:
    content = json.dumps({"at": event.at, **event.data}, default=str)
    return f"id: {event.number}\nevent: {event.name}\ndata: {content}\n\n"
