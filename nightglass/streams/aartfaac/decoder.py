"""Reading windows from a byte stream that may be cut, garbled or resumed anywhere."""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nightglass.streams.aartfaac.heads import MAGIC_BYTES, Head, find_magic, find_torn, holds_magic, read_head
from nightglass.streams.aartfaac.skyheader import HeaderReader, SkyFacts
from nightglass.streams.aartfaac.window import (
    HEAD_BYTES,
    PIXEL_BYTES,
    PixelOrder,
    Window,
    WindowLimits,
    WindowStatus,
    host_pixels,
)
from nightglass.streams.decoding import BufferedDecoder
from nightglass.streams.storage import RecycledStorage

__all__ = ["WindowDecoder"]


_OK = WindowStatus.OK
_REMARKS = (
    WindowStatus.RESYNCHRONISED,
    WindowStatus.NO_TIMESTAMP,
    WindowStatus.NO_FREQUENCY,
    WindowStatus.NO_END,
    WindowStatus.NOT_ASCII,
    WindowStatus.BYTES_SWAPPED,
)
"""With which a window is given out, in the order in which they are looked at."""


class _Announced(NamedTuple):
    """A window whose headers are in and agree with one another."""

    head: Head
    header: str
    facts: SkyFacts
    shape: tuple[int, int]
    status: WindowStatus


class WindowDecoder(BufferedDecoder[Window]):
    """Turns the bytes of an AARTFAAC stream into windows.

    The kernel writes pixels to where they stay: `get_buffer` gives the rest of the image, with room for the next
    window's headers behind it, so that a window costs no copy and no extra read.

    Memory is taken for an image only when window header and FITS header agree about its size, within the limits. A
    window that is refused is not jumped over by what it says of its length, which is likely to be wrong: the next
    window is looked for right behind its magic.

    Parameters
    ----------
    order : PixelOrder
        How the sender lays out an image.
    limits : WindowLimits
    storage : RecycledStorage, optional
        Where images are kept; to be shared by the decoders of several sub-bands.
    """

    def __init__(
        self,
        *,
        order: PixelOrder = PixelOrder.AARTFAAC,
        limits: WindowLimits | None = None,
        storage: RecycledStorage | None = None,
    ) -> None:
        super().__init__()
        self._order = PixelOrder(order)
        self._limits = limits or WindowLimits()
        self._storage = storage or RecycledStorage()
        self._head = bytearray(HEAD_BYTES + self._limits.fits_bytes)
        self._headers = HeaderReader()
        self._start = self._stop = 0
        self._body: NDArray[np.uint8] | None = None
        self._filled = 0
        self._announced: _Announced | None = None
        self._again = memoryview(b"")
        self._lost = False

    def get_buffer(self, sizehint: int = -1) -> memoryview:  # noqa: ARG002 - asyncio passes it
        """Return where the next bytes belong: the rest of an image, or the place for headers."""
        if self._body is not None:
            return self._body.data[self._filled :]
        if self._start:
            held = self._stop - self._start
            self._head[:held] = self._head[self._start : self._stop]
            self._start, self._stop = 0, held
        return memoryview(self._head)[self._stop :]

    def buffer_updated(self, count: int) -> list[Window]:
        """Take note of bytes in the buffer, and return the windows that are now whole."""
        self._tally.received += count
        windows = self._absorb(count)
        while len(self._again):
            buffer = self.get_buffer()
            count = min(len(buffer), len(self._again))
            buffer[:count] = self._again[:count]
            self._again = self._again[count:]
            windows += self._absorb(count)
        return windows

    def finish(self) -> list[Window]:
        """Count what is left of a window that will not come, and be ready for another connection."""
        announced = self._announced
        torn = self._filled + announced.head.head_bytes if announced else self._stop - self._start
        self._tally.truncated += bool(torn) and not self._lost
        self._tally.skipped += torn
        self._start = self._stop = self._filled = 0
        self._body = self._announced = None
        self._lost = False
        return []

    def _absorb(self, count: int) -> list[Window]:
        windows: list[Window] = []
        if self._body is None:
            self._stop += count
        else:
            self._filled += count
            windows += self._close()
        while self._body is None and self._advance():
            windows += self._close()
        return windows

    def _advance(self) -> bool:
        """Go on to the next window of which the headers are here; False if more bytes are needed."""
        while (found := self._examine()) is not None:
            if isinstance(found, _Announced):
                self._open(found)
                return True
            self._refuse(found)
            self._seek()
        return False

    def _examine(self) -> _Announced | WindowStatus | None:
        """Judge what stands at the start: a window, a fault, or None when there is too little of it."""
        head = read_head(self._head, self._start, self._stop, self._limits)
        if not isinstance(head, Head):
            return head
        if self._stop - self._start < head.head_bytes:
            return None
        header = bytes(self._head[self._start + HEAD_BYTES : self._start + head.head_bytes])
        if holds_magic(header):  # the sender went on with the next window inside this one's header
            return WindowStatus.TORN
        facts = self._headers.read(header)
        if facts.shape is None or facts.shape[0] * facts.shape[1] * PIXEL_BYTES != head.array_bytes:
            return WindowStatus.BAD_SHAPE
        noted = (
            self._lost,
            facts.timestamp is None,
            facts.frequency_hz is None,
            not facts.ended,
            not header.isascii(),
            head.byteorder != sys.byteorder,
        )
        status = _OK
        for bit, wrong in zip(_REMARKS, noted, strict=True):
            if wrong:
                status |= bit
        return _Announced(head, header.decode("ascii", "replace"), facts, facts.shape, status)

    def _refuse(self, fault: WindowStatus) -> None:
        """Count a fault; bytes that are no window are one fault, however many they are."""
        if not self._lost or fault is not WindowStatus.BAD_MAGIC:
            self._tally.note(fault)
        self._lost = True

    def _seek(self) -> None:
        """Skip to the next magic behind the start, or to the bytes that may be the beginning of one."""
        place = find_magic(self._head, self._start + 1, self._stop)
        if place < 0:
            place = self._stop - MAGIC_BYTES + 1
        self._tally.skipped += place - self._start
        self._start = place

    def _open(self, announced: _Announced) -> None:
        """Take memory for an image, and move there what has come of it."""
        head = announced.head
        self._announced = announced
        self._body = self._storage.lend(head.array_bytes + head.head_bytes)
        first = self._start + head.head_bytes
        self._filled = min(self._stop - first, head.array_bytes)
        self._body.data[: self._filled] = memoryview(self._head)[first : first + self._filled]
        self._start = first + self._filled

    def _close(self) -> list[Window]:
        """Return the window if its image is whole; what the kernel wrote behind it becomes the next headers."""
        announced, body = self._announced, self._body
        if announced is None or body is None or self._filled < announced.head.array_bytes:
            return []
        whole, filled = body[: announced.head.array_bytes], self._filled
        self._body = self._announced = None
        self._filled = 0
        torn = find_torn(whole, self._limits)
        if torn >= 0:
            self._refuse(WindowStatus.TORN)
            self._tally.skipped += announced.head.head_bytes + torn
            # the window that begins there is read once more, with whatever came behind it
            self._again = memoryview(
                b"".join((body.data[torn:filled], self._head[self._start : self._stop], self._again))
            )
            self._start = self._stop = 0
            return []
        if filled > whole.size:  # then the place for headers is empty
            self._start, self._stop = 0, filled - whole.size
            self._head[: self._stop] = body.data[whole.size : filled]
        self._tally.resynchronised += self._lost
        self._lost = False
        self._tally.messages += 1
        if announced.status is not _OK:
            self._tally.note(announced.status)
        pixels = host_pixels(whole, announced.shape, self._order, announced.head.byteorder)
        return [
            Window(announced.header, pixels, announced.facts.timestamp, announced.facts.frequency_hz, announced.status)
        ]
