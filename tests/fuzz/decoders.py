"""Feeds decoders with bytes that atheris thinks up, looking for crashes, lost bytes and unbounded allocation.

``python -m tests.fuzz.decoders CORPUS [options of libFuzzer, as -max_total_time=600]``

The directory CORPUS gets a few good messages to begin with, and whatever reaches new code. The first byte of an input
chooses the protocol, the second how the rest is cut into pieces.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["nightglass.streams"]):
    from nightglass.streams import DECODERS
    from nightglass.streams.astropix import HitDecoder, Readout

_HEADROOM = 256 << 20
"""Address space beyond what the imports took: what a message announces must not be taken before it came."""
_LONGEST = 16384
_MOST_PIECES = 200
_PROTOCOLS = tuple(DECODERS.values())


def feed_decoder(data: bytes) -> None:
    """Decode one input as a stream in pieces and as a datagram; every byte must be accounted for."""
    if len(data) < 2:
        return
    protocol, stream = _PROTOCOLS[data[0] % len(_PROTOCOLS)], data[2:]
    step = max(1 + data[1] * 7, len(stream) // _MOST_PIECES)
    decoder: Any = protocol.decoder()
    messages: list[Any] = []
    for start in range(0, len(stream), step):
        messages += decoder.feed(stream[start : start + step])
    messages += decoder.finish()
    tally = decoder.tally
    assert tally.messages == len(messages)
    assert tally.received == len(stream)
    assert tally.skipped + sum(len(protocol.encode(message)) for message in messages) == len(stream)
    if protocol.datagrams:
        messages += decoder.datagram(stream)
    readouts = [message for message in messages if isinstance(message, Readout)]
    if readouts:
        HitDecoder().decode(readouts)


def write_seeds(directory: Path) -> None:
    """Write good messages of each protocol, and some that are cut short."""
    directory.mkdir(parents=True, exist_ok=True)
    for number, protocol in enumerate(_PROTOCOLS):
        for seed in range(3):
            good = b"".join(protocol.encode(protocol.example(seed + more)) for more in range(2))
            stream = good[:_LONGEST] if seed else good[: len(good) * 2 // 3]
            (directory / f"{protocol.name}-{seed}").write_bytes(bytes([number, 37 * seed]) + stream)


def main(arguments: list[str]) -> None:
    """Fuzz until told to stop; a failure ends the program with its input in a file."""
    if not arguments or arguments[0].startswith("-"):
        sys.exit(__doc__)
    write_seeds(Path(arguments[0]))
    HitDecoder().decode([])  # whatever is compiled is compiled now
    feed_decoder(bytes(100))
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + _HEADROOM, taken + _HEADROOM))
    atheris.Setup([sys.argv[0], f"-max_len={_LONGEST}", *arguments], feed_decoder)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
