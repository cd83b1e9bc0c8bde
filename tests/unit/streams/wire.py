"""Streams as the world delivers them: good messages, garbage, torn and altered ones, cut anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from nightglass.streams import Decoder, StreamProtocol

__all__ = ["cuts", "drain", "fill", "streams"]


def streams(protocol: StreamProtocol[Any], marks: tuple[bytes, ...] = ()) -> st.SearchStrategy[bytes]:
    """Bytes of a stream with faults; marks are what the decoder looks for, put where they do not belong."""
    good = st.integers(0, 5).map(lambda seed: protocol.encode(protocol.example(seed)))
    torn = st.tuples(good, st.floats(0, 1)).map(lambda item: item[0][: int(len(item[0]) * item[1])])
    holed = st.tuples(good, st.floats(0, 1), st.integers(1, 30)).map(_without)
    altered = st.tuples(good, st.floats(0, 0.999), st.integers(1, 255)).map(_altered)
    early = st.tuples(good, st.integers(0, 40), st.integers(1, 255)).map(_altered_early)
    garbage = st.binary(max_size=40) | st.sampled_from(marks or (b"",))
    return st.lists(st.one_of(good, good, torn, holed, altered, early, garbage), max_size=8).map(b"".join)


def cuts() -> st.SearchStrategy[list[int]]:
    """Lengths of the pieces in which a stream arrives, used in turns."""
    return st.lists(st.integers(1, 1500) | st.integers(1, 9), min_size=1, max_size=12)


def drain(decoder: Decoder[Any], data: bytes, lengths: list[int]) -> list[Any]:
    """Feed a stream in pieces, and end it."""
    return _deliver(data, lengths, lambda piece: decoder.feed(piece)) + decoder.finish()


def fill(decoder: Decoder[Any], data: bytes, lengths: list[int]) -> list[Any]:
    """Do the same as a receiver that writes into the decoder's buffer, as much as fits."""

    def receive(piece: bytes) -> list[Any]:
        messages: list[Any] = []
        while piece:
            buffer = decoder.get_buffer()
            count = min(len(buffer), len(piece))
            assert count > 0
            buffer[:count] = piece[:count]
            messages += decoder.buffer_updated(count)
            piece = piece[count:]
        return messages

    return _deliver(data, lengths, receive) + decoder.finish()


def _deliver(data: bytes, lengths: list[int], receive: Callable[[bytes], list[Any]]) -> list[Any]:
    messages: list[Any] = []
    turn = 0
    while data:
        length = lengths[turn % len(lengths)]
        messages += receive(data[:length])
        data = data[length:]
        turn += 1
    return messages


def _without(item: tuple[bytes, float, int]) -> bytes:
    data, place, count = item
    start = int(len(data) * place)
    return data[:start] + data[start + count :]


def _altered(item: tuple[bytes, float, int]) -> bytes:
    data, place, change = item
    return _flip(data, int(len(data) * place), change)


def _altered_early(item: tuple[bytes, int, int]) -> bytes:
    data, place, change = item
    return _flip(data, min(place, len(data) - 1), change)


def _flip(data: bytes, place: int, change: int) -> bytes:
    return data[:place] + bytes([data[place] ^ change]) + data[place + 1 :]
