"""Nights that really were: reduced by the command line, and judged by other people's programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.ledger import Entry, Ledger
from nightglass.model import Kind, Night, ProductKind, Quality, State

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(280)]


def _run(directory: Path, camera: str, root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return _run_sources(root, str(directory), "--camera", camera, *options)


def _run_sources(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "NIGHTGLASS_"))
    }
    command = [sys.executable, "-m", "deployments.cli", "run", *options, "--once", "--no-prefect", "--root", str(root)]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        timeout=270,
        check=False,
    )


def _entries(root: Path) -> list[Entry]:
    with Ledger.open(root / "ledger.sqlite") as ledger:
        return list(ledger.entries())


def _copied(real_data: Path, folder: str, target: Path, *patterns: str) -> Path:
    """Copy files, because data directories may be read-only and the watch looks at times."""
    target.mkdir()
    for pattern in patterns:
        for path in sorted((real_data / folder).glob(pattern)):
            shutil.copy2(path, target / path.name)
    return target


def _verified(root: Path) -> None:
    """Let fitsverify look at every product."""
    if shutil.which("fitsverify") is None:
        pytest.skip("fitsverify is not installed")
    for path in sorted(root.rglob("*.fits")):
        answer = subprocess.run(["fitsverify", "-q", str(path)], capture_output=True, text=True, check=False)
        assert "verification OK" in answer.stdout, answer.stdout


def test_forty_frames_of_a_night_over_a_date_line(real_data: Path, tmp_path: Path) -> None:
    raw = real_data / "exotic_hatp32_2017"
    root = tmp_path / "root"
    done = _run(raw, "exotic", root)
    assert done.returncode == 0, done.stdout + done.stderr
    entries = _entries(root)
    assert len(entries) == 40
    assert {entry.state for entry in entries} == {State.REDUCED}
    assert {entry.night for entry in entries} == {Night("20171219")}
    starts = {entry.path.name: entry.ref.started_at for entry in entries if entry.ref}
    assert starts["HATP-32171220013343.FITS"] == datetime(2017, 12, 20, 1, 33, 43, 317000, tzinfo=UTC)
    assert min(starts.values()) == starts["HATP-32171220013343.FITS"]
    for entry in entries:
        header = fits.getheader(entry.path)
        written = datetime.fromisoformat(header["UT-OBS"].replace("-0000", "+00:00"))
        assert starts[entry.path.name] == written
        assert 100 < entry.measured["sources"] < 5000
    _verified(root)


def test_kast_calibrates_as_ccdproc_does(real_data: Path, tmp_path: Path) -> None:
    raw = _copied(real_data, "kast_blue_2015", tmp_path / "raw", "b*.fits.gz")
    root = tmp_path / "root"
    # a constant overscan level, which leaves no choice of a fit, so that both sides start from equal numbers
    packaged = (resources.files("nightglass.cameras") / "kast.toml").read_text()
    camera = tmp_path / "kast.toml"
    plain = packaged.replace('"overscan"', '{step = "overscan", method = "median", fit = "constant"}')
    for kind in ("bias", "flat"):  # three frames leave no clip that two programs would agree on: none here
        plain = plain.replace(f"[calibrations.{kind}]\n", f"[calibrations.{kind}]\nsigma = 1e9\n")
    camera.write_text(plain)
    done = _run(raw, str(camera), root, "--postprocess", "realtime")
    assert done.returncode == 0, done.stdout + done.stderr
    kinds = {entry.path.name.split(".")[0]: entry.kind for entry in _entries(root)}
    assert [name for name, kind in kinds.items() if kind is Kind.BIAS] == ["b21", "b22", "b23"]
    assert [name for name, kind in kinds.items() if kind is Kind.FLAT] == ["b11", "b12", "b13"]
    assert kinds["b1"] is Kind.ARC
    assert kinds["b27"] is Kind.SCIENCE
    with Ledger.open(root / "ledger.sqlite") as ledger:
        masters = {master.kind: master for master in ledger.masters("kast")}
        science = next(entry for entry in ledger.entries() if entry.path.name.startswith("b27"))
        product = next(item for item in ledger.products_of(science.exposure_id) if item.kind is ProductKind.REDUCED)
    assert set(science.masters) == {master.master_id for master in masters.values()}
    ours = fits.getdata(product.path, "SCI")
    mask = fits.getdata(product.path, "DQ")
    wanted = _by_ccdproc(raw, masters[Kind.BIAS].path.parent)
    good = (mask == 0) & np.isfinite(wanted)
    difference = np.abs(ours[good] - wanted[good]) / np.maximum(np.abs(wanted[good]), 50)
    assert np.median(difference) < 1e-3
    assert np.percentile(difference, 99) < 2e-2
    _verified(root)


def _by_ccdproc(raw: Path, products: Path) -> np.ndarray:
    """Reduce b27 with ccdproc: overscan by amplifier, gain, bias, flat; combined by means."""
    import ccdproc
    from astropy import units as u
    from astropy.nddata import CCDData

    header = fits.getheader(sorted((products.parent / "reduced").glob("27*.fits"))[0], "SCI")
    gains = [header["NGGAIN1"], header["NGGAIN2"]]

    def electrons(name: str) -> CCDData:
        data = fits.getdata(raw / f"{name}.fits.gz").astype(np.float64)
        halves = []
        for index, (left, right, first, last) in enumerate(((0, 1024, 2050, 2080), (1024, 2048, 2082, 2111))):
            half = CCDData(data[:, left:right], unit="adu")
            level = np.mean(np.median(data[:, first:last], axis=1)) * u.adu
            gained = ccdproc.gain_correct(half.subtract(level), gains[index] * u.electron / u.adu)
            halves.append(gained.data)
        return CCDData(np.hstack(halves), unit="electron")

    def master(frames: list[CCDData], scale: object = None) -> CCDData:
        # three frames leave no robust clip that two programs would agree on; the pixels it would touch are few
        return ccdproc.combine(frames, method="average", scale=scale)

    bias = master([electrons(f"b{number}") for number in (21, 22, 23)])
    flats = [ccdproc.subtract_bias(electrons(f"b{number}"), bias) for number in (11, 12, 13)]
    flat = master(flats, scale=lambda data: 1 / np.ma.median(data))
    reduced = ccdproc.subtract_bias(electrons("b27"), bias)
    result = ccdproc.flat_correct(reduced, flat, norm_value=flat.data.mean() * u.electron)
    return np.asarray(result.data)


def test_feder_crops_give_masters_and_the_mislabelled_flat_stays_out(real_data: Path, tmp_path: Path) -> None:
    patterns = ("biastest*.fit", "darktest*.fit", "flattest.fit")
    raw = _copied(real_data, "msumastro_feder", tmp_path / "raw", *patterns)
    root = tmp_path / "root"
    done = _run(raw, "feder", root)
    assert done.returncode == 0, done.stdout + done.stderr
    with Ledger.open(root / "ledger.sqlite") as ledger:
        masters = {master.kind: master for master in ledger.masters("feder") if master.quality is not Quality.BAD}
        flat = next(entry for entry in ledger.entries() if entry.path.name == "flattest.fit")
    assert masters[Kind.BIAS].frames == 5
    assert masters[Kind.DARK].frames == 5
    assert flat.content_id not in masters[Kind.BIAS].inputs
    raw_level = np.median([np.median(fits.getdata(path)) for path in sorted(raw.glob("biastest*.fit"))])
    gain = fits.getheader(sorted((root / "feder").rglob("biastest1*.fits"))[0], "SCI").get("NGGAIN1", 1.0)
    assert np.median(fits.getdata(masters[Kind.BIAS].path, "SCI")) == pytest.approx(raw_level * gain, rel=0.01)
    _verified(root)


def test_bad_and_odd_files_among_good_ones(real_data: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    odd = []
    for folder in ("astropy_io_fits", "panoptes", "lsst_multiamp_raw"):
        for path in sorted((real_data / folder).iterdir()):
            if ".fit" in path.name:
                shutil.copy(path, raw / f"{folder}-{path.name}")
                odd.append(f"{folder}-{path.name}")
    good = sorted((real_data / "exotic_hatp32_2017").glob("*.FITS"))[:6]
    for path in good:
        shutil.copy(path, raw / path.name)
    config = tmp_path / "observatory.toml"
    source = f'camera = "generic"\ndirectory = "{raw}"\ntransfer_timeout_s = 5.0\n'
    config.write_text(f"[[sources]]\n{source}[limits]\nimage_mib = 256\n")
    root = tmp_path / "root"
    done = _run_sources(root, "--night", "20171219", "--config", str(config))
    entries = {entry.path.name: entry for entry in _entries(root)}
    assert {entries[path.name].state for path in good} == {State.REDUCED}, done.stdout + done.stderr
    for name in odd:
        if name in entries:  # the others have names that no pattern fits
            entry = entries[name]
            assert entry.state in {State.REDUCED, State.REJECTED, State.SKIPPED}, (name, entry.state, entry.reason)
            assert entry.state is State.REDUCED or entry.reason, name
    rejected = [entry for entry in entries.values() if entry.state is State.REJECTED]
    assert len(rejected) > 15
    assert "Traceback" not in done.stdout + done.stderr
