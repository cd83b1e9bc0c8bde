"""One exposure: what its product holds, and what goes wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.config import Camera
from nightglass.errors import Misconfigured, Retryable, Waiting
from nightglass.fitsio import content_id, part_path, read_product
from nightglass.model import Kind, ProductKind, Quality
from nightglass.reduction import GroupJob, ReductionResult, ReductionSpec, reduce_exposure
from nightglass.reduction.provenance import raw_name
from nightglass.reduction.spec import configuration_key
from tests.unit.reduction.material import Site, parts_below


def test_records_cross_processes_as_json(calibrated: Site) -> None:
    master = calibrated.ledger.masters("lynx")[0]
    spec = calibrated.spec(calibrated.refs[Kind.SCIENCE][0], masters=(master,), notes=("master bias of 20260820",))
    assert ReductionSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    result = reduce_exposure(spec)
    assert ReductionResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    job = calibrated.job(*calibrated.refs[Kind.SCIENCE])
    calibrated.ledger.revoke(leases=job.leases)
    assert GroupJob.from_json(json.loads(json.dumps(job.to_json()))) == job
    with pytest.raises(Misconfigured, match="surprise"):
        GroupJob.from_json(job.to_json() | {"surprise": 1})
    with pytest.raises(Misconfigured, match="leases are not those"):
        replace(job, leases=job.leases[::-1])


def test_a_product_holds_its_provenance_and_nothing_of_who_where_and_when(calibrated: Site, tmp_path: Path) -> None:
    ref = calibrated.refs[Kind.SCIENCE][0]
    masters = calibrated.ledger.masters("lynx")
    result = reduce_exposure(calibrated.spec(ref, masters=masters))
    part = next(item for item in result.parts if item.kind is ProductKind.REDUCED)
    assert (part.checksum, part.size) == (content_id(part.part), part.part.stat().st_size)
    assert not part.final.exists()
    with fits.open(part.part, checksum=True) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SCI", "ERR", "DQ", "CAT"]
        primary, science = hdus[0].header, hdus["SCI"].header
        assert (primary["EXPID"], primary["RAWCID"]) == (ref.exposure_id, ref.content_id)
        assert primary["RAWNAME"] == ref.path.name
        assert {primary[f"MST{kind.value.upper()}"] for kind in (Kind.BIAS, Kind.DARK, Kind.FLAT)} == set(
            result.masters
        )
        steps = [primary[f"NGSTEP{number}"].split()[0] for number in range(1, primary["NSTEPS"] + 1)]
        assert steps == [entry.step for entry in calibrated.spec(ref).entries]
        assert json.loads(primary["NGPAR1"])["method"] == "clipped"
        assert primary["QUALITY"] == result.quality.value
        assert science["BUNIT"] == "electron"
        assert len(hdus["CAT"].data) == result.measured["sources"]
        text = "".join(repr(hdu.header) for hdu in hdus)
    assert str(tmp_path) not in text
    assert time.strftime("%Y-%m-%d") not in text
    assert {"read", "masters", "overscan", "sources", "write", "total"} <= set(result.timings)
    verifier = shutil.which("fitsverify")
    if verifier:
        done = subprocess.run([verifier, "-e", str(part.part)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_same_inputs_give_the_same_bytes(calibrated: Site) -> None:
    spec = calibrated.spec(calibrated.refs[Kind.SCIENCE][0], masters=calibrated.ledger.masters("lynx"))
    first = reduce_exposure(spec)
    second = reduce_exposure(replace(spec, token="t2", product=spec.product.with_name("elsewhere.fits")))
    assert [part.checksum for part in first.parts] == [part.checksum for part in second.parts]
    assert configuration_key(spec) == configuration_key(replace(spec, token="other"))
    changed = spec.camera.model_copy(update={"gain": 9.0})
    assert configuration_key(spec) != configuration_key(replace(spec, camera=changed))


def test_the_sky_comes_out_as_it_was_put_in(calibrated: Site) -> None:
    result = reduce_exposure(
        calibrated.spec(calibrated.refs[Kind.SCIENCE][0], masters=calibrated.ledger.masters("lynx"))
    )
    (image,) = read_product(result.parts[0].part)
    good = image.mask == 0
    columns = np.array([np.median(image.data[:, index][good[:, index]]) for index in range(0, image.data.shape[1], 16)])
    assert result.measured["overscan_noise"] == pytest.approx(5.0, rel=0.1)
    assert columns.std() / columns.mean() < 0.01, "flat and bias are gone"
    noise = np.sqrt(np.median(image.variance[good]))
    assert result.measured["noise"] == pytest.approx(noise, rel=0.1)
    assert image.header["SEEING"] > 1


def test_missing_masters_are_said_and_make_a_warning(site: Site) -> None:
    result = reduce_exposure(site.spec(site.refs[Kind.SCIENCE][0]))
    assert result.quality in (Quality.WARNING, Quality.BAD)
    assert any("no master flat" in note for note in result.notes)
    header = fits.getheader(result.parts[0].part)
    assert [header[keyword] for keyword in ("BIASCOR", "DARKCOR", "FLATCOR")] == [False, False, False]


def test_a_file_that_changed_or_went_is_tried_again(site: Site) -> None:
    ref = site.refs[Kind.BIAS][0]
    with pytest.raises(Retryable, match="when it was found complete"):
        reduce_exposure(site.spec(replace(ref, size=ref.size + 2880)))
    ref.path.unlink()
    with pytest.raises(Retryable, match="cannot be looked at"):
        reduce_exposure(site.spec(ref))
    assert parts_below(site.root) == []


def test_a_failure_while_writing_leaves_no_part(site: Site) -> None:
    spec = site.spec(site.refs[Kind.BIAS][0])
    assert spec.quicklook is not None
    blocked = part_path(spec.quicklook, spec.token)
    blocked.mkdir(parents=True)
    (blocked / "in the way").touch()
    with pytest.raises(OSError, match="irectory"):
        reduce_exposure(spec)
    assert not part_path(spec.product, spec.token).exists()


def test_a_master_that_is_gone_makes_the_exposure_wait(calibrated: Site) -> None:
    master = calibrated.ledger.masters("lynx", Kind.BIAS)[0]
    gone = replace(master, path=calibrated.root / "gone.fits")
    with pytest.raises(Waiting, match=r"gone\.fits"):
        reduce_exposure(calibrated.spec(calibrated.refs[Kind.SCIENCE][0], masters=(gone,)))


def test_several_detectors_are_one_product(site: Site, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    hdus = [fits.PrimaryHDU()]
    hdus += [fits.ImageHDU(rng.normal(level, 3, (64, 80)).astype("i4"), name=f"CHIP{level}") for level in (100, 200)]
    hdus[0].header.update({"EXPNUM": 900, "IMAGETYP": "science", "DATE-OBS": "2026-08-21T20:00:00", "EXPTIME": 5.0})
    path = tmp_path / "two.fits"
    fits.HDUList(hdus).writeto(path)
    detectors = [{"name": f"c{level}", "hdu": f"CHIP{level}"} for level in (100, 200)]
    steps = {"realtime": {"default": ["overscan", "trim", "gain", "noise", "mask", "background", "sources", "quality"]}}
    values = site.camera.model_dump(mode="json") | {"detectors": detectors, "steps": steps}
    site.camera = Camera.model_validate(values)
    result = reduce_exposure(site.spec(site.arrive(path)))
    images = read_product(result.parts[0].part)
    assert [image.detector for image in images] == ["c100", "c200"]
    assert result.measured["background"] == pytest.approx(225, rel=0.02)  # the mean, in electrons
    assert result.measured["sources"] == sum(len(image.catalogue) for image in images)


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("a b.fits", "a-b.fits"),
        ("../../etc/passwd", "etc-passwd"),
        ("n\n\x00'.fits.gz", "n.fits.gz"),
        ("...", "unnamed"),
    ],
)
def test_names_from_outside_are_harmless(name: str, clean: str) -> None:
    assert raw_name(name) == clean
