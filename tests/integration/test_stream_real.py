"""Real data from the wire to the archive: a LOFAR sky over TCP, an AstroPix run as datagrams."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.config import Limits, Observatory, load_camera, load_observatory
from nightglass.cubes import CubeRequest, assemble_cube
from nightglass.fitsio import read_product
from nightglass.layout import Layout
from nightglass.ledger import Ledger
from nightglass.lightcurves import light_curve_path
from nightglass.model import Night, Stage, State
from nightglass.pool import SerialPool
from nightglass.postprocess import run_stage
from nightglass.simulate.emulator import DatagramEmulator, StreamEmulator
from nightglass.simulate.streams import SkyBands, read_plane, run_readouts
from nightglass.streams.astropix import HIT_DTYPE
from nightglass.streams.tables import write_hits
from tests.integration.receiving import beat, cube_of, entries_of, eventually, live, observatory, product_of, states
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.real]
STEPS, BANDS = 3, 2
START = datetime(2026, 11, 21, 1, tzinfo=UTC)


class Brightening(SkyBands):
    """A sky that is as it is at first, and brighter at each step and in each band."""

    def plane(self, band: int, step: int) -> NDArray[np.float32]:
        return np.asarray(self._pixels * np.float32(1 + step + 0.5 * band), np.float32)


def test_a_real_sky_reaches_reduction_and_cube_with_equal_pixels(real_data: Path, tmp_path: Path) -> None:
    """Emulator, receiver, time steps, reduction and cubes: the pixels are those of the file at every station."""
    path = real_data / "radio_tkp" / "GRB201006A_final_2min_srcs-t0002-image-pb_cutout.fits"
    pixels, cards = read_plane(path)
    np.testing.assert_array_equal(pixels, np.squeeze(fits.getdata(path)))
    sky = Brightening(pixels, cards=cards, began=START)
    skies = {(step, band): sky.plane(band, step) for step in range(STEPS) for band in range(BANDS)}
    np.testing.assert_array_equal(skies[0, 0], pixels)
    root = tmp_path / "out"
    camera = load_camera("aartfaac")
    with (
        StreamEmulator("127.0.0.1", (0,) * BANDS, sky, period_s=0, steps=STEPS) as emulator,
        Ledger.open(root / "ledger.sqlite") as ledger,
    ):
        # connected to once: the emulator would begin anew
        settings = observatory(root, [f"127.0.0.1:{port}" for port in emulator.ports], reconnect_s=60, wait_s=10)
        with live(settings, ledger):
            eventually(lambda: states(ledger) == [State.REDUCED] * STEPS, what=f"{states(ledger)}")
        entries = entries_of(ledger)
        for step, entry in enumerate(entries):
            assert entry.ref is not None
            assert entry.ref.started_at == START + timedelta(seconds=step)
            for band, image in enumerate(read_product(product_of(entry, ledger))):
                np.testing.assert_array_equal(image.data, skies[step, band])
            with fits.open(cube_of(entry, ledger, settings), checksum=True) as cube:
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


def test_a_real_run_sent_as_datagrams_becomes_its_reference_table(real_data: Path, tmp_path: Path) -> None:
    """Time-sliced event files of a watch, put together, are the table that the instrument's own program wrote."""
    run = real_data / "astropix" / "20250723_092534_data.apx"
    packets = list(run_readouts(run))
    root, port = tmp_path / "out", free_port()
    configuration = tmp_path / "observatory.toml"
    configuration.write_text(
        f'root = "{root}"\n[limits]\nfree_disk_gib = 0\n'
        '[[streams]]\nname = "run"\ncamera = "astropix"\nprotocol = "astropix"\nslice_s = 0.1\nwait_s = 0.2\n'
        f'endpoints = ["127.0.0.1:{port}"]\n'
    )
    settings = load_observatory(configuration, environment={})
    with Ledger.open(root / "ledger.sqlite") as ledger:
        with live(settings, ledger):
            eventually(lambda: beat(root).streams[0]["peers"][0]["state"] == "receiving", what="a listener")
            DatagramEmulator("127.0.0.1", port, rate_hz=2000).run(packets)
            eventually(lambda: beat(root).streams[0]["messages"] == len(packets), what="all readouts")
            eventually(lambda: len(states(ledger)) > 1, what="slices while the stream goes on")
        state = beat(root).streams[0]
        assert (state["lost"], state["dropped"], state["duplicates"], state["skipped"]) == (0, 0, 0, 0)
        tables = [fits.getdata(entry.path, "HITS") for entry in entries_of(ledger)]
    assert len(tables) > 3
    hits = np.empty(sum(map(len, tables)), HIT_DTYPE)
    for name in HIT_DTYPE.names or ():
        hits[name] = np.concatenate([table[name] for table in tables])
    write_hits(tmp_path / "hits.csv", hits, header={})
    made, reference = ((tmp_path / "hits.csv").read_text(), run.with_suffix(".csv").read_text())
    assert made.splitlines()[1:] == reference.splitlines()[1:]  # but for the header of the run, which is not sent
