"""AARTFAAC's image stream over TCP: windows of one sub-band and time step each."""

from nightglass.streams.aartfaac.decoder import WindowDecoder
from nightglass.streams.aartfaac.skyheader import SkyFacts, make_header, read_facts
from nightglass.streams.aartfaac.window import (
    MAGIC,
    PixelOrder,
    Window,
    WindowLimits,
    WindowStatus,
    encode_window,
)

__all__ = [
    "MAGIC",
    "PixelOrder",
    "SkyFacts",
    "Window",
    "WindowDecoder",
    "WindowLimits",
    "WindowStatus",
    "encode_window",
    "make_header",
    "read_facts",
]
