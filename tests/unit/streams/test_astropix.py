"""AstroPix 4: hits among idle bytes, cut in two, cut short; packets; and what the reference decodes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nightglass.errors import Rejected
from nightglass.streams.astropix import (
    HIT_DTYPE,
    ApxReader,
    ByteRole,
    HitDecoder,
    LeftOver,
    PacketDecoder,
    Readout,
    ReadoutStatus,
    encode_hits,
    encode_readout,
    make_hits,
    parse_packet,
    read_hits,
)
from nightglass.streams.astropix.hits import HIT_LAYOUT, gray_to_number, number_to_gray

FIRST, SECOND = bytes.fromhex("e08056e80da85403"), bytes.fromhex("e080d26f04ca3005")
IDLE, PAD = b"\xbc", b"\xff"
PAD_AT_END = encode_hits(
    np.array(
        [tuple({"payload": 7, "row": 3, "ts_coarse2": 0x3FFF, "ts_fine2": 7, "ts_tdc2": 31}.get(name, 0)
               for name in HIT_DTYPE.names or ())],
        HIT_DTYPE,
    )
)  # fmt: skip
"""A hit whose last bytes are ff."""


@pytest.fixture(scope="module")
def real_run(real_data: Path) -> Path:
    return real_data / "astropix" / "20250723_092534_data.apx"


def readouts(*pieces: bytes, first: int = 0) -> list[Readout]:
    return [Readout(first + number, 1000 + number, data) for number, data in enumerate(pieces)]


def status_of(*pieces: bytes) -> list[ReadoutStatus]:
    return [ReadoutStatus(int(bits)) for bits in HitDecoder().decode(readouts(*pieces)).status]


def tots(decoder: HitDecoder, *pieces: bytes, first: int = 0) -> list[float]:
    return [float(value) for value in decoder.decode(readouts(*pieces, first=first)).hits["tot_us"]]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (FIRST, {"chip_id": 0, "payload": 7, "row": 0, "column": 5, "ts_neg1": 1, "ts_coarse1": 5167, "ts_fine1": 3,
                 "ts_tdc1": 0, "ts_neg2": 0, "ts_coarse2": 5418, "ts_fine2": 6, "ts_tdc2": 0, "ts_dec1": 49581,
                 "ts_dec2": 52836, "tot_us": 162.75}),
        (SECOND, {"column": 5, "ts_neg1": 0, "ts_coarse1": 6124, "ts_fine1": 2, "ts_neg2": 1, "ts_coarse2": 4876,
                  "ts_fine2": 5, "ts_dec1": 54716, "ts_dec2": 61369, "tot_us": 332.65}),
    ],
)  # fmt: skip
def test_known_hits(raw: bytes, expected: dict[str, float]) -> None:
    (hit,) = HitDecoder().decode(readouts(raw)).hits
    assert {name: hit[name] for name in expected} == expected


def by_characters(raw: bytes) -> dict[str, int]:
    """The fields of a hit by the slow way: a string of zeros and ones."""
    bits = "".join(f"{value:08b}"[::-1] for value in raw)
    return {name: int(bits[first : first + width], 2) for name, (first, width) in HIT_LAYOUT.items()}


@given(st.lists(st.binary(min_size=8, max_size=8), max_size=5))
def test_fields_are_those_of_a_string_of_bits(raw: list[bytes]) -> None:
    hits = read_hits(np.frombuffer(b"".join(raw), np.uint8))
    for hit, data in zip(hits, raw, strict=True):
        fields = by_characters(data)
        assert {name: int(hit[name]) for name in fields} == fields
        begin, end = (int(np.uint64(slow_gray(fields, which))) for which in "12")
        end += (1 << 17) * (end < begin)
        assert (int(hit["ts_dec1"]), int(hit["ts_dec2"]), float(hit["tot_us"])) == (begin, end, (end - begin) / 20)


def slow_gray(fields: dict[str, int], which: str) -> int:
    value = mask = (fields[f"ts_coarse{which}"] << 3) + fields[f"ts_fine{which}"]
    while mask:
        mask >>= 1
        value ^= mask
    return value


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_gray_code_there_and_back(values: list[int]) -> None:
    numbers = np.array(values, np.uint32)
    np.testing.assert_array_equal(gray_to_number(number_to_gray(numbers)), numbers)


@given(st.data())
def test_hits_come_back_from_readouts_of_any_shape(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 20))
    hits = some_hits(count, seed=data.draw(st.integers(0, 99)))
    size = data.draw(st.sampled_from([None, 4096]))
    readout = encode_readout(hits, readout_id=5, timestamp_ns=6, idle=data.draw(st.integers(0, 4)), size=size)
    decoded = HitDecoder().decode([readout])
    for name in ("chip_id", "row", "column", "ts_dec1", "ts_dec2", "tot_us"):
        np.testing.assert_array_equal(decoded.hits[name], hits[name])
    assert decoded.hits["decoding_order"].tolist() == list(range(count))
    assert set(decoded.hits["readout_id"]) <= {5}
    assert decoded.status.tolist() == [0]
    assert ByteRole.NOT_ASSIGNED not in decoded.roles


def some_hits(count: int, *, seed: int) -> NDArray[np.void]:
    """Hits without a byte that looks like a start, an idle byte or padding, other than the first."""
    rng = np.random.default_rng(seed)
    made = make_hits(
        row=rng.integers(0, 32, 400),
        column=rng.integers(0, 32, 400),
        begin=rng.integers(0, 1 << 17, 400),
        cycles=rng.integers(1, 9000, 400),
        chip_id=rng.integers(0, 31, 400),
    )
    raw = np.frombuffer(encode_hits(made), np.uint8).reshape(-1, 8)
    return made[(raw[:, 1:] < 0xBC).all(axis=1)][:count]


@pytest.mark.parametrize("data", [b"", IDLE, IDLE * 40, PAD * 4096, IDLE + PAD * 9])
def test_a_readout_without_hits_has_none(data: bytes) -> None:
    decoded = HitDecoder().decode(readouts(data))
    assert (len(decoded.hits), decoded.status.tolist(), len(decoded.roles)) == (0, [0], len(data))


def test_a_readout_without_any_start_is_described() -> None:
    assert status_of(b"\x12\x34" * 30) == [ReadoutStatus.ORPHAN_BYTES_NOT_USED]


def test_a_hit_at_the_very_end_is_decoded() -> None:
    assert tots(HitDecoder(), IDLE * 2 + FIRST) == [162.75]
    assert tots(HitDecoder(), FIRST + SECOND) == [162.75, 332.65]


@pytest.mark.parametrize("cut", range(1, 8))
@pytest.mark.parametrize("between", [b"", IDLE * 2])
def test_a_hit_cut_in_two_is_put_together(cut: int, between: bytes) -> None:
    pieces = IDLE * 2 + FIRST + SECOND[:cut], between + SECOND[cut:] + IDLE + FIRST
    decoded = HitDecoder().decode(readouts(*pieces))
    assert decoded.hits["tot_us"].tolist() == [162.75, 332.65, 162.75]
    assert decoded.hits["readout_id"].tolist() == [0, 1, 1]
    assert decoded.hits["decoding_order"].tolist() == [0, 0, 1]
    assert decoded.status.tolist() == [ReadoutStatus.VALID_EXTRA_BYTES, ReadoutStatus.ORPHAN_BYTES_MATCHED]


@given(st.data())
def test_calls_may_be_cut_anywhere(data: st.DataObject) -> None:
    """A receiver decodes whatever has come; that must not change the hits."""
    raw = encode_hits(some_hits(12, seed=data.draw(st.integers(0, 9))))
    marks = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[start:stop] for start, stop in zip([0, *marks], [*marks, len(raw)], strict=True)]
    together = HitDecoder().decode(readouts(*pieces))
    apart = HitDecoder()
    single = [apart.decode([readout]) for readout in readouts(*pieces)]
    np.testing.assert_array_equal(np.concatenate([item.hits for item in single]), together.hits)
    assert [int(item.status[0]) for item in single] == together.status.tolist()
    np.testing.assert_array_equal(np.concatenate([item.roles for item in single]), together.roles)


@pytest.mark.parametrize("second", [2, 7, 0, 2**32 - 1])
def test_a_gap_cuts_the_connection(second: int) -> None:
    decoder = HitDecoder()
    assert tots(decoder, FIRST + SECOND[:3], first=0) == [162.75]
    assert decoder.left == SECOND[:3]
    decoded = decoder.decode([Readout(second, 0, SECOND[3:] + FIRST)])
    assert decoded.hits["tot_us"].tolist() == [162.75]
    assert decoded.status.tolist() == [ReadoutStatus.EXTRA_BYTES_LOST | ReadoutStatus.ORPHAN_BYTES_NOT_USED]


def test_ids_go_on_after_the_last_one() -> None:
    decoder = HitDecoder()
    tots(decoder, SECOND[:3], first=2**32 - 1)
    assert tots(decoder, SECOND[3:], first=0) == [332.65]


def test_a_hit_that_ends_in_padding_is_a_hit() -> None:
    assert PAD_AT_END.endswith(PAD * 2)
    assert len(HitDecoder().decode(readouts(PAD_AT_END)).hits) == 1
    assert len(HitDecoder().decode(readouts(IDLE + PAD_AT_END + PAD * 4000)).hits) == 1
    halves = PAD_AT_END[:5], PAD_AT_END[5:] + PAD * 100
    assert len(HitDecoder().decode(readouts(*halves)).hits) == 1


def test_what_a_writer_cut_off_with_the_padding_can_be_restored() -> None:
    stripped = PAD_AT_END.rstrip(PAD)
    pieces = (IDLE + FIRST + stripped, IDLE * 2 + SECOND)
    assert tots(HitDecoder(), *pieces) == [162.75, 332.65]
    assert status_of(*pieces)[1] == ReadoutStatus.EXTRA_BYTES_LOST
    decoded = HitDecoder(left_over=LeftOver.RESTORE).decode(readouts(*pieces))
    assert encode_hits(decoded.hits) == FIRST + PAD_AT_END + SECOND
    assert decoded.hits["readout_id"].tolist() == [0, 0, 1]
    assert decoded.hits["decoding_order"].tolist() == [0, 1, 0]
    assert decoded.hits["timestamp"].tolist() == [1000, 1000, 1001]
    assert decoded.status[1] == ReadoutStatus.PADDING_RESTORED


def test_restoring_works_across_calls() -> None:
    decoder = HitDecoder(left_over=LeftOver.RESTORE)
    decoder.decode(readouts(FIRST + PAD_AT_END.rstrip(PAD), first=8))
    decoded = decoder.decode(readouts(SECOND, first=9))
    assert decoded.hits["readout_id"].tolist() == [8, 9]
    assert decoded.hits["decoding_order"].tolist() == [1, 0]


def test_a_hit_cut_short_by_another_is_dropped() -> None:
    decoded = HitDecoder().decode(readouts(FIRST + SECOND[:5] + SECOND + IDLE + FIRST))
    assert decoded.hits["tot_us"].tolist() == [162.75, 332.65, 162.75]
    assert decoded.status.tolist() == [ReadoutStatus.INCOMPLETE_HIT_DROPPED]
    assert decoded.roles[8:13].tolist() == [ByteRole.DROPPED] * 5


def test_a_byte_like_a_start_inside_a_hit_is_data() -> None:
    looks = bytes.fromhex("e08056e8f0a85403")
    decoded = HitDecoder().decode(readouts(looks + IDLE + FIRST, looks + PAD * 3, looks))
    assert len(decoded.hits) == 4
    assert decoded.status.tolist() == [0, 0, 0]


@pytest.mark.parametrize("cut", range(1, 8))
def test_such_a_hit_cut_in_two_is_put_together(cut: int) -> None:
    looks = bytes.fromhex("e080561012a8f403")
    pieces = SECOND + looks[:cut], looks[cut:] + IDLE + FIRST
    decoded = HitDecoder().decode(readouts(*pieces))
    # what begins with the false start is a start as far as anybody can tell
    if looks[cut] != 0xF4:
        assert encode_hits(decoded.hits) == SECOND + looks + FIRST


def test_bytes_that_begin_nothing_are_described() -> None:
    assert status_of(SECOND + b"\x11\x22", FIRST) == [ReadoutStatus.INVALID_EXTRA_BYTES, ReadoutStatus.OK]
    assert status_of(SECOND + b"\x11" * 12 + FIRST) == [ReadoutStatus.INCOMPLETE_HIT_DROPPED]
    assert status_of(FIRST[:3], b"\x11" * 9 + FIRST)[1] == (
        ReadoutStatus.ORPHAN_BYTES_DROPPED | ReadoutStatus.EXTRA_BYTES_LOST
    )


@given(st.lists(st.binary(max_size=60) | st.sampled_from([FIRST, SECOND, IDLE, PAD, b"\xe0"]), max_size=12))
def test_any_bytes_are_decoded_and_every_one_has_a_role(pieces: list[bytes]) -> None:
    for left_over in LeftOver:
        decoded = HitDecoder(left_over=left_over).decode(readouts(*pieces))
        assert len(decoded.status) == len(pieces)
        assert len(decoded.roles) == sum(map(len, pieces))
        assert ByteRole.NOT_ASSIGNED not in decoded.roles
        starts = np.count_nonzero(decoded.roles == ByteRole.HIT_START)
        mended = ReadoutStatus.ORPHAN_BYTES_MATCHED | ReadoutStatus.PADDING_RESTORED
        assert len(decoded.hits) == starts + np.count_nonzero(decoded.status & mended)


def test_more_hits_than_a_byte_counts() -> None:
    decoded = HitDecoder().decode(readouts(FIRST * 512))
    assert decoded.hits["decoding_order"].tolist() == list(range(512))


def test_hits_that_cannot_be_told_from_padding_are_not_sent() -> None:
    with pytest.raises(Rejected, match="chip 31"):
        make_hits(row=1, column=1, begin=0, cycles=5, chip_id=31)


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        (b"hello", "TOO_SHORT"),
        (b"", "TOO_SHORT"),
        (b"\0" * 30, "BAD_MAGIC"),
        (Readout(1, 2, b"abc").to_bytes() + b"d", "BAD_LENGTH"),
        (Readout(1, 2, bytes(70000)).to_bytes(), "BAD_LENGTH"),
    ],
)
def test_bad_datagrams_say_why(packet: bytes, said: str) -> None:
    with pytest.raises(Rejected, match=said):
        parse_packet(packet)


def test_a_packet_is_laid_out_as_documented() -> None:
    packet = Readout(0x01020304, 0x1122334455667788, b"xyz").to_bytes()
    assert packet.hex() == "fedcba0403020188776655443322110300000078797a"
    assert parse_packet(memoryview(packet)) == Readout(0x01020304, 0x1122334455667788, b"xyz")


@pytest.mark.parametrize("length", [0, 3, 17, 40, 200, 60000, 10**9])
def test_a_garbled_length_costs_its_own_packet_only(length: int) -> None:
    """Also one that would swallow those that follow."""
    sent = [Readout(number, 5, bytes([number]) * 16) for number in range(6)]
    packets = [readout.to_bytes() for readout in sent]
    packets[2] = packets[2][:15] + length.to_bytes(4, "little") + packets[2][19:]
    decoder = PacketDecoder()
    found = decoder.feed(b"".join(packets)) + decoder.finish()
    assert [item for item in found if item in sent] == [sent[number] for number in (0, 1, 3, 4, 5)]
    assert decoder.tally.faults.total() >= 1


@pytest.mark.real
@pytest.mark.parametrize("way", ["file", "datagrams", "bytes"])
def test_the_real_run_decodes_to_exactly_the_reference(real_run: Path, way: str) -> None:
    with ApxReader(real_run) as reader:
        found = list(reader)
        assert reader.header["readout_uid"] == 4000
        assert (reader.tally.messages, reader.tally.skipped) == (775, 0)
    decoder = PacketDecoder()
    if way == "datagrams":
        found = [item for readout in found for item in decoder.datagram(readout.to_bytes())]
    elif way == "bytes":
        stream = b"".join(readout.to_bytes() for readout in found)
        found = [item for start in range(0, len(stream), 13) for item in decoder.feed(stream[start : start + 13])]
        found += decoder.finish()
    decoded = HitDecoder().decode(found)
    with real_run.with_suffix(".csv").open() as stream_:
        next(stream_)
        names, *rows = csv.reader(stream_)
    assert names == list(HIT_DTYPE.names or ())
    assert [[repr(value) for value in hit.tolist()] for hit in decoded.hits] == rows
    assert not decoded.status.any()
