"""Which master serves an exposure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nightglass.calibrations import choose, requirements
from nightglass.config import Camera
from nightglass.errors import Waiting
from nightglass.ledger import Ledger
from nightglass.model import ExposureRef, Kind, MasterRef, Quality
from tests.unit.calibrations.products import NIGHT, master, ref

SCIENCE = ref(9, Kind.SCIENCE, exposure_time_s=60.0, filter="r", readout="slow")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite") as opened:
        yield opened


def _camera(**rules: dict[str, object]) -> Camera:
    return Camera.model_validate(
        {"name": "lynx", "calibrations": rules, "steps": {"realtime": {"default": ["bias", "dark", "flat"]}}}
    )


def _chosen(ledger: Ledger, *masters: MasterRef, camera: Camera | None = None, science: ExposureRef = SCIENCE) -> str:
    for item in masters:
        ledger.add_master(item)
    choice = choose(science, camera or _camera(), ledger, now_night=NIGHT)
    return " ".join(item.master_id for item in choice.masters)


def test_tonights_go_before_older_ones_even_of_more_frames(ledger: Ledger) -> None:
    old = master(master_id="old", night=NIGHT.shifted(-1), frames=50)
    assert _chosen(ledger, old) == "old"
    choice = choose(SCIENCE, _camera(), ledger, now_night=NIGHT)
    assert choice.archived == (old,)
    assert choice.missing == (Kind.DARK, Kind.FLAT)
    assert choice.notes == ("master bias of 20260820", "no master dark", "no master flat")
    assert _chosen(ledger, master(master_id="new", frames=3)) == "new"
    assert choose(SCIENCE, _camera(), ledger, now_night=NIGHT).archived == ()


def test_masters_that_are_too_old_or_of_the_future_or_bad_do_not_serve(ledger: Ledger) -> None:
    camera = _camera(bias={"max_age_days": 3})
    masters = [
        master(master_id="stale", night=NIGHT.shifted(-4)),
        master(master_id="future", night=NIGHT.shifted(1)),
        master(master_id="bad", quality=Quality.BAD),
    ]
    assert _chosen(ledger, *masters, camera=camera) == ""
    assert _chosen(ledger, master(master_id="just", night=NIGHT.shifted(-3)), camera=camera) == "just"


@pytest.mark.parametrize(
    ("match", "other"),
    [
        ("detector", {"detector": "ccd2"}),
        ("binning", {"binning": "2x2"}),
        ("filter", {"filter": "g"}),
        ("readout", {"readout": "fast"}),
    ],
)
def test_what_the_rule_compares_must_be_equal(ledger: Ledger, match: str, other: dict[str, str]) -> None:
    same = {"filter": "r", "readout": "slow"} | other
    assert _chosen(ledger, master(Kind.FLAT, "odd", **same), camera=_camera(flat={"match": [match]})) == ""
    assert _chosen(ledger, camera=_camera(flat={"match": []})) == "odd"


def test_equal_darks_go_before_scaled_ones_and_long_before_short(ledger: Ledger) -> None:
    camera = _camera(dark={"match": ["detector"]})
    assert _chosen(ledger, master(Kind.DARK, "d30", exposure_time_s=30.0), camera=camera) == "d30"
    assert _chosen(ledger, master(Kind.DARK, "d120", exposure_time_s=120.0), camera=camera) == "d120"
    assert _chosen(ledger, master(Kind.DARK, "d0", exposure_time_s=0.0), camera=camera) == "d120"
    assert _chosen(ledger, master(Kind.DARK, "d60", exposure_time_s=60.3, frames=3), camera=camera) == "d60"


def test_scaling_can_be_forbidden(ledger: Ledger) -> None:
    dark = master(Kind.DARK, "d30", exposure_time_s=30.0)
    assert _chosen(ledger, dark, camera=_camera(dark={"exposure_scaling": False})) == ""
    assert _chosen(ledger, camera=_camera(dark={"match": ["exposure"]})) == ""


def test_a_dark_that_holds_the_bias_level_is_neither_scaled_nor_used_beside_a_bias(ledger: Ledger) -> None:
    assert _chosen(ledger, master(Kind.DARK, "d30", exposure_time_s=30.0, pedestal=True)) == ""
    assert _chosen(ledger, master(Kind.DARK, "d60", exposure_time_s=60.0, pedestal=True)) == "d60"
    assert _chosen(ledger, master(master_id="b")) == "b"


def test_the_answer_does_not_depend_on_the_order_in_which_masters_came(tmp_path: Path) -> None:
    masters = [master(master_id=f"m{index}") for index in range(6)]
    answers = set()
    for name, order in (("a", masters), ("b", masters[::-1])):
        with Ledger.open(tmp_path / name) as ledger:
            answers.add(_chosen(ledger, *order))
    assert answers == {"m0"}


def test_a_rule_may_say_wait_and_says_what_for(ledger: Ledger) -> None:
    camera = _camera(flat={"missing": "wait", "match": ["filter"], "min_frames": 4})
    with pytest.raises(Waiting, match=r"no master flat for filter r.*take 4 flat frames"):
        choose(SCIENCE, camera, ledger, now_night=NIGHT)


def test_nothing_is_required_where_there_is_no_science(ledger: Ledger) -> None:
    assert requirements(NIGHT, _camera(), ledger) == ()
