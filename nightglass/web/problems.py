"""Errors as answers: JSON with what is wrong, the value, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from nightglass.builder.refusals import Complete, Exists, Purged, Unknown, Unsaved
from nightglass.builder.spool import TooLarge
from nightglass.errors import Misconfigured, NightglassError, Rejected, Retryable, Waiting

__all__ = ["Problem", "Unfit", "add_problems", "problem_responses"]

_RETRY_S = 2
_LONGEST_VALUE = 200


class Problem(BaseModel):
    """The body of every answer that is an error."""

    error: str
    """What is wrong."""
    remedy: str = ""
    """What to do about it."""
    kind: str = ""
    """``rejected``, ``waiting``, ``retryable`` or ``misconfigured``."""


class Unfit(Rejected):
    """The body is of a type that is not taken."""


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI document says of answers that are errors."""
    texts = {
        404: "What is asked for is not there.",
        409: "It does not fit what is there: unknown or complete frame, or an extension that exists.",
        413: "The body is larger than it may be.",
        415: "The body is of a type that is not taken.",
        422: "The request makes no sense; the answer says what to change.",
        503: "The world is busy; ask again after the time that Retry-After names.",
    }
    return {status: {"model": Problem, "description": texts[status]} for status in (*statuses, 422, 503)}


def add_problems(app: FastAPI) -> None:
    """Have errors answered as `Problem`."""

    @app.exception_handler(NightglassError)
    def ours(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001 - called like this
        assert isinstance(error, NightglassError)
        status, kind = _status(error)
        headers = {"Retry-After": str(_RETRY_S)} if status == 503 else None
        return _answer(status, error.message, remedy=error.remedy, kind=kind, headers=headers)

    @app.exception_handler(RequestValidationError)
    def unfit(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        texts = [_describe(problem, request) for problem in error.errors()]
        return _answer(422, "; ".join(texts), remedy="see /v1/docs", kind="misconfigured")

    @app.exception_handler(HTTPException)
    def general(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
        assert isinstance(error, HTTPException)
        return _answer(
            error.status_code, str(error.detail), remedy="see /v1/docs", kind="rejected", headers=error.headers
        )

    @app.exception_handler(Exception)
    def fault(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001 - it is logged by the server
        text = f"a fault of the server: {type(error).__name__}"
        return _answer(500, text, remedy="its log says more", kind="fault")


def _status(error: NightglassError) -> tuple[int, str]:
    match error:
        case TooLarge():
            return 413, "rejected"
        case Unfit():
            return 415, "rejected"
        case Unknown():
            return 404, "rejected"
        case Complete() | Exists() | Purged() | Unsaved():
            return 409, "rejected"
        case Rejected():
            return 422, "rejected"
        case Waiting():
            return 409, "waiting"
        case Retryable():
            return 503, "retryable"
        case Misconfigured():
            return 422, "misconfigured"
    return 500, "fault"


def _answer(
    status: int, error: str, *, remedy: str, kind: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    # names of hostile files are no UTF-8
    content = {name: _plain(text) for name, text in {"error": error, "remedy": remedy, "kind": kind}.items()}
    return JSONResponse(content, status_code=status, headers=dict(headers or {}))


def _plain(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _describe(problem: Mapping[str, Any], request: Request) -> str:
    place = ".".join(str(part) for part in problem["loc"][1:]) or "the body"
    if problem["type"] == "json_invalid":
        return f"the body is no JSON: {problem['ctx']['error']} at character {place}"
    if isinstance(problem["input"], bytes) and "json" not in request.headers.get("content-type", ""):
        return "the body is taken for JSON only with the header Content-Type: application/json"
    if problem["type"] != "extra_forbidden":
        return f"{place}: {problem['msg']} (got {repr(problem['input'])[:_LONGEST_VALUE]})"
    known = sorted(_fields_of(request))
    close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown name {place!r}, {hint}"


def _fields_of(request: Request) -> set[str]:
    """Return the names that the body of a route may hold."""
    field = getattr(request.scope.get("route"), "body_field", None)
    model = getattr(getattr(field, "field_info", None), "annotation", None)
    return set(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else set()
