"""AstroPix: pixel chips whose readouts travel as datagrams and are kept in ``.apx`` files."""

from __future__ import annotations

import numpy as np

from nightglass.streams.astropix.apx import READOUT_UID_V4, ApxReader, ApxWriter
from nightglass.streams.astropix.hits import HIT_DTYPE, encode_hits, make_hits, read_hits
from nightglass.streams.astropix.legacy import LegacyLog
from nightglass.streams.astropix.packet import MAX_READOUT_BYTES, PacketDecoder, PacketFault, Readout, parse_packet
from nightglass.streams.astropix.readouts import (
    ByteRole,
    Decoded,
    HitDecoder,
    LeftOver,
    ReadoutStatus,
    encode_readout,
)
from nightglass.streams.astropix.runs import RunSummary, decode_run, read_run
from nightglass.streams.astropix.v3 import (
    HIT3_DTYPE,
    FrameDecoder,
    encode_frames,
    match_pixels,
    read_frames,
    read_hits3,
)
from nightglass.streams.astropix.v3 import PROTOCOL as PROTOCOL_V3
from nightglass.streams.decoding import StreamProtocol

__all__ = [
    "HIT3_DTYPE",
    "HIT_DTYPE",
    "MAX_READOUT_BYTES",
    "PROTOCOL",
    "PROTOCOL_V3",
    "READOUT_UID_V4",
    "ApxReader",
    "ApxWriter",
    "ByteRole",
    "Decoded",
    "FrameDecoder",
    "HitDecoder",
    "LeftOver",
    "LegacyLog",
    "PacketDecoder",
    "PacketFault",
    "Readout",
    "ReadoutStatus",
    "RunSummary",
    "decode_run",
    "encode_frames",
    "encode_hits",
    "encode_readout",
    "make_hits",
    "match_pixels",
    "parse_packet",
    "read_frames",
    "read_hits",
    "read_hits3",
    "read_run",
]

_OBJECT_BYTES = 192
"""What Python takes for a readout beside its data."""


def _size(readout: Readout) -> int:
    return len(readout.data) + _OBJECT_BYTES


def _number(readout: Readout) -> tuple[int, int]:
    return readout.readout_id, readout.timestamp_ns


def _example(seed: int) -> Readout:
    """Return a readout with a few hits; seeds are numbers of readouts, a millisecond apart."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 5))
    hits = make_hits(
        row=rng.integers(0, 13, count),
        column=rng.integers(0, 16, count),
        begin=rng.integers(0, 1 << 17, count),
        cycles=rng.integers(20, 10000, count),
    )
    return encode_readout(hits, readout_id=seed, timestamp_ns=1_767_225_600_000_000_000 + seed * 1_000_000)


PROTOCOL = StreamProtocol(
    name="astropix",
    doc="readouts of AstroPix 4 chips, one in a datagram, or back to back",
    decoder=PacketDecoder,
    encode=Readout.to_bytes,
    example=_example,
    datagrams=True,
    size=_size,
    number=_number,
)
