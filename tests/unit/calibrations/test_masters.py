"""The masters of a night: which are made, which stay, and what is left of a lost ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from nightglass.calibrations import FrameSet, build_masters, frame_sets, master_identity, rebuild_index
from nightglass.config import CalibrationRule, Camera, Observatory
from nightglass.layout import Layout
from nightglass.ledger import Ledger
from nightglass.model import ExposureRef, Kind, MasterRef, Product, ProductKind, Quality, Sighting, State
from nightglass.pool import SerialPool
from tests.unit.calibrations.products import NIGHT, frame, master, ref

CAMERA = Camera.model_validate({"name": "lynx", "steps": {"realtime": {"default": ["bias"]}}})


@dataclass
class Site:
    """A ledger, and reduced frames as if they had come through a night."""

    root: Path
    ledger: Ledger
    observatory: Observatory

    def reduced(self, number: int, kind: Kind, level: float, **changes: object) -> ExposureRef:
        """Bring one frame to the state REDUCED; its pixels are noise about a level."""
        one = ref(number, kind, **changes)
        path = frame(
            Layout(self.root).reduced(one), np.random.default_rng(number).normal(level, 5, (64, 48)), overscan=False
        )
        sighting = Sighting(path=one.path, size=1, mtime_ns=number, inode=number, seen_at=datetime.now(UTC))
        entry = self.ledger.see(sighting, camera="lynx", night=NIGHT)
        self.ledger.complete(entry.key, one)
        (lease,) = self.ledger.claim([one.exposure_id], owner="test", lease_s=60)
        product = Product(
            kind=ProductKind.REDUCED, key=one.exposure_id, path=path, checksum="", size=path.stat().st_size
        )
        self.ledger.commit(lease, products=[product], publish=lambda: None)
        return one

    def masters(self) -> tuple[MasterRef, ...]:
        return build_masters(NIGHT, CAMERA, ledger=self.ledger, pool=SerialPool(), observatory=self.observatory)

    def in_use(self) -> set[str]:
        found = self.ledger.masters("lynx")
        return {item.master_id for item in found if item.quality is not Quality.BAD}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        yield Site(tmp_path / "root", ledger, Observatory.model_validate({"root": tmp_path / "root"}))


def test_each_set_gives_one_master_made_once(site: Site) -> None:
    for number in range(1, 4):
        site.reduced(number, Kind.BIAS, 500)
        site.reduced(10 + number, Kind.DARK, 512, exposure_time_s=60 + number / 100)
        site.reduced(20 + number, Kind.FLAT, 20000, filter="r", exposure_time_s=5)
    site.reduced(30, Kind.FLAT, 20000, filter="g", exposure_time_s=5)  # one is too few
    bias, dark, flat = site.masters()
    assert (bias.kind, dark.kind, flat.kind, flat.filter) == (Kind.BIAS, Kind.DARK, Kind.FLAT, "r")
    assert dark.exposure_time_s == 60.02
    assert dark.uses == (bias.master_id,)
    assert flat.uses == (bias.master_id, dark.master_id)
    stamps = {path: path.stat().st_mtime_ns for path in site.root.rglob("masters/*")}
    assert site.masters() == (bias, dark, flat)
    assert {path: path.stat().st_mtime_ns for path in site.root.rglob("masters/*")} == stamps
    assert len(site.ledger.products(NIGHT, "lynx", ProductKind.MASTER)) == 3


def test_a_further_frame_takes_the_former_master_out_of_use(site: Site) -> None:
    for number in range(1, 4):
        site.reduced(number, Kind.BIAS, 500)
    (first,) = site.masters()
    site.reduced(4, Kind.BIAS, 500)
    (second,) = site.masters()
    assert site.in_use() == {second.master_id} != {first.master_id}
    assert first.path.is_file()  # products name it
    site.ledger.skip(["lynx/20260821/4"])
    assert [item.master_id for item in site.masters()] == [first.master_id]
    assert site.in_use() == {first.master_id}


def test_a_rejected_frame_keeps_its_state_and_gets_a_reason_that_can_be_taken_back(site: Site) -> None:
    for number in range(1, 4):
        site.reduced(number, Kind.BIAS, 500)
    site.reduced(9, Kind.BIAS, 900)
    (made,) = site.masters()
    assert made.frames == 3
    entry = site.ledger.find("lynx/20260821/9")
    assert (entry.state, entry.quality) == (State.REDUCED, Quality.BAD)
    assert "level 9" in entry.reason
    path = Layout(site.root).reduced(ref(9))
    frame(path, np.random.default_rng(9).normal(500, 5, (64, 48)))
    assert site.masters()[0].frames == 4
    assert site.ledger.find("lynx/20260821/9").reason == ""


def test_a_set_that_cannot_be_combined_does_not_stop_the_others(site: Site) -> None:
    for number in range(1, 4):
        site.reduced(number, Kind.BIAS, 30000)
        site.reduced(20 + number, Kind.FLAT, 20000, filter="r")  # less than the bias: nothing is left
        site.reduced(40 + number, Kind.FLAT, 60000, filter="g")
    Layout(site.root).reduced(ref(1)).unlink()
    site.reduced(4, Kind.BIAS, 30000)
    assert [(item.kind, item.filter) for item in site.masters()] == [(Kind.BIAS, ""), (Kind.FLAT, "g")]
    assert "cannot be read" in site.ledger.find("lynx/20260821/1").reason


def test_identity_is_of_the_inputs_and_settings_alone() -> None:
    refs = tuple(ref(number) for number in range(3))
    first = FrameSet(Kind.BIAS, ("ccd1",), refs)
    identity = master_identity(first, CAMERA, (None, None))
    assert master_identity(replace(first, refs=refs[::-1]), CAMERA, (None, None)) == identity
    other = CAMERA.model_copy(update={"calibrations": CAMERA.calibrations | {Kind.BIAS: CalibrationRule(sigma=3)}})
    changed = [
        master_identity(replace(first, refs=refs[:2]), CAMERA, (None, None)),
        master_identity(first, CAMERA, (master(), None)),
        master_identity(first, other, (None, None)),
    ]
    assert len({identity, *changed}) == 4


def test_darks_are_sets_by_exposure_time_within_two_percent() -> None:
    times = (60.0, 60.01, 60.9, 61.5, 120.0)
    darks = [ref(number, Kind.DARK, exposure_time_s=time) for number, time in enumerate(times)]
    sets = frame_sets(darks, CAMERA.calibrations, Kind.DARK)
    assert sorted(len(item.refs) for item in sets) == [1, 1, 3]
    assert frame_sets(darks, CAMERA.calibrations, Kind.BIAS) == ()


def test_the_index_is_rebuilt_from_headers(site: Site, tmp_path: Path) -> None:
    for number in range(1, 4):
        site.reduced(number, Kind.BIAS, 500)
        site.reduced(10 + number, Kind.DARK, 512, exposure_time_s=60)
    site.masters()
    site.reduced(4, Kind.BIAS, 500)
    made = site.masters()
    directory = Layout(site.root).night("lynx", NIGHT) / "masters"
    (directory / "garbage.fits").write_bytes(b"x" * 5000)
    frame(directory / "stray.fits", np.ones((3, 3)))
    with Ledger.open(tmp_path / "new.sqlite") as ledger:
        added = rebuild_index(site.root, ledger)
        assert {item for item in added if item.quality is not Quality.BAD} == set(made)
        assert len(added) == 4  # the former bias, and the dark that used it, stay known
        assert rebuild_index(site.root, ledger) == ()
        assert {item.master_id for item in ledger.masters("lynx") if item.quality is Quality.OK} == site.in_use()
