"""How the server reads: into a buffer of its own, a mebibyte at a time; and for how long before it knows what for.

A request whose head is longer than a header of an image, or does not come to its end, is cut off: whoever opens a
connection and says nothing holds it for half a minute.
"""

from __future__ import annotations

import asyncio
from mmap import mmap
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["LargeReads"]

_READ_BYTES: Final = 1 << 20
_LONGEST_HEAD: Final = 4 << 20
"""Bytes before the body: headers of images come as JSON of at most 2 MiB."""
_HEAD_S: Final = 30.0
_TOO_LONG: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n"
    b"connection: close\r\n\r\n"
)


class LargeReads(HttpToolsProtocol, asyncio.BufferedProtocol):
    """HTTP/1.1 of uvicorn, read into one buffer a connection.

    A plain protocol gets new bytes of at most 256 KiB for each read: bodies of images then cost four times as many
    turns of the loop, and fresh pages for each.
    """

    _head_size = 0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin a connection."""
        self._view = memoryview(mmap(-1, _READ_BYTES))  # pages that nobody writes to cost nothing
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._end_head()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        if self._late is None:  # a further one of a connection
            self._begin_head()

    def on_headers_complete(self) -> None:
        """Go on to the body."""
        self._end_head()
        super().on_headers_complete()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - part of the protocol
        """Return where the next bytes belong."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read; the parser copies it."""
        view: Any = self._view[:nbytes]
        self.data_received(view)
        if self._late is not None:
            self._head_size += nbytes
            if self._head_size > _LONGEST_HEAD and not self.transport.is_closing():
                self.transport.write(_TOO_LONG)
                self.transport.close()

    def _begin_head(self) -> None:
        self._head_size = 0
        self._late = self.loop.call_later(_HEAD_S, self.transport.close)

    def _end_head(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
