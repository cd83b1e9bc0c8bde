"""Where everything of a cube goes: what is placed by arithmetic is what readers find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from nightglass.cubes.placing import image_cards, place_hdus, primary_cards
from nightglass.cubes.records import CubePlan, ImagePlan, PixelFormat, Survey, TablePlan
from nightglass.fitsio.sealing import seal
from tests.unit.cubes.oracles import BITPIX, request_of

FORMATS = [PixelFormat(bitpix, 1.0, zero) for bitpix, zero in BITPIX.values()]


def image(name: str = "SCI0", **options: object) -> ImagePlan:
    plan = ImagePlan(name=name, header=fits.Header(), format=PixelFormat(16), shape=(3, 5), planes=(0, 1))
    return replace(plan, **options)


def table(name: str, rows: int) -> TablePlan:
    hdu = fits.BinTableHDU(np.zeros(rows, [("A", ">i4"), ("B", "S3")]), name=name)
    return TablePlan(name, hdu.header, hdu.data.tobytes())


def plan(tmp_path, *hdus: ImagePlan | TablePlan) -> CubePlan:
    header = fits.Header([("EXTNAME", "SCIENCE"), ("LONG", "x" * 200), ("COMMENT", "as it is"), ("HISTORY", "told")])
    return CubePlan(request_of([tmp_path / "a"]), Survey((), ()), header, hdus)


@given(
    pixels=st.sampled_from(FORMATS),
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    planes=st.integers(1, 40),
    cards=st.integers(0, 80),
    rows=st.integers(0, 500),
)
def test_astropy_finds_every_hdu_where_it_was_placed(tmp_path_factory, pixels, shape, planes, cards, rows):
    directory = tmp_path_factory.getbasetemp()
    header = fits.Header([(f"KEY{number}", number) for number in range(cards)])
    first = image(format=pixels, shape=shape, planes=tuple(range(planes)), header=header)
    placed = place_hdus(plan(directory, first, table("SCI0T", rows), image("SCI1"), table("GAPS", 1)))
    content = bytearray(placed[-1].end)
    for hdu in placed:
        text = seal(hdu.cards, 0)
        assert hdu.header_offset + len(text) == hdu.data_offset
        content[hdu.header_offset : hdu.data_offset] = text
    path = directory / "placed.fits"
    path.write_bytes(content)
    with fits.open(path, lazy_load_hdus=False) as hdus:
        assert [hdu.name for hdu in hdus] == ["SCIENCE", "SCI0", "SCI0T", "SCI1", "GAPS"]
        for hdu, where in zip(hdus, placed, strict=True):
            found = hdu.fileinfo()
            assert (found["hdrLoc"], found["datLoc"]) == (where.header_offset, where.data_offset)
            assert found["datLoc"] + found["datSpan"] == where.end
        assert hdus["SCI0"].shape == (planes, *shape)
        assert hdus["SCI0"].header[-1 - 2] == hdus["SCI0"].header[f"KEY{cards - 1}"] if cards else True


def test_the_primary_header_says_all_it_was_given(tmp_path):
    cards = primary_cards(plan(tmp_path).primary)
    header = fits.Header.fromstring("".join(cards))
    assert [*header][:4] == ["SIMPLE", "BITPIX", "NAXIS", "EXTEND"]
    assert header["LONG"] == "x" * 200
    assert str(header["COMMENT"]) == "as it is"
    assert str(header["HISTORY"]) == "told"
    assert all(len(card) == 80 for card in cards)


def test_scaling_and_undefined_pixels_are_told():
    pixels = PixelFormat(16, 0.5, 32768.0, -32768)
    header = fits.Header.fromstring("".join(image_cards(image(format=pixels))))
    assert (header["BSCALE"], header["BZERO"], header["BLANK"]) == (0.5, 32768, -32768)
    plain = fits.Header.fromstring("".join(image_cards(image())))
    assert not {"BSCALE", "BZERO", "BLANK"} & {*plain}


def test_the_largest_offset_is_exact():
    # 2^63 as a float has fewer digits than as the integer that readers compare it with
    cards = image_cards(image(format=PixelFormat(64, 1.0, 2.0**63)))
    assert any(card.startswith("BZERO") and "9223372036854775808" in card for card in cards)


def test_the_plan_cannot_overrule_the_layout():
    header = fits.Header([("NAXIS1", 99), ("BITPIX", -64), ("EXTNAME", "OTHER"), ("KEPT", 1)])
    found = fits.Header.fromstring("".join(image_cards(image(header=header))))
    assert (found["NAXIS1"], found["BITPIX"], found["EXTNAME"], found["KEPT"]) == (5, 16, "SCI0", 1)
    assert found.count("NAXIS1") == 1
