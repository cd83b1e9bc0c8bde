"""AARTFAAC windows: pixel order, byte order, faults, memory."""

from __future__ import annotations

import struct
import sys
from datetime import UTC, datetime

import numpy as np
import psutil
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from nightglass.errors import Rejected
from nightglass.streams.aartfaac import (
    HeaderReader,
    PixelOrder,
    Window,
    WindowDecoder,
    WindowLimits,
    WindowStatus,
    encode_window,
    make_header,
)
from nightglass.streams.storage import RecycledStorage

MOMENT = datetime(2026, 11, 21, 2, 0, 0, 123456, tzinfo=UTC)
IMAGE = np.arange(6, dtype=np.float32).reshape(2, 3)
HEADER = make_header(IMAGE.shape, timestamp=MOMENT, frequency_hz=6.5e6)
BOTH_ORDERS = pytest.mark.parametrize("order", PixelOrder)


def only(decoder: WindowDecoder, data: bytes) -> Window:
    (window,) = decoder.feed(data)
    return window


def by_hand(header: bytes, pixels: bytes, *, fits_length: int | None = None, array_length: int | None = None) -> bytes:
    """A window laid out here, field by field."""
    lengths = (
        len(header) if fits_length is None else fits_length,
        len(pixels) if array_length is None else array_length,
    )
    return struct.pack("<QLL", 0x47494A53484F4D4F, *lengths) + bytes(496) + header + pixels


def test_a_window_is_laid_out_as_documented() -> None:
    made = encode_window(HEADER, IMAGE, order=PixelOrder.C)
    assert made == by_hand(HEADER.encode(), struct.pack("<6f", 0, 1, 2, 3, 4, 5))
    assert made.startswith(b"OMOHSJIG")
    assert len(made) == 512 + 2880 + 24


def test_aartfaac_sends_columns_and_the_image_stands_upright_here() -> None:
    """TraP's emulator flattens by columns, and its reader gives the transpose; this one does not."""
    wire = by_hand(HEADER.encode(), IMAGE.flatten("F").tobytes())
    assert encode_window(HEADER, IMAGE) == wire
    np.testing.assert_array_equal(only(WindowDecoder(), wire).pixels, IMAGE)


@BOTH_ORDERS
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_both_orders_of_pixels_and_bytes_come_back_equal(order: PixelOrder, byteorder: str) -> None:
    image = np.random.default_rng(1).normal(size=(5, 7)).astype(np.float32)
    header = make_header(image.shape, timestamp=MOMENT, frequency_hz=6e6)
    window = only(WindowDecoder(order=order), encode_window(header, image, order=order, byteorder=byteorder))  # type: ignore[arg-type]
    np.testing.assert_array_equal(window.pixels, image)
    assert window.pixels.dtype == np.float32
    assert window.pixels.dtype.isnative
    swapped = WindowStatus.BYTES_SWAPPED if byteorder != sys.byteorder else WindowStatus.OK
    assert (window.status, window.timestamp, window.frequency_hz) == (swapped, MOMENT, 6e6)


def test_the_header_is_one_that_astropy_reads() -> None:
    window = only(WindowDecoder(), encode_window(HEADER, IMAGE))
    header = fits.Header.fromstring(window.header)
    assert (header["NAXIS1"], header["NAXIS2"], header["RESTFREQ"]) == (3, 2, 6.5e6)
    assert header["DATE-OBS"] == "2026-11-21T02:00:00.123456"


def test_a_header_of_astropy_with_the_frequency_as_text_is_read() -> None:
    """So TraP's emulator writes it."""
    hdu = fits.PrimaryHDU(np.zeros((2, 3), np.float32))
    hdu.header["date-obs"] = "2026-11-21T02:00:00"
    hdu.header["RESTFREQ"] = "6000000.0"
    window = only(WindowDecoder(), encode_window(hdu.header.tostring(), IMAGE))
    assert (window.frequency_hz, window.status) == (6e6, WindowStatus.OK)
    assert window.timestamp == datetime(2026, 11, 21, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cards", "frequency", "status"),
    [
        ({}, None, WindowStatus.NO_FREQUENCY),
        ({"RESTFRQ": 7.5e6}, 7.5e6, WindowStatus.OK),
        ({"CTYPE1": "RA---SIN", "CRVAL1": 1.0, "CTYPE3": "FREQ", "CRVAL3": 8.5e6}, 8.5e6, WindowStatus.OK),
        ({"CTYPE3": "FREQ", "CRVAL3": -1.0}, None, WindowStatus.NO_FREQUENCY),
        ({"RESTFREQ": "high"}, None, WindowStatus.NO_FREQUENCY),
        ({"RESTFREQ": 6e6, "DATE-OBS": "yesterday"}, 6e6, WindowStatus.NO_TIMESTAMP),
        ({"RESTFREQ": 6e6, "DATE-OBS": "2026-13-01T00:00:00"}, 6e6, WindowStatus.NO_TIMESTAMP),
        ({"RESTFREQ": 6e6, "DATE-OBS": "2026-11-21T03:00:00+01:00"}, 6e6, WindowStatus.OK),
    ],
)
def test_what_a_header_lacks_is_marked(cards: dict[str, object], frequency: float | None, status: WindowStatus) -> None:
    header = make_header(IMAGE.shape, timestamp=MOMENT, frequency_hz=None, cards=cards)
    window = only(WindowDecoder(), encode_window(header, IMAGE))
    assert (window.frequency_hz, window.status) == (frequency, status)
    assert (window.timestamp is None) == (status is WindowStatus.NO_TIMESTAMP)


def test_a_header_without_end_or_with_odd_bytes_is_marked() -> None:
    cards = HEADER.encode().replace(b"END ", b"    ").replace(b"AARTFAAC", b"AART\xc3\x84\xff ")
    window = only(WindowDecoder(), encode_window(cards, IMAGE))
    assert window.status == WindowStatus.NO_END | WindowStatus.NOT_ASCII
    assert len(window.header) == len(cards)


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (by_hand(HEADER.encode(), b"", fits_length=0, array_length=24), "BAD_FITS_LENGTH"),
        (by_hand(HEADER.encode(), b"", fits_length=2**32 - 1, array_length=24), "BAD_FITS_LENGTH"),
        (by_hand(HEADER.encode(), b"", array_length=0), "BAD_ARRAY_LENGTH"),
        (by_hand(HEADER.encode(), b"", array_length=2**32 - 4), "BAD_ARRAY_LENGTH"),
        (by_hand(HEADER.encode(), bytes(23)), "BAD_ARRAY_LENGTH"),
        (by_hand(HEADER.encode(), bytes(20)), "BAD_SHAPE"),
        (by_hand(HEADER.encode(), bytes(24), array_length=28), "BAD_SHAPE"),
        (by_hand(HEADER.encode().replace(b"NAXIS1  ", b"NAXIS9  "), bytes(24)), "BAD_SHAPE"),
        (by_hand(HEADER.encode().replace(b"NAXIS1  =          ", b"NAXIS1  = 1000000000"), bytes(24)), "BAD_SHAPE"),
        (by_hand(b"NOT A HEADER".ljust(2880), bytes(24)), "BAD_HEADER"),
        (b"OMOHSJIH" + by_hand(HEADER.encode(), bytes(24))[8:], "BAD_MAGIC"),
    ],
)
def test_a_bad_window_is_counted_and_the_next_one_found(bad: bytes, fault: str) -> None:
    good = encode_window(HEADER, IMAGE)
    decoder = WindowDecoder()
    windows = decoder.feed(good + bad + good + good)
    assert [window.status for window in windows] == [WindowStatus.OK, WindowStatus.RESYNCHRONISED, WindowStatus.OK]
    assert decoder.tally.faults[fault] == 1
    assert (decoder.tally.skipped, decoder.tally.resynchronised) == (len(bad), 1)


def test_what_a_length_announces_is_not_taken_for_granted() -> None:
    """Memory is taken when both headers agree, not when 4 GiB are announced."""
    storage = RecycledStorage()
    decoder = WindowDecoder(storage=storage, limits=WindowLimits(array_bytes=2**32))
    decoder.feed(by_hand(HEADER.encode(), b"", array_length=2**32 - 4))
    assert storage.free == 0
    assert decoder.tally.faults["BAD_SHAPE"] == 1


def test_limits_are_those_that_were_set() -> None:
    window = encode_window(HEADER, IMAGE)
    assert WindowDecoder(limits=WindowLimits(fits_bytes=2880, array_bytes=24)).feed(window)
    assert not WindowDecoder(limits=WindowLimits(fits_bytes=2879)).feed(window)
    assert not WindowDecoder(limits=WindowLimits(array_bytes=20)).feed(window)


@pytest.mark.parametrize("shape", [(40, 50), (2, 3), (300, 200)])
@given(data=st.data())
def test_a_sender_that_loses_bytes_gives_no_false_pixels(shape: tuple[int, int], data: st.DataObject) -> None:
    """TraP's emulator drops the rest of a partial send; the next window then stands among the pixels of this one."""
    rng = np.random.default_rng(7)
    images = [rng.normal(size=shape).astype(np.float32) for _ in range(3)]
    header = make_header(shape, timestamp=MOMENT, frequency_hz=6e6)
    wires = [encode_window(header, image) for image in images]
    kept = data.draw(st.integers(512 + len(header), len(wires[0]) - 4))
    decoder = WindowDecoder()
    windows = decoder.feed(wires[0][:kept] + wires[1] + wires[2])
    assert len(windows) == 2
    for window, image in zip(windows, images[1:], strict=True):
        np.testing.assert_array_equal(window.pixels, image)
    assert decoder.tally.faults["TORN"] == 1
    assert decoder.tally.skipped == kept


@pytest.mark.parametrize("cut", [530, 900, 512 + 2880 - 80])
def test_a_window_cut_inside_its_header_costs_itself_alone(cut: int) -> None:
    """The first cards tell the size, so that the next window could pass for the rest of header and pixels."""
    image = np.zeros((40, 60), np.float32)
    header = make_header(image.shape, timestamp=MOMENT, frequency_hz=6e6)
    wire = encode_window(header, image)
    decoder = WindowDecoder()
    windows = decoder.feed(wire[:cut] + wire + wire)
    assert [bool((window.pixels == image).all()) for window in windows] == [True, True]
    assert decoder.tally.skipped == cut


def test_pixels_that_look_like_text_are_no_torn_window() -> None:
    image = np.full((64, 64), np.frombuffer(b"ABCD", np.float32)[0])
    header = make_header(image.shape, timestamp=MOMENT, frequency_hz=6e6)
    np.testing.assert_array_equal(only(WindowDecoder(), encode_window(header, image)).pixels, image)


def test_nested_torn_windows_are_unravelled_without_recursion() -> None:
    """Windows whose pixels are the magic of the next, thousands of them."""
    cards = b"".join(card.ljust(80).encode() for card in ("SIMPLE  = T", "NAXIS1  = 2", "NAXIS2  = 1"))
    layer = by_hand(cards, b"", array_length=8)
    decoder = WindowDecoder()
    decoder.feed(layer * 3000)
    decoder.finish()
    assert decoder.tally.skipped + decoder.tally.messages * (len(layer) + 8) == 3000 * len(layer)


def test_an_image_stays_as_it_is_while_somebody_holds_it() -> None:
    decoder = WindowDecoder()
    rng = np.random.default_rng(3)
    images = [rng.normal(size=(64, 64)).astype(np.float32) for _ in range(12)]
    header = make_header((64, 64), timestamp=MOMENT, frequency_hz=6e6)
    held = [only(decoder, encode_window(header, image)).pixels[1:, ::2] for image in images]
    for view, image in zip(held, images, strict=True):
        np.testing.assert_array_equal(view, image[1:, ::2])


def test_memory_is_used_again() -> None:
    storage = RecycledStorage(keep=2)
    decoder = WindowDecoder(storage=storage)
    header = make_header((256, 256), timestamp=MOMENT, frequency_hz=6e6)
    wire = encode_window(header, np.ones((256, 256), np.float32))
    places = set()
    for _ in range(20):
        window = only(decoder, wire)
        places.add(window.pixels.ctypes.data)
        assert window.pixels.ctypes.data % 64 == 0
        del window
    assert len(places) <= 2
    assert storage.free <= 2 * 2 * len(wire)


def test_pixels_are_written_once_by_whoever_receives() -> None:
    """The buffer that is handed out is the memory of the image."""
    decoder = WindowDecoder()
    image = np.random.default_rng(5).normal(size=(512, 512)).astype(np.float32)
    wire = memoryview(encode_window(make_header(image.shape, timestamp=MOMENT, frequency_hz=6e6), image))
    places = []
    windows: list[Window] = []
    while len(wire):
        buffer = decoder.get_buffer()
        count = min(len(buffer), len(wire))
        places.append(np.frombuffer(buffer, np.uint8).ctypes.data)
        buffer[:count] = wire[:count]
        windows += decoder.buffer_updated(count)
        wire = wire[count:]
    assert len(places) == 2
    first = windows[0].pixels.T.ctypes.data
    assert first <= places[-1] < first + image.nbytes


CARDS = st.lists(
    st.sampled_from(
        [
            "NAXIS1  = 3",
            "NAXIS2  = 2",
            "DATE-OBS= '2026-11-21T02:00:00'",
            "DATE-OBS= '2026-11-21T02:00:01.5'",
            "DATE-OBS= never",
            "RESTFREQ= 6000000.0",
            "RESTFRQ = 7000000.0",
            "END",
        ]
    ),
    max_size=6,
)


@given(st.lists(CARDS, max_size=6))
def test_what_a_header_says_does_not_depend_on_those_before(headers: list[list[str]]) -> None:
    reader = HeaderReader()
    for cards in headers:
        header = "".join(card.ljust(80) for card in cards).encode()
        assert reader.read(header) == HeaderReader().read(header)


def test_a_cube_is_no_window() -> None:
    with pytest.raises(Rejected, match=r"\(2, 3, 4\) are no image"):
        encode_window(HEADER, np.zeros((2, 3, 4), np.float32))


def test_storage_lends_what_fits_and_forgets_the_rest() -> None:
    storage = RecycledStorage(keep=1)
    first, second = storage.lend(1000), storage.lend(1000)
    assert first.size == second.size == 1000
    assert storage.free == 0
    view = first[5:9].view(np.float32)
    del first, second
    kept = storage.free
    assert kept == 1000
    del view
    assert storage.free == kept
    storage.lend(5000)
    assert storage.free == 5000


def test_the_block_that_came_back_last_is_lent_first() -> None:
    storage = RecycledStorage(keep=2)
    first, second = storage.lend(1000), storage.lend(1000)
    place = first.ctypes.data
    del second, first
    assert storage.lend(900).ctypes.data == place


def test_a_large_block_holds_no_more_memory_than_was_asked_for() -> None:
    """Huge pages are for what fills them: the odd bytes at the end of an image must not take two megabytes."""
    storage = RecycledStorage(keep=1)
    size = (4 << 20) + 4000
    before = psutil.Process().memory_info().rss
    blocks = [storage.lend(size) for _ in range(16)]
    for block in blocks:
        assert block.ctypes.data % (2 << 20) == 0
        block[:] = 1
    held = psutil.Process().memory_info().rss - before
    assert held < 16 * (size + 3 * 4096) + (2 << 20)
