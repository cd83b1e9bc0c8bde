"""Who may ask: people at this machine, or whoever has the token."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

__all__ = ["Guard", "is_loopback"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_COOKIE = "nightglass"
_WEEK_S = 7 * 86400
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_WRONG = 401, "this token is not the right one", "the command that serves has NIGHTGLASS_TOKEN in its environment"
_HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}


class Guard:
    """An ASGI application around another one, which lets through only what may pass.

    With a token, it is asked for: as ``Authorization: Bearer``, as ``?token=``, which becomes a cookie, or as that
    cookie. Without one, the request has to name this machine as its host: a page from elsewhere, whose name was made
    to point here, then learns nothing. Whatever changes something must carry the header ``X-Nightglass``, which no page
    from elsewhere can send unasked.

    Parameters
    ----------
    app : ASGI application
    token : str
        Empty: none is asked for.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            # the life of the server; web sockets are not spoken
            await self._app(scope, receive, send)
            return

        async def dress(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                added = [(name, value) for name, value in _HEADERS.items() if name not in present]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        request = Request(scope)
        refusal = self._refuse(request)
        answer = _no(request, *refusal) if isinstance(refusal, tuple) else refusal
        await (answer or self._app)(scope, receive, dress)

    def _refuse(self, request: Request) -> Response | tuple[int, str, str] | None:
        """Return the answer to a request that may not pass, or its status, what is wrong and what to do."""
        if self._token:
            if (given := request.query_params.get("token")) is not None and request.method == "GET":
                return self._welcome(request) if self._fits(given) else _WRONG
            bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not self._fits(bearer) and not self._fits(request.cookies.get(_COOKIE, "")):
                return (
                    401,
                    "a token is asked for",
                    "open this page with ?token=..., or send Authorization: Bearer and the token",
                )
        elif not is_loopback(host := _host(request)):
            return (
                403,
                f"this server answers to 127.0.0.1 and localhost, not to {host!r}",
                "forward its port by ssh, or set a token",
            )
        elif _is_of_another_page(request):
            return 403, "this server answers no pages of others", "open its own page"
        if request.method not in {"GET", "HEAD"} and "x-nightglass" not in request.headers:
            return (
                403,
                "a request that changes something has to carry the header X-Nightglass",
                "curl: -H 'X-Nightglass: 1'",
            )
        return None

    def _fits(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._token.encode())

    def _welcome(self, request: Request) -> Response:
        """Keep the token as a cookie, and have it vanish from the address."""
        rest = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
        # one slash: two would name another host
        place = "/" + request.url.path.lstrip("/") + (f"?{urlencode(rest)}" if rest else "")
        answer = RedirectResponse(place, status_code=303)
        answer.set_cookie(_COOKIE, self._token, max_age=_WEEK_S, httponly=True, samesite="strict")
        return answer


def is_loopback(host: str) -> bool:
    """Tell whether a name or address means this machine alone."""
    if host == "localhost":
        return True
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def _host(request: Request) -> str:
    """Return the host that a request names; one that names none comes from no browser."""
    named = request.headers.getlist("host")
    if not named:
        return request.url.hostname or ""
    found = _HOST.fullmatch(named[0]) if len(named) == 1 else None
    return found[1].lower() if found else ", ".join(named)


def _is_of_another_page(request: Request) -> bool:
    """Tell whether a browser says that a page from elsewhere asks, and not whoever sits before it."""
    return request.headers.get("sec-fetch-site") == "cross-site" and request.headers.get("sec-fetch-mode") != "navigate"


def _no(request: Request, status: int, error: str, remedy: str) -> Response:
    """Refuse: a program in JSON as everywhere, a person in a line of text."""
    if request.url.path.startswith("/v1/"):
        return JSONResponse({"error": error, "remedy": remedy, "kind": "rejected"}, status_code=status)
    return PlainTextResponse(f"{error} ({remedy})\n", status_code=status)
