"""Pages and addresses.

==== ============================== =====================================================
GET  ``/``                          the night and the monitors; image builders or a monitor, where they are all there is
GET  ``/builders``                  the page of the image builders
GET  ``/monitor/NAME``              the page of a monitor
GET  ``/v1/night``                  the night as JSON
GET  ``/v1/monitors``               the monitors that run, here and in other processes
GET  ``/v1/monitor/NAME/picture``   the newest picture as JSON
GET  ``/v1/monitor/NAME/events``    pictures as server-sent events, each as it is made
POST ``/v1/monitor/NAME/reset``     begin anew
==== ============================== =====================================================

The addresses of image builders are in `nightglass.web.interface`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, HTTPException, Response
from fastapi.responses import RedirectResponse

from nightglass.monitor import LivePicture
from nightglass.web.guard import Guard
from nightglass.web.handing import CountedStream
from nightglass.web.intake import Doorkeeper
from nightglass.web.interface import add_builders

if TYPE_CHECKING:
    from nightglass.builder.service import Builder

__all__ = ["Site", "make_app"]

_MOST_VIEWERS = 64
_LOOK_S = 0.05
_KEEP_ALIVE_S = 15.0
_TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
_ASSETS = ("builders.js", "draw.js", "elements.js", "monitor.js", "night.js", "style.css")


@dataclass(frozen=True, slots=True)
class Site:
    """What there is to show.

    Attributes
    ----------
    monitors : mapping
        Name -> picture of a monitor that runs in this process.
    night : callable or None
        Returns the night as plain values; it is called in a thread of its own, and may take its time. None: there is
        no page of the night.
    elsewhere : callable
        Returns monitors of other processes, each with ``name`` and ``address``.
    builders : mapping
        Name -> image builder that runs in this process; the first one has the short addresses.
    token : str
        What a viewer has to know; empty: nothing, which is for viewers at this machine alone.
    closing : threading.Event
        Set to end what would go on for ever: the streams of events.
    """

    monitors: Mapping[str, LivePicture] = field(default_factory=dict)
    night: Callable[[], Mapping[str, Any]] | None = None
    elsewhere: Callable[[], Sequence[Mapping[str, str]]] = tuple
    builders: Mapping[str, Builder] = field(default_factory=dict)
    token: str = ""
    closing: threading.Event = field(default_factory=threading.Event)


def make_app(site: Site) -> Guard:
    """Return the application of a site."""
    app = FastAPI(title="Nightglass", docs_url=None, redoc_url=None, openapi_url=None)
    _add_pages(app, site)
    _add_lists(app, site)
    _add_monitors(app, site)
    add_builders(app, site.builders, site.closing)
    return Guard(Doorkeeper(app), site.token)


def _add_pages(app: FastAPI, site: Site) -> None:
    @app.get("/")
    def home() -> Response:
        if site.night is None and site.builders:
            return _asset("builders.html")
        if site.night is None and len(site.monitors) == 1:
            return RedirectResponse(f"/monitor/{next(iter(site.monitors))}")
        return _asset("night.html")

    @app.get("/builders")
    def builders_page() -> Response:
        if not site.builders:
            raise HTTPException(404, "there is no image builder here")
        return _asset("builders.html")

    @app.get("/monitor/{name}")
    def monitor_page(name: str) -> Response:
        _find(site, name)
        return _asset("monitor.html")

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in _ASSETS:
            raise HTTPException(404, f"there is no file {name!r}")
        return _asset(name)


def _add_lists(app: FastAPI, site: Site) -> None:
    @app.get("/v1/night")
    def night() -> Mapping[str, Any]:
        return site.night() if site.night else {"night": None, "reason": "this server shows monitors only"}

    @app.get("/v1/monitors")
    def monitors() -> Mapping[str, Any]:
        here = [
            {"name": name, "address": f"/monitor/{name}", "title": live.newest.title, "message": live.newest.message}
            for name, live in site.monitors.items()
        ]
        return {"monitors": [*here, *map(dict, site.elsewhere())]}


def _add_monitors(app: FastAPI, site: Site) -> None:
    viewers: set[object] = set()

    @app.get("/v1/monitor/{name}/picture")
    def picture(name: str) -> Response:
        return Response(_find(site, name).text(), media_type="application/json")

    @app.get("/v1/monitor/{name}/events")
    async def events(name: str) -> Response:
        live = _find(site, name)
        if len(viewers) >= _MOST_VIEWERS:
            raise HTTPException(503, f"{_MOST_VIEWERS} viewers are served already; close a page")
        return CountedStream(_events(live, site.closing), among=viewers)

    @app.post("/v1/monitor/{name}/reset", status_code=204)
    def reset(name: str) -> None:
        _find(site, name).ask_reset()


async def _events(live: LivePicture, closing: threading.Event) -> AsyncIterator[str]:
    """Give each picture that is newer than the last one; a slow viewer gets fewer, and holds nobody up."""
    seen, silent_s = -1, 0.0
    yield "retry: 1000\n\n"
    while not closing.is_set():
        number = live.newest.number
        if number != seen:
            seen, silent_s = number, 0.0
            yield f"event: picture\ndata: {live.text()}\n\n"
        elif silent_s >= _KEEP_ALIVE_S:
            silent_s = 0.0
            yield ": still here\n\n"
        # looking is cheaper than a waiting thread for each viewer
        await asyncio.sleep(_LOOK_S)
        silent_s += _LOOK_S


def _find(site: Site, name: str) -> LivePicture:
    try:
        return site.monitors[name]
    except KeyError:
        raise HTTPException(404, f"there is no monitor {name!r} here") from None


def _asset(name: str) -> Response:
    content = (resources.files("nightglass.web") / "static" / name).read_bytes()
    return Response(content, media_type=_TYPES[name.rpartition(".")[2]])
