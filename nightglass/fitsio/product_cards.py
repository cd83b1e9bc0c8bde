"""The headers of products: standard-conforming, whatever the raw header brought along."""

from __future__ import annotations

import math
import re
import warnings
from calendar import monthrange
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from astropy.io import fits

from nightglass.fitsio.cards import CARD, comment_cards, format_card, repair_cards
from nightglass.fitsio.structure import is_structural

__all__ = ["CardValue", "make_card", "make_cards", "raw_cards", "value_text"]

CardValue = Any
"""A value of a card (text, bool, number or None), or a pair of value and comment."""

_TEXT = re.compile(
    r"AUTHOR|BUNIT|CREATOR|INSTRUME|OBJECT|OBSERVER|ORIGIN|REFERENC|TELESCOP|TIMESYS|RADE(?:C?)SYS|(?:CTYPE|CUNIT).*"
)
_NUMBER = re.compile(
    r"EQUINOX|EPOCH|WCSAXES|LONPOLE|LATPOLE|MJD-(?:OBS|AVG|BEG|END)|XPOSURE|(?:CRVAL|CRPIX|CDELT|CROTA).*"
    r"|(?:CD|PC)\d_\d|PV\d_\d+"
)
_DATE = re.compile(r"'(\d{4})-(\d\d)-(\d\d)(?:T(\d\d):(\d\d):(\d\d)(?:\.[^']*)?)? *'(?!')")
_SYSTEM = re.compile(r"'(?:ICRS|FK5|FK4|FK4-NO-E|GAPPT) *'(?!')")
_ZERO = re.compile(r"[+-]?[0.]+(?:[ED].*)? *(?:/.*)?")
_WCS_AXIS = re.compile(r"(?:CTYPE|CRVAL|CRPIX)([1-9])")
_WCS_DEFAULTS = {"CTYPE": "", "CRPIX": 0.0, "CRVAL": 0.0}
"""What absent keywords of a coordinate system mean: FITS Standard 4.0, section 8.2."""
_PC = re.compile(r"PC\d_\d")
_OTHER_ROTATION = re.compile(r"CD\d_\d|CROTA\d")
"""What a PC matrix excludes; wcslib and the standard let the PC matrix win."""
_REPLACED = {"EPOCH": "EQUINOX", "RADECSYS": "RADESYS"}
"""Deprecated keywords and what the standard puts in their place."""
_COMMENTARY = frozenset({"COMMENT", "HISTORY", ""})
_LARGEST = 10**69
_ORDINARY = re.compile(r"[A-Z0-9_-]{1,8}")


def value_text(value: Any) -> str:
    """Return a value as it stands in a card; what none can hold (None, NaN, infinity, 70 digits) is undefined."""
    value = value.item() if hasattr(value, "item") else value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, int):
        return str(value) if abs(value) < _LARGEST else ""
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
    text = value_text(value)
    if not text:  # a null value is legal, and makes fitsverify warn
        return list(comment_cards("COMMENT", f"{keyword} has no value. {comment}"))
    return format_card(keyword, text, comment)


def make_cards(values: Mapping[str, CardValue], history: Iterable[str] = ()) -> list[str]:
    """Lay out many keywords, then HISTORY."""
    cards = [card for keyword, value in values.items() for card in make_card(keyword, value)]
    for line in history:
        cards += comment_cards("HISTORY", line)
    return cards


def raw_cards(header: fits.Header, ours: Mapping[str, CardValue]) -> list[str]:
    """Return the cards of a raw header that may go into an image extension.

    What describes the raw file goes, and so does what `ours` says again. A card that contradicts `ours` or an
    earlier one, or is undefined, or of the wrong type for a reserved keyword, is kept as a COMMENT.
    """
    kept: list[_Group] = []
    seen = set(ours)
    for group in _groups(header):
        keyword = _REPLACED.get(group.keyword, group.keyword)
        if keyword in _COMMENTARY:
            kept.append(group)
        elif is_structural(keyword) or keyword == "BUNIT" or (keyword in ours and _same(group, ours[keyword])):
            continue
        elif group.name in seen or keyword in seen or not _fits_type(keyword, group.cards[0]):
            kept.append(group.as_comment())
        else:
            seen |= {keyword, group.name} - {"HIERARCH"}
            kept.append(group.renamed(keyword))
    return [card for group in _consistent_wcs(kept, seen) for card in group.cards]


def _consistent_wcs(groups: Sequence[_Group], keywords: Collection[str]) -> list[_Group]:
    """Put a coordinate system in the form that the standard asks for: section 8.2 and table 22."""
    rotated = any(_PC.fullmatch(keyword) for keyword in keywords)
    rest = [
        group.as_comment() if rotated and _OTHER_ROTATION.fullmatch(group.keyword) else group
        for group in groups
        if group.keyword != "WCSAXES"
    ]
    front = [group for group in groups if group.keyword == "WCSAXES"]
    axes = max((int(found[1]) for keyword in keywords if (found := _WCS_AXIS.fullmatch(keyword))), default=0)
    if axes > 2 and not front:  # axes of length 1 went, their coordinates stay
        front = [_Group("WCSAXES", make_card("WCSAXES", (axes, "axes of the coordinate system")))]
    for axis in range(1, axes + 1):
        for stem, default in _WCS_DEFAULTS.items():
            keyword = f"{stem}{axis}"
            if keyword not in keywords:
                rest.append(_Group(keyword, make_card(keyword, (default, "absent in the raw header: by definition"))))
    return front + rest


@dataclass(frozen=True, slots=True)
class _Group:
    """A card, with the CONTINUE cards that belong to it."""

    keyword: str
    cards: list[str]

    @property
    def name(self) -> str:
        """The keyword, or all words of a HIERARCH keyword."""
        return self.cards[0].partition("=")[0].rstrip() if self.keyword == "HIERARCH" else self.keyword

    def as_comment(self) -> _Group:
        return _Group("COMMENT", [line for card in self.cards for line in comment_cards("COMMENT", card)])

    def renamed(self, keyword: str) -> _Group:
        if keyword == self.keyword:
            return self
        return _Group(keyword, [f"{keyword:<8}{self.cards[0][8:]}", *self.cards[1:]])


def _groups(header: fits.Header) -> Iterator[_Group]:
    with warnings.catch_warnings():
        # astropy warns that it cuts a comment off when a step set a long one
        warnings.simplefilter("ignore")
        text = "".join(_image(card) for card in header.cards)
    group: list[str] = []
    for card in repair_cards(text.encode("latin-1", "replace"))[0]:
        if group and not card.startswith("CONTINUE"):
            yield _Group(group[0][:8].rstrip(), group)
            group = []
        group.append(card)
    if group:
        yield _Group(group[0][:8].rstrip(), group)


def _image(card: fits.Card) -> str:
    try:
        return str(card.image)
    except (ValueError, TypeError, fits.VerifyError):  # a value that astropy took and cannot lay out
        return f"COMMENT {card.keyword} could not be kept"[:CARD].ljust(CARD)


def _fits_type(keyword: str, card: str) -> bool:
    value = card[10:].lstrip()
    if not value.partition("/")[0].strip() and keyword != "HIERARCH":
        return False  # undefined
    if keyword.startswith("DATE") and not _is_date(value):
        return False
    if keyword == "RADESYS" and not _SYSTEM.match(value):
        return False
    if keyword.startswith("CDELT") and _ZERO.fullmatch(value):
        return False
    if _TEXT.fullmatch(keyword):
        return value.startswith("'")
    if _NUMBER.fullmatch(keyword):
        return value[:1] in set("+-.0123456789")
    return True


def _is_date(value: str) -> bool:
    """Tell whether a text is a date, perhaps with a time, as section 4.4.2.1 of the standard wants it."""
    found = _DATE.match(value)
    if found is None:
        return False
    year, month, day, hour, minute, second = (int(item or 0) for item in found.groups())
    return (
        1 <= month <= 12
        and 1 <= day <= monthrange(max(year, 1), month)[1]
        and hour < 24
        and minute < 60
        and second < 61
    )


def _same(group: _Group, value: CardValue) -> bool:
    mine = make_card(group.keyword, value[0] if isinstance(value, tuple) else value)
    return [card.partition(" /")[0].rstrip() for card in group.cards] == [card.rstrip() for card in mine]
