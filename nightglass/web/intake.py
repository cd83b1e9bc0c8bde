"""How much of a body is taken, and how long it is waited for, whatever the request is about."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

__all__ = ["Doorkeeper"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_LARGEST: Final = 8 << 20
"""Bytes of a body that is read as a whole; what is pushed has limits of its own, and goes to the disk."""
_SILENT_S: Final = 60.0
"""A sender that is silent for so long is gone: its machine may have lost power, and nobody says so."""
_GONE: Final[Message] = {"type": "http.disconnect"}


class Doorkeeper:
    """An ASGI application around another one, which hands on no more of a body than may be.

    Parameters
    ----------
    app : ASGI application
    silent_s : float
        Silence in the middle of a body after which its sender is taken for gone.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], *, silent_s: float = _SILENT_S) -> None:
        self._app, self._silent_s = app, silent_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        pushes = scope["method"] == "PUT" and "/extensions/" in scope["path"]
        taking = _Taking(receive, send, silent_s=self._silent_s, limit=None if pushes else _LARGEST)
        await self._app(scope, taking.receive, taking.send)


class _Taking:
    """The two ends of one request."""

    def __init__(self, receive: Receive, send: Send, *, silent_s: float, limit: int | None) -> None:
        self._receive, self._send = receive, send
        self._silent_s, self._limit = silent_s, limit
        self._size = 0
        self._whole = self._refused = False

    async def receive(self) -> Message:
        """Return the next piece."""
        if self._refused:
            return _GONE
        if self._whole:  # what is waited for now is that the other side goes
            return await self._receive()
        try:
            async with asyncio.timeout(self._silent_s):
                message = await self._receive()
        except TimeoutError:
            return _GONE
        self._size += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._limit is not None and self._size > self._limit:
            await self._refuse(self._limit)
            return _GONE
        return message

    async def send(self, message: Message) -> None:
        """Answer, unless that was done."""
        if not self._refused:
            await self._send(message)

    async def _refuse(self, limit: int) -> None:
        problem = {
            "error": f"a body of more than {limit} bytes, which is not an extension",
            "remedy": "say less at once; push pixels as extensions",
            "kind": "rejected",
        }
        body = json.dumps(problem).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.send(
            {"type": "http.response.start", "status": 413, "headers": [*headers, (b"connection", b"close")]}
        )
        await self.send({"type": "http.response.body", "body": body})
        self._refused = True
