"""Groups: members are committed one by one, and none holds up another."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from astropy.io import fits

from nightglass.config import Camera, MissingCalibration, Observatory
from nightglass.errors import LeaseLost, Misconfigured
from nightglass.fitsio import content_id
from nightglass.model import Kind, State
from nightglass.pool import PoolBase, SerialPool
from tests.unit.reduction.material import Site, parts_below


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
