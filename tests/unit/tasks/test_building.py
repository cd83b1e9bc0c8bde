"""Runs about image builders: which account they find, what they show, and in which state they end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nightglass.builder.accountfiles import write_account
from nightglass.builder.accounts import CLEARED, Account
from nightglass.builder.cubeaccounts import CubeAccount, CubeSource
from nightglass.config import BuilderSource, Observatory
from nightglass.errors import Misconfigured
from nightglass.layout import Layout
from nightglass.model import Night
from tasks.building import CONCLUSIONS, conclude_account, conclude_cube, find_cube, show_look, show_stage

NIGHT = Night("20260821")
FIRST, SECOND = "20260821T081320123", "20260821T081320124"
OF_17 = {"exposure": "gfa/20260821/17", "builder": "guider", "camera": "gfa", "night": NIGHT.label, "expid": 17}
MADE = CubeAccount(
    **OF_17,
    order=FIRST,
    state="archived",
    seconds=2.0,
    path="/cubes/guide-00000017.fits",
    frames=3,
    size=4 << 20,
    pixel_bytes=3 << 20,
    sources=[CubeSource(name=name, planes=3, shape=[4, 5], bitpix=16, stored_bytes=120) for name in ("A", "B")],
    stages={"pixels": 0.5},
)
FAILED = CubeAccount(
    **OF_17,
    order=SECOND,
    state="failed",
    error="no frame has extensions",
    kind="Rejected",
    remedy="there is nothing to archive",
)


@pytest.fixture
def observatory(tmp_path: Path) -> Observatory:
    sources = (BuilderSource(name="guider", camera="gfa"),)
    for account in (MADE, FAILED, replace(MADE, expid=170, exposure="gfa/20260821/170")):
        path = Layout(tmp_path).cube_account("gfa", NIGHT, "guider", account.expid, account.order)
        write_account(path, account)
    return Observatory(root=tmp_path, builders=sources)


async def test_a_run_finds_the_order_that_it_is_of_or_the_last_one(observatory: Observatory) -> None:
    assert await find_cube.fn("gfa/20260821/17", "guider", "", FIRST, observatory, "") == MADE
    assert await find_cube.fn("gfa/20260821/17", "", "", "", observatory, "") == FAILED
    for exposure, order in (("gfa/20260821/18", ""), ("gfa/20260821/17", "20260821T081320125"), ("17", "")):
        with pytest.raises(Misconfigured):
            await find_cube.fn(exposure, "guider", "", order, observatory, "")


def test_a_run_ends_as_the_archive_did() -> None:
    made, failed = conclude_cube(MADE), conclude_cube(FAILED)
    assert made.is_completed()
    assert made.message == "6 planes, 4194304 bytes, 2.00 s, 2 MiB/s"
    assert (failed.is_failed(), failed.name) == (True, "NotArchived")
    assert failed.message == "Rejected: no frame has extensions (there is nothing to archive)"
    cleared = conclude_account(
        Account(exposure="gfa/20260821/17", builder="guider", camera="gfa", night="20260821", expid=17, state=CLEARED)
    )
    assert cleared.is_cancelled()
    assert {made.name, failed.name, cleared.name} <= CONCLUSIONS


async def test_a_cube_that_went_elsewhere_has_no_picture_and_the_run_goes_on(observatory: Observatory) -> None:
    await show_look.fn(MADE, observatory)
    picture = Layout(observatory.root).cube_account("gfa", NIGHT, "guider", 17, FIRST).with_suffix(".png")
    assert not picture.exists()
    assert "0.5" in str((await show_stage.fn("pixels", 0.5)).message)
