"""Messages as FITS files: by the standard, the same bytes for the same members, and read back as they were."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from nightglass.config import Limits, Site, load_camera
from nightglass.dialects import describe
from nightglass.errors import Rejected
from nightglass.fitsio import inspect, read_raw
from nightglass.model import Night
from nightglass.streams import find_protocol
from nightglass.streams.aartfaac import Window, WindowDecoder, encode_window
from nightglass.streams.astropix import HitDecoder, Readout
from nightglass.streams.continuity import Losses
from nightglass.streams.exposures import Band, band_key, band_of, exposure_number, read_bands, write_timestep
from nightglass.streams.slices import (
    READOUT_DTYPE,
    EventSlice,
    SliceShape,
    merge_slices,
    read_slice,
    slice_start,
    write_slice,
)

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def verified(path: Path) -> None:
    """Let fitsverify and astropy judge a file."""
    with fits.open(path, checksum=True) as hdus:
        hdus.verify("exception")
        for hdu in hdus:
            assert {"CHECKSUM", "DATASUM"} <= set(hdu.header)
    if shutil.which("fitsverify"):
        said = subprocess.run(["fitsverify", str(path)], capture_output=True, text=True, check=False).stdout
        assert "0 warning(s) and 0 error(s)" in said, said


def windows(count: int = 6) -> list[Window]:
    return [find_protocol("aartfaac").example(seed) for seed in range(count)]


def bands(of: list[Window]) -> dict[str, Band]:
    return {band_key(window.frequency_hz, ""): band_of(window) for window in of}


def written(path: Path, members: dict[str, Band], order: list[str] | None = None) -> bytes:
    write_timestep(path, MOMENT, members, order=order or sorted(members), expected=6, stream="sky")
    return path.read_bytes()


def test_a_time_step_holds_each_sub_band_in_the_order_of_frequency(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    sent = windows()
    written(path, bands(sent[::-1]))
    verified(path)
    with fits.open(path) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", *(f"SB{number}" for number in range(6))]
        assert [hdu.header["RESTFRQ"] for hdu in hdus[1:]] == sorted(window.frequency_hz or 0.0 for window in sent)
        for hdu, window in zip(hdus[1:], sent, strict=True):
            np.testing.assert_array_equal(hdu.data, window.pixels)
            assert hdu.header["TELESCOP"] == "AARTFAAC"


def test_the_camera_reads_what_the_stream_wrote(tmp_path: Path) -> None:
    path = tmp_path / "sky.fits"
    sent = windows()
    written(path, bands(sent))
    camera = load_camera("aartfaac")
    found = inspect(path, camera, Limits())
    ref = describe(
        path, found.headers, camera, site=Site(), night=None, content_id=found.content_id, size=found.size, mtime=0.0
    )
    assert (ref.exposure_id, ref.started_at, ref.night) == ("aartfaac/20251231/1000000000", MOMENT, Night("20251231"))
    for image, window in zip(read_raw(path, camera, Limits()), sent, strict=True):
        np.testing.assert_array_equal(image.data, window.pixels)


@given(st.permutations(range(6)), st.integers(0, 6))
def test_late_members_give_the_same_bytes_as_those_in_time(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], cut: int
) -> None:
    path = tmp_path_factory.mktemp("steps") / "a.fits"
    members = bands(windows())
    keys = sorted(members)
    whole = written(path, members)
    chosen = [keys[number] for number in order]
    written(path, {key: members[key] for key in chosen[:cut]}, keys)
    late = read_bands(path) | {key: members[key] for key in chosen[cut:]}
    assert written(path, late) == whole


def test_a_missing_sub_band_leaves_its_number_free(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    members = bands(windows())
    keys = sorted(members)
    written(path, {key: members[key] for key in keys if key != keys[2]}, keys)
    with fits.open(path) as hdus:
        assert [hdu.name for hdu in hdus[1:]] == ["SB0", "SB1", "SB3", "SB4", "SB5"]
        assert (hdus[0].header["NBANDS"], hdus[0].header["NEXPECT"]) == (5, 6)


@given(st.binary(max_size=400), st.booleans())
def test_whatever_a_sender_puts_into_a_header_the_file_is_legal(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, swap: bool
) -> None:
    path = tmp_path_factory.mktemp("steps") / "a.fits"
    window = windows(1)[0]
    cards = window.header.encode()
    end = cards.index(b"END  ")
    text = bytes(byte for byte in garbage if byte != 0x0A).ljust(400)[:400]
    header = cards[:end] + text + cards[end:]
    wire = encode_window(header.ljust(-(-len(header) // 80) * 80), window.pixels, byteorder="big" if swap else "little")
    decoder = WindowDecoder()
    got = [*decoder.feed(wire), *decoder.finish()]
    for item in got:
        written(path, {"one": band_of(item)})
        with fits.open(path, checksum=True) as hdus:
            np.testing.assert_array_equal(hdus[1].data, window.pixels)
        again = read_bands(path)
        first = path.read_bytes()
        assert written(path, again) == first


@pytest.mark.real
def test_a_real_sky_comes_through_with_its_coordinates(real_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    for name in ("GRB201006A_final_2min_srcs-t0002-image-pb_cutout.fits", "SWIFT_554620-130504.fits"):
        with fits.open(real_data / "radio_tkp" / name) as hdus:
            pixels, header = np.squeeze(hdus[0].data), hdus[0].header.copy()
            header["NAXIS"] = 2
            for axis in (3, 4):
                header.remove(f"NAXIS{axis}", ignore_missing=True)
        decoder = WindowDecoder()
        (window,) = decoder.feed(encode_window(header.tostring(), pixels))
        assert window.frequency_hz
        written(path, bands([window]))
        verified(path)
        with fits.open(path) as hdus:
            np.testing.assert_array_equal(hdus[1].data, pixels)
            assert {hdus[1].header[key] == header[key] for key in ("CRVAL1", "CRPIX2", "BMAJ", "BUNIT")} == {True}


def events(count: int = 300, first: int = 0) -> EventSlice:
    readouts: list[Readout] = [find_protocol("astropix").example(seed) for seed in range(first, first + count)]
    rows = np.zeros(count, READOUT_DTYPE)
    rows["readout_id"] = [readout.readout_id for readout in readouts]
    rows["timestamp"] = [readout.timestamp_ns for readout in readouts]
    hits = HitDecoder().decode(readouts).hits
    return EventSlice(start=MOMENT, length_s=10.0, hits=hits, readouts=rows, losses=Losses(received=count))


def test_a_slice_holds_events_map_and_spectrum(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    sent = events()
    write_slice(path, sent, shape=SliceShape(rows=10, tot_us=100.0), stream="run")
    verified(path)
    with fits.open(path) as hdus:
        header = hdus[0].header
        inside = sent.hits[sent.hits["row"] < 10]
        expected = np.histogram2d(inside["row"], inside["column"], (10, 16), ((0, 10), (0, 16)))[0]
        np.testing.assert_array_equal(hdus["HITMAP"].data, expected)
        assert header["NOUTSIDE"] == len(sent.hits) - len(inside) > 0
        counts = hdus["TOT"].data["hits"]
        np.testing.assert_array_equal(counts, np.histogram(sent.hits["tot_us"], np.linspace(0, 100, 100))[0])
        assert counts.sum() + hdus["TOT"].header["NABOVE"] == header["NHITS"] == len(sent.hits)
        for name in sent.hits.dtype.names or ():
            np.testing.assert_array_equal(hdus["HITS"].data[name], sent.hits[name])
        assert (np.diff(hdus["HITS"].data["TIME"]) >= 0).all()
        assert hdus["HITS"].data["TIME"][-1] == pytest.approx(0.299, abs=0.01)


def test_what_comes_twice_is_counted_once_and_the_order_does_not_matter(tmp_path: Path) -> None:
    one, two = tmp_path / "a.fits", tmp_path / "b.fits"
    early, late = events(200), events(200, first=100)
    for path, pair in ((one, (early, late)), (two, (late, early))):
        write_slice(path, pair[0], shape=SliceShape(), stream="run")
        merged = merge_slices(read_slice(path), pair[1])
        assert len(merged.readouts) == 300
        write_slice(path, merged, shape=SliceShape(), stream="run")
    assert one.read_bytes() == two.read_bytes()
    again = replace(merge_slices(read_slice(one), early), losses=read_slice(one).losses)
    write_slice(two, again, shape=SliceShape(), stream="run")
    assert one.read_bytes() == two.read_bytes()


def test_an_empty_slice_is_a_file_as_well(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    write_slice(path, events(0), shape=SliceShape(), stream="run")
    verified(path)
    assert len(read_slice(path).hits) == 0


@given(st.integers(0, 4_000_000_000_000_000_000), st.sampled_from([0.1, 1.0, 7.5, 10.0, 3600.0]))
def test_slices_do_not_overlap_and_leave_nothing_out(timestamp_ns: int, length_s: float) -> None:
    start, epoch = slice_start(timestamp_ns, length_s), datetime(1970, 1, 1, tzinfo=UTC)
    moment = epoch + timedelta(microseconds=timestamp_ns // 1000)
    assert start <= moment < start + timedelta(seconds=length_s)
    assert slice_start((start - epoch) // timedelta(microseconds=1) * 1000, length_s) == start


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((3, 3)))]).writeto(path)
    for read in (read_bands, read_slice):
        with pytest.raises(Rejected):
            read(path)
    path.write_bytes(b"nothing")
    for read in (read_bands, read_slice):
        with pytest.raises(Rejected):
            read(path)


def test_numbers_are_unlike_within_a_night_of_25_hours() -> None:
    moments = [MOMENT + timedelta(hours=hour, milliseconds=5) for hour in range(25)]
    assert len({exposure_number(moment) for moment in moments}) == 25
    assert exposure_number(moments[0]) == 1000000005


@given(st.integers(1, 200), st.integers(1, 70), st.booleans())
def test_pixels_are_the_same_however_they_were_laid_out(rows: int, columns: int, by_columns: bool) -> None:
    pixels = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    band = replace(band_of(windows(1)[0]), pixels=np.asfortranarray(pixels) if by_columns else pixels)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "step.fits")
        written(path, {"one": band})
        with fits.open(path, checksum=True) as hdus:
            np.testing.assert_array_equal(hdus[1].data, pixels)
