"""Values of many headers at once: headers of one camera differ in few cards, and only those are read again.

A header is split at its 80-character cards only where something is asked for. Cards that follow the standard are read
by one regular expression; all others are made to conform first, by `nightglass.fitsio.cards`, so nothing here raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nightglass.fitsio.cards import CARD, Scalar, repair_cards

__all__ = ["HeaderStack", "find_cards", "read_header"]

_WORDS: Final = CARD // 8
_CHUNK: Final = 4 << 20
"""Bytes of headers that are compared at a time, so that memory stays small however many there are."""
_MAX_LAYOUTS: Final = 32
"""Beyond so many orders of keywords it is quicker to read each header for itself."""

_ORDINARY = re.compile(rb"([A-Z0-9_-]{1,8}) *")
_SILENT: Final = frozenset({b"COMMENT", b"HISTORY", b"", b"CONTINUE"})
_NUMBER = rb"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[EDed][+-]?\d+)?"
_VALUE = re.compile(
    rb" *(?:'(?P<text>(?:[ -&(-~]|'')*)'|(?P<logical>[TF])|(?P<integer>[+-]?\d+)|(?P<real>" + _NUMBER + rb")"
    rb"|(?P<complex>\( *" + _NUMBER + rb" *, *" + _NUMBER + rb" *\)))? *(?:/.*)?",
    re.DOTALL,
)
_HIERARCH = re.compile(rb"HIERARCH +(?P<name>[A-Z0-9_-](?:[A-Z0-9_. -]*[A-Z0-9_.-])?) *=")
_LONG_KEYWORD: Final = "HIERARCH "


def read_header(text: bytes) -> dict[str, Scalar]:
    """Return the value of each keyword of one header, None where it is undefined.

    The first of repeated keywords counts. Long keywords (HIERARCH) come without that word; texts without trailing
    blanks and with their CONTINUE cards; complex numbers as text.
    """
    return {name: _read(text[start:stop], name) for name, (start, stop) in _places(text)[0].items()}


def find_cards(text: bytes) -> dict[str, bytes]:
    """Return the cards of each keyword of one header, with its CONTINUE cards, as they stand in the file."""
    return {name: text[start:stop] for name, (start, stop) in _places(text)[0].items()}


class HeaderStack:
    """Many headers, read by column.

    Parameters
    ----------
    texts : sequence of bytes
        Headers as they stand in their files; the same ones must stay in the sequence.
    """

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._texts = texts
        self._layouts = _group(texts)
        self._keywords = tuple(dict.fromkeys(name for layout in self._layouts for name in layout.places))

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def keywords(self) -> tuple[str, ...]:
        """Every keyword with a value that any header has, in the order of the first header that has it."""
        return self._keywords

    def column(self, keyword: str) -> list[Scalar]:
        """Return the value of a keyword in each header, None where it is absent or undefined; see `read_header`."""
        if len(self._layouts) == 1 and self.constant(keyword):
            return [self._layouts[0].first(keyword)] * len(self._texts)
        values: list[Scalar] = [None] * len(self._texts)
        for layout in self._layouts:
            layout.fill(values, keyword, self._texts)
        return values

    def constant(self, keyword: str) -> bool:
        """Tell whether the keyword stands in the same card in every header, or in none; cheap."""
        if len(self._layouts) == 1:
            return not self._layouts[0].varies(keyword)
        return keyword not in self._keywords

    def present(self, keyword: str) -> list[bool]:
        """Tell for each header whether it has the keyword, defined or not."""
        found = [False] * len(self._texts)
        for layout in self._layouts:
            if keyword in layout.places:
                for row in layout.rows:
                    found[row] = True
        return found

    @property
    def firsts(self) -> tuple[int, ...]:
        """A few headers, in order, that have every keyword between them: the first of each order of keywords."""
        return tuple(layout.rows[0] for layout in self._layouts)


class _Layout:
    """Headers with the same keywords in the same places.

    Attributes
    ----------
    rows : list of int
        Which headers these are.
    places : dict
        Keyword to the first byte of its card and the end of its last one.
    """

    def __init__(self, template: bytes) -> None:
        self.template = template
        self.rows: list[int] = []
        self.places, self.odd = _places(template)
        self.words = _as_words(template, 1)[0]
        self.varying: NDArray[np.bool_] = np.zeros(len(self.words), bool)

    def take(self, words: NDArray[np.uint64], rows: NDArray[np.intp], texts: Sequence[bytes]) -> NDArray[np.intp]:
        """Take in the headers that are laid out like this; returns the indices (into `words`) of the others."""
        alike = (words[:, :, 0] == self.words[:, 0]).all(axis=1)
        different = (words != self.words).any(axis=2)
        if self.odd:
            places = np.array(self.odd)
            for line in np.nonzero(alike & different[:, places].any(axis=1))[0]:
                alike[line] = all(
                    _same_name(self.template, texts[rows[line]], place) for place in places[different[line, places]]
                )
        if alike.any():
            self.varying |= different[alike].any(axis=0)
            self.rows += rows[alike].tolist()
        return np.nonzero(~alike)[0]

    def varies(self, keyword: str) -> bool:
        place = self.places.get(keyword)
        return place is not None and bool(self.varying[place[0] // CARD : place[1] // CARD].any())

    def first(self, keyword: str) -> Scalar:
        place = self.places.get(keyword)
        return None if place is None else _read(self.template[place[0] : place[1]], keyword)

    def fill(self, values: list[Scalar], keyword: str, texts: Sequence[bytes]) -> None:
        place = self.places.get(keyword)
        if place is None:
            return
        if not self.varies(keyword):
            value = self.first(keyword)
            for row in self.rows:
                values[row] = value
            return
        start, stop = place
        known: dict[bytes, Scalar] = {}
        for row in self.rows:
            card = texts[row][start:stop]
            if card in known:
                values[row] = known[card]
            else:
                values[row] = known[card] = _read(card, keyword)


def _group(texts: Sequence[bytes]) -> list[_Layout]:
    by_length: dict[int, list[int]] = {}
    for row, text in enumerate(texts):
        by_length.setdefault(len(text) // CARD * CARD, []).append(row)
    layouts: list[_Layout] = []
    for length, rows in by_length.items():
        alike: list[_Layout] = []
        step = max(_CHUNK // max(length, 1), 1)
        for start in range(0, len(rows), step):
            _sort_in(alike, rows[start : start + step], texts, length)
        layouts += alike
    return sorted(layouts, key=lambda layout: layout.rows[0])


def _sort_in(layouts: list[_Layout], chunk: Iterable[int], texts: Sequence[bytes], length: int) -> None:
    rows = np.fromiter(chunk, np.intp)
    words = _as_words(b"".join([texts[row][:length] for row in rows]), len(rows))
    for layout in layouts[:_MAX_LAYOUTS]:
        if not len(rows):
            return
        left = layout.take(words, rows, texts)
        if len(left) < len(rows):
            words, rows = words[left], rows[left]
    while len(rows):
        layout = _Layout(texts[rows[0]][:length])
        layouts.append(layout)
        if len(layouts) > _MAX_LAYOUTS:
            layout.rows.append(int(rows[0]))
            words, rows = words[1:], rows[1:]
            continue
        left = layout.take(words, rows, texts)
        words, rows = words[left], rows[left]


def _as_words(text: bytes, count: int) -> NDArray[np.uint64]:
    """Return headers as 64-bit words (header, card, word); the first word of a card is its keyword."""
    cards = len(text) // CARD // max(count, 1)
    words: NDArray[Any] = np.frombuffer(text, np.uint64, count * cards * _WORDS)
    return words.reshape(count, cards, _WORDS)


def _places(text: bytes) -> tuple[dict[str, tuple[int, int]], list[int]]:
    """Return where each keyword stands, and the numbers of the cards whose keyword is not in their first word."""
    places: dict[str, tuple[int, int]] = {}
    odd: list[int] = []
    last = ""
    for start in range(0, len(text) - CARD + 1, CARD):
        head = text[start : start + 10]
        if head[:3] == b"END" and _is_end(head):
            break
        found = _ORDINARY.fullmatch(head, 0, 8)
        if found and head[8:] == b"= " and found[1] not in _SILENT:
            name = found[1].decode("ascii")
        elif head[:8].rstrip(b" ") in _SILENT:
            if last and head[:8] == b"CONTINUE" and places[last][1] == start:
                places[last] = (places[last][0], start + CARD)
            continue
        else:
            odd.append(start // CARD)
            name = _odd_name(text[start : start + CARD])
        last = name if name and name not in places else ""
        if last:
            places[name] = (start, start + CARD)
    return places, odd


def _is_end(card: bytes) -> bool:
    return card[:8].rstrip(b" \0") == b"END" and card[8:9] != b"="


def _same_name(template: bytes, text: bytes, place: int) -> bool:
    where = slice(place * CARD, place * CARD + CARD)
    return _odd_name(template[where]) == _odd_name(text[where])


def _odd_name(card: bytes) -> str:
    """Return the keyword of a card that is not laid out as the standard says, or is HIERARCH; empty if it has none."""
    if found := _HIERARCH.match(card):
        return b" ".join(found["name"].split()).decode("ascii")
    return _conforming(card)[0]


def _conforming(card: bytes) -> tuple[str, bytes]:
    """Return keyword and card of what a card means, empty if it means nothing."""
    cards, _ = repair_cards(card)
    if not cards:
        return "", b""
    head, equals, _ = cards[0].partition("=")
    if not equals or cards[0][:8].rstrip() in ("COMMENT", "HISTORY", "CONTINUE", ""):
        return "", b""
    name = " ".join(head.removeprefix(_LONG_KEYWORD).split()).upper()
    return name, "".join(cards).encode("ascii")


def _read(cards: bytes, name: str) -> Scalar:
    """Return the value of a card with its CONTINUE cards, None if it is another keyword's."""
    if cards[8:10] == b"= ":
        found = _VALUE.fullmatch(cards, 10, CARD)
    else:
        head = _HIERARCH.match(cards, 0, CARD)
        found = _VALUE.fullmatch(cards, head.end(), CARD) if head else None
    if found is None:
        meant, card = _conforming(cards[:CARD])
        if meant != name:
            return None
        found = _VALUE.fullmatch(card, card.index(b"=") + 1, CARD)
        if found is None:
            return None
        if len(card) > CARD:  # the repaired text did not fit into one card
            cards = card + cards[CARD:]
    return _value(found, cards)


def _value(found: re.Match[bytes], cards: bytes) -> Scalar:
    kind = found.lastgroup
    if kind is None:
        return None
    raw = found[kind]
    if kind == "text":
        if len(cards) > CARD and raw.rstrip(b" ").endswith(b"&"):
            raw = _continued(raw, cards)
        return raw.replace(b"''", b"'").rstrip(b" ").decode("ascii", "replace")
    if kind == "integer":
        return int(raw)
    if kind == "real":
        return float(raw.upper().replace(b"D", b"E"))
    return raw == b"T" if kind == "logical" else raw.decode("ascii")


def _continued(raw: bytes, cards: bytes) -> bytes:
    """Join a text that goes on in CONTINUE cards; an ampersand that nothing follows belongs to it."""
    for start in range(CARD, len(cards), CARD):
        body = raw.rstrip(b" ")
        found = _VALUE.fullmatch(cards, start + 8, start + CARD)
        if not body.endswith(b"&") or found is None or found.lastgroup != "text":
            break
        raw = body[:-1] + found["text"]
    return raw
