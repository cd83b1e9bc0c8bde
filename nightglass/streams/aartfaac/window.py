"""AARTFAAC windows: one image of one sub-band and time step, as it stands on the wire.

====== ============ ============ =============================================================
offset size         type         field
====== ============ ============ =============================================================
0      8            uint64       magic ``0x47494A53484F4D4F``; the order of its bytes is that of all numbers here
8      4            uint32       bytes of FITS header that follow (F)
12     4            uint32       bytes of pixels that follow (N)
16     496          bytes        zero, ignored
512    F            ASCII        FITS header: cards of 80 characters, END, padded to a multiple of 2880
512+F  N            float32      NAXIS1 x NAXIS2 pixels
====== ============ ============ =============================================================

The next window follows at once: there is no number, no checksum and no end mark. Numbers are in the byte order of the
sending host, so little-endian ones begin with the bytes ``OMOHSJIG``, big-endian ones with ``GIJSHOMO``.

Senders of AARTFAAC flatten the image column by column (`PixelOrder.AARTFAAC`); FITS and others do it row by row.

The layout is that of TraP (`tkp/stream.py`, and its emulator `tkp/testutil/stream_emu.py`).
"""

from __future__ import annotations

import enum
import struct
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nightglass.errors import Rejected

__all__ = [
    "HEAD_BYTES",
    "HEAD_LAYOUT",
    "MAGIC",
    "PIXEL_BYTES",
    "PixelOrder",
    "Window",
    "WindowLimits",
    "WindowStatus",
    "encode_window",
    "host_pixels",
]

MAGIC = 0x47494A53484F4D4F
HEAD_LAYOUT = {"little": struct.Struct("<QLL496x"), "big": struct.Struct(">QLL496x")}
HEAD_BYTES = 512
PIXEL_BYTES = 4


class PixelOrder(enum.StrEnum):
    """How a sender lays an image out in one row of numbers."""

    AARTFAAC = "aartfaac"
    """Column by column: the wire holds the transpose."""
    C = "C"
    """Row by row, as FITS does."""


class WindowStatus(enum.Flag):
    """What was wrong with a window: the first six are why it was skipped, with the others it is given out."""

    OK = 0
    BAD_MAGIC = enum.auto()
    """Something else stands where a window ought to begin."""
    BAD_FITS_LENGTH = enum.auto()
    """The FITS header would be empty, or longer than the limit."""
    BAD_ARRAY_LENGTH = enum.auto()
    """There would be no pixels, more than the limit, or a fraction of one."""
    BAD_HEADER = enum.auto()
    """What follows is no FITS header."""
    BAD_SHAPE = enum.auto()
    """NAXIS1 x NAXIS2 does not agree with the number of pixels."""
    TORN = enum.auto()
    """Another window begins where its pixels ought to be: the sender lost bytes."""
    RESYNCHRONISED = enum.auto()
    """Bytes were skipped just before this window."""
    NO_TIMESTAMP = enum.auto()
    """DATE-OBS is missing or no date."""
    NO_FREQUENCY = enum.auto()
    """Neither RESTFREQ, RESTFRQ nor a FREQ axis gives a frequency."""
    NO_END = enum.auto()
    """The FITS header lacks its END card."""
    NOT_ASCII = enum.auto()
    """The FITS header holds other bytes; they were replaced."""
    BYTES_SWAPPED = enum.auto()
    """The sender's byte order is not that of this host."""


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """What a window may announce before it is taken for garbage.

    Attributes
    ----------
    fits_bytes : int
        The default holds 800 cards.
    array_bytes : int
        The default holds an image of 8192 x 8192.
    """

    fits_bytes: int = 64 * 1024
    array_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One image of one sub-band and time step.

    Attributes
    ----------
    header : str
        The FITS header as it came; `astropy.io.fits.Header.fromstring` reads it.
    pixels : ndarray of float32, (NAXIS2, NAXIS1)
        In the byte order of this host. A view of the memory into which the kernel wrote, and it stays as it is for as
        long as somebody holds it; with `PixelOrder.AARTFAAC` columns are contiguous.
    timestamp : datetime or None
        DATE-OBS, in UTC as FITS wants it.
    frequency_hz : float or None
    status : WindowStatus
    """

    header: str
    pixels: NDArray[np.float32]
    timestamp: datetime | None
    frequency_hz: float | None
    status: WindowStatus


def encode_window(
    header: str | bytes,
    pixels: NDArray[np.floating],
    *,
    order: PixelOrder = PixelOrder.AARTFAAC,
    byteorder: Literal["little", "big"] = "little",
) -> bytes:
    """Return a window as a sender lays it out: the inverse of decoding.

    Parameters
    ----------
    header : str or bytes
        FITS header, as from `make_header`.
    pixels : ndarray, (NAXIS2, NAXIS1)

    Raises
    ------
    Rejected
        If the pixels are no two-dimensional image.
    """
    if pixels.ndim != 2:
        message = f"pixels of shape {pixels.shape} are no image"
        raise Rejected(message, remedy="a window holds one plane; send the planes of a cube one after the other")
    cards = header.encode("ascii", "replace") if isinstance(header, str) else header
    wire = np.dtype("<f4" if byteorder == "little" else ">f4")
    flat = pixels.astype(wire, copy=False).tobytes("F" if order is PixelOrder.AARTFAAC else "C")
    return b"".join((HEAD_LAYOUT[byteorder].pack(MAGIC, len(cards), len(flat)), cards, flat))


def host_pixels(
    flat: NDArray[np.uint8], shape: tuple[int, int], order: PixelOrder, byteorder: str
) -> NDArray[np.float32]:
    """Return the bytes of a window as an image, without copying; a foreign byte order is turned round in place.

    Parameters
    ----------
    shape : tuple of int
        NAXIS2 and NAXIS1.
    """
    pixels = flat.view(np.float32)
    if byteorder != sys.byteorder:
        pixels.byteswap(inplace=True)
    return pixels.reshape(shape[::-1]).T if order is PixelOrder.AARTFAAC else pixels.reshape(shape)
