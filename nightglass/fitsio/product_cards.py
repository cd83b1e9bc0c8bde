"""The headers of products: standard-conforming, whatever the raw header brought along."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from astropy.io import fits

from nightglass.fitsio.cards import CARD, comment_cards, format_card, repair_cards
from nightglass.fitsio.structure import is_structural

__all__ = ["CardValue", "make_card", "make_cards", "raw_cards", "value_text"]

CardValue = Any
"""A value of a card (text, bool, number or None), or a pair of value and comment."""

_TEXT_KEYWORDS = frozenset(
    {
        *("AUTHOR", "BUNIT", "CREATOR", "DATE", "DATE-OBS", "DATE-BEG", "DATE-END", "DATE-AVG", "INSTRUME", "OBJECT"),
        *(
            "OBSERVER",
            "ORIGIN",
            "REFERENC",
            "TELESCOP",
            "TIMESYS",
            "RADESYS",
            "RADECSYS",
            "CTYPE1",
            "CTYPE2",
            "CUNIT1",
            "CUNIT2",
        ),
    }
)
_NUMBER_KEYWORDS = re.compile(
    r"EQUINOX|EPOCH|WCSAXES|LONPOLE|LATPOLE|MJD-OBS|MJD-AVG|XPOSURE|(?:CRVAL|CRPIX|CDELT|CROTA)\d+|(?:CD|PC)\d_\d|PV\d_\d+"
)
_WCS_AXIS = re.compile(r"(?:CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)([1-9])")
_ORDINARY = re.compile(r"[A-Z0-9_-]{1,8}")


def value_text(value: Any) -> str:
    """Return a value as it stands in a card; what FITS cannot hold (None, NaN, infinity) is undefined."""
    value = value.item() if hasattr(value, "item") else value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value).upper() if math.isfinite(value) else ""
    text = str(value).replace("\n", " ").encode("ascii", "replace").decode("ascii")
    return "'" + "".join(item if " " <= item <= "~" else "?" for item in text).rstrip().replace("'", "''") + "'"


def make_card(keyword: str, value: CardValue) -> list[str]:
    """Lay out one keyword of ours; a pair is value and comment.

    Raises
    ------
    ValueError
        If the keyword is none.
    """
    if not _ORDINARY.fullmatch(keyword):
        message = f"{keyword!r} is no FITS keyword"
        raise ValueError(message)
    comment = ""
    if isinstance(value, tuple):
        value, comment = value
    comment = str(comment).encode("ascii", "replace").decode("ascii")
    return format_card(keyword, value_text(value), comment)


def make_cards(values: Mapping[str, CardValue], history: Iterable[str] = ()) -> list[str]:
    """Lay out many keywords, then HISTORY."""
    cards = [card for keyword, value in values.items() for card in make_card(keyword, value)]
    for line in history:
        cards += comment_cards("HISTORY", line)
    return cards


def raw_cards(header: fits.Header, ours: Mapping[str, CardValue]) -> list[str]:
    """Return the cards of a raw header that may go into an image extension.

    What describes the raw file goes, and so does what `ours` says again. A card that contradicts `ours` or an
    earlier one, or holds the wrong type for a reserved keyword, is kept as a COMMENT.
    """
    seen = set(ours)
    front: list[str] = []
    made: list[str] = []
    axes = 2
    for group in _groups(header):
        keyword = group[0][:8].rstrip()
        if keyword in ("COMMENT", "HISTORY", ""):
            made += group
            continue
        if is_structural(keyword) or keyword == "BUNIT":
            continue
        name = keyword if keyword != "HIERARCH" else group[0].partition("=")[0].rstrip()
        if name in seen or not _fits_type(keyword, group[0]):
            if keyword not in ours or not _same(group, keyword, ours[keyword]):
                made += [card for text in group for card in comment_cards("COMMENT", text)]
            continue
        seen.add(name)
        if found := _WCS_AXIS.fullmatch(keyword):
            axes = max(axes, int(found[1]))
        (front if keyword == "WCSAXES" else made).extend(group)
    if axes > 2 and "WCSAXES" not in seen:  # axes of length 1 went, their coordinates stay
        front = make_card("WCSAXES", (axes, "axes of the coordinate system"))
    return front + made


def _groups(header: fits.Header) -> Iterator[list[str]]:
    """Yield conforming cards, a text and its CONTINUE cards together."""
    with warnings.catch_warnings():
        # astropy warns that it cuts a comment off when a step set a long one
        warnings.simplefilter("ignore")
        text = "".join(_image(card) for card in header.cards)
    group: list[str] = []
    for card in repair_cards(text.encode("latin-1", "replace"))[0]:
        if group and not card.startswith("CONTINUE"):
            yield group
            group = []
        group.append(card)
    if group:
        yield group


def _image(card: fits.Card) -> str:
    try:
        return str(card.image)
    except (ValueError, TypeError, fits.VerifyError):  # a value that astropy took and cannot lay out
        return f"COMMENT {card.keyword} could not be kept"[:CARD].ljust(CARD)


def _fits_type(keyword: str, card: str) -> bool:
    value = card[10:].lstrip()
    if keyword in _TEXT_KEYWORDS:
        return value.startswith("'")
    if _NUMBER_KEYWORDS.fullmatch(keyword):
        return value[:1] in set("+-.0123456789")
    return True


def _same(group: list[str], keyword: str, value: CardValue) -> bool:
    mine = make_card(keyword, value[0] if isinstance(value, tuple) else value)
    return [card.partition(" /")[0].rstrip() for card in group] == [card.rstrip() for card in mine]
