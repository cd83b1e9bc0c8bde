"""FITS checksums: ones'-complement sums of big-endian 32-bit words, and their text form.

FITS Standard 4.0, section 4.4.2.7 and appendix J.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["add_sums", "checksum_card_value", "content_id", "encode_checksum", "sum_bytes", "sum_words"]

_ALL_ONES = 0xFFFFFFFF
_CHUNK = 1 << 20
_EXCLUDED = frozenset((*range(0x3A, 0x41), *range(0x5B, 0x61)))
"""Punctuation between digits, capitals and small letters, which the text form avoids."""


def add_sums(*sums: int) -> int:
    """Add with end-around carry; any non-negative integers."""
    total = sum(sums)
    while total > _ALL_ONES:
        total = (total & _ALL_ONES) + (total >> 32)
    return total


def sum_words(words: NDArray[np.uint32]) -> int:
    """Return the sum of native 32-bit words whose values are those of the big-endian words in the file."""
    return add_sums(int(words.sum(dtype=np.uint64)))


def sum_bytes(data: bytes | bytearray | memoryview) -> int:
    """Return the sum of bytes as they stand in a file; an incomplete last word is filled with zeros."""
    whole = len(data) // 4 * 4
    total = sum_words(np.frombuffer(data[:whole], dtype=">u4"))
    if whole < len(data):
        total = add_sums(total, int.from_bytes(bytes(data[whole:]).ljust(4, b"\0"), "big"))
    return total


def encode_checksum(total: int) -> str:
    """Return the 16 characters that make the sum of a whole HDU come out as all ones.

    Parameters
    ----------
    total : int
        Sum of the HDU with CHECKSUM set to sixteen ``0``.
    """
    value = _ALL_ONES - add_sums(total)
    text = [0] * 16
    for index in range(4):
        byte = value >> (24 - 8 * index) & 0xFF
        quarter, rest = byte // 4 + 0x30, byte % 4
        four = [quarter + rest, quarter, quarter, quarter]
        while any(item in _EXCLUDED for item in four):
            for low in (0, 2):
                if four[low] in _EXCLUDED or four[low + 1] in _EXCLUDED:
                    four[low] += 1
                    four[low + 1] -= 1
        for place, item in enumerate(four):
            text[4 * place + index] = item
    return bytes(text[-1:] + text[:-1]).decode("ascii")


def checksum_card_value(header: bytes, data_sum: int) -> str:
    """Return the CHECKSUM of an HDU whose header bytes hold sixteen ``0`` in its place."""
    return encode_checksum(add_sums(sum_bytes(header), data_sum))


def content_id(path: Path) -> str:
    """Return the hash of all bytes of a file: BLAKE2b, 128 bits, 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
