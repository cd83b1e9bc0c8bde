"""Real data from the wire to the archive: a LOFAR sky over TCP, an AstroPix run as datagrams."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.archive import archive_exposure
from nightglass.config import Limits, Observatory, load_camera
from nightglass.cubes import CubeRequest, assemble_cube
from nightglass.fitsio import read_product
from nightglass.layout import Layout
from nightglass.ledger import Ledger
from nightglass.lightcurves import light_curve_path
from nightglass.model import Content, Night, ProductKind, Stage, State
from nightglass.pool import SerialPool
from nightglass.postprocess import run_stage
from nightglass.streams.aartfaac import encode_window
from nightglass.streams.astropix import RunSummary, decode_run, read_run
from tests.integration.receiving import Sender, beat, entries_of, eventually, live, observatory, states

pytestmark = [pytest.mark.slow, pytest.mark.real]
STEPS, BANDS = 3, 2
START = datetime(2026, 11, 21, 1, tzinfo=UTC)


def test_a_real_sky_reaches_reduction_and_cube_with_equal_pixels(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "radio_tkp" / "GRB201006A_final_2min_srcs-t0002-image-pb_cutout.fits"
    with fits.open(path) as hdus:
        pixels, header = np.squeeze(hdus[0].data).astype(np.float32), hdus[0].header.copy()
    skies = {(step, band): pixels * np.float32(1 + step + 0.5 * band) for step in range(STEPS) for band in range(BANDS)}
    senders = [Sender() for _ in range(BANDS)]
    root = tmp_path / "out"
    camera, settings = load_camera("aartfaac"), observatory(root, senders)
    try:
        with Ledger.open(root / "ledger.sqlite") as ledger:
            with live(settings, ledger):
                for (step, band), sky in skies.items():
                    header["DATE-OBS"] = (START + timedelta(seconds=step)).replace(tzinfo=None).isoformat()
                    header["RESTFRQ"] = header["CRVAL3"] + 2e6 * band
                    header.remove("RESTFREQ", ignore_missing=True)
                    senders[band].send(encode_window(header.tostring(), sky))
                eventually(lambda: states(ledger) == [State.REDUCED] * STEPS, what=f"{states(ledger)}")
            entries = entries_of(ledger)
            for step, entry in enumerate(entries):
                assert entry.ref is not None
                assert entry.ref.started_at == START + timedelta(seconds=step)
                (product,) = (
                    item
                    for item in ledger.products(entry.night, "aartfaac")
                    if item.key == entry.exposure_id and item.kind is ProductKind.REDUCED
                )
                for band, image in enumerate(read_product(product.path)):
                    np.testing.assert_array_equal(image.data, skies[step, band])
                summary = archive_exposure(
                    entry.exposure_id,
                    ledger=ledger,
                    pool=SerialPool(),
                    observatory=settings,
                    camera=camera,
                    content=Content.RAW,
                )
                assert summary.path is not None
                with fits.open(summary.path, checksum=True) as cube:
                    for band in range(BANDS):
                        np.testing.assert_array_equal(np.squeeze(cube[f"SB{band}"].data), skies[step, band])
            check_light_curves(entries[0].night, ledger, settings)
            whole = tmp_path / "night.fits"
            request = CubeRequest(paths=tuple(entry.path for entry in entries), out=whole, role="sky")
            assemble_cube(request, pool=SerialPool(), limits=Limits(), camera=camera)
            with fits.open(whole, checksum=True) as cube:
                for band in range(BANDS):
                    expected = np.stack([skies[step, band] for step in range(STEPS)])
                    np.testing.assert_array_equal(cube[f"SB{band}"].data, expected)
    finally:
        for sender in senders:
            sender.close()


def check_light_curves(night: Night, ledger: Ledger, settings: Observatory) -> None:
    """Let midway make them: the brightest source is there at all steps, and as bright as its sky was made."""
    camera = load_camera("aartfaac")
    assert run_stage(Stage.MIDWAY, night, camera, ledger=ledger, pool=SerialPool(), observatory=settings)
    with fits.open(light_curve_path("aartfaac", night, Layout(settings.root)), checksum=True) as hdus:
        curves = hdus["CURVES"].data
        assert set(curves["step"]) == set(range(STEPS))
        first = curves[(curves["step"] == 0) & (curves["band"] == "SB0")]
        assert len(first) > 3
        brightest = first["source"][np.argmax(first["flux"])]
        for band in range(BANDS):
            rows = curves[(curves["source"] == brightest) & (curves["band"] == f"SB{band}")]
            factors = np.array([1 + step + 0.5 * band for step in range(STEPS)])
            assert rows["detected"].all()
            np.testing.assert_allclose(rows["flux"] / rows["flux"][0], factors / factors[0], rtol=1e-4)
            expected = np.std(factors, ddof=1) / np.mean(factors)
            assert rows["v"][-1] == pytest.approx(expected, rel=1e-3)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_real_run_sent_as_datagrams_becomes_its_reference_table(real_data: Path, tmp_path: Path) -> None:
    _, pieces = read_run(real_data / "astropix" / "20250723_092534_data.apx", RunSummary())
    readouts = [item for piece in pieces for item in piece]
    expected = np.concatenate(list(decode_run(iter([readouts]), RunSummary())))
    root, port = tmp_path / "out", free_port()
    stream = {"name": "run", "camera": "astropix", "protocol": "astropix", "endpoints": [f"127.0.0.1:{port}"]}
    settings = Observatory.model_validate(
        {"root": root, "streams": [stream | {"wait_s": 0.5}], "limits": {"free_disk_gib": 0}}
    )
    with Ledger.open(root / "ledger.sqlite") as ledger:
        with live(settings, ledger), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            eventually(lambda: beat(root).streams[0]["peers"][0]["state"] == "receiving", what="a listener")
            for readout in readouts:
                sender.sendto(readout.to_bytes(), ("127.0.0.1", port))
            eventually(lambda: beat(root).streams[0]["messages"] == len(readouts), what="all readouts")
        state = beat(root).streams[0]
        assert (state["lost"], state["dropped"], state["duplicates"]) == (0, 0, 0)
        tables = [fits.getdata(entry.path, "HITS") for entry in entries_of(ledger)]
        assert tables
        for name in ("row", "column", "readout_id", "timestamp", "tot_us"):
            np.testing.assert_array_equal(np.concatenate([table[name] for table in tables]), expected[name])
