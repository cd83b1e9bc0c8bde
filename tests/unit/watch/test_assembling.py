"""Messages become files: grouped, sliced, completed by late ones, and the same whoever writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.config import StreamSource
from nightglass.errors import Misconfigured, Retryable
from nightglass.sensors.received import Received
from nightglass.streams import find_protocol
from nightglass.streams.aartfaac import Window
from nightglass.streams.astropix import Readout, RunSummary, decode_run, read_run
from nightglass.streams.exposures import exposure_number
from nightglass.watch.assembling import Assembler, make_assembler

ARRIVED = datetime(2026, 11, 21, 3, tzinfo=UTC)


def source(**changes: object) -> StreamSource:
    values: dict[str, object] = {
        "name": "sky",
        "camera": "aartfaac",
        "protocol": "aartfaac",
        "endpoints": [f"127.0.0.1:{6666 + band}" for band in range(6)],
    }
    return StreamSource.model_validate(values | changes)


def hits(**changes: object) -> StreamSource:
    return source(**({"protocol": "astropix", "camera": "astropix", "endpoints": ["239.1.1.1:5007"]} | changes))


def received(message: object, peer: str = "127.0.0.1:6666") -> Received[object]:
    return Received(message=message, peer=peer, received_at=ARRIVED, size=1)


def window(band: int, step: int = 0) -> Window:
    found = find_protocol("aartfaac").example(6 * step + band)
    assert isinstance(found, Window)
    return found


def assembler_of(settings: StreamSource, directory: Path) -> Assembler:
    return make_assembler(settings, lambda moment: directory / f"{exposure_number(moment)}.fits")


def write_all(assembler: Assembler) -> list[Path]:
    return [assembler.write_next() for _ in range(assembler.due)]


def names(path: Path) -> list[str]:
    with fits.open(path, checksum=True) as hdus:
        return [hdu.name for hdu in hdus[1:]]


def test_sub_bands_of_one_time_make_one_file(tmp_path: Path) -> None:
    assembler = assembler_of(source(), tmp_path)
    for step in range(3):
        assembler.take([received(window(band, step)) for band in (3, 0, 5, 1, 4, 2)], float(step))
    paths = write_all(assembler)
    assert [names(path) for path in paths] == [[f"SB{band}" for band in range(6)]] * 3
    assert (assembler.counts.files, assembler.counts.partial, assembler.due) == (3, 0, 0)


def test_a_late_one_completes_its_file_also_after_a_restart(tmp_path: Path) -> None:
    first = assembler_of(source(wait_s=1.0), tmp_path)
    first.take([received(window(band)) for band in range(5)], 0.0)
    first.tick(1.0)
    (path,) = write_all(first)
    assert (len(names(path)), first.counts.partial) == (5, 1)
    first.take([received(window(5))], 2.0)
    assert write_all(first) == [path]
    whole = path.read_bytes()
    again = assembler_of(source(wait_s=1.0), tmp_path)
    again.restore([path])
    again.take([received(window(5))], 3.0)
    assert (again.due, again.counts.duplicates) == (0, 1)
    forgetful = assembler_of(source(wait_s=1.0), tmp_path)
    forgetful.take([received(window(2))], 3.0)
    forgetful.flush()
    assert write_all(forgetful) == [path]
    assert path.read_bytes() == whole


def test_without_a_time_that_makes_sense_that_of_the_arrival_counts(tmp_path: Path) -> None:
    assembler = assembler_of(source(), tmp_path)
    for moment in (None, datetime(1970, 1, 1, tzinfo=UTC)):
        item = window(0)
        assembler.take([received(Window(item.header, item.pixels, moment, item.frequency_hz, item.status))], 0.0)
    assembler.flush()
    (path,) = write_all(assembler)
    assert path.name == f"{exposure_number(ARRIVED)}.fits"
    assert (assembler.counts.untimed, assembler.counts.duplicates) == (2, 1)


def test_a_file_that_cannot_be_read_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / f"{exposure_number(window(0).timestamp or ARRIVED)}.fits"
    path.write_bytes(b"torn")
    assembler = assembler_of(source(), tmp_path)
    assembler.restore([path])
    assembler.take([received(window(band)) for band in range(6)], 0.0)
    assert write_all(assembler) == [path]
    assert len(names(path)) == 6
    assert (tmp_path / f"{path.name}.unreadable").read_bytes() == b"torn"


def test_what_cannot_be_written_stays_due(tmp_path: Path) -> None:
    (tmp_path / "full").write_bytes(b"")  # a file where a directory ought to be
    assembler = assembler_of(source(), tmp_path / "full")
    assembler.take([received(window(band)) for band in range(6)], 0.0)
    with pytest.raises(Retryable):
        assembler.write_next()
    assert assembler.due == 1
    (tmp_path / "full").unlink()
    assert len(names(assembler.write_next())) == 6


def test_what_can_never_be_written_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    assembler = assembler_of(source(endpoints=["127.0.0.1:6666"]), tmp_path)
    bad = window(0)
    assembler.take([received(Window(bad.header, bad.pixels[0], bad.timestamp, bad.frequency_hz, bad.status))], 0.0)
    assembler.take([received(window(0, 1))], 0.0)
    with pytest.raises(ValueError, match="unpack"):
        assembler.write_next()
    assembler.drop_next()
    assert len(names(assembler.write_next())) == 1
    assert assembler.due == 0


def readout(number: int, *, at_s: float | None = None) -> Readout:
    found = find_protocol("astropix").example(number)
    assert isinstance(found, Readout)
    if at_s is None:
        return found
    return Readout(found.readout_id, 1_767_225_600_000_000_000 + int(at_s * 1e9), found.data)


def test_readouts_are_cut_into_slices(tmp_path: Path) -> None:
    assembler = assembler_of(hits(slice_s=1.0), tmp_path)
    for start in range(0, 3000, 100):
        assembler.take([received(readout(number)) for number in range(start, start + 100)], start / 1000)
    assembler.tick(5.5)
    assert assembler.due == 2
    assembler.tick(6.0)
    paths = write_all(assembler)
    assert len(paths) == 3
    counts = []
    for path in paths:
        with fits.open(path, checksum=True) as hdus:
            counts.append(hdus[0].header["NREADOUT"])
            assert hdus["READOUTS"].data["hits"].sum() == len(hdus["HITS"].data) == hdus["HITMAP"].data.sum()
            assert set(hdus["HITS"].data["readout_id"]) <= set(hdus["READOUTS"].data["readout_id"])
    assert counts == [1000, 1000, 1000]


def test_losses_stand_in_the_slice_that_they_fell_into(tmp_path: Path) -> None:
    assembler = assembler_of(hits(slice_s=1.0), tmp_path)
    numbers = [number for number in range(2000) if number not in (10, 11, 1500)]
    assembler.take([received(readout(number)) for number in [*numbers[:5], 3, *numbers[5:]]], 0.0)
    assembler.flush()
    found = [fits.getheader(path) for path in write_all(assembler)]
    assert [(header["NLOST"], header["NGAPS"], header["NDUPLIC"]) for header in found] == [(2, 1, 1), (1, 1, 0)]
    assert [header["NREADOUT"] for header in found] == [998, 999]


def test_late_readouts_complete_their_slice(tmp_path: Path) -> None:
    assembler = assembler_of(hits(slice_s=1.0, wait_s=1.0), tmp_path)
    assembler.take([received(readout(number)) for number in range(1500) if number != 700], 0.0)
    assembler.tick(1.0)
    (path,) = write_all(assembler)
    assembler.take([received(readout(700)), received(readout(1500))], 1.5)
    assembler.flush()
    assert path in write_all(assembler)
    assert assembler.counts.late == 1
    with fits.open(path) as hdus:
        assert hdus[0].header["NREADOUT"] == 1000
        assert (hdus[0].header["NLOST"], hdus[0].header["NLATE"]) == (0, 1)
        assert (np.diff(hdus["READOUTS"].data["readout_id"].astype(int)) == 1).all()


def test_senders_are_decoded_apart_and_clocks_that_were_never_set_do_no_harm(tmp_path: Path) -> None:
    assembler = assembler_of(hits(), tmp_path)
    batch = [received(readout(number), f"127.0.0.1:{5000 + number % 300}") for number in range(600)]
    batch.append(received(Readout(1, 2**64 - 1, b"")))
    assembler.take(batch, 0.0)
    assembler.flush()
    found = [fits.getheader(path)["NREADOUT"] for path in write_all(assembler)]
    assert sorted(found) == [1, 600]
    assert assembler.counts.untimed == 1


@pytest.mark.real
def test_a_real_run_comes_out_as_its_decoded_table(real_data: Path, tmp_path: Path) -> None:
    _, pieces = read_run(real_data / "astropix" / "20250723_092534_data.apx", RunSummary())
    readouts = [item for piece in pieces for item in piece]
    expected = np.concatenate(list(decode_run(iter([readouts]), RunSummary())))
    assembler = assembler_of(hits(slice_s=1.0), tmp_path)
    for item in readouts:
        assembler.take([received(item)], 0.0)
    assembler.flush()
    paths = write_all(assembler)
    assert len(paths) > 1
    tables = [fits.getdata(path, "HITS") for path in paths]
    for name in ("row", "column", "readout_id", "timestamp", "tot_us", "decoding_order"):
        np.testing.assert_array_equal(np.concatenate([table[name] for table in tables]), expected[name])


def test_protocols_without_exposures_are_named() -> None:
    with pytest.raises(Misconfigured, match="astropix-quad"):
        make_assembler(hits(protocol="astropix-quad"), lambda _: Path())


def test_steps_from_before_a_restart_are_known(tmp_path: Path) -> None:
    assembler = assembler_of(source(), tmp_path)
    for step in range(3):
        assembler.take([received(window(band, step)) for band in range(6)], 0.0)
    paths = write_all(assembler)
    again = assembler_of(source(), tmp_path)
    again.restore(paths)
    again.take([received(window(0, step)) for step in range(3)], 0.0)
    assert (again.due, again.counts.duplicates) == (0, 3)
