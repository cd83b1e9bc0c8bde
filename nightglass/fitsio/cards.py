"""Header cards as text: made to conform to the standard, whatever a camera wrote.

Cards come from outside, so nothing here raises: what cannot be read as keyword and
value is kept as a COMMENT. The grammar is that of the FITS Standard 4.0, section 4 and
appendix A, with the conventions CONTINUE (section 4.2.1.2) and HIERARCH.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["BLOCK", "CARD", "Scalar", "comment_cards", "format_card", "pad_header", "repair_cards"]

BLOCK = 2880
"""Bytes in a FITS block."""
CARD = 80
"""Characters in a card."""

Scalar = str | bool | int | float | None
"""What a card can hold; None is an undefined value."""

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[ED][+-]?\d+)?"
_STRING = r"'(?:[^']|'')*'"
_VALUE = rf"(?:{_STRING}|[TF]|{_NUMBER}|\( *{_NUMBER} *, *{_NUMBER} *\))?"
_KEYWORD_OK = re.compile(r"[A-Z0-9_-]{1,8}")
_VALUE_OK = re.compile(rf" *{_VALUE} *(?:/.*)?")
_CONTINUE_OK = re.compile(rf"CONTINUE  *{_STRING} *(?:/.*)?")
_HIERARCH_OK = re.compile(rf"HIERARCH +[A-Za-z0-9_-][A-Za-z0-9_. -]*?= *{_VALUE} *(?:/.*)?")
_LOOSE = re.compile(r" *(?P<name>[^=/'\"]{1,60}?) *=(?P<rest>.*)")
_LOOSE_STRING = re.compile(r" *'(?P<text>.*)' *(?:/(?P<comment>.*))?")
_LOOSE_NUMBER = re.compile(rf" *(?P<value>{_NUMBER}|[TF]) *(?:/(?P<comment>.*))?", re.IGNORECASE)
_COMMENTARY = frozenset({"COMMENT", "HISTORY", ""})
_NO_VALUE = frozenset({"END", "CONTINUE", "HIERARCH"})
"""What means something of its own, and is no keyword with a value."""
_UNPRINTABLE = re.compile(r"[^ -~]")
_SPACE = str.maketrans("\0\t\r\n\v\f", "      ")


def repair_cards(block: bytes) -> tuple[list[str], int]:
    """Split header bytes into conforming 80-character cards, up to but without END.

    Parameters
    ----------
    block : bytes
        Header bytes, any number of whole cards.

    Returns
    -------
    tuple of list of str and int
        The cards, and how many of them had to be repaired.
    """
    text = block.decode("latin-1")
    cards: list[str] = []
    repaired = 0
    continues = False
    for start in range(0, len(text) - CARD + 1, CARD):
        raw = text[start : start + CARD]
        if raw[:8].rstrip(" \0") == "END" and raw[8] != "=":
            break
        card = _UNPRINTABLE.sub("?", raw.translate(_SPACE))
        made = [card] if _conforms(card, continues=continues) else _repair(card)
        repaired += made != [raw]
        cards += made
        continues = _awaits_continue(made[-1])
    return cards, repaired


def _conforms(card: str, *, continues: bool) -> bool:
    keyword = card[:8].rstrip(" ")
    if keyword in _COMMENTARY:
        return True
    if card[8:10] == "= ":
        named = keyword not in _NO_VALUE and bool(_KEYWORD_OK.fullmatch(keyword))
        return named and bool(_VALUE_OK.fullmatch(card, 10))
    if keyword == "CONTINUE":
        return continues and bool(_CONTINUE_OK.fullmatch(card))
    return keyword == "HIERARCH" and bool(_HIERARCH_OK.fullmatch(card))


def _awaits_continue(card: str) -> bool:
    if "&'" not in card:
        return False
    value = re.match(rf"(?:CONTINUE|HIERARCH.*?=|.{{8}}=)? *({_STRING})", card)
    return bool(value) and value[1].rstrip("'").endswith("&")  # type: ignore[index]


def _repair(card: str) -> list[str]:
    found = _LOOSE.fullmatch(card)
    if found is None:
        return list(comment_cards("COMMENT", card))
    value, comment = _loose_value(found["rest"])
    name = found["name"].strip().upper().removeprefix("HIERARCH ").strip()
    if len(name) <= 8 and card[8:9] == "=":
        name = re.sub(r"[^A-Z0-9_-]", "_", name)
    if not re.fullmatch(r"[A-Z0-9_-][A-Z0-9_. -]*", name) or name in _COMMENTARY | _NO_VALUE:
        return list(comment_cards("COMMENT", card))
    if len(name) <= 8 and _KEYWORD_OK.fullmatch(name):
        return format_card(name, value, comment)
    return _hierarch(name, value, comment) or list(comment_cards("COMMENT", card))


def _loose_value(rest: str) -> tuple[str, str]:
    """Return value text as it goes into a card, and the comment."""
    if found := _LOOSE_STRING.fullmatch(rest):
        text = found["text"]
        return _quote(text.replace("''", "'")), (found["comment"] or "").strip()
    if found := _LOOSE_NUMBER.fullmatch(rest):
        return found["value"].upper(), (found["comment"] or "").strip()
    text, _, comment = rest.partition(" /")
    text = text.strip()
    if text.startswith("/"):
        return "", text[1:].strip()
    if text.startswith("'"):  # never closed
        text = text[1:]
    return (_quote(text.replace("''", "'").rstrip()) if text else ""), comment.strip()


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _hierarch(name: str, value: str, comment: str) -> list[str]:
    """Return one HIERARCH card, or nothing when it does not fit into 80 characters."""
    name = " ".join(name.split())
    body = f"HIERARCH {name} = {value}"
    if len(body) > CARD:
        return []
    return [(f"{body} / {comment}" if comment else body)[:CARD].ljust(CARD)]


def format_card(keyword: str, value: str, comment: str = "") -> list[str]:
    """Lay out one keyword; a long text goes on in CONTINUE cards.

    Parameters
    ----------
    keyword : str
        A legal keyword of at most eight characters.
    value : str
        The value as it stands in a card: quoted if it is text, empty if it is undefined.
    comment : str
        Cut off where it does not fit.
    """
    head = f"{keyword:<8}= "
    if not value.startswith("'"):
        return [_with_comment(f"{head}{value:>20}", comment)]
    inner = value[1:-1]
    if len(inner) <= CARD - 12:
        quoted = f"'{inner:<8}'"
        return [_with_comment(f"{head}{quoted:<20}", comment)]
    cards: list[str] = []
    prefix = head
    while len(inner) > CARD - 12:
        cut = CARD - 13
        if (len(inner[:cut]) - len(inner[:cut].rstrip("'"))) % 2:
            cut -= 1  # a doubled quote stays together
        cards.append(f"{prefix}'{inner[:cut]}&'".ljust(CARD))
        inner, prefix = inner[cut:], "CONTINUE  "
    cards.append(_with_comment(f"{prefix}'{inner}'", comment))
    return cards


def _with_comment(body: str, comment: str) -> str:
    comment = _UNPRINTABLE.sub("?", comment.translate(_SPACE))  # a line end would begin another card
    text = f"{body} / {comment}" if comment and len(body) < CARD - 3 else body
    return text[:CARD].ljust(CARD)


def comment_cards(keyword: str, text: str) -> Iterator[str]:
    """Lay out free text as COMMENT or HISTORY cards; it is cut, not wrapped."""
    text = _UNPRINTABLE.sub("?", text.translate(_SPACE)).rstrip()
    for start in range(0, max(len(text), 1), CARD - 8):
        yield f"{keyword:<8}{text[start : start + CARD - 8]}".ljust(CARD)


def pad_header(cards: Iterable[str]) -> bytes:
    """Join cards, add END, and fill the block."""
    text = "".join(cards) + "END".ljust(CARD)
    return text.encode("ascii").ljust(-(-len(text) // BLOCK) * BLOCK, b" ")
