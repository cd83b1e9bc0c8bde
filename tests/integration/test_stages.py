"""A night by library calls alone: frames, masters, science, midway, final."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from nightglass.calibrations import REJECTED_FRAME, build_masters, requirements
from nightglass.config import Camera, Observatory, load_camera, load_observatory
from nightglass.dialects import describe
from nightglass.errors import Retryable
from nightglass.fitsio import content_id, inspect
from nightglass.groups import GroupEngine
from nightglass.layout import Layout
from nightglass.ledger import Entry, GroupRecord, Ledger
from nightglass.model import CALIBRATION_KINDS, Kind, MasterRef, ProductKind, Quality, Sighting, Stage, State
from nightglass.pool import SerialPool
from nightglass.postprocess import run_stage
from nightglass.reduction import GroupJob, GroupOutcome, run_group
from nightglass.reduction.plan import plan
from nightglass.reduction.spec import configuration_key
from nightglass.reduction.worker import reduce_exposure
from nightglass.simulate import NightPlan, Studio, plan_exposures, write_night

PLAN = NightPlan(biases=4, darks=3, flats=3, science=4, dithers=2, filters=("r",), shape=(192, 256))


@dataclass
class Night:
    """One night under a root, driven by hand."""

    root: Path
    ledger: Ledger
    observatory: Observatory
    camera: Camera
    pool: SerialPool

    def take_in(self, path: Path) -> Entry:
        """Bring a file as far as COMPLETE."""
        found = path.stat()
        sighting = Sighting(
            path=path, size=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino, seen_at=datetime.now(UTC)
        )
        entry = self.ledger.see(sighting, camera="lynx", night=PLAN.night)
        seen = inspect(path, self.camera, self.observatory.limits, now=time.time() + 100)
        ref = describe(
            path,
            seen.headers,
            self.camera,
            site=self.observatory.site,
            night=None,
            content_id=seen.content_id,
            size=seen.size,
            mtime=found.st_mtime,
        )
        return self.ledger.complete(entry.key, ref)

    def arrive(self, *paths: Path) -> None:
        engine = GroupEngine(self.camera.groups)
        ready = []
        for entry in map(self.take_in, paths):
            if entry.state is State.COMPLETE and entry.ref is not None:
                ready += engine.add(entry.ref, time.time())
        for group in [*ready, *engine.flush()]:
            self.ledger.group(GroupRecord.of(group))
            ids = [member.exposure_id for member in group.members]
            job = GroupJob(
                job_id=group.group_id,
                group_id=group.group_id,
                camera="lynx",
                refs=group.members,
                leases=self.ledger.claim(ids, owner="test", lease_s=60),
                lists=("realtime",),
                rule=group.rule.name if group.rule else "",
            )
            run_group(job, ledger=self.ledger, pool=self.pool, observatory=self.observatory, camera=self.camera)

    def masters(self) -> tuple[MasterRef, ...]:
        return build_masters(PLAN.night, self.camera, ledger=self.ledger, pool=self.pool, observatory=self.observatory)

    def stage(self, stage: Stage) -> object:
        return run_stage(
            stage, PLAN.night, self.camera, ledger=self.ledger, pool=self.pool, observatory=self.observatory
        )

    def products(self, kind: ProductKind) -> dict[str, str]:
        return {item.key: item.checksum for item in self.ledger.products(PLAN.night, "lynx", kind)}


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    observatory = load_observatory(None, overrides={"root": str(tmp_path / "root")}, environment={})
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        now = datetime.now(UTC)
        ledger.open_night(PLAN.night, "lynx", midway_due=now, final_due=now)
        yield Night(tmp_path / "root", ledger, observatory, load_camera("lynx"), SerialPool())


def _kinds(raw: Path) -> tuple[list[Path], list[Path]]:
    simulated = write_night(raw, PLAN, seed=5)
    calibrations = [
        path
        for path, planned in zip(simulated.paths, simulated.exposures, strict=True)
        if planned.kind in CALIBRATION_KINDS
    ]
    return calibrations, [path for path in simulated.paths if path not in calibrations]


@pytest.mark.slow
def test_a_night_from_frames_to_final(night: Night, tmp_path: Path) -> None:
    calibrations, science = _kinds(tmp_path / "raw")
    night.arrive(*calibrations)
    assert [master.kind for master in night.masters()] == [Kind.BIAS, Kind.DARK, Kind.FLAT]
    night.arrive(*science)
    first = night.stage(Stage.MIDWAY)
    assert first is not None
    reduced = night.products(ProductKind.REDUCED)
    assert night.stage(Stage.FINAL) is not None
    assert night.stage(Stage.FINAL) is None  # twice is once
    assert night.products(ProductKind.REDUCED) == reduced  # nothing better came, nothing was made again
    assert len(night.products(ProductKind.STACK)) == 2
    assert not night.ledger.open_nights("lynx")
    page = Layout(night.root).report("lynx", PLAN.night, Stage.FINAL, ".html").read_text()
    assert "Ledger, directory and products agree" in page
    rows = Layout(night.root).exposure_log("lynx", PLAN.night).read_text().splitlines()
    assert len(rows) == 1 + len(calibrations) + len(science)


class FalteringPool(SerialPool):
    """Loses the first so many reductions, as a pool whose workers die."""

    def __init__(self, losses: int) -> None:
        self.losses = losses

    def submit(
        self, function: Callable[..., Any], *args: Any, key: str | None = None, priority: int = 0
    ) -> Future[Any]:
        if function is not reduce_exposure or not self.losses:
            return super().submit(function, *args, key=key, priority=priority)
        self.losses -= 1
        lost: Future[Any] = Future()
        lost.set_exception(Retryable("2 workers died"))
        return lost


@pytest.mark.slow
@pytest.mark.parametrize("losses", [1, 100])
def test_a_redo_that_fails_in_passing_keeps_its_product_and_its_lists(
    night: Night, tmp_path: Path, losses: int
) -> None:
    calibrations, science = _kinds(tmp_path / "raw")
    night.arrive(*science[:2])
    night.arrive(*calibrations)
    before = night.products(ProductKind.REDUCED)
    names = [f"lynx/20260821/{number}" for number in (len(calibrations) + 1, len(calibrations) + 2)]
    rules = night.observatory.reduction.model_copy(update={"attempts": 2})
    night.observatory = night.observatory.model_copy(update={"reduction": rules})
    night.pool = FalteringPool(losses)
    night.stage(Stage.MIDWAY)
    assert night.ledger.ready() == (), "the queue would run it with the lists for new exposures"
    entries = [night.ledger.find(name) for name in names]
    assert {entry.state for entry in entries} == {State.REDUCED}
    after = night.products(ProductKind.REDUCED)
    if losses > 2:
        assert {entry.reason for entry in entries} == {"2 workers died"}
        assert [after[name] for name in names] == [before[name] for name in names]
        night.pool = SerialPool()
        night.stage(Stage.FINAL)
        entries = [night.ledger.find(name) for name in names]
    assert [(len(entry.masters), entry.reason) for entry in entries] == [(3, "")] * 2
    for name in names:
        (product,) = [item for item in night.ledger.products_of(name) if item.kind is ProductKind.REDUCED]
        ref = night.ledger.find(name).ref
        assert ref is not None
        lists = night.observatory.reduction.postprocess
        spec = plan(ref, lists, token="", ledger=night.ledger, observatory=night.observatory, camera=night.camera)
        assert fits.getheader(product.path)["CFGHASH"] == configuration_key(spec)


@pytest.mark.slow
def test_a_stage_keeps_its_claim_for_as_long_as_it_runs(night: Night, tmp_path: Path) -> None:
    _, science = _kinds(tmp_path / "raw")
    night.arrive(science[0])
    night.take_in(science[1])
    rivals = []

    def slow(job: GroupJob, **tools: Any) -> GroupOutcome:
        time.sleep(4.0)
        rivals.append(night.ledger.claim_stage(PLAN.night, "lynx", Stage.FINAL, owner="rival", lease_s=60))
        return run_group(job, **tools)

    summary = run_stage(
        Stage.FINAL,
        PLAN.night,
        night.camera,
        ledger=night.ledger,
        pool=night.pool,
        observatory=night.observatory,
        reduce=slow,
        lease_s=2.0,
    )
    assert summary is not None
    assert rivals
    assert set(rivals) == {None}


@pytest.mark.slow
def test_a_late_member_joins_the_set_that_was_closed_without_it(night: Night, tmp_path: Path) -> None:
    _, science = _kinds(tmp_path / "raw")
    night.arrive(science[0])  # the end of the night closes its set
    (alone,) = night.ledger.groups(PLAN.night, "lynx", rule="dither")
    late = night.take_in(science[1])
    night.stage(Stage.FINAL)
    (both,) = night.ledger.groups(PLAN.night, "lynx", rule="dither")
    assert both.members == (*alone.members, late.exposure_id)
    assert night.ledger.find(late.exposure_id).group_id == both.group_id
    (stack,) = night.ledger.products(PLAN.night, "lynx", ProductKind.STACK)
    assert stack.key == both.group_id
    assert fits.getheader(stack.path)["NCOMBINE"] == 2


@pytest.mark.slow
def test_the_order_of_arrival_leaves_no_trace_after_final(tmp_path: Path, night: Night) -> None:
    calibrations, science = _kinds(tmp_path / "raw")
    night.arrive(*calibrations)
    night.masters()
    night.arrive(*science)
    night.stage(Stage.FINAL)
    observatory = load_observatory(None, overrides={"root": str(tmp_path / "other")}, environment={})
    with Ledger.open(tmp_path / "other.sqlite") as ledger:
        ledger.open_night(PLAN.night, "lynx", midway_due=datetime.now(UTC), final_due=datetime.now(UTC))
        other = Night(tmp_path / "other", ledger, observatory, night.camera, night.pool)
        other.arrive(*science)  # before there is any master
        other.arrive(*reversed(calibrations))
        other.stage(Stage.FINAL)
        for kind in (ProductKind.REDUCED, ProductKind.MASTER, ProductKind.STACK):
            assert other.products(kind) == night.products(kind)


@pytest.mark.slow
def test_a_bad_frame_is_left_out_and_said(night: Night, tmp_path: Path) -> None:
    calibrations, _ = _kinds(tmp_path / "raw")
    flat = next(path for path in calibrations if fits.getheader(path)["IMAGETYP"] == "flat")
    disguised = tmp_path / "raw" / "lynx-disguised.fits"
    shutil.copy(flat, disguised)
    fits.setval(disguised, "IMAGETYP", value="bias")
    fits.setval(disguised, "EXPNUM", value=99)
    fits.setval(disguised, "EXPTIME", value=0.0)
    night.arrive(*calibrations, disguised)
    bias = next(master for master in night.masters() if master.kind is Kind.BIAS)
    assert bias.frames == PLAN.biases
    entry = night.ledger.find("lynx/20260821/99")
    assert (entry.state, entry.quality, entry.cause) == (State.REDUCED, Quality.BAD, REJECTED_FRAME)
    assert "level" in entry.reason
    with fits.open(bias.path) as hdus:
        assert float(np.std(hdus["SCI"].data)) < 20


@pytest.mark.slow
def test_what_is_required_is_named(night: Night, tmp_path: Path) -> None:
    _, science = _kinds(tmp_path / "raw")
    night.arrive(*science)
    needs = requirements(PLAN.night, night.camera, night.ledger)
    assert {need.kind for need in needs} == CALIBRATION_KINDS
    assert all(need.master is None and need.exposures == len(science) for need in needs)


@pytest.mark.slow
def test_masters_find_the_chip(night: Night, tmp_path: Path) -> None:
    """The simulator knows what the masters should be."""
    calibrations, _ = _kinds(tmp_path / "raw")
    night.arrive(*calibrations)
    made = {master.kind: master for master in night.masters()}
    studio = Studio(PLAN, seed=5)
    assert plan_exposures(PLAN)[0].kind is Kind.BIAS
    with fits.open(made[Kind.FLAT].path) as hdus:
        flat = hdus["SCI"].data
    response = studio.chip.response / studio.chip.response.mean()
    good = ~studio.chip.bad
    assert np.corrcoef(flat[good], response[good])[0, 1] > 0.95
    assert flat[good].mean() == pytest.approx(1.0, abs=0.01)
    assert content_id(made[Kind.FLAT].path) in set(night.products(ProductKind.MASTER).values())


@pytest.mark.slow
def test_final_runs_what_never_ran_and_names_what_nobody_saw(night: Night, tmp_path: Path) -> None:
    calibrations, science = _kinds(tmp_path / "raw")
    night.arrive(calibrations[0])
    for path in science[:3]:  # complete, a set and a half, and then the watch died
        night.take_in(path)
    closed = GroupEngine(night.camera.groups)
    refs = [entry.ref for entry in night.ledger.entries(states={State.COMPLETE}) if entry.ref is not None]
    (group,) = [ready for ref in refs[:2] for ready in closed.add(ref, 0.0)]
    night.ledger.group(GroupRecord.of(group))
    summary = night.stage(Stage.FINAL)
    assert night.ledger.counts(PLAN.night, "lynx")[State.REDUCED] == 4
    assert group.group_id in night.products(ProductKind.STACK)
    differences = getattr(summary, "differences", ())
    assert all(text.startswith("unrecorded: ") for text in differences)
    assert {str(path) for path in science[3:]} <= {text.split()[1] for text in differences}
