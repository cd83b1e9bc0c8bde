"""AARTFAAC's image stream over TCP: windows of one sub-band and time step each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from nightglass.streams.aartfaac.decoder import WindowDecoder
from nightglass.streams.aartfaac.skyheader import HeaderReader, SkyFacts, make_header
from nightglass.streams.aartfaac.window import (
    MAGIC,
    PixelOrder,
    Window,
    WindowLimits,
    WindowStatus,
    encode_window,
)
from nightglass.streams.decoding import StreamProtocol

__all__ = [
    "MAGIC",
    "PROTOCOL",
    "HeaderReader",
    "PixelOrder",
    "SkyFacts",
    "Window",
    "WindowDecoder",
    "WindowLimits",
    "WindowStatus",
    "encode_window",
    "make_header",
]

_FREQUENCIES_HZ = (6.0e6, 6.5e6, 7.0e6, 7.5e6, 8.0e6, 8.5e6)
"""The sub-bands of the telescope's own emulator."""


def _encode(window: Window) -> bytes:
    return encode_window(window.header, window.pixels)


def _size(window: Window) -> int:
    return window.pixels.nbytes + len(window.header)


def _example(seed: int) -> Window:
    """Return a small image of noise: the sub-bands take turns, and each round is a second later."""
    rng = np.random.default_rng(seed)
    step, band = divmod(seed, len(_FREQUENCIES_HZ))
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=step)
    pixels = rng.normal(size=(12 + seed % 3, 16)).astype(np.float32)
    header = make_header(pixels.shape, timestamp=moment, frequency_hz=_FREQUENCIES_HZ[band])
    return Window(header, pixels, moment, _FREQUENCIES_HZ[band], WindowStatus.OK)


PROTOCOL = StreamProtocol(
    name="aartfaac",
    doc="images of a radio sky, one window for each sub-band and time step, over TCP",
    decoder=WindowDecoder,
    encode=_encode,
    example=_example,
    size=_size,
    settings={"order": "pixel_order"},
)
