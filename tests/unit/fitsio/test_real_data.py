"""Real files, most of them odd: each gives pixels, or one error that says why not."""

from __future__ import annotations

import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import fitsio
import numpy as np
import pytest
from astropy.io import fits

from nightglass.config import Camera, Limits
from nightglass.errors import Rejected, Retryable
from nightglass.fitsio import inspect, read_raw, scan_headers, write_product
from nightglass.model import DQ

pytestmark = pytest.mark.real

SETS = [
    "astropy_io_fits",
    "panoptes",
    "lsst_multiamp_raw",
    "legacypipe_ccds",
    "ghost_slitcam",
    "lsst_guider",
    "radio_tkp",
    "msumastro_feder",
]


def files(real_data: Path, name: str) -> list[Path]:
    found = sorted(path for path in (real_data / name).iterdir() if path.is_file())
    assert found
    return found


@pytest.mark.parametrize("name", SETS)
def test_every_file_gives_pixels_or_one_reason(real_data: Path, generic: Camera, limits: Limits, name: str) -> None:
    now = time.time() + 3600  # the files have long been quiet, also on a fresh copy
    outcomes: dict[str, int] = {}
    for path in files(real_data, name):
        for step in (
            lambda path: inspect(path, generic, limits, now=now),
            lambda path: read_raw(path, generic, limits),
        ):
            try:
                step(path)
                outcome = "good"
            except (Rejected, Retryable) as error:
                outcome = "told" if str(path) in error.message and error.remedy else "untold"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes["good"] > 0
    assert "untold" not in outcomes


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("astropy_io_fits/checksum_false.fits", "DATASUM of HDU 0 is 3949466131"),
        ("astropy_io_fits/zerowidth.fits", "an image without pixels"),
        ("astropy_io_fits/random_groups.fits", "random groups"),
        ("astropy_io_fits/group.fits", "random groups"),
        ("astropy_io_fits/arange.fits", "image of 3 axes"),
        ("astropy_io_fits/table.fits", "HDU 1 is a table"),
        ("astropy_io_fits/lzw.fits.Z", "compress"),
        ("panoptes/solved.fits.solved", "not FITS"),
        ("panoptes/unsolved.fits", "DATASUM"),
        ("radio_tkp/lofar.fits", "no two-dimensional image"),
    ],
)
def test_reasons_are_clear(real_data: Path, generic: Camera, limits: Limits, name: str, said: str) -> None:
    path = real_data / name
    with pytest.raises(Rejected, match=said):  # noqa: PT012 - whichever of the two sees it first
        inspect(path, generic, limits, now=time.time() + 3600)
        read_raw(path, generic, limits)


@pytest.mark.parametrize(
    "name",
    [
        "astropy_io_fits/m13_gzip.fits",
        "astropy_io_fits/m13_hcomp.fits",
        "astropy_io_fits/m13_plio.fits",
        "astropy_io_fits/m13_rice.fits",
        "astropy_io_fits/m13.fits",
        "astropy_io_fits/comp.fits",
        "astropy_io_fits/scale.fits",
        "astropy_io_fits/test0.fits",
        "astropy_io_fits/compressed_with_nan.fits",
        "astropy_io_fits/fixed-1890.fits",
        "panoptes/solved.fits.fz",
        "panoptes/noheader.fits",
        "radio_tkp/SWIFT_554620-130504.fits",
        "lsst_guider/MC_C_20230616_000013_R04_SG0.fits",
        "ghost_slitcam/dark95_3_MEF_2x2_slit.fits.gz",
        "kast_blue_2015/b27.fits.gz",
        "exotic_hatp32_2017/HATP-32171220013343.FITS",
        "msumastro_feder/darktest1.fit",
    ],
)
def test_pixels_are_those_that_cfitsio_reads(real_data: Path, generic: Camera, limits: Limits, name: str) -> None:
    images = read_raw(real_data / name, generic, limits)
    hdus = [
        info.index
        for info in scan_headers(real_data / name, limits)
        if info.is_image and len(info.shape) >= 2 and np.prod(info.shape[:-2]) == 1
    ]
    assert len(images) == len(hdus)
    for image, index in zip(images, hdus, strict=True):
        expected = fitsio.read(real_data / name, ext=index).astype(np.float32).reshape(image.data.shape)
        good = image.mask != DQ.BAD
        assert (np.isfinite(expected) == good).all()
        np.testing.assert_array_equal(image.data[good], expected[good])


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SETS, "kast_blue_2015"])
def test_products_of_real_headers_conform(
    real_data: Path, generic: Camera, limits: Limits, tmp_path: Path, verified: Callable[[Path], None], name: str
) -> None:
    for path in files(real_data, name):
        try:
            images = read_raw(path, generic, limits)
        except (Rejected, Retryable):
            continue
        product = tmp_path / "product.fits"
        write_product(product, images[:3], cards={})
        verified(product)


def test_what_expands_800_fold_stays_in_bounds(real_data: Path, generic: Camera) -> None:
    """68 kB of gzip under the name .fits hold 35 MiB of pixels."""
    path = real_data / "lsst_multiamp_raw" / "201607220607067-R071-S00-det071.fits"
    tracemalloc.start()
    try:
        with pytest.raises(Rejected, match=r"MiB, more than 16 MiB|expand to more than"):
            read_raw(path, generic, Limits(image_mib=16))
        assert tracemalloc.get_traced_memory()[1] < 48 << 20
        tracemalloc.reset_peak()
        images = read_raw(path, generic, Limits())
        held = sum(image.data.nbytes + image.variance.nbytes + image.mask.nbytes for image in images)
        assert tracemalloc.get_traced_memory()[1] < 1.5 * held
    finally:
        tracemalloc.stop()


def test_headers_are_read_without_a_word(real_data: Path, limits: Limits) -> None:
    """What astropy would warn of was put right before astropy saw it."""
    for name in ("exotic_hatp32_2017", "msumastro_feder", "radio_tkp"):
        for path in files(real_data, name)[:12]:
            if path.suffix == ".txt":
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                for info in scan_headers(path, limits):
                    assert [card.value for card in info.header.cards]
                    fits.Header(info.header.cards, copy=True).tostring()
