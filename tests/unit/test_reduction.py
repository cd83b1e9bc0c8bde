from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from nightglass.calibrations import build_masters
from nightglass.config import Camera, Limits, MissingCalibration, Observatory, load_camera
from nightglass.dialects import describe
from nightglass.errors import LeaseLost, Misconfigured, Retryable, Waiting
from nightglass.fitsio import content_id, inspect, part_path, read_product
from nightglass.ledger import GroupRecord, Ledger
from nightglass.model import ExposureRef, Kind, MasterRef, Night, ProductKind, Quality, Sighting, State
from nightglass.pool import PoolBase, SerialPool
from nightglass.reduction import GroupJob, GroupOutcome, ReductionResult, ReductionSpec, reduce_exposure, run_group
from nightglass.reduction.inputs import FileCache, bad_pixels, load_master
from nightglass.reduction.provenance import raw_name
from nightglass.reduction.spec import configuration_key
from nightglass.reduction.warm import dask_setup
from nightglass.simulate import NightPlan, write_night

NIGHT = Night("20260821")
LIMITS = Limits()


@dataclass
class Site:
    """A root with a ledger and a small simulated night, all of it arrived."""

    root: Path
    ledger: Ledger
    observatory: Observatory
    camera: Camera
    refs: dict[Kind, list[ExposureRef]]

    def arrive(self, path: Path) -> ExposureRef:
        status = path.stat()
        seen = datetime.now(UTC)
        sighting = Sighting(
            path=path, size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino, seen_at=seen
        )
        entry = self.ledger.see(sighting, camera=self.camera.name, night=NIGHT)
        found = inspect(path, self.camera, LIMITS)
        ref = describe(
            path,
            found.headers,
            self.camera,
            site=self.observatory.site,
            night=NIGHT,
            content_id=found.content_id,
            size=found.size,
            mtime=status.st_mtime,
        )
        done = self.ledger.complete(entry.key, ref)
        assert done.ref is not None
        return done.ref

    def job(self, *refs: ExposureRef, rule: str = "", group_id: str = "", lease_s: float = 60.0) -> GroupJob:
        ids = [ref.exposure_id for ref in refs]
        group_id = group_id or ids[0]
        record = GroupRecord(group_id=group_id, night=NIGHT, camera="lynx", rule=rule, members=tuple(ids))
        self.ledger.group(record)
        leases = self.ledger.claim_again(ids, owner="test", lease_s=lease_s)
        assert leases
        return GroupJob(
            job_id="j1", group_id=group_id, camera="lynx", refs=refs, leases=leases, lists=("realtime",), rule=rule
        )

    def run(self, job: GroupJob, pool: Any = None) -> GroupOutcome:
        return run_group(
            job, ledger=self.ledger, pool=pool or SerialPool(), observatory=self.observatory, camera=self.camera
        )

    def spec(self, ref: ExposureRef, **changes: Any) -> ReductionSpec:
        spec = ReductionSpec(
            ref=ref,
            camera=self.camera,
            entries=self.camera.step_list("realtime", ref.kind),
            product=self.root / "out" / f"{ref.name}.fits",
            quicklook=self.root / "out" / f"{ref.name}.png",
            token="t1",
            limits=LIMITS,
        )
        return replace(spec, **changes)

    def state(self, ref: ExposureRef) -> State:
        return self.ledger.find(ref.exposure_id).state


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("raw")
    plan = NightPlan(night=NIGHT, biases=3, darks=3, flats=3, science=2, dithers=2, filters=("r",), shape=(200, 256))
    write_night(directory, plan, seed=3)
    return directory


@contextmanager
def opened(root: Path, raw: Path) -> Iterator[Site]:
    place = root / "raw"
    shutil.copytree(raw, place)
    observatory = Observatory.model_validate({"root": root / "root", "reduction": {"retry_s": 0}})
    with Ledger.open(root / "ledger.sqlite") as ledger:
        site = Site(root, ledger, observatory, load_camera("lynx"), {})
        for path in sorted(place.glob("*.fits")):
            ref = site.arrive(path)
            site.refs.setdefault(ref.kind, []).append(ref)
        yield site


@pytest.fixture
def site(tmp_path: Path, raw: Path) -> Iterator[Site]:
    with opened(tmp_path, raw) as site:
        yield site


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, raw: Path) -> Iterator[Site]:
    """The same with masters; shared, so leave its science unclaimed."""
    with opened(tmp_path_factory.mktemp("calibrated"), raw) as site:
        for kind in (Kind.BIAS, Kind.DARK, Kind.FLAT):
            assert not site.run(site.job(*site.refs[kind])).errors
        build_masters(NIGHT, site.camera, ledger=site.ledger, pool=SerialPool(), observatory=site.observatory)
        yield site


def parts_below(root: Path) -> list[Path]:
    return sorted(root.rglob("*.part"))


# ---- one exposure ----


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


# ---- what a worker keeps ----


def test_the_cache_is_bounded_and_sees_changes(tmp_path: Path) -> None:
    cache: FileCache[str] = FileCache(10)
    reads: list[str] = []

    def read(path: Path) -> tuple[str, int]:
        reads.append(path.name)
        return path.read_text(), 4

    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text(path.name)
    for name in "abab":
        cache.get(tmp_path / name, read)
    cache.get(paths[2], read)
    assert (reads, cache.size) == (["a", "b", "c"], 8)
    assert cache.get(paths[0], read) == "a"
    paths[0].write_text("new")
    assert cache.get(paths[0], read) == "new"
    cache.clear()
    assert cache.size == 0


def test_masters_are_shared_and_cannot_be_written(calibrated: Site) -> None:
    master: MasterRef = calibrated.ledger.masters("lynx")[0]
    first, second = load_master(master), load_master(master)
    assert first.images[0].data is second.images[0].data
    with pytest.raises(ValueError, match="read-only"):
        first.images[0].data[0, 0] = 1


def test_bad_pixel_files_are_read_or_named(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "bad.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.eye(5, dtype="i2"))]).writeto(path)
    detector = site.camera.detectors[0].model_copy(update={"bad_pixels": str(path)})
    camera = site.camera.model_copy(update={"detectors": (detector,)})
    assert np.array_equal(bad_pixels(camera)["ccd1"], np.eye(5, dtype=bool))
    fits.PrimaryHDU().writeto(path, overwrite=True)
    for problem in ("no two-dimensional image", "No such file"):
        with pytest.raises(Misconfigured, match=problem):
            bad_pixels(camera)
        path.unlink(missing_ok=True)


def test_a_worker_is_made_ready() -> None:
    dask_setup(None)


def test_importing_reduction_loads_no_scheduler() -> None:
    code = (
        "import sys, nightglass.reduction as r; r.warm_up();"
        "sys.exit(', '.join({'dask', 'distributed', 'prefect', 'watchdog'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- groups ----


def test_a_group_is_reduced_committed_and_stacked(calibrated: Site) -> None:
    refs = calibrated.refs[Kind.SCIENCE]
    outcome = calibrated.run(calibrated.job(*refs, rule="dither", group_id="lynx/20260821/set-1"))
    assert outcome.reduced == tuple(ref.exposure_id for ref in refs)
    assert outcome.errors == {}
    for ref in refs:
        entry = calibrated.ledger.find(ref.exposure_id)
        assert (entry.state, len(entry.masters)) == (State.REDUCED, 3)
        assert entry.timings["total"] > 0
        for product in calibrated.ledger.products_of(ref.exposure_id):
            assert content_id(product.path) == product.checksum
            assert product.inputs[0] == ref.content_id
    assert outcome.stack is not None
    assert fits.getheader(outcome.stack.path)["NCOMBINE"] == 2
    assert parts_below(calibrated.observatory.root) == []


def test_one_bad_member_stops_nobody(site: Site) -> None:
    good, torn, absurd = site.refs[Kind.BIAS]
    torn.path.write_bytes(torn.path.read_bytes()[:-2880])
    job = site.job(good, torn, absurd)
    lying = replace(absurd, path=site.root / "table.fits", size=0)
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("A", "J", array=[1])])]).writeto(
        lying.path
    )
    lying = replace(lying, size=lying.path.stat().st_size)
    outcome = site.run(replace(job, refs=(good, torn, lying)))
    assert outcome.reduced == (good.exposure_id,)
    assert [member.state for member in outcome.members] == [State.REDUCED, State.GROUPED, State.REJECTED]
    assert "Retryable" in outcome.errors[torn.exposure_id]
    entry = site.ledger.find(absurd.exposure_id)
    assert (entry.cause, entry.state) == ("Rejected", State.REJECTED)
    assert parts_below(site.root) == []


def test_an_exposure_waits_where_the_camera_says_so(site: Site) -> None:
    def waiting_for(kind: Kind) -> Camera:
        rules = dict(site.camera.calibrations)
        rules[kind] = rules[kind].model_copy(update={"missing": MissingCalibration.WAIT})
        return site.camera.model_copy(update={"calibrations": rules})

    science, bias = site.refs[Kind.SCIENCE][0], site.refs[Kind.BIAS][0]
    plain = site.camera
    site.camera = waiting_for(Kind.FLAT)
    outcome = site.run(site.job(science, bias))
    assert [member.state for member in outcome.members] == [State.WAITING, State.REDUCED]
    assert "flat" in site.ledger.find(science.exposure_id).reason
    site.camera = plain
    assert site.run(site.job(science)).reduced == (science.exposure_id,)


def test_whoever_lost_the_lease_publishes_nothing(site: Site) -> None:
    ref = site.refs[Kind.BIAS][0]
    job = site.job(ref)

    class Stealing(SerialPool):
        """Another holder takes over while the pixels are computed."""

        def submit(self, function: Any, *args: Any, key: str | None = None, priority: int = 0) -> Future[Any]:
            future = super().submit(function, *args)
            site.ledger.revoke(leases=job.leases)
            return future

    outcome = site.run(job, Stealing())
    assert outcome.members[0].state is None
    assert LeaseLost.__name__ in outcome.errors[ref.exposure_id]
    assert site.state(ref) is State.GROUPED
    assert list(site.observatory.root.rglob("*.fits")) == []
    assert parts_below(site.root) == []
    stale = site.run(job)
    assert stale.members[0].state is None


class Slow(PoolBase):
    """Takes its time over every call."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.threads = ThreadPoolExecutor(1)

    def submit(self, function: Any, *args: Any, key: str | None = None, priority: int = 0) -> Future[Any]:
        def late() -> Any:
            time.sleep(self.seconds)
            return function(*args)

        return self.threads.submit(late)

    def close(self) -> None:
        self.threads.shutdown()


def test_what_takes_too_long_is_given_back_and_cleaned_up(site: Site) -> None:
    ref = site.refs[Kind.BIAS][0]
    site.observatory = Observatory.model_validate({"root": site.root / "root", "reduction": {"lease_s": 0.3}})
    with Slow(0.6) as pool:
        outcome = site.run(site.job(ref, lease_s=0.3), pool)
        assert outcome.members[0].state is State.GROUPED
        assert "within 0.3 s" in outcome.errors[ref.exposure_id]
    assert parts_below(site.root) == []
    assert site.state(ref) is State.GROUPED


@pytest.mark.slow
def test_members_that_wait_for_others_keep_their_leases(site: Site) -> None:
    site.observatory = Observatory.model_validate({"root": site.root / "root", "reduction": {"lease_s": 3.0}})
    refs = [*site.refs[Kind.BIAS], *site.refs[Kind.DARK]]
    with Slow(0.6) as pool:
        outcome = site.run(site.job(*refs, lease_s=3.0), pool)
    assert len(outcome.reduced) == len(refs)


def test_an_unexpected_error_is_recorded_and_not_raised(site: Site) -> None:
    ref = site.refs[Kind.BIAS][0]

    class Broken(SerialPool):
        def submit(self, function: Any, *args: Any, key: str | None = None, priority: int = 0) -> Future[Any]:
            return super().submit(divmod, 1, 0)

    for attempt in range(1, 4):
        outcome = site.run(site.job(ref), Broken())
        assert "ZeroDivisionError" in outcome.errors[ref.exposure_id]
        assert site.state(ref) is (State.FAILED if attempt == 3 else State.GROUPED)


def test_an_unknown_list_stops_before_anything_happens(site: Site) -> None:
    job = replace(site.job(site.refs[Kind.BIAS][0]), lists=("realtme",))
    with pytest.raises(Misconfigured, match="did you mean 'realtime'"):
        site.run(job)
