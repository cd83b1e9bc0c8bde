"""Sums of large blocks, against those of `nightglass.fitsio.checksums` and of astropy."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from nightglass.cubes.sums import rotated, sum_block
from nightglass.fitsio.checksums import add_sums, sum_bytes


@given(st.binary(max_size=300))
def test_a_block_has_the_sum_of_its_words(data):
    assert sum_block(data) == sum_bytes(data)
    assert sum_block(bytearray(data)) == sum_bytes(data)
    assert sum_block(np.frombuffer(data, np.uint8)) == sum_bytes(data)


@given(st.binary(min_size=1, max_size=64), st.integers(0, 7))
def test_a_block_may_begin_anywhere_in_memory(data, lead):
    held = memoryview(bytes(lead) + data)
    assert sum_block(held[lead:]) == sum_bytes(data)


@given(st.lists(st.binary(max_size=41), max_size=12))
def test_sums_of_pieces_make_the_sum_of_all(pieces):
    total = offset = 0
    for piece in pieces:
        total = add_sums(total, rotated(sum_block(piece), offset))
        offset += len(piece)
    # all ones and zero are the same number in this arithmetic
    assert total % 0xFFFFFFFF == sum_bytes(b"".join(pieces)) % 0xFFFFFFFF


@pytest.mark.parametrize("value", [0, 0xFF])
def test_extreme_bytes(value):
    data = bytes([value]) * 10_001
    assert sum_block(data) == sum_bytes(data)


def test_astropy_agrees():
    pixels = np.random.default_rng(3).integers(-(1 << 15), 1 << 15, (61, 48)).astype(">i2")
    hdu = fits.ImageHDU(pixels)
    hdu.add_checksum()
    assert int(hdu.header["DATASUM"]) == sum_block(pixels.tobytes())
