from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from nightglass.fitsio.checksums import add_sums, content_id, encode_checksum, sum_bytes


def slow_sum(data: bytes) -> int:
    data += bytes(-len(data) % 4)
    total = sum(int.from_bytes(data[place : place + 4], "big") for place in range(0, len(data), 4))
    return total % 0xFFFFFFFF or (0xFFFFFFFF if total else 0)


@given(st.binary(max_size=200))
def test_sum_is_the_ones_complement_sum_of_words(data: bytes) -> None:
    assert sum_bytes(data) == slow_sum(data)


@given(st.lists(st.integers(0, 0xFFFFFFFF), max_size=5))
def test_encoded_sum_brings_the_total_to_all_ones(values: list[int]) -> None:
    total = add_sums(*values)
    text = encode_checksum(total)
    assert text.isalnum()
    assert len(text) == 16
    # in a header the text begins in byte 11 of its card, which the rotation by one byte accounts for
    assert add_sums(total, sum_bytes((text[1:] + text[0]).encode()) - 4 * 0x30303030) % 0xFFFFFFFF == 0


def test_sum_is_astropys(tmp_path: Path) -> None:
    data = np.random.default_rng(3).integers(0, 65535, (17, 23)).astype(np.uint16)
    fits.PrimaryHDU(data).writeto(tmp_path / "a.fits", checksum=True)
    stated = int(fits.getheader(tmp_path / "a.fits")["DATASUM"])
    assert sum_bytes((tmp_path / "a.fits").read_bytes()[2880:]) == stated


def test_content_id_is_the_hash_of_all_bytes(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"0123456789" * 300_000)
    assert content_id(path) == hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
