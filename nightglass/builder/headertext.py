"""Headers as they come from outside: mappings made into cards, cards read from the spool, later ones laid over."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from astropy.io import fits

from nightglass.builder.instructions import holds_list, is_control_word
from nightglass.builder.records import ExtensionRecord
from nightglass.errors import Rejected, Retryable
from nightglass.fitsio.cards import CARD, comment_cards, format_card, repair_cards
from nightglass.fitsio.product_cards import value_text

__all__ = ["cards_of", "header_text", "merged_text", "parsed", "read_header"]

_MOST_CARDS = 5000
_MOST_BYTES = 2 << 20
_ORDINARY = re.compile(r"[A-Z0-9_-]{1,8}")
_LONG = re.compile(r"[A-Z0-9_-]{9,60}")
_COMMENTARY = frozenset({"COMMENT", "HISTORY"})
_NO_VALUE = frozenset({"END", "CONTINUE", "HIERARCH"})
"""What means something of its own, and is no keyword with a value."""


def cards_of(values: Mapping[str, Any]) -> list[str]:
    """Lay out keywords and values, or pairs of value and comment, as cards of 80 characters.

    Keywords of more than eight characters become HIERARCH cards. None is an undefined value. COMMENT and HISTORY may
    hold lists.

    Raises
    ------
    Rejected
        If a keyword or a value is none that FITS can hold, or there are too many.
    """
    if len(values) > _MOST_CARDS:
        message = f"a header of {len(values)} keywords; at most {_MOST_CARDS} are taken"
        raise Rejected(message, remedy="leave out what does not belong to the image")
    cards = [card for keyword, value in values.items() for card in _cards(str(keyword).strip().upper(), value)]
    if len(cards) * CARD > _MOST_BYTES:
        message = f"a header of {len(cards) * CARD} bytes; at most {_MOST_BYTES} are taken"
        raise Rejected(message, remedy="leave out what does not belong to the image")
    return cards


def header_text(values: Mapping[str, Any]) -> str:
    """Return cards as text, one a line.

    Raises
    ------
    Rejected
        As `cards_of`.
    """
    return "\n".join(cards_of(values))


def merged_text(present: str, later: str, *, clobber: bool = False) -> str:
    """Lay cards over those that are there: the same keyword gets the new value; `clobber`: only the new ones stay."""
    if clobber or not present:
        return later
    header = parsed(present)
    _update(header, parsed(later))
    return str(header.tostring(sep="\n", endcard=False, padding=False))


def read_header(record: ExtensionRecord) -> fits.Header:
    """Return the header of an extension as it is now: that in its file, and over it what came later.

    Raises
    ------
    Retryable
        If its file is gone.
    """
    try:
        with record.path.open("rb") as stream:
            stream.seek(record.header_offset)
            block = stream.read(record.data_offset - record.header_offset)
    except OSError as error:
        message = f"{record.path} cannot be read: {error.strerror}"
        raise Retryable(message, remedy="the extension was cleared or purged; ask for the frame again") from error
    cards, _ = repair_cards(block)
    header = parsed("\n".join(cards))
    if record.cards:
        _update(header, parsed(record.cards))
    return header


def parsed(text: str) -> fits.Header:
    """Read cards, one a line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cards were made to conform already; what is odd in them is kept
        return fits.Header.fromstring(text, sep="\n")


def _update(header: fits.Header, later: fits.Header) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for card in later.cards:
            if card.keyword in _COMMENTARY or not card.keyword:
                header.append(card, end=True)
            else:
                header[card.keyword] = (card.value, card.comment)


def _cards(keyword: str, value: Any) -> list[str]:
    if keyword in _COMMENTARY:
        lines = value if isinstance(value, (list, tuple)) else [value]
        return [card for line in lines for card in comment_cards(keyword, str(line))]
    if holds_list(keyword) and isinstance(value, (list, tuple)):
        return []
    comment = ""
    if isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[1], str):
        value, comment = value
    value = value.item() if hasattr(value, "item") and not hasattr(value, "__len__") else value
    if not (value is None or isinstance(value, (str, bool, int, float))):
        message = f"keyword {keyword} has the value {value!r}"
        raise Rejected(message, remedy="a card holds text, a number, true or false, or a pair of that and a comment")
    text = _value_text(keyword, value)
    comment = comment.encode("ascii", "replace").decode("ascii")
    if _ORDINARY.fullmatch(keyword) and keyword not in _NO_VALUE:
        return format_card(keyword, text, comment)
    if not _LONG.fullmatch(keyword):
        message = f"{keyword!r} is no FITS keyword"
        raise Rejected(message, remedy="letters, digits, _ and -; more than 8 of them make a HIERARCH card")
    card = f"HIERARCH {keyword} = {text}"
    if len(card) > CARD and is_control_word(keyword):
        return []
    if len(card) > CARD:
        message = f"the value of {keyword} has no room in a card"
        raise Rejected(message, remedy="shorten it, or use a keyword of at most 8 letters")
    return [card.ljust(CARD)]


def _value_text(keyword: str, value: str | float | None) -> str:
    text = value_text(value)
    if isinstance(value, int) and not text:
        message = f"the value of {keyword} has more digits than a card"
        raise Rejected(message, remedy="give it as text")
    return text
