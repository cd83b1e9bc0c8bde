"""Bodies on their way to the spool: taken as they come, written by a thread, never whole in memory.

====================================== ==================================================================
content type                           body
====================================== ==================================================================
``application/fits``, ``image/fits``   a FITS file
``application/octet-stream``           bare pixels; their header is JSON in ``X-Nightglass-Header``
``multipart/form-data``                the parts ``header`` (JSON), then ``data`` (a FITS file, or bare pixels)
====================================== ==================================================================
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from fastapi import Request
from starlette.requests import ClientDisconnect

from nightglass.builder.bodies import PixelForm, pixel_form
from nightglass.errors import Rejected, Retryable
from nightglass.web.parting import Piece, Splitter, find_boundary
from nightglass.web.problems import Unfit

if TYPE_CHECKING:
    from nightglass.builder.spool import Body, Incoming, Spool
    from nightglass.web.threads import Threads

__all__ = ["BODIES", "HEADER", "Pushed", "parse_cards", "receive"]

HEADER = "X-Nightglass-Header"
_FITS = frozenset({"application/fits", "image/fits", ""})
_RAW = "application/octet-stream"
_PARTS = "multipart/form-data"
_STEP = 1 << 20
"""Bytes that are handed to a thread at once: fewer, and its start costs more than the writing."""
_LONGEST_JSON = 2 << 20
_PARTS_REMEDY = "send one part header, if any, then one part data, as curl -F does"
_EXAMPLE = 'write it as {"EXPTIME": 1.5, "OBJECT": ["M31", "a galaxy"]}'

BODIES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": f"A FITS file; or bare pixels, with the header as JSON in {HEADER}: BITPIX and NAXISn, or dtype "
        'and shape, and any cards, as {"KEY": value} or {"KEY": [value, "comment"]}, in base64 if it is no ASCII.',
        "content": {
            "application/fits": {"schema": {"type": "string", "format": "binary"}},
            _RAW: {"schema": {"type": "string", "format": "binary"}},
            _PARTS: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "header": {"type": "string", "description": "JSON; it comes first."},
                        "data": {"type": "string", "format": "binary"},
                    },
                    "required": ["data"],
                }
            },
        },
    },
    "parameters": [
        {
            "name": HEADER,
            "in": "header",
            "required": False,
            "description": "JSON, or JSON in base64: cards that go over those in the body.",
            "schema": {"type": "string", "maxLength": 65536},
        }
    ],
}


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was pushed: a file in the spool, and cards that came beside it; no file where cards came alone."""

    content: Body | None
    cards: dict[str, Any]


@asynccontextmanager
async def receive(request: Request, spool: Spool, threads: Threads) -> AsyncIterator[Pushed]:
    """Receive a body into the spool while a block is entered; what nobody takes within it is removed.

    Raises
    ------
    Rejected
        If the body is too large, cut off, or not what its header says.
    Retryable
        If there is no room, or the sender went away.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    cards = parse_cards(request.headers[HEADER]) if HEADER in request.headers else {}
    try:
        if kind == _PARTS:
            pushed = await _receive_parts(request, spool, threads, cards, find_boundary(content_type))
        elif kind in _FITS or kind == _RAW:
            form = _form(cards) if kind == _RAW else None
            if kind == _RAW and form is None:
                message = f"bare pixels came without their form in {HEADER}"
                raise Rejected(message, remedy='send it as {"dtype": "uint16", "shape": [1032, 2248], "EXPTIME": 1.0}')
            pushed = await _receive_whole(request, spool, threads, cards, form)
        else:
            message = f"bodies of type {kind[:80]!r} are not taken"
            raise Unfit(message, remedy=f"send application/fits, {_RAW} or {_PARTS}")
    except ClientDisconnect:
        message = "the sender went away in the middle of the body"
        raise Retryable(message, remedy="send it again") from None
    try:
        yield pushed
    finally:
        if pushed.content is not None:
            with anyio.CancelScope(shield=True):
                await threads.work(spool.drop, pushed.content)  # nothing, where it was taken


async def _receive_whole(
    request: Request, spool: Spool, threads: Threads, cards: dict[str, Any], form: PixelForm | None
) -> Pushed:
    async with _pumping(spool, threads, size=_announced(request), form=form) as pump:
        async for chunk in request.stream():
            await pump.put(chunk)
        body = await pump.end()
    if body.size == 0:
        await threads.work(spool.drop, body)
        return Pushed(None, cards)
    # what described the pixels is in the file now
    return Pushed(body, {} if form is not None else cards)


@asynccontextmanager
async def _pumping(
    spool: Spool, threads: Threads, *, size: int | None = None, form: PixelForm | None = None
) -> AsyncIterator[_Pump]:
    """Begin a body, and see that nothing of it stays unless it is ended."""
    with await threads.work(spool.receive, size=size, form=form) as incoming:
        pump = _Pump(incoming, threads)
        try:
            yield pump
        finally:
            with anyio.CancelScope(shield=True):
                await pump.settle()


async def _receive_parts(
    request: Request, spool: Spool, threads: Threads, cards: dict[str, Any], boundary: bytes
) -> Pushed:
    pieces = _pieces(request, Splitter(boundary))
    header = bytearray()
    async for piece in pieces:
        if piece.name == "data":
            break
        header += piece.content
        if piece.name != "header" or len(header) > _LONGEST_JSON:
            message = (
                f"a part {piece.name[:40]!r} where none is expected, or a header of more than {_LONGEST_JSON} bytes"
            )
            raise Rejected(message, remedy=_PARTS_REMEDY)
    else:
        return Pushed(None, {**cards, **parse_cards(bytes(header))})
    cards = {**cards, **(parse_cards(bytes(header)) if header else {})}
    form = _form(cards)
    async with _pumping(spool, threads, form=form) as pump:
        await pump.put(piece.content)
        async for piece in pieces:
            if piece.name != "data":
                message = f"a part {piece.name[:40]!r} after the data"
                raise Rejected(message, remedy=_PARTS_REMEDY)
            await pump.put(piece.content)
        body = await pump.end()
    return Pushed(body, {} if form is not None else cards)


async def _pieces(request: Request, splitter: Splitter) -> AsyncIterator[Piece]:
    async for chunk in request.stream():
        for piece in splitter.feed(chunk):
            yield piece
    if not splitter.ended:
        message = "the body ends before its last boundary"
        raise Rejected(message, remedy=_PARTS_REMEDY)


class _Pump:
    """Hands chunks to a thread, a mebibyte at a time, while the next one is received."""

    def __init__(self, incoming: Incoming, threads: Threads) -> None:
        self._incoming, self._threads = incoming, threads
        self._chunks: list[bytes] = []
        self._size = 0
        self._under_way: asyncio.Task[None] | None = None

    async def put(self, chunk: bytes) -> None:
        """Take a chunk; waits for the disk when it is a mebibyte behind."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size >= _STEP:
            await self.settle()
            chunks, self._chunks, self._size = self._chunks, [], 0
            self._under_way = asyncio.create_task(self._threads.work(self._write, chunks))

    async def end(self) -> Body:
        """Write the rest, and end the body."""
        await self.settle()
        return await self._threads.work(self._finish)

    async def settle(self) -> None:
        """Wait until the thread is through; it must not write to what is closed."""
        task, self._under_way = self._under_way, None
        if task is not None:
            await task

    def _write(self, chunks: Sequence[bytes]) -> None:
        for chunk in chunks:
            self._incoming.write(chunk)

    def _finish(self) -> Body:
        self._write(self._chunks)
        return self._incoming.finish()


def parse_cards(text: str | bytes) -> dict[str, Any]:
    """Return the cards of a header in JSON: ``{"KEY": value}`` or ``{"KEY": [value, "comment"]}``.

    Parameters
    ----------
    text : str or bytes
        JSON, or JSON in base64.

    Raises
    ------
    Rejected
        If it is neither.
    """
    if len(text) > _LONGEST_JSON:
        message = f"the header has {len(text)} bytes, more than {_LONGEST_JSON}"
        raise Rejected(message, remedy="leave out what nobody reads")
    try:
        content = text if isinstance(text, str) else text.decode()
        if not content.lstrip().startswith("{"):
            content = base64.b64decode(content, validate=True).decode()
        found = json.loads(content, parse_constant=_no_number)
    except (ValueError, binascii.Error, RecursionError) as error:
        message = f"the header is not JSON: {error}"
        raise Rejected(message, remedy=_EXAMPLE) from None
    if not isinstance(found, dict):
        message = "the header is not a JSON object"
        raise Rejected(message, remedy=_EXAMPLE)
    return found


def _form(cards: Mapping[str, Any]) -> PixelForm | None:
    """Return the form of bare pixels, if the cards tell one."""
    if not {"DTYPE", "BITPIX"} & {name.upper() for name in cards}:
        return None
    return pixel_form(cards)


def _announced(request: Request) -> int | None:
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdecimal() else None


def _no_number(text: str) -> float:
    message = f"{text} is no number that a header can hold"
    raise ValueError(message)
