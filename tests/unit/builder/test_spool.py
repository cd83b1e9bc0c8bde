"""The spool: what is acknowledged is on the disk, whatever happens; limits; bodies and their forms."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from nightglass.builder.bodies import pixel_form
from nightglass.builder.records import FrameState
from nightglass.builder.spool import Spool, SpoolFull, SpoolPolicy, TooLarge
from nightglass.errors import Misconfigured, Rejected
from nightglass.layout import Layout
from tests.architecture.sources import REPOSITORY
from tests.unit.builder.desk import builder, image, pixels

PUSHER = """
import sys
from pathlib import Path
from tests.unit.builder.desk import builder, image

made = builder(Path(sys.argv[1]), durable=sys.argv[2] == "durable", mem_purge=False)
made.start()
for number in range(int(sys.argv[3]), 10_000):
    expid, frame, name = 1 + number // 40, number // 4 % 10, "ABCD"[number % 4]
    if number % 4 == 0:
        made.assign(expid, frame, extensions=["A", "B", "C", "D"], timeout_s=100)
    made.accept(expid, frame, name, image(number, (40, 50)))
    print(number, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["quick", "durable"])
def test_everything_acknowledged_survives_sigkill(tmp_path: Path, how: str) -> None:
    """Killed at any moment, again and again, the builder has what it acknowledged, and no half file."""
    chance = random.Random(7)
    acknowledged = -1
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", PUSHER, str(tmp_path), how, str(acknowledged + 1)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        wanted = acknowledged + chance.randint(3, 30)
        for line in process.stdout:
            acknowledged = int(line)
            if acknowledged >= wanted:
                break
        time.sleep(chance.random() * 0.01)
        process.send_signal(signal.SIGKILL)
        # what it still said before it died was acknowledged, too
        acknowledged = max([acknowledged, *(int(line) for line in process.stdout if line.endswith("\n"))])
        process.wait()
        process.stdout.close()
    assert acknowledged > 8
    made = builder(tmp_path, mem_purge=False)
    with made:
        assert [item for item in made.status()["alarms"] if item["key"] != "missing"] == []
        for number in range(acknowledged + 1):
            view = made.frame(1 + number // 40, number // 4 % 10)
            record = next(item for item in view.extensions if item.name == "ABCD"[number % 4])
            assert pixels(record.path) == number
            assert (view.state is FrameState.BUILT) == (len(view.extensions) == 4)
    assert list(tmp_path.rglob("*.part")) == []


def test_a_start_continues_deadlines_and_stages(tmp_path: Path) -> None:
    made = builder(tmp_path)
    made.assign(3, 1, extensions=["A", "B"], timeout_s=0.3, header={"TILEID": 9}, instructions={"sub_dir": "x"})
    made.accept(3, 1, "A", image(5), header={"AIRMASS": 1.5})
    before = made.frame(3, 1)
    made.close()
    with builder(tmp_path) as again:
        after = again.frame(3, 1)
        assert after.deadline == before.deadline
        assert (after.extensions, after.primary, after.instructions) == (
            before.extensions,
            before.primary,
            before.instructions,
        )
        view = again.build(3, 1, wait_s=60)
        assert (view.state, view.missing) == (FrameState.PARTIAL, ("B",))
        assert again.get("exposure", expid=3, frame=1, extheader="A")["AIRMASS"] == 1.5


def test_damaged_records_are_made_anew_from_the_files(tmp_path: Path) -> None:
    """As after a loss of power, without `durable`."""
    made = builder(tmp_path)
    made.accept(1, 0, "A", image(5))
    made.accept(1, 1, "A", image(6))
    cut, kept = made.frame(1, 0), made.frame(1, 1)
    made.close()
    (cut.directory / "frame.json").write_bytes(b"\0" * 100)
    (kept.directory.parent / "exposure.json").write_text("")
    (kept.directory / "B.0123456789ab.fits").write_bytes(image(7))  # renamed, and killed before it was entered
    with builder(tmp_path) as again:
        assert [pixels(item.path) for item in again.frame(1, 0).extensions] == [5]
        assert [item.name for item in again.frame(1, 1).extensions] == ["A"]
        assert len(again.status()["alarms"]) >= 2
    assert not (kept.directory / "B.0123456789ab.fits").exists()


def test_an_extension_that_is_cut_is_missing_again(tmp_path: Path) -> None:
    made = builder(tmp_path)
    made.assign(1, 0, extensions=["A", "B"])
    made.accept(1, 0, "A", image(5))
    made.accept(1, 0, "B", image(6))
    made.close()
    path = made.frame(1, 0).extensions[0].path
    os.truncate(path, 2880)
    with builder(tmp_path) as again:
        view = again.frame(1, 0)
        assert (view.state, view.missing) == (FrameState.PARTIAL, ("A",))
        again.accept(1, 0, "A", image(5))
        assert again.frame(1, 0).state is FrameState.BUILT


def test_a_full_spool_takes_nothing_more_and_says_so(tmp_path: Path) -> None:
    alarms: list[str] = []
    size = len(image(1, (300, 300)))
    made = builder(tmp_path, alarms=alarms, max_bytes=1 << 20)
    taken = (1 << 20) // size
    for frame in range(taken):
        made.accept(1, frame, "A", image(frame, (300, 300)))
    with pytest.raises(SpoolFull, match="may hold 1048576"):
        made.accept(1, taken, "A", image(taken, (300, 300)))
    assert "nothing more in it is saved" in alarms[0]
    made.set(max_bytes=2 << 20)
    made.accept(1, taken, "A", image(taken, (300, 300)))
    assert made.spool.held == (taken + 1) * size


def test_a_body_that_is_too_large_or_cut_leaves_nothing(tmp_path: Path) -> None:
    made = builder(tmp_path, max_body_bytes=10_000)
    with pytest.raises(TooLarge, match="at most 10000"):
        made.accept(1, 0, "A", image(1, (100, 100)))
    with pytest.raises(TooLarge):
        made.spool.receive(size=20_000)
    with pytest.raises(Rejected, match="not a whole FITS file"):
        made.accept(1, 0, "A", image(1)[:2900])
    with pytest.raises(Rejected, match="not FITS"):
        made.accept(1, 0, "A", b"hello" * 1000)
    with pytest.raises(Rejected, match="gzip"):
        made.accept(1, 0, "A", b"\x1f\x8b" + bytes(100))
    with made.spool.receive() as incoming:
        incoming.write(image(1))
    assert made.spool.held == 0
    assert list(tmp_path.rglob("*.part")) == []
    assert made.exposures() == ()


def test_which_hdu_is_the_extension(tmp_path: Path) -> None:
    several = tmp_path / "several.fits"
    first, second = np.full((3, 3), 1, np.int16), np.full((3, 3), 2, np.int16)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(first, name="a"), fits.ImageHDU(second, name="b")]).writeto(several)
    packed = tmp_path / "packed.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(np.full((64, 64), 3, np.int16), name="x")]).writeto(packed)
    made = builder(tmp_path / "root")
    record, _ = made.accept(1, 0, "B", several)
    assert (record.hdu, record.shape, record.data_offset) == (2, (3, 3), 4 * 2880)
    with pytest.raises(Rejected, match="several HDUs with data: A, B"):
        made.accept(1, 0, "C", several)
    record, _ = made.accept(1, 0, "D", packed)
    assert (record.hdu, record.compressed, record.shape, record.bitpix) == (1, True, (64, 64), 16)
    assert several.exists()


KINDS = ("u1", "i1", "<u2", ">u2", "<i2", ">i2", "<u4", ">i4", "<i8", "<u8", "<f4", ">f4", "<f8")


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(KINDS), shape=st.lists(st.integers(1, 9), min_size=1, max_size=3), data=st.data())
def test_bare_pixels_come_back_in_pieces_of_any_length(
    tmp_path_factory: pytest.TempPathFactory, kind: str, shape: list[int], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("bare")
    spool = Spool(Layout(root), "generic", SpoolPolicy(1 << 30, 1 << 20, durable=False))
    dtype = np.dtype(kind)
    raw = data.draw(
        st.binary(min_size=int(np.prod(shape)) * dtype.itemsize, max_size=int(np.prod(shape)) * dtype.itemsize)
    )
    sent = np.frombuffer(raw, dtype).reshape(shape)
    if dtype.kind == "f":
        sent = np.nan_to_num(sent, nan=1.0)
        raw = sent.tobytes()
    form = pixel_form({"dtype": kind, "shape": shape, "OBJECT": ["M31", "what"], "EXPTIME": 1.5})
    with spool.receive(form=form) as incoming:
        rest = raw
        while rest:
            cut = data.draw(st.integers(1, len(rest)))
            incoming.write(rest[:cut])
            rest = rest[cut:]
        body = incoming.finish()
    with fits.open(body.path, do_not_scale_image_data=False) as hdus:
        assert hdus[0].header["OBJECT"] == "M31"
        np.testing.assert_array_equal(hdus[0].data, sent)
    assert body.size == body.path.stat().st_size == spool.held
    assert body.size % 2880 == 0


def test_bare_pixels_as_fits_has_them(tmp_path: Path) -> None:
    made = builder(tmp_path)
    header = {"BITPIX": 16, "NAXIS": 2, "NAXIS1": 3, "NAXIS2": 2, "BZERO": 32768, "BSCALE": 1, "SUB_DIR": "x"}
    sent = np.arange(6, dtype=">i2")
    body = made.spool.receive_bytes(sent.tobytes(), pixel_form(header))
    record, _ = made.accept(1, 0, "A", body)
    assert record.shape == (2, 3)
    np.testing.assert_array_equal(fits.getdata(record.path), (np.arange(6) + 32768).reshape(2, 3))
    assert made.frame(1, 0).instructions.sub_dir == "x"


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"BITPIX": 16},
        {"BITPIX": 12, "NAXIS1": 3},
        {"BITPIX": 16, "NAXIS1": 3, "NAXIS3": 2},
        {"BITPIX": 16, "NAXIS": 3, "NAXIS1": 3},
        {"BITPIX": 16, "NAXIS1": 0},
        {"BITPIX": 16, "NAXIS1": 1 << 40},
        {"dtype": "O", "shape": [2]},
        {"dtype": "complex64", "shape": [2]},
        {"dtype": "u2"},
        {"dtype": "u2", "shape": [2, -1]},
        {"dtype": "u2", "shape": [2], "K\u00e9": 1},
        {"dtype": "u2", "shape": [2], "A": {"b": 1}},
    ],
)
def test_headers_of_bare_pixels_that_make_no_sense(header: dict[str, object]) -> None:
    with pytest.raises(Rejected):
        pixel_form(header)


def test_more_or_fewer_pixels_than_the_header_says(tmp_path: Path) -> None:
    made = builder(tmp_path)
    form = pixel_form({"dtype": "uint16", "shape": [2, 2]})
    for count in (7, 9):
        with pytest.raises(Rejected, match="the header"):
            made.spool.receive_bytes(bytes(count), form)
    assert made.spool.held == 0
    with pytest.raises(Misconfigured, match="compress"):
        pixel_form({"dtype": "uint16", "shape": [2, 2], "COMPRESS": "perhaps"})


def test_the_journal_is_plain_json(tmp_path: Path) -> None:
    made = builder(tmp_path)
    made.assign(1, 0, extensions=["A"], header={"SUB_DIR": "x"})
    record = json.loads((made.frame(1, 0).directory / "frame.json").read_text())
    assert record["missing"] == ["A"]
    assert record["instructions"] == {"sub_dir": "x"}


def test_a_spool_has_one_owner(tmp_path: Path) -> None:
    first, second = builder(tmp_path), builder(tmp_path)
    with first:
        with pytest.raises(Misconfigured, match="another process"):
            second.start()
        first.accept(1, 0, "A", image(1))
        (tmp_path / "generic" / ".incoming" / f"{os.getpid()}-abcdef-1.part").write_bytes(b"of an earlier process")
    with builder(tmp_path) as third:
        assert third.frame(1, 0).extensions
        assert list(tmp_path.rglob("*.part")) == []
