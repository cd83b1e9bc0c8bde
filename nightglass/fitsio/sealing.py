"""Headers that are finished when the data are: CHECKSUM and DATASUM come last.

FITS Standard 4.0, section 4.4.2.7; no time stamps, so that the same contents give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from nightglass.fitsio.cards import pad_header
from nightglass.fitsio.checksums import checksum_card_value
from nightglass.fitsio.product_cards import make_card

__all__ = ["seal", "sealed_size"]

_NO_CHECKSUM = "0" * 16


def seal(cards: Sequence[str], data_sum: int, *, place: int | None = None) -> bytes:
    """Return the blocks of a header with both checksums.

    Parameters
    ----------
    cards : sequence of str
        80 characters each, without END and checksums.
    data_sum : int
        Ones'-complement sum of the data of the HDU.
    place : int, optional
        How many cards stand before the checksums; without it all do.
    """
    lines = _announcing_long_strings(cards)
    before, after = lines[:place], lines[len(lines) if place is None else place :]
    blank = pad_header([*before, *_sums(_NO_CHECKSUM, data_sum), *after])
    return pad_header([*before, *_sums(checksum_card_value(blank, data_sum), data_sum), *after])


def sealed_size(cards: Sequence[str]) -> int:
    """Return how many bytes `seal` will give."""
    return len(pad_header([*_announcing_long_strings(cards), *_sums(_NO_CHECKSUM, 0)]))


def _announcing_long_strings(cards: Sequence[str]) -> list[str]:
    """Add the card by which the OGIP convention for CONTINUE wants to be announced."""
    if not any(card.startswith("CONTINUE") for card in cards) or any(card.startswith("LONGSTRN") for card in cards):
        return list(cards)
    return [*cards, *make_card("LONGSTRN", ("OGIP 1.0", "long strings go on in CONTINUE"))]


def _sums(checksum: str, total: int) -> list[str]:
    return [
        *make_card("CHECKSUM", (checksum, "HDU checksum")),
        *make_card("DATASUM", (str(total), "data unit checksum")),
    ]
