"""What holds for every registered protocol, unasked."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightglass.errors import Misconfigured
from nightglass.streams import DECODERS, StreamProtocol, find_protocol
from tests.unit.streams.wire import cuts, drain, fill, streams

MARKS = {
    "aartfaac": (
        b"OMOHSJIG",
        b"GIJSHOMO",
        b"OMOHSJIG\xff\xff\xff\xff\xff\xff\xff\xff",
        b"OMOHSJIG" + b"\x40\x0b\0\0" + b"\0\0\0\x10" + bytes(496) + b"SIMPLE  =",
        b"SIMPLE  =                    T",
    ),
    "astropix": (b"\xfe\xdc\xba", b"\xfe\xdc\xba" + bytes(12) + b"\xff\xff\0\0", b"\xfe\xdc\xba" + bytes(16), b"\xfe"),
    "astropix-quad": (b"\x0a\x01", b"\x0a\x03\x0a\x02", b"\x0a", b"\xff" * 5),
}
PROTOCOLS = pytest.mark.parametrize("protocol", DECODERS.values(), ids=list(DECODERS))
QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def wires(protocol: StreamProtocol[Any], messages: list[Any]) -> list[bytes]:
    return [protocol.encode(message) for message in messages]


def whole(protocol: StreamProtocol[Any], count: int) -> list[bytes]:
    return [protocol.encode(protocol.example(seed)) for seed in range(count)]


@PROTOCOLS
def test_messages_come_out_as_they_went_in(protocol: StreamProtocol[Any]) -> None:
    sent = whole(protocol, 20)
    decoder = protocol.decoder()
    assert wires(protocol, decoder.feed(b"".join(sent)) + decoder.finish()) == sent
    tally = decoder.tally
    assert (tally.messages, tally.received, tally.skipped, tally.truncated) == (20, sum(map(len, sent)), 0, 0)
    assert not any(name.startswith("BAD") for name in tally.faults)


@PROTOCOLS
def test_examples_are_the_same_every_time(protocol: StreamProtocol[Any]) -> None:
    assert whole(protocol, 5) == whole(protocol, 5)
    assert protocol.doc
    assert protocol.name in DECODERS


@PROTOCOLS
@QUICK
@given(data=st.data())
def test_any_chunking_gives_the_same(protocol: StreamProtocol[Any], data: st.DataObject) -> None:
    stream = data.draw(streams(protocol, MARKS.get(protocol.name, ())))
    lengths = data.draw(cuts())
    expected = protocol.decoder()
    messages = wires(protocol, drain(expected, stream, [max(len(stream), 1)]))
    for way in (drain, fill):
        decoder = protocol.decoder()
        assert wires(protocol, way(decoder, stream, lengths)) == messages
        assert decoder.tally == expected.tally


@PROTOCOLS
@QUICK
@given(data=st.data())
def test_every_byte_is_accounted_for(protocol: StreamProtocol[Any], data: st.DataObject) -> None:
    stream = data.draw(streams(protocol, MARKS.get(protocol.name, ())))
    decoder = protocol.decoder()
    messages = drain(decoder, stream, data.draw(cuts()))
    tally = decoder.tally
    assert tally.received == len(stream)
    assert tally.skipped + sum(map(len, wires(protocol, messages))) == len(stream)
    assert tally.messages == len(messages)
    if tally.skipped > tally.truncated * len(stream) and protocol.name != "astropix-quad":  # padding is no fault there
        assert tally.faults or tally.truncated


@PROTOCOLS
@QUICK
@given(data=st.data())
def test_garbage_costs_no_message(protocol: StreamProtocol[Any], data: st.DataObject) -> None:
    """Bytes that hold nothing of what a decoder looks for, before and after good messages."""
    sent = whole(protocol, 3)
    garbage = data.draw(st.binary(min_size=1, max_size=3000).map(lambda raw: bytes(value & 0x70 for value in raw)))
    decoder = protocol.decoder()
    messages = wires(protocol, drain(decoder, garbage + b"".join(sent) + garbage, data.draw(cuts())))
    assert messages == sent
    assert decoder.tally.skipped == 2 * len(garbage)


@PROTOCOLS
def test_a_cut_stream_loses_its_last_message_at_most(protocol: StreamProtocol[Any]) -> None:
    sent = whole(protocol, 4)
    stream = b"".join(sent)
    start = len(stream) - len(sent[-1])
    for stop in {*range(start, min(start + 40, len(stream))), len(stream) - 1}:
        decoder = protocol.decoder()
        assert wires(protocol, drain(decoder, stream[:stop], [977])) == sent[:-1]
        assert (decoder.tally.skipped, decoder.tally.truncated) == (stop - start, stop > start)


@PROTOCOLS
def test_a_decoder_serves_one_connection_after_another(protocol: StreamProtocol[Any]) -> None:
    sent = whole(protocol, 3)
    decoder = protocol.decoder()
    for _ in range(3):
        torn = b"".join(sent) + sent[0][: len(sent[0]) // 2]
        assert wires(protocol, drain(decoder, torn, [100])) == sent
    assert decoder.tally.truncated == 3


@PROTOCOLS
@settings(max_examples=150)
@given(data=st.data())
def test_nothing_crashes_a_decoder_or_makes_it_grow(protocol: StreamProtocol[Any], data: st.DataObject) -> None:
    marks = MARKS.get(protocol.name, (b"",))
    stream = b"".join(data.draw(st.lists(st.binary(max_size=60) | st.sampled_from(marks), max_size=40)))
    tracemalloc.start()
    try:
        decoder = protocol.decoder()
        drain(decoder, stream, data.draw(cuts()))
        if protocol.datagrams:
            decoder.datagram(stream)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("protocol", [item for item in DECODERS.values() if item.datagrams], ids=lambda item: item.name)
def test_datagrams_are_judged_one_by_one(protocol: StreamProtocol[Any]) -> None:
    sent = whole(protocol, 3)
    decoder = protocol.decoder()
    bad = [b"", b"hello", sent[0][:-1], sent[0] + b"x", b"\0" + sent[0][1:]]
    messages = []
    for datagram in [sent[0], *bad, sent[1], memoryview(sent[2])]:
        messages += decoder.datagram(datagram)
    assert wires(protocol, messages) == sent
    assert decoder.tally.faults.total() == len(bad)
    assert decoder.tally.skipped == sum(map(len, bad))


def test_an_unknown_protocol_is_told_with_those_that_are_known() -> None:
    assert find_protocol("aartfaac").name == "aartfaac"
    with pytest.raises(Misconfigured, match=r"'lofar' is not known \(one of aartfaac, astropix"):
        find_protocol("lofar")
