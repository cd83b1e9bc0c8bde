"""The interface of the image builders: mounted for the first one at ``/v1``, for each at ``/v1/builders/NAME``.

What it offers is in ``/v1/openapi.json``, and as a page at ``/v1/docs``.
"""

from __future__ import annotations

import difflib
import functools
import threading
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse

from nightglass.builder.refusals import Unknown
from nightglass.web.control import control_routes
from nightglass.web.exposures import exposure_routes
from nightglass.web.frames import frame_routes
from nightglass.web.problems import add_problems
from nightglass.web.rois import roi_routes
from nightglass.web.threads import Threads

if TYPE_CHECKING:
    from nightglass.builder.service import Builder

__all__ = ["add_builders"]

VERSION = "1.0"
_ABOUT = (
    "Collects extensions into frames and exposures, writes, sends, plots and archives them. "
    "With several builders, the addresses below serve the first one, and /v1/builders/NAME/... serves each. "
    "A request that changes something carries the header X-Nightglass; away from this machine, each carries "
    "Authorization: Bearer and the token."
)


def add_builders(app: FastAPI, builders: Mapping[str, Builder], closing: threading.Event) -> None:
    """Add the addresses of image builders, where there are any.

    Parameters
    ----------
    closing : threading.Event
        Ends the streams of events.
    """
    if not builders:
        return
    threads = Threads()
    routers = {name: _routes(builder, threads, closing) for name, builder in builders.items()}
    first = next(iter(routers.values()))
    app.include_router(first, prefix="/v1")
    for name, router in routers.items():
        app.include_router(router, prefix=f"/v1/builders/{name}")
    add_problems(app)

    @functools.cache
    def document() -> dict[str, Any]:
        # made when somebody asks for it: it takes longer than all else that a server does before it listens
        return _document(first)

    @app.get("/v1/openapi.json")
    def openapi() -> dict[str, Any]:
        return document()

    @app.get("/v1/docs")
    def docs() -> HTMLResponse:
        return HTMLResponse(_page(document(), tuple(builders)))

    @app.api_route("/v1/builders/{name}/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def nothing(name: str, rest: str) -> None:
        """Say what is wrong with an address that no builder has."""
        close = difflib.get_close_matches(name, builders, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else f"choices: {', '.join(builders)}"
        if name in builders:
            message, remedy = f"builder {name} has no address {rest[:80]!r}", "see /v1/docs"
        else:
            message = f"there is no image builder {name[:80]!r}"
        raise Unknown(message, remedy=remedy)

    @app.get("/v1/builders")
    def list_builders() -> dict[str, Any]:
        return {
            "builders": [
                {"name": name, "address": f"/v1/builders/{name}", "role": builder.options.role}
                for name, builder in builders.items()
            ]
        }


def _routes(builder: Builder, threads: Threads, closing: threading.Event) -> APIRouter:
    router = APIRouter()
    for part in (
        frame_routes(builder, threads),
        exposure_routes(builder, threads),
        roi_routes(builder, threads),
        control_routes(builder, threads, closing),
    ):
        router.include_router(part)
    return router


def _document(router: APIRouter) -> dict[str, Any]:
    """Return the OpenAPI document of the first builder's addresses."""
    described = FastAPI()
    described.include_router(router, prefix="/v1")
    document = get_openapi(
        title="Nightglass image builder", version=VERSION, description=_ABOUT, routes=described.routes
    )
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-Nightglass"},
    }
    document["security"] = [{"header": []}, {"header": [], "token": []}]
    return document


def _page(document: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the OpenAPI document as a page that needs no script and nothing from elsewhere."""
    rows: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            queries = [item["name"] for item in operation.get("parameters", ()) if item["in"] == "query"]
            body = ", ".join(_body_fields(operation, document))
            does = operation.get("description", "").replace("``", "")
            cells = "".join(f"<td>{escape(cell)}</td>" for cell in (does, ", ".join(queries), body))
            row = f"<tr><td>{method.upper()}</td><td><code>{escape(path)}</code></td>{cells}</tr>"
            rows.setdefault(operation["tags"][0], []).append(row)
    head = "<tr><th>method</th><th>address</th><th>does</th><th>query</th><th>body</th></tr>"
    tables = "".join(f"<h2>{escape(tag)}</h2><table>{head}{''.join(lines)}</table>" for tag, lines in rows.items())
    known = ", ".join(escape(name) for name in names)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Nightglass image builder</title>'
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="/static/style.css"></head><body>'
        '<header><h1>Image builder</h1><a href="/builders">what it does now</a></header><main class="text">'
        f"<p>{escape(_ABOUT)}</p><p>Builders: {known}. "
        f'The same as <a href="/v1/openapi.json">OpenAPI document</a>.</p>{tables}</main></body></html>'
    )


def _body_fields(operation: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    reference = schema.get("$ref") or next((item["$ref"] for item in schema.get("anyOf", ()) if "$ref" in item), "")
    if not reference:
        return list(content) if "application/json" not in content else []
    return list(document["components"]["schemas"][reference.rpartition("/")[2]].get("properties", {}))
