"""A real guider sequence, pushed stamp by stamp: the same cube as from the file that came from the telescope."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightglass.builder.delivering import CameraOutputs
from nightglass.builder.records import ArchiveOrder, FrameView
from nightglass.builder.service import Builder
from nightglass.config import BuilderOptions, Camera, Limits, Site, TimeRule, load_camera
from nightglass.cubes import Compression, CubeRequest, assemble_cube
from nightglass.fitsio import scan_headers
from nightglass.fitsio.cards import repair_cards
from nightglass.layout import Layout
from nightglass.pool import SerialPool
from tests.unit.builder.making import exposure, frame, record_of, verified

pytestmark = pytest.mark.real

OPTIONS = BuilderOptions(role="guide", module="GUIDER", mode="GUIDE")
FRAMES = 92


def guider() -> Camera:
    """Describe the camera: each stamp says when it was taken."""
    camera = load_camera("generic")
    times = (TimeRule(keywords=("STMPTIME",)), *camera.header.times)
    return camera.model_copy(update={"header": camera.header.model_copy(update={"times": times})})


@pytest.fixture(scope="module")
def sequence(real_data: Path) -> Path:
    (path,) = (real_data / "lsst_guider").glob("*.fits")
    return path


def spooled(sequence: Path, place: Path) -> list[FrameView]:
    """Spool each HDU as it stands in the file, with the cards of the primary header beside it."""
    data = sequence.read_bytes()
    infos = scan_headers(sequence, Limits())
    assert len(infos) == FRAMES + 1
    first = "\n".join(repair_cards(data[: infos[0].data_offset])[0][4:])
    empty = fits.PrimaryHDU().header.tostring().encode("ascii")
    views = []
    for number, info in enumerate(infos[1:]):
        path = place / f"{number:04d}" / "GUIDE0.fits"
        path.parent.mkdir(parents=True)
        path.write_bytes(empty + data[info.header_offset : info.end])
        view = frame([record_of(path, "GUIDE0")], number=number)
        views.append(FrameView(**{name: getattr(view, name) for name in view.__slots__} | {"primary": first}))
    return views


def reference(sequence: Path, out: Path, *, compress: bool) -> Path:
    """Make the cube of the file that came from the telescope."""
    wanted = CubeRequest(
        paths=(sequence,),
        out=out,
        source_names={"IMAGE": "GUIDE0"},
        compression=Compression() if compress else None,
        durable=False,
    )
    return assemble_cube(wanted, pool=SerialPool(), camera=guider()).path


def assert_same(made: Path, other: Path) -> None:
    """Compare pixels, all columns of the table but those that say where a plane came from, and HDU 0."""
    verified(made)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # keywords of that camera that are longer than FITS has them
        with fits.open(made) as ours, fits.open(other) as theirs:
            assert ours["GUIDE0"].data.shape == (FRAMES, 50, 50)
            assert np.array_equal(ours["GUIDE0"].data, theirs["GUIDE0"].data)
            mine, expected = ours["GUIDE0T"].data, theirs["GUIDE0T"].data
            columns = [name for name in expected.names if name not in ("FILE", "HDU", "PLANE")]
            assert "STMPTIME" in columns
            assert len(columns) > 30
            for name in columns:
                assert np.array_equal(mine[name], expected[name]), name
            header = ours[0].header
            assert (header["EXTNAME"], header["MODULE"], header["FRAMES"]) == ("GUIDER", "GUIDE", FRAMES)
            assert (header["EXPID"], header["GDSSEQ"], header["ROISEG"]) == (70965, 918, "Segment10")


@pytest.mark.parametrize("compress", [False, True])
def test_a_spooled_sequence_gives_the_same_cube_as_its_file(sequence: Path, tmp_path: Path, *, compress: bool) -> None:
    outputs = CameraOutputs("guider", OPTIONS, layout=Layout(tmp_path / "root"), camera=guider(), site=Site())
    views = spooled(sequence, tmp_path / "spool")
    made = outputs.archive(exposure(frames=tuple(range(FRAMES))), views, OPTIONS, ArchiveOrder(compress=compress)).path
    assert_same(made, reference(sequence, tmp_path / "file.fits", compress=compress))


def test_a_sequence_pushed_into_a_builder_gives_the_same_cube(sequence: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "root")
    options = OPTIONS.model_copy(update={"mem_purge": False})
    outputs = CameraOutputs("guider", options, layout=layout, camera=guider(), site=Site())
    views = spooled(sequence, tmp_path / "spool")
    with Builder("guider", options, layout=layout, camera=guider(), site=Site(), outputs=outputs) as builder:
        for view in views:
            header = {card.keyword: (card.value, card.comment) for card in view.primary_header.cards if card.keyword}
            builder.assign(70965, view.frame, extensions=["GUIDE0"], header=header)
        for view in reversed(views):  # any order will do
            builder.accept(70965, view.frame, "GUIDE0", view.extensions[0].path.read_bytes())
        builder.finalize(70965)
        made = builder.archive(70965, ArchiveOrder(), wait=True)
    assert made is not None
    assert_same(made, reference(sequence, tmp_path / "file.fits", compress=False))
