"""How the server reads: into a buffer of its own, a mebibyte at a time."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["LargeReads"]

_READ_BYTES = 1 << 20


class LargeReads(HttpToolsProtocol, asyncio.BufferedProtocol):
    """HTTP/1.1 of uvicorn, read into one buffer a connection.

    A plain protocol gets new bytes of at most 256 KiB for each read: bodies of images then cost four times as many
    turns of the loop, and fresh pages for each.
    """

    def connection_made(self, transport: Any) -> None:
        """Begin a connection."""
        self._view = memoryview(bytearray(_READ_BYTES))  # pages that nobody writes to cost nothing
        super().connection_made(transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - part of the protocol
        """Return where the next bytes belong."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read; the parser copies it."""
        view: Any = self._view[:nbytes]
        self.data_received(view)
