"""Names of files, to the letter of the Image Builder's rules; nothing leads out of their directories."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightglass.builder.naming import Names
from nightglass.builder.records import ArchiveOrder, RoiOrder, WriteOrder
from nightglass.config import BuilderOptions
from nightglass.errors import Misconfigured, NightglassError, Rejected
from nightglass.layout import Layout
from nightglass.model import Content
from tests.unit.builder.making import exposure

ROOT = Path("/data/night")
OPTIONS = BuilderOptions(role="guide", module="GUIDER")


def names(options: BuilderOptions = OPTIONS) -> Names:
    return Names.of("guider", options, layout=Layout(ROOT), camera="gfa")


def frame(number: int = 0, order: WriteOrder | None = None, **changes: object) -> str:
    options = OPTIONS.model_copy(update=changes)
    return str(names().frame(exposure(), number, options, order or WriteOrder()))


HERE = "/data/night/images/guider/20260821/00070965"


def test_a_frame_has_night_exposure_and_number_in_its_name() -> None:
    assert frame(3) == f"{HERE}/guide-00070965-0003.fits"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"compress": True}, f"{HERE}/guide-00070965-0003.fits.fz"),
        ({"add_frame": False}, f"{HERE}/guide-00070965.fits"),
        ({"add_frame": None}, f"{HERE}/guide-00070965-0003.fits"),
        ({"add_on": "-test"}, f"{HERE}/guide-00070965-0003-test.fits"),
        ({"image_name": "gfa"}, f"{HERE}/gfa-00070965-0003.fits"),
        ({"sub_dir": "a/b"}, f"{HERE}/a/b/guide-00070965-0003.fits"),
        ({"use_obs_day": False}, "/data/night/images/guider/00070965/guide-00070965-0003.fits"),
        ({"use_exp_dir": False}, "/data/night/images/guider/20260821/guide-00070965-0003.fits"),
        ({"use_exp_dir": False, "use_obs_day": False}, "/data/night/images/guider/guide-00070965-0003.fits"),
        ({"image_dir": "/data/night/other"}, "/data/night/other/20260821/00070965/guide-00070965-0003.fits"),
    ],
)
def test_options_change_names(changes: dict[str, object], expected: str) -> None:
    assert frame(3, **changes) == expected


def test_the_first_frame_has_no_number_where_that_is_automatic() -> None:
    assert frame(0, add_frame=None) == f"{HERE}/guide-00070965.fits"


def test_an_order_goes_before_options() -> None:
    order = WriteOrder(image_dir="mine", image_name="x", compress=True, add_on=".new", add_frame=False)
    expected = "/data/night/images/guider/mine/20260821/00070965/x-00070965.new.fits.fz"
    assert frame(3, order, add_on="-old", image_name="old") == expected


def test_archives_and_stamps_have_the_names_of_desi() -> None:
    place = names()
    assert str(place.cube(exposure(), OPTIONS, ArchiveOrder(compress=True))) == (
        "/data/night/gfa/20260821/archive/00070965/guide-00070965.fits.fz"
    )
    options = OPTIONS.model_copy(update={"archive_dir": "/data/night/desi"})
    cube = place.stamp_cube(exposure(), options, RoiOrder(compress=True))
    assert str(cube) == "/data/night/desi/20260821/00070965/guide-rois-00070965.fits.fz"
    assert str(place.stamps(exposure(), 4, OPTIONS, RoiOrder())) == f"{HERE}/guide-rois-00070965-0004.fits"
    assert place.manifest(cube, exposure()).name == "manifest_00070965.json"


def test_a_cube_has_not_the_name_of_that_of_the_night() -> None:
    place = Names.of("guider", OPTIONS, layout=Layout(ROOT), camera="gfa", night_role="guide")
    assert str(place.cube(exposure(), OPTIONS, ArchiveOrder())) == f"{HERE}/guide-00070965.fits"
    assert str(place.cube(exposure(), OPTIONS, ArchiveOrder())) != str(
        Layout(ROOT).cube("gfa", exposure().night, "70965", role="guide", content=Content.RAW)
    )


@pytest.mark.parametrize(
    "order",
    [
        WriteOrder(image_dir="/etc"),
        WriteOrder(image_dir="../../../../etc"),
        WriteOrder(image_dir="a\0b"),
        WriteOrder(image_name="../x"),
        WriteOrder(image_name=".hidden"),
        WriteOrder(add_on="/../../x"),
    ],
)
def test_nothing_leads_out(order: WriteOrder) -> None:
    with pytest.raises(Rejected):
        frame(0, order)


@pytest.mark.parametrize("sub_dir", ["..", "a/../../..", "/etc", "a/./b", ".git", "a b", "/".join("a" * 9)])
def test_sub_directories_lead_down(sub_dir: str) -> None:
    with pytest.raises(Rejected):
        frame(0, sub_dir=sub_dir)


def test_directories_of_the_configuration_may_be_anywhere_and_hold_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOS_IMAGEDIR", "/exposures/desi")
    options = OPTIONS.model_copy(update={"image_dir": "${DOS_IMAGEDIR}", "directories": ("/spare",)})
    place = names(options)
    assert str(place.frame(exposure(), 0, options, WriteOrder())) == (
        "/exposures/desi/20260821/00070965/guide-00070965-0000.fits"
    )
    assert str(place.frame(exposure(), 0, options, WriteOrder(image_dir="/spare/x"))).startswith("/spare/x/20260821")
    with pytest.raises(Misconfigured, match="not set"):
        names(OPTIONS.model_copy(update={"image_dir": "$NOBODY_SET_THIS"}))


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "out").symlink_to(tmp_path)
    place = Names.of("guider", OPTIONS, layout=Layout(tmp_path / "root"), camera="gfa")
    with pytest.raises(Rejected, match="not below"):
        place.frame(exposure(), 0, OPTIONS, WriteOrder(image_dir=str(tmp_path / "root" / "out")))


@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_whatever_is_asked_for_stays_below_the_root(directory: str, name: str, add_on: str, sub_dir: str) -> None:
    order = WriteOrder(image_dir=directory, image_name=name, add_on=add_on)
    try:
        path = frame(1, order, sub_dir=sub_dir)
    except NightglassError:
        return
    assert Path(path).resolve().is_relative_to(ROOT)
