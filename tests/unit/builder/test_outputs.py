"""The outputs of a builder together: written, sent, drawn, archived, as the service asks for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image as Pillow

from nightglass.builder.delivering import CameraOutputs
from nightglass.builder.outputs import Outputs
from nightglass.builder.records import (
    ArchiveOrder,
    FrameView,
    GetOrder,
    Instructions,
    RoiOrder,
    SendOrder,
    SendReport,
    WriteOrder,
)
from nightglass.config import BuilderOptions, Site, load_camera
from nightglass.cubes import verify_cube
from nightglass.errors import Misconfigured, Rejected, Waiting
from nightglass.fitsio import content_id
from nightglass.layout import Layout
from tests.unit.builder import receiving
from tests.unit.builder.making import exposure, extension, frame, noise, record_of, verified
from tests.unit.builder.receiving import PATIENCE_S, receiver

HERE = "tests.unit.builder.receiving"
OPTIONS = BuilderOptions(
    role="guide", module="GUIDER", mode="GUIDE", use_guider=True, callables=(HERE,), send_retry_s=0.01, send_attempts=2
)
SITE = Site(name="KPNO", latitude=31.96403, longitude=-111.59989, elevation_m=2097.0)
NAMES = ("GUIDE0", "GUIDE2", "GUIDE5")


@pytest.fixture
def alarms() -> list[str]:
    return []


@pytest.fixture
def outputs(tmp_path: Path, alarms: list[str]) -> Iterator[CameraOutputs]:
    made = CameraOutputs(
        "guider",
        OPTIONS,
        layout=Layout(tmp_path / "root"),
        camera=load_camera("generic"),
        site=SITE,
        on_alarm=alarms.append,
    )
    made.start()
    receiving.TAKEN.clear()
    yield made
    made.close()
    receiving.TAKEN.clear()


def built(tmp_path: Path, number: int = 0, *, shape: tuple[int, int] = (60, 80), **changes: Any) -> FrameView:
    """Make a frame of three guide cameras."""
    when = f"2026-08-22T03:00:{number:02d}.250"
    records = [
        extension(
            tmp_path / "spool" / f"{number}",
            name,
            noise(shape, 100 * number + index),
            {"EXPTIME": 5.0, "DATE-OBS": when, "GAIN": 1.5 + index, "CRPIX1": 40.5, "CRPIX2": 30.5},
        )
        for index, name in enumerate(NAMES)
    ]
    primary = {"FLAVOR": "science", "TILEID": 4403, "EXPTIME": 5.0, "DATE-OBS": when, "SEND_TO": "x"}
    return frame(records, number=number, **({"primary": primary} | changes))


def as_outputs(made: CameraOutputs) -> Outputs:
    """Have the type checker compare the two."""
    return made


def test_a_frame_is_written_and_handed_out(tmp_path: Path, outputs: CameraOutputs) -> None:
    view = built(tmp_path, 3)
    path = outputs.write(exposure(), view, OPTIONS, WriteOrder(compress=True, extra_headers={"OBSERVER": "me"}))
    assert path == tmp_path / "root/images/guider/20260821/00070965/guide-00070965-0003.fits.fz"
    verified(path)
    copy = outputs.assemble(exposure(), view, OPTIONS, GetOrder(exclude=("tile*",)), tmp_path / "get.fits")
    verified(copy)
    with fits.open(path) as written, fits.open(copy) as got:
        assert written[0].header["OBSERVER"] == "me"
        assert "TILEID" in written[0].header
        assert "TILEID" not in got[0].header
        assert "SEND_TO" not in got[0].header
        for name in NAMES:
            assert np.array_equal(written[name].data, got[name].data)
    with pytest.raises(Rejected, match="is there already"):
        outputs.write(exposure(), view, OPTIONS, WriteOrder(compress=True))
    again = outputs.write(exposure(), view, OPTIONS, WriteOrder(compress=True), replace=(path,))
    assert again == path


def test_an_archive_is_desis_cube_to_the_letter(tmp_path: Path, outputs: CameraOutputs) -> None:
    views = [built(tmp_path, number) for number in range(3)]
    order = ArchiveOrder(add2primary=("TILEID", "SEEING"), add2metadata=("NOWHERE",), compress=True)
    path = outputs.archive(exposure(frames=(0, 1, 2)), views, OPTIONS, order).path
    assert path == tmp_path / "root/generic/20260821/archive/00070965/guide-00070965.fits.fz"
    verified(path)
    with fits.open(path) as hdus:
        first = hdus[0].header
        assert (first["NAXIS"], first["EXTNAME"], first["MODULE"]) == (0, "GUIDER", "GUIDE")
        assert (first["EXPID"], first["FRAMES"], first["NIGHT"]) == (70965, 3, 20260821)
        assert (first["FLAVOR"], first["TILEID"], first["EXPTIME"]) == ("science", 4403, 5.0)
        assert (first["OBSERVAT"], first["OBS-LAT"], first["TIMESYS"]) == ("KPNO", "31.96403", "UTC")
        assert first["DATE-OBS"] == "2026-08-22T03:00:00.250"
        assert not {"FRAME", "SEND_TO", "SEEING"} & set(first)
        said = "\n".join(map(str, first["COMMENT"]))
        assert "SEEING has no value" in said
        assert "NOWHERE has no value" in said
        assert [hdu.name for hdu in hdus][1:7] == ["GUIDE0", "GUIDE0T", "GUIDE2", "GUIDE2T", "GUIDE5", "GUIDE5T"]
        for index, name in enumerate(NAMES):
            assert isinstance(hdus[name], fits.CompImageHDU)
            cube, table = hdus[name].data, hdus[f"{name}T"].data
            assert cube.shape == (3, 60, 80)
            for number in range(3):
                assert np.array_equal(cube[number], noise((60, 80), 100 * number + index))
            assert table["FRAME"].tolist() == [0, 1, 2]
            assert [text[-6:] for text in table["DATE_OBS"]] == ["00.250", "01.250", "02.250"]
            assert table["GAIN"].tolist() == [1.5 + index] * 3
            assert table["EXPTIME"].tolist() == [5.0] * 3
    manifest = json.loads((path.parent / "manifest_00070965.json").read_text())
    assert (manifest["expid"], manifest["frames"]) == (70965, [0, 1, 2])
    assert manifest["cubes"][path.name]["checksum"] == content_id(path)
    before = path.read_bytes()
    assert outputs.archive(exposure(frames=(0, 1, 2)), views, OPTIONS, order).path == path
    assert path.read_bytes() == before
    assert sorted(item.name for item in path.parent.iterdir()) == [path.name, "manifest_00070965.json"]


def test_builders_that_share_a_directory_share_the_manifest(tmp_path: Path, outputs: CameraOutputs) -> None:
    shared = OPTIONS.model_copy(update={"archive_dir": str(tmp_path / "root" / "desi")})
    guide = outputs.archive(
        exposure(frames=(0, 1)), [built(tmp_path, 0), built(tmp_path, 1)], shared, ArchiveOrder()
    ).path
    focus = shared.model_copy(update={"role": "focus", "module": "FOCUS"})
    other = outputs.archive(exposure(frames=(3,)), [built(tmp_path, 3)], focus, ArchiveOrder()).path
    assert guide.parent == other.parent
    manifest = json.loads((guide.parent / "manifest_00070965.json").read_text())
    assert {name: cube["frames"] for name, cube in manifest["cubes"].items()} == {guide.name: [0, 1], other.name: [3]}
    assert manifest["frames"] == [0, 1, 3]


def test_an_archive_takes_files_of_frames_that_were_purged_and_values_that_no_frame_has(
    tmp_path: Path, outputs: CameraOutputs
) -> None:
    views = [built(tmp_path, number) for number in range(2)]
    file = outputs.write(exposure(), views[0], OPTIONS, WriteOrder())
    purged = frame([], number=0, files=(file,), purged=True)
    order = ArchiveOrder(add2primary={"SEEING": 1.1, "FLAVOR": None})
    path = outputs.archive(exposure(frames=(0, 1)), [purged, views[1]], OPTIONS, order).path
    with fits.open(path) as hdus:
        assert (hdus[0].header["FRAMES"], hdus[0].header["SEEING"]) == (2, 1.1)
        assert np.array_equal(hdus["GUIDE0"].data[0], noise((60, 80), 0))
    lost = frame([], number=0, purged=True)
    with pytest.raises(Rejected, match="in no file any more"):
        outputs.archive(exposure(frames=(0, 1)), [lost, views[1]], OPTIONS, order)


def test_sources_may_be_missing_or_change_their_shape(tmp_path: Path, outputs: CameraOutputs) -> None:
    views = [built(tmp_path, 0), built(tmp_path, 1, shape=(30, 40)), built(tmp_path, 2)]
    views[2] = frame(views[2].extensions[:1], number=2, missing=("GUIDE2", "GUIDE5"))
    path = outputs.archive(exposure(frames=(0, 1, 2)), views, OPTIONS, ArchiveOrder()).path
    verified(path)
    with fits.open(path) as hdus:
        assert hdus["GUIDE0"].data.shape == (2, 60, 80)
        assert hdus["GUIDE0_2"].data.shape == (1, 30, 40)
        assert hdus["GUIDE5"].data.shape == (1, 60, 80)
        gaps = {(row["SOURCE"], row["FIRST"]) for row in hdus["GAPS"].data}
        assert {("GUIDE2", 2), ("GUIDE5", 2)} <= gaps


def test_an_extension_keeps_its_name_whatever_that_means_elsewhere(tmp_path: Path, outputs: CameraOutputs) -> None:
    records = [extension(tmp_path, name, noise((9, 9))) for name in ("IMAGE", "GUIDER", "GUIDE0", "GUIDE0T")]
    path = outputs.archive(exposure(), [frame(records)], OPTIONS, ArchiveOrder()).path
    verified(path)
    with fits.open(path) as hdus:
        names = [hdu.name for hdu in hdus if hdu.is_image][1:]
        assert len({hdu.name for hdu in hdus}) == len(hdus)
        assert {"IMAGE", "GUIDE0"} <= set(names)
        assert len(names) == len(records)


def test_tables_that_frames_bring_are_in_the_archive_once(tmp_path: Path, outputs: CameraOutputs) -> None:
    stars = fits.BinTableHDU.from_columns([fits.Column("GMAG", "E", array=[15.5, 16.5], unit="mag")])
    fits.HDUList([fits.PrimaryHDU(), stars]).writeto(tmp_path / "PMGSTARS.fits")
    views = [built(tmp_path, number) for number in range(2)]
    table = record_of(tmp_path / "PMGSTARS.fits", "PMGSTARS")
    views[1] = frame((table, *views[1].extensions), number=1)
    path = outputs.archive(exposure(frames=(0, 1)), views, OPTIONS, ArchiveOrder(compress=True)).path
    verified(path)
    with fits.open(path) as hdus:
        assert hdus["PMGSTARS"].data["GMAG"].tolist() == [15.5, 16.5]
        assert [hdu.name for hdu in hdus].count("PMGSTARS") == 1
        assert hdus["GUIDE5"].data.shape == (2, 60, 80)
    frames = [
        outputs.assemble(exposure(), view, OPTIONS, GetOrder(), tmp_path / f"guide-00070965-{view.frame:04d}.fits")
        for view in views
    ]
    found = verify_cube(path, frames)
    assert found.ok, found.differences
    assert sorted(item.name for item in path.parent.iterdir()) == [path.name, "manifest_00070965.json"]


def test_archive_keywords_choose_what_goes_where(tmp_path: Path, outputs: CameraOutputs) -> None:
    options = OPTIONS.model_copy(
        update={"archive_primary": ("TILE*",), "archive_secondary": ("GAIN",), "archive_metadata": ("DATE-OBS",)}
    )
    path = outputs.archive(exposure(), [built(tmp_path)], options, ArchiveOrder(add2metadata=("EXPTIME",))).path
    with fits.open(path) as hdus:
        assert (hdus[0].header["TILEID"], hdus[0].header["FLAVOR"]) == (4403, "science")
        assert "EXPTIME" not in hdus[0].header
        assert hdus["GUIDE2"].header["GAIN"] == 2.5
        assert {"DATE_OBS", "EXPTIME"} <= set(hdus["GUIDE2T"].columns.names)
        assert "GAIN" not in hdus["GUIDE2T"].columns.names


def test_a_frame_is_sent_to_whom_options_name_or_an_order(tmp_path: Path, outputs: CameraOutputs) -> None:
    view = built(tmp_path, 3)
    with receiver() as peer:
        options = OPTIONS.model_copy(update={"receivers": {"etc": peer.url}, "send_to": ("etc",)})
        (report,) = outputs.send(exposure(), view, options, SendOrder(), wait_s=PATIENCE_S)
        assert (report.delivered, report.receiver) == (True, "etc")
        order = SendOrder(send_to=(f"{HERE}:take_file",), all_fields=True)
        (other,) = outputs.send(exposure(), view, options, order, wait_s=PATIENCE_S)
        assert other.delivered
    (tmp_path / "got.fits").write_bytes(peer.bodies[0])
    (tmp_path / "all.fits").write_bytes(receiving.TAKEN[0][0])
    verified(tmp_path / "got.fits")
    with fits.open(tmp_path / "got.fits") as got, fits.open(tmp_path / "all.fits") as everything:
        assert "SEND_TO" not in got[0].header
        assert everything[0].header["SEND_TO"] == "x"
        assert np.array_equal(got["GUIDE5"].data, everything["GUIDE5"].data)
    assert receiving.TAKEN[0][1]["name"] == "guide-00070965-0003.fits"
    with pytest.raises(Misconfigured):
        outputs.send(exposure(), view, options, SendOrder(send_to=("nobody",)), wait_s=0)
    assert outputs.send(exposure(), view, OPTIONS, SendOrder(), wait_s=0) == ()


def test_who_wants_to_know_is_told_of_frames_and_archives_and_of_nothing_else(
    tmp_path: Path, outputs: CameraOutputs, alarms: list[str]
) -> None:
    reports: list[SendReport] = []
    outputs.start(reports.append)
    outputs.rois.accept([{"extension": "GUIDE5", "x": 20, "y": 30, "size": 10}])
    options = OPTIONS.model_copy(update={"guider_app": f"{HERE}:fail", "use_donut": True, "donut_app": f"{HERE}:fail"})
    view = built(tmp_path, 3)
    outputs.built(exposure(), view, options)
    order = SendOrder(send_to=(f"{HERE}:take_file",))
    outputs.send(exposure(), view, options, order, wait_s=0)
    outputs.send_file(exposure(), view.extensions[0].path, options, order, wait_s=0)
    assert outputs.dispatcher.wait_idle(PATIENCE_S)
    assert [(report.frame, report.delivered) for report in reports] == [(3, True), (None, True)]
    assert sorted(text.split()[0] for text in alarms) == ["focus", "rois"]


def test_pictures_show_extensions_or_all_of_them(tmp_path: Path, outputs: CameraOutputs) -> None:
    view = built(tmp_path, 3)
    each = outputs.plot(exposure(), view, OPTIONS, {})
    assert [path.name for path in each] == [f"guide-00070965-0003-{name}.png" for name in NAMES]
    (whole,) = outputs.plot(exposure(), view, OPTIONS, {"mode": "ASSEMBLY", "mark_center": True})
    (one,) = outputs.plot(exposure(), view, OPTIONS, {"ext": "GUIDE2", "title": False, "subtitle": False})
    assert len({path.read_bytes() for path in (*each, whole)}) == 4
    with Pillow.open(whole) as picture, Pillow.open(one) as single:
        assert picture.format == single.format == "PNG"
        assert picture.height > single.height
        reds = np.asarray(picture.convert("RGB")).astype(int)
        assert ((reds[..., 0] > 200) & (reds[..., 1] < 100)).any()  # the marks
    assert outputs.plot(exposure(), view, OPTIONS, {"ext": "FOCUS"}) == ()
    with pytest.raises(Misconfigured, match="option of pictures"):
        outputs.plot(exposure(), view, OPTIONS, {"titel": True})


def test_stamps_are_cut_archived_written_and_sent(tmp_path: Path, outputs: CameraOutputs) -> None:
    rois = [
        {"extension": "GUIDE5", "x": 20, "y": 30, "size": 10},
        {"extension": "GUIDE5", "x": 79, "y": 59, "width": 8, "height": 6},
        {"extension": "GUIDE0", "x": 40, "y": 30, "size": 10},
    ]
    assert outputs.rois.accept(rois) == 3
    options = OPTIONS.model_copy(update={"guider_app": f"{HERE}:take_file"})
    views = [built(tmp_path, number) for number in range(3)]
    for view in views:
        outputs.built(exposure(frames=(0, 1, 2)), view, options)
    assert outputs.dispatcher.wait_idle(PATIENCE_S)
    assert [about["what"] for _, about in receiving.TAKEN] == ["rois"] * 3
    outputs.rois.finalize(70965)
    path = outputs.rois.archive(exposure(frames=(0, 1, 2)), options, RoiOrder(compress=True))
    assert path.name == "guide-rois-00070965.fits.fz"
    verified(path)
    with fits.open(path) as hdus:
        assert hdus[0].header["EXTNAME"] == "GUIDER"
        assert {"GUIDE5_0", "GUIDE5_0T", "GUIDE5_1", "GUIDE5_1T", "GUIDE0_0", "GUIDE0_0T"} <= {h.name for h in hdus}
        whole = noise((60, 80), 102)  # frame 1 of GUIDE5
        assert np.array_equal(hdus["GUIDE5_0"].data[1], whole[24:34, 14:24])
        assert np.array_equal(hdus["GUIDE5_1"].data[1], whole[55:60, 74:80])  # cut off at the edge
        assert hdus["GUIDE5_0T"].data["ROICOL"].tolist() == [15] * 3
        assert hdus["GUIDE5_0T"].data["CRPIX1"].tolist() == [26.5] * 3
    written = outputs.rois.write(exposure(), options, RoiOrder(frame=2))
    assert [item.name for item in written] == ["guide-rois-00070965-0002.fits"]
    verified(written[0])
    got = outputs.rois.get(exposure(), RoiOrder(), tmp_path / "get")
    assert len(got) == 3
    (report,) = outputs.rois.send(exposure(), options, RoiOrder(frame=1, send_to=(f"{HERE}:take_file",)))
    assert report.frame == 1
    assert outputs.rois.clear(70965, 1) == 2
    assert outputs.rois.clear(70965, None, "guide0") == 2
    assert outputs.rois.clear() == 2
    with pytest.raises(Rejected, match="no stamps"):
        outputs.rois.archive(exposure(), options, RoiOrder())


def test_stamps_on_disk_have_a_limit_and_only_archived_ones_go(
    tmp_path: Path, outputs: CameraOutputs, alarms: list[str]
) -> None:
    outputs.rois.accept([{"extension": "GUIDE0", "x": 300, "y": 300, "size": 500}])
    options = OPTIONS.model_copy(update={"stamp_mib": 1})
    view = built(tmp_path, 0, shape=(600, 600))
    first, second = exposure(1), exposure(2)
    for number in range(3):
        outputs.built(first, frame(view.extensions, expid=1, number=number), options)
    assert alarms == []
    outputs.built(first, frame(view.extensions, expid=1, number=3), options)
    outputs.built(first, frame(view.extensions, expid=1, number=4), options)
    assert "those of exposure 00000001 and later ones" in alarms.pop()
    assert alarms == []  # told once
    assert outputs.rois.status()["stamps"] == 5
    outputs.rois.archive(first, options, RoiOrder())
    outputs.built(second, frame(view.extensions, expid=2), options)
    assert outputs.rois.status()["stamps"] == 1
    outputs.rois.accept([{"extension": "GUIDE0", "x": 5000, "y": 1}], expid=2)
    outputs.built(second, frame(view.extensions, expid=2), options)
    assert any("lies outside" in text for text in alarms)


@pytest.mark.parametrize(
    "roi",
    [
        {"extension": "GUIDE0"},
        {"extension": "GUIDE0", "x": 1, "y": 1, "size": 0},
        {"extension": "../x", "x": 1, "y": 1},
        {"extension": "GUIDE0", "x": "1", "y": 1},
        {"extension": "GUIDE0", "x": float("nan"), "y": 1},
        {"extension": "GUIDE0", "x": 1, "y": 1, "widht": 5},
    ],
)
def test_regions_that_make_no_sense_are_refused(outputs: CameraOutputs, roi: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured):
        outputs.rois.accept([roi])


def test_instructions_of_a_frame_name_a_function_and_regions(tmp_path: Path, outputs: CameraOutputs) -> None:
    said = Instructions(
        cb_function=f"{HERE}:take_news", cb_args=("a", 1), rois=({"extension": "GUIDE2", "x": 9, "y": 9, "size": 4},)
    )
    outputs.built(exposure(), built(tmp_path, 3, instructions=said), OPTIONS)
    assert outputs.hooks.wait_idle(PATIENCE_S)
    event, *args = receiving.TAKEN[0]
    assert (event["expid"], event["frame"], event["stage"], args) == (70965, 3, "built", ["a", 1])
    assert outputs.rois.status()["stamps"] == 1


def test_the_focus_is_measured_or_handed_to_an_application(tmp_path: Path, outputs: CameraOutputs) -> None:
    options = OPTIONS.model_copy(update={"use_donut": True, "use_guider": False})
    outputs.built(exposure(), built(tmp_path, 1), options)
    focus = outputs.status()["focus"]
    assert [item["extension"] for item in focus["extensions"]] == list(NAMES)
    found = list((tmp_path / "root/images/guider/20260821/00070965").glob("*focus.json"))
    assert [json.loads(path.read_text()) for path in found] == [focus]
    options = options.model_copy(update={"donut_app": f"{HERE}:take_file"})
    outputs.built(exposure(), built(tmp_path, 2), options)
    assert outputs.dispatcher.wait_idle(PATIENCE_S)
    assert (receiving.TAKEN[0][1]["frame"], receiving.TAKEN[0][1]["what"]) == (2, "focus")


def test_without_pixels_or_masters_there_is_a_reason(tmp_path: Path, outputs: CameraOutputs) -> None:
    gone = frame([], number=0, purged=True, files=(tmp_path / "x.fits",))
    with pytest.raises(Rejected, match=r"it is in .*x\.fits"):
        outputs.write(exposure(), gone, OPTIONS, WriteOrder())
    with pytest.raises(Waiting, match="no masters"):
        outputs.assemble(exposure(), built(tmp_path), OPTIONS, GetOrder(dark_subtract=True), tmp_path / "d.fits")
