from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.fitsio import ProductReader, read_product, read_strip, write_product
from nightglass.image import Image
from nightglass.model import DQ, StepRecord

Make = Callable[..., Image]
Verify = Callable[[Path], None]


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return tmp_path / "night" / "product.fits.part"


@pytest.fixture
def catalogue() -> Table:
    return Table(
        {
            "X": np.array([1.5, 2.5], np.float64) * u.pix,
            "FLUX": np.array([10, 20], np.float32) * u.electron,
            "FLAG": np.array([1, 65535], np.uint16),
            "N": np.array([-1, 2], np.int64),
            "GOOD": np.array([True, False]),
            "NAME": ["a", "böse"],
            "BOX": np.arange(12, dtype=np.int32).reshape(2, 2, 3),
            "ODD": np.array([1, 2], np.int16) * u.def_unit("furlong_per_fortnight"),
        }
    )


def test_a_product_conforms_to_the_standard(
    product: Path, make_image: Make, verified: Verify, catalogue: Table
) -> None:
    images = [make_image((20, 31), catalogue=catalogue, detector="a"), make_image((7, 5), detector="b", seed=2)]
    cards: dict[str, Any] = {
        "KIND": ("science", "kind"),
        "LONG": ("x'" * 100, "a long text"),
        "NOTHING": None,
        "NAN": float("nan"),
        "TINY": 1e-30,
        "WHOLE": np.int64(3),
        "UMLAUT": "Müller\n2",
    }
    write_product(product, images, cards=cards, history=["one line", "y" * 200])
    verified(product)
    with fits.open(product, checksum=True) as hdus:
        names = [(hdu.name, hdu.ver) for hdu in hdus]
        assert names == [
            ("PRIMARY", 1),
            ("SCI", 1),
            ("ERR", 1),
            ("DQ", 1),
            ("CAT", 1),
            ("SCI", 2),
            ("ERR", 2),
            ("DQ", 2),
        ]
        header = hdus[0].header
        assert header["LONG"] == "x'" * 100
        assert header["NEXTEND"] == 7
        assert not {"NOTHING", "NAN"} & set(header)
        assert header["UMLAUT"] == "M?ller 2"
        assert (header["TINY"], header["WHOLE"]) == (1e-30, 3)


def test_other_readers_find_the_same_pixels(product: Path, make_image: Make, catalogue: Table) -> None:
    image = make_image((20, 31), catalogue=catalogue)
    write_product(product, [image], cards={})
    np.testing.assert_array_equal(fitsio.read(product, ext="SCI"), image.data)
    np.testing.assert_array_equal(fitsio.read(product, ext="ERR"), np.sqrt(image.variance))
    np.testing.assert_array_equal(fitsio.read(product, ext="DQ"), image.mask)
    rows = fitsio.read(product, ext="CAT")
    for name in ("X", "FLUX", "FLAG", "N", "GOOD", "BOX"):
        np.testing.assert_array_equal(rows[name], catalogue[name])
    with fits.open(product) as hdus:
        np.testing.assert_array_equal(hdus["SCI"].data, image.data)
        np.testing.assert_array_equal(hdus["DQ"].data, image.mask)
        assert hdus["SCI"].header["BUNIT"] == "electron"
        assert hdus["DQ"].header["DQBIT1"] == "SATURATED"


def test_a_product_reads_back_as_it_was_written(product: Path, make_image: Make, catalogue: Table) -> None:
    image = make_image(catalogue=catalogue, measured={"seeing": 2.25, "noise": float("nan")})
    record = StepRecord(step="bias", version="2", parameters={"a": 1}, calibrations=("abc",), note="well")
    cards = {"NGSTEP1": "bias 2", "NGPAR1": '{"a":1}', "NGCAL1": "abc", "NGNOT1": "well"}
    write_product(product, [image], cards=cards)
    (back,) = read_product(product)
    np.testing.assert_array_equal(back.data, image.data)
    np.testing.assert_array_equal(back.mask, image.mask)
    np.testing.assert_allclose(back.variance, image.variance, rtol=1e-6)
    assert back.data.dtype.isnative
    assert (back.detector, back.unit, back.exposure_time_s) == ("ccd1", "electron", 30.0)
    assert back.header["OBJECT"] == "M 13"
    assert back.history == (record,)
    assert back.measured["seeing"] == 2.25
    assert np.isnan(back.measured["noise"])
    assert back.catalogue is not None
    assert back.catalogue["X"].unit == u.pix
    assert list(back.catalogue["NAME"]) == ["a", "b?se"]


def test_the_same_contents_give_the_same_bytes(product: Path, make_image: Make, catalogue: Table) -> None:
    write_product(product, [make_image(catalogue=catalogue)], cards={"A": 1})
    first = product.read_bytes()
    os.utime(product, (0, 0))
    (back,) = read_product(product)
    write_product(product, [make_image(catalogue=catalogue)], cards={"A": 1})
    assert product.read_bytes() == first
    write_product(product, [make_image(header=back.header)], cards={"A": 1})
    again = product.read_bytes()
    (back,) = read_product(product)
    write_product(product, [make_image(header=back.header)], cards={"A": 1})
    assert product.read_bytes() == again  # a header that goes round does not grow


def test_strips_are_read_alone(product: Path, make_image: Make) -> None:
    images = [make_image((20, 31)), make_image((9, 5), seed=4)]
    write_product(product, images, cards={})
    np.testing.assert_array_equal(read_strip(product, "SCI", 1, slice(3, 7)), images[0].data[3:7])
    np.testing.assert_array_equal(read_strip(product, "DQ", 2, slice(8, 99)), images[1].mask[8:])
    with ProductReader(product) as reader:
        assert reader.detectors == ("ccd1", "ccd1")
        assert reader.read("ERR", 2, slice(0, 0)).shape == (0, 5)
        with pytest.raises(Rejected, match="no HDU SCI,3"):
            reader.read("SCI", 3)
    product.write_bytes(product.read_bytes()[:-2850])
    with pytest.raises(Retryable, match="still growing"):
        read_strip(product, "SCI", 1, slice(0, 1))


def test_raw_headers_become_legal(product: Path, make_image: Make, verified: Verify) -> None:
    text = [
        "BITPIX  =                   16",
        "NAXIS1  =                 4096",
        "BZERO   =                32768",
        "CHECKSUM= 'abcdefghijklmnop'",
        "EXTNAME = 'RAW'",
        "TTYPE1  = 'X'",
        "ZIMAGE  =                    T",
        "OBSTYPE = 'OBJECT'",
        "OBSTYPE =                    1 / the second one",
        "OBJECT  =                12345 / not text",
        "EQUINOX = 'J2000'",
        "EPOCH   =               2000.0",
        "RADECSYS= 'FK5'",
        "CTYPE3  = 'FREQ'",
        "CRVAL3  =                1.4E9",
        "CTYPE1  = 'RA---TAN'",
        "PC1_1   =                  1.0",
        "CD1_1   =                  0.1",
        "CROTA2  =                  0.1",
        "NOTHING =",
        "DATE-OBS= '2017-02-30T00:00:00'",
        "DATE-END= '2017-02-28T00:00:00.5-0700'",
        "RADESYS = 'J2000'",
        "CDELT1  = 0.0",
        "DETECTOR= 'another'",
        "HIERARCH ESO DET ID = 'x' / long",
        "LONG    = 'abc&'",
        "CONTINUE  'def'",
        "HISTORY of the raw file",
    ]
    header = fits.Header.fromstring("".join(card.ljust(80) for card in text))
    header["STEP"] = (1.5, "a comment that is much too long for the card on which it has to stand, you see")
    write_product(product, [make_image(header=header)], cards={})
    verified(product)
    sci = fits.getheader(product, "SCI")
    assert (sci["BITPIX"], sci["NAXIS1"], sci["DETECTOR"], sci["OBSTYPE"]) == (-32, 30, "ccd1", "OBJECT")
    assert (sci["EQUINOX"], sci["RADESYS"], sci["LONG"], sci["ESO DET ID"]) == (2000.0, "FK5", "abcdef", "x")
    assert (sci["WCSAXES"], sci["CRVAL1"], sci["CTYPE2"], sci["STEP"]) == (3, 0.0, "", 1.5)
    assert sci["DATE-END"] == "2017-02-28T00:00:00.5-0700"
    assert not {"DATE-OBS", "CDELT1", "BZERO", "TTYPE1", "ZIMAGE", "CD1_1", "CROTA2", "OBJECT", "EPOCH"} & set(sci)
    kept = "\n".join(sci["COMMENT"])
    for lost in (
        "OBSTYPE =                    1",
        "OBJECT  =                12345",
        "'J2000'",
        "CD1_1",
        "DETECTOR= 'another'",
    ):
        assert lost in kept
    assert list(sci["HISTORY"]) == ["of the raw file"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(cards=st.lists(st.binary(min_size=80, max_size=80) | st.sampled_from([b"CRVAL1  = 'x'".ljust(80)]), max_size=5))
def test_any_raw_header_gives_a_product_that_reads(cards: list[bytes], product: Path, make_image: Make) -> None:
    from nightglass.fitsio.cards import repair_cards

    header = fits.Header.fromstring("".join(repair_cards(b"".join(cards))[0]))
    write_product(product, [make_image((3, 4), header=header)], cards={})
    with fits.open(product, checksum=True) as hdus:
        hdus.verify("exception")


def test_masks_of_an_odd_number_of_pixels_and_negative_variances(
    product: Path, make_image: Make, verified: Verify
) -> None:
    image = make_image((3, 5), variance=np.full((3, 5), -1, np.float32), mask=np.full((3, 5), DQ.BAD, np.uint16))
    write_product(product, [image], cards={})
    verified(product)
    (back,) = read_product(product)
    assert not back.variance.any()
    assert (back.mask == DQ.BAD).all()


def test_catalogues_without_rows(product: Path, make_image: Make, verified: Verify, catalogue: Table) -> None:
    write_product(product, [make_image(catalogue=catalogue[:0])], cards={})
    verified(product)
    (back,) = read_product(product)
    assert back.catalogue is not None
    assert len(back.catalogue) == 0
    assert back.catalogue.colnames == catalogue.colnames


def test_what_cannot_be_written_leaves_nothing_behind(product: Path, make_image: Make, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="'no keyword'"):
        write_product(product, [make_image()], cards={"no keyword": 1})
    with pytest.raises(Misconfigured, match="column 'O'"):
        write_product(product, [make_image(catalogue=Table({"O": [object(), object()]}))], cards={})
    (tmp_path / "file").touch()
    with pytest.raises(Retryable, match="cannot be written"):
        write_product(tmp_path / "file" / "product.fits", [make_image()], cards={})
    assert not product.exists()
